//! Trailers both ways and over both transports, between the edge and connectors that understand them; and
//! that others see nothing of it.

use std::net::SocketAddr;

use adit_protocol::extensions::{self, FrameReader, Piece};
use adit_protocol::headers::serialized::serialize;
use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use hyper::body::{Body as _, Incoming};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::{Connector, Habits, Opened};
use crate::harness::{Fixture, HOST, LocalSet, empty, full, one, start};
use crate::http2;

async fn able() -> (Fixture, Connector) {
    let edge = start();
    let connector = Connector::registered_as(&edge, edge.servers[0], Habits::own(), Uuid::new_v4(), 0).await;
    (edge, connector)
}

async fn able_http2() -> (Fixture, http2::Connector) {
    let edge = start();
    let features = [extensions::FEATURE_TRAILERS];
    let connector = http2::Connector::registered_as(&edge, edge.servers[0], 100, &features).await;
    (edge, connector)
}

fn trailers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

/// A call as a client of gRPC makes it, with a body that goes on.
fn call()
-> (http_body_util::channel::Sender<Bytes, std::convert::Infallible>, Request<crate::harness::AnyBody>) {
    let (sender, body) = Channel::new(8);
    let request = Request::post(format!("http://{HOST}/service/method"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body.boxed())
        .unwrap();
    (sender, request)
}

/// A framed body of the edge.
struct Framed {
    opened: Opened,
    reader: FrameReader,
}

impl Framed {
    fn new(opened: Opened) -> Self {
        Self { opened, reader: FrameReader::default() }
    }

    async fn piece(&mut self) -> Option<Piece> {
        loop {
            let mut input = self.opened.body.split().freeze();
            let piece = self.reader.next(&mut input).unwrap();
            self.opened.body = BytesMut::from(input);
            if piece.is_some() {
                return piece;
            }
            match self.opened.recv.read_chunk(1 << 20, true).await.unwrap() {
                Some(chunk) => self.opened.body.extend_from_slice(&chunk.bytes),
                None => {
                    assert!(self.reader.is_whole());
                    return None;
                }
            }
        }
    }

    async fn send(&mut self, part: &[u8]) {
        self.opened.send.write_all(&extensions::data_head(part.len())).await.unwrap();
        self.opened.send.write_all(part).await.unwrap();
    }

    async fn end(mut self, trailers: &HeaderMap) {
        self.opened.send.write_all(&extensions::encode_trailers(trailers).unwrap()).await.unwrap();
        self.opened.send.finish().unwrap();
        let _ = self.opened.send.stopped().await;
    }
}

async fn data(body: &mut Incoming) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn a_call_that_talks_both_ways_ends_with_its_status() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = able().await;
            let (mut sender, request) = call();
            let (response, mut framed) = tokio::join!(edge.send_h2c(request), async {
                let mut opened = connector.accept().await;
                assert_eq!(opened.request().headers()["te"], "trailers");
                assert_eq!(opened.request().headers()["adit-trailers"], "framed");
                opened.head(Response::builder().header("adit-trailers", "framed")).await;
                Framed::new(opened)
            });
            assert!(!response.headers().contains_key("adit-trailers"));
            let mut body = response.into_body();
            for word in ["one", "two", "three"] {
                sender.send_data(word.into()).await.unwrap();
                assert_eq!(framed.piece().await, Some(Piece::Data(word.into())));
                framed.send(word.as_bytes()).await;
                assert_eq!(data(&mut body).await, word);
            }
            // The visitor is done before the origin is.
            drop(sender);
            assert_eq!(framed.piece().await, None);
            framed.send(b"last").await;
            assert_eq!(data(&mut body).await, "last");
            framed.end(&trailers(&[("grpc-status", "0"), ("x-cost", "3")])).await;
            let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(end, trailers(&[("grpc-status", "0"), ("x-cost", "3")]));
        })
        .await;
}

/// The head of an answer as a connector over HTTP/2 gives it.
fn head() -> Response<()> {
    Response::builder()
        .header("cf-cloudflared-response-meta", r#"{"src":"origin"}"#)
        .header("cf-cloudflared-response-headers", serialize(&HeaderMap::new()))
        .body(())
        .unwrap()
}

#[tokio::test]
async fn the_same_call_over_http2() {
    LocalSet::new()
        .run_until(async {
            let (edge, mut connector) = able_http2().await;
            let (mut sender, request) = call();
            let (response, (request, mut stream)) = tokio::join!(edge.send_h2c(request), async {
                let (request, mut respond): (Request<RecvStream>, SendResponse<Bytes>) =
                    connector.accept().await;
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.headers()["adit-trailers"], "1");
                let stream = respond.send_response(head(), false).unwrap();
                (request, stream)
            });
            let (mut up, mut body) = (request.into_body(), response.into_body());
            for word in ["one", "two", "three"] {
                sender.send_data(word.into()).await.unwrap();
                assert_eq!(up.data().await.unwrap().unwrap(), word);
                stream.send_data(word.into(), false).unwrap();
                assert_eq!(data(&mut body).await, word);
            }
            sender
                .send_trailers(trailers(&[("x-sum", "6"), ("cf-ray", "forged"), ("host", "a")]))
                .await
                .unwrap();
            drop(sender);
            assert!(up.data().await.is_none());
            assert_eq!(up.trailers().await.unwrap().unwrap(), trailers(&[("x-sum", "6")]));
            stream.send_trailers(trailers(&[("grpc-status", "0"), ("set-cookie", "a=b")])).unwrap();
            let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(end, trailers(&[("grpc-status", "0")]));
        })
        .await;
}

/// The same from a connector that has never heard of us.
async fn foreign_http2() -> (Fixture, http2::Connector) {
    let edge = start();
    let connector = http2::Connector::registered(&edge, 100).await;
    (edge, connector)
}

#[tokio::test]
async fn over_http2_trailers_cross_to_and_from_every_connector() {
    LocalSet::new()
        .run_until(async {
            let (edge, mut connector) = foreign_http2().await;
            let (mut sender, request) = call();
            let (response, (request, mut stream)) = tokio::join!(edge.send_h2c(request), async {
                let (request, mut respond) = connector.accept().await;
                assert_eq!(request.headers()["te"], "trailers");
                assert!(!request.headers().contains_key("adit-trailers"));
                (request, respond.send_response(head(), false).unwrap())
            });
            let (mut up, mut body) = (request.into_body(), response.into_body());
            sender.send_data("asked".into()).await.unwrap();
            assert_eq!(up.data().await.unwrap().unwrap(), "asked");
            sender.send_trailers(trailers(&[("x-sum", "6")])).await.unwrap();
            drop(sender);
            assert!(up.data().await.is_none());
            assert_eq!(up.trailers().await.unwrap().unwrap(), trailers(&[("x-sum", "6")]));
            stream.send_data("answer".into(), false).unwrap();
            assert_eq!(data(&mut body).await, "answer");
            stream.send_trailers(trailers(&[("grpc-status", "0"), ("set-cookie", "a=b")])).unwrap();
            let end = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(end, trailers(&[("grpc-status", "0")]));

            // Who does not ask for trailers gets none, and the connector no word about them.
            let request = Request::get("/").header("host", HOST).body(empty()).unwrap();
            let (page, ()) = tokio::join!(edge.page(request), async {
                let (request, mut respond) = connector.accept().await;
                assert!(!request.headers().contains_key("te"));
                let mut stream = respond.send_response(head(), false).unwrap();
                stream.send_data("answer".into(), false).unwrap();
                stream.send_trailers(trailers(&[("x-sum", "6")])).unwrap();
            });
            assert_eq!(page.text, "answer");
        })
        .await;
}

/// As a connector writes them: the head of an answer that failed at once, and what follows it.
#[derive(Debug, Clone, Copy)]
enum Ending {
    /// The head is all.
    WithHead,
    /// Nothing follows, but that is said apart, as the reference does for gRPC.
    Apart,
}

#[tokio::test]
async fn an_answer_that_ends_with_its_head_leaves_the_edge_as_one_frame() {
    LocalSet::new()
        .run_until(async {
            for is_able in [true, false] {
                for (status, endings) in
                    [(Some("5"), &[Ending::WithHead, Ending::Apart][..]), (None, &[Ending::WithHead])]
                {
                    for &ending in endings {
                        let (edge, mut connector) =
                            if is_able { able_http2().await } else { foreign_http2().await };
                        let (sender, request) = call();
                        let (response, ()) = tokio::join!(edge.send_h2c(request), async {
                            let (_, mut respond) = connector.accept().await;
                            let mut wrapped = HeaderMap::new();
                            if let Some(status) = status {
                                wrapped.insert("grpc-status", HeaderValue::from_static(status));
                            }
                            let mut head = head();
                            head.headers_mut().insert("cf-cloudflared-response-headers", serialize(&wrapped));
                            match ending {
                                Ending::WithHead => drop(respond.send_response(head, true).unwrap()),
                                Ending::Apart => {
                                    let mut stream = respond.send_response(head, false).unwrap();
                                    tokio::task::yield_now().await;
                                    stream.send_data(Bytes::new(), true).unwrap();
                                }
                            }
                        });
                        let case = format!("{is_able} {status:?} {ending:?}");
                        assert_eq!(
                            response.headers().get("grpc-status").map(HeaderValue::as_bytes),
                            status.map(str::as_bytes)
                        );
                        assert!(response.body().is_end_stream(), "{case}");
                        drop(sender);
                    }
                }
                let (edge, connector) = if is_able { able().await } else { one().await };
                for status in [Some("5"), None] {
                    let (sender, request) = call();
                    let (response, ()) = tokio::join!(edge.send_h2c(request), async {
                        let mut opened = connector.accept().await;
                        let head = Response::builder();
                        opened
                            .head(
                                status
                                    .into_iter()
                                    .fold(head, |head, status| head.header("grpc-status", status)),
                            )
                            .await;
                        opened.send.finish().unwrap();
                    });
                    assert!(response.body().is_end_stream(), "over QUIC {is_able} {status:?}");
                    drop(sender);
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_status_in_a_head_does_not_keep_a_body_from_coming() {
    LocalSet::new()
        .run_until(async {
            let (edge, mut connector) = foreign_http2().await;
            let (sender, request) = call();
            let (response, ()) = tokio::join!(edge.send_h2c(request), async {
                let (_, mut respond) = connector.accept().await;
                let mut head = head();
                let wrapped = trailers(&[("grpc-status", "0")]);
                head.headers_mut().insert("cf-cloudflared-response-headers", serialize(&wrapped));
                let mut stream = respond.send_response(head, false).unwrap();
                stream.send_data("first".into(), false).unwrap();
                stream.send_data("second".into(), false).unwrap();
                stream.send_trailers(trailers(&[("x-end", "1")])).unwrap();
            });
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers(), Some(&trailers(&[("x-end", "1")])));
            assert_eq!(body.to_bytes(), "firstsecond");
            drop(sender);
        })
        .await;
}

#[tokio::test]
async fn a_call_may_be_answered_by_trailers_alone_before_it_has_ended() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = able().await;
            let (sender, request) = call();
            let (response, ()) = tokio::join!(edge.send_h2c(request), async {
                let mut opened = connector.accept().await;
                opened.head(Response::builder().header("adit-trailers", "framed")).await;
                Framed::new(opened).end(&trailers(&[("grpc-status", "12")])).await;
            });
            let whole = response.into_body().collect().await.unwrap();
            assert_eq!(whole.trailers().unwrap(), &trailers(&[("grpc-status", "12")]));
            assert!(whole.to_bytes().is_empty());
            drop(sender);
        })
        .await;
}

/// Sends a request in chunks with trailers, and asks for trailers.
async fn chunked(edge: SocketAddr) -> TcpStream {
    let mut visitor = TcpStream::connect(edge).await.unwrap();
    let request = "POST / HTTP/1.1\r\nHost: demo.localhost\r\nConnection: TE, close\r\nTE: trailers\r\n\
                   Trailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4\r\nbody\r\n0\r\nx-sum: 4\r\nx-forwarded-for: 6.6.6.6\r\nadit-notice: drain\r\n\r\n";
    visitor.write_all(request.as_bytes()).await.unwrap();
    visitor
}

async fn rest(mut visitor: TcpStream) -> String {
    let mut answer = String::new();
    visitor.read_to_string(&mut answer).await.unwrap();
    answer.to_ascii_lowercase()
}

#[tokio::test]
async fn chunks_of_http1_bring_and_get_trailers() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = able().await;
            let visitor = chunked(edge.http).await;
            let opened = connector.accept().await;
            assert_eq!(opened.request().headers()["trailer"], "x-sum");
            assert_eq!(opened.request().headers()["adit-trailers"], "framed");
            let mut framed = Framed::new(opened);
            assert_eq!(framed.piece().await, Some(Piece::Data("body".into())));
            assert_eq!(framed.piece().await, Some(Piece::Trailers(trailers(&[("x-sum", "4")]))));
            assert_eq!(framed.piece().await, None);
            let head = Response::builder().header("trailer", "x-back").header("adit-trailers", "framed");
            framed.opened.head(head).await;
            framed.send(b"answer").await;
            framed.end(&trailers(&[("x-back", "1"), ("content-length", "0")])).await;
            let answer = rest(visitor).await;
            assert!(answer.contains("trailer: x-back\r\n"), "{answer}");
            assert!(answer.ends_with("6\r\nanswer\r\n0\r\nx-back: 1\r\n\r\n"), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn a_connector_that_does_not_understand_trailers_hears_nothing_of_them() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let visitor = chunked(edge.http).await;
            let mut opened = connector.accept().await;
            for name in ["te", "trailer", "adit-trailers"] {
                assert!(!opened.request().headers().contains_key(name), "{name}");
            }
            assert_eq!(opened.read().await, "body");
            opened.answer(Response::builder().header("trailer", "x-back"), b"answer").await;
            let answer = rest(visitor).await;
            assert!(answer.ends_with("6\r\nanswer\r\n0\r\n\r\n") && !answer.contains("x-back"), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn a_request_without_a_word_about_trailers_crosses_as_ever() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = able().await;
            let request = Request::post("/").header("host", HOST).body(full("body")).unwrap();
            let (page, ()) = tokio::join!(edge.page(request), async {
                let mut opened = connector.accept().await;
                assert!(!opened.request().headers().contains_key("adit-trailers"));
                assert_eq!(opened.read().await, "body");
                opened.ok(b"answer").await;
            });
            assert_eq!(page.text, "answer");
        })
        .await;
}

#[tokio::test]
async fn an_answer_is_framed_only_where_the_host_says_so() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = able().await;
            let request =
                Request::get("/").header("host", HOST).header("te", "trailers").body(empty()).unwrap();
            let (page, ()) = tokio::join!(edge.page(request), async {
                let opened = connector.accept().await;
                // A body that is not there needs no frames.
                assert_eq!(opened.request().headers()["adit-trailers"], "1");
                opened.answer(Response::builder().header("content-length", 6), b"answer").await;
            });
            assert_eq!(page.text, "answer");
        })
        .await;
}

#[tokio::test]
async fn a_framed_answer_is_whole_only_between_its_frames() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = able().await;
            let long = HeaderMap::from_iter([(
                "x-long".parse().unwrap(),
                HeaderValue::from_str(&"x".repeat(extensions::MAX_TRAILERS)).unwrap(),
            )]);
            let too_long = {
                let block = serialize(&long);
                let head = (block.len() as u32 | 1 << 31).to_be_bytes();
                [&head[..], block.as_bytes()].concat()
            };
            for end in [&[][..], &[0, 0], &[0, 0, 0, 9, 1], &[0x80, 0, 0, 1], &too_long] {
                let (_sender, request) = call();
                let (response, mut framed) = tokio::join!(edge.send_h2c(request), async {
                    let mut opened = connector.accept().await;
                    opened.head(Response::builder().header("adit-trailers", "framed")).await;
                    Framed::new(opened)
                });
                let mut body = response.into_body();
                framed.send(b"beginning").await;
                assert_eq!(data(&mut body).await, "beginning");
                let _ = framed.opened.send.write_all(end).await;
                let _ = framed.opened.send.finish();
                let whole = body.collect().await;
                assert_eq!(whole.is_ok(), end.is_empty(), "{end:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn another_attempt_says_what_the_other_host_understands() {
    LocalSet::new()
        .run_until(async {
            let (edge, first) = able().await;
            let register =
                |habits| Connector::registered_as(&edge, edge.servers[1], habits, Uuid::new_v4(), 0);
            let turn_away = async || {
                let mut framed = Framed::new(first.accept().await);
                while framed.piece().await.is_some() {}
                framed.opened
            };

            let visitor = chunked(edge.http).await;
            let opened = turn_away().await;
            let second = register(Habits::own()).await;
            opened.turn_away();
            let mut framed = Framed::new(second.accept().await);
            assert_eq!(framed.piece().await, Some(Piece::Data("body".into())));
            assert_eq!(framed.piece().await, Some(Piece::Trailers(trailers(&[("x-sum", "4")]))));
            framed.opened.ok(b"").await;
            assert!(rest(visitor).await.contains("adit-tries: 2"));
            second.unregister().await.unwrap();

            let visitor = chunked(edge.http).await;
            let opened = turn_away().await;
            let second = register(Habits::default()).await;
            opened.turn_away();
            let mut opened = second.accept().await;
            assert!(!opened.request().headers().contains_key("adit-trailers"));
            assert!(!opened.request().headers().contains_key("te"));
            assert_eq!(opened.read().await, "body");
            opened.ok(b"").await;
            assert!(rest(visitor).await.contains("adit-tries: 2"));
        })
        .await;
}
