//! Origins as requests meet them: over HTTP/2, and with trailers over either version.

mod frames;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::{Body, BoxError, Origin, OriginError, Pool, empty};
use crate::config;

/// No test takes anywhere near as long.
const DEADLINE: Duration = Duration::from_secs(20);

/// As a shard runs it.
fn on_a_shard(test: impl Future<Output = ()>) {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(DEADLINE, test).await.expect("the test ends in time") });
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn origin(service: &str, keys: &str) -> Origin {
    let rule = format!("[[ingress]]\nservice = {service:?}\n[ingress.origin]\n{keys}\n");
    let rule = config::tests::plan(&rule).rules.remove(0);
    Origin::new(&rule.service, &rule.origin).unwrap()
}

fn over_http2(address: SocketAddr) -> Origin {
    origin(&format!("http://{address}"), "http2 = true")
}

fn head(method: &str, path: &str) -> http::request::Parts {
    let uri = format!("https://app.example.com{path}");
    Request::builder()
        .method(method)
        .uri(uri)
        .header("host", "app.example.com")
        .body(())
        .unwrap()
        .into_parts()
        .0
}

/// A body of these pieces, and this trailer behind it.
fn body(pieces: &[&'static str], trailer: Option<&'static str>) -> Body {
    let data = pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes())));
    let trailers = trailer.map(|value| {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", HeaderValue::from_static(value));
        Frame::trailers(trailers)
    });
    let frames: Vec<Result<_, BoxError>> = data.chain(trailers).map(Ok).collect();
    Box::pin(StreamBody::new(stream::iter(frames)))
}

/// A body that goes on for as long as the test wants.
fn open_body() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = stream::unfold(receiver, async |mut receiver| {
        let data = receiver.recv().await?;
        Some((Ok(Frame::data(data)), receiver))
    });
    (sender, Box::pin(StreamBody::new(frames)))
}

async fn text(response: Response<Body>) -> (String, Option<HeaderMap>) {
    let body = response.into_body().collect().await.unwrap();
    let trailers = body.trailers().cloned();
    (String::from_utf8(body.to_bytes().to_vec()).unwrap(), trailers)
}

/// Serves HTTP/2; every request goes to `serve` with the number of its connection.
fn serve<F>(
    listener: TcpListener,
    builder: server::Builder,
    serve: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let (builder, serve) = (builder.clone(), serve.clone());
            tokio::task::spawn_local(async move {
                let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::task::spawn_local(serve(number, request, respond));
                }
            });
        }
    });
}

fn answer(mut respond: SendResponse<Bytes>, text: &str) {
    // Whoever asked may be gone.
    if let Ok(mut stream) = respond.send_response(Response::new(()), false) {
        let _ = stream.send_data(Bytes::copy_from_slice(text.as_bytes()), true);
    }
}

async fn whole(mut body: RecvStream) -> String {
    let mut text = Vec::new();
    while let Some(data) = body.data().await {
        let Ok(data) = data else { break };
        let _ = body.flow_control().release_capacity(data.len());
        text.extend_from_slice(&data);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn many_requests_at_once_share_one_connection() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let connections = Rc::new(Cell::new(0));
        let seen = connections.clone();
        serve(listener, server::Builder::new(), move |number, request, respond| {
            seen.set(seen.get().max(number + 1));
            async move {
                assert_eq!(request.uri().to_string(), "http://app.example.com/path?x=1");
                assert!(!request.headers().contains_key("host"));
                let body = whole(request.into_body()).await;
                answer(respond, &body);
            }
        });
        let (origin, pool) = (over_http2(address), Pool::default());
        let answers = join_all((0..64).map(async |_| {
            let response =
                origin.send(&pool, head("POST", "/path?x=1"), body(&["some ", "body"], None)).await.unwrap();
            text(response).await.0
        }));
        assert_eq!(answers.await, vec!["some body"; 64]);
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn a_further_connection_is_opened_when_the_origin_takes_no_more_on_the_first() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let waiting = Rc::new(RefCell::new(Vec::new()));
        let (told, mut arrived) = mpsc::unbounded_channel();
        let (kept, mut builder) = (waiting.clone(), server::Builder::new());
        builder.max_concurrent_streams(2);
        serve(listener, builder, move |number, request, respond| {
            if request.uri().path() == "/first" {
                answer(respond, "");
            } else {
                kept.borrow_mut().push(respond);
                told.send(number).unwrap();
            }
            async {}
        });
        let (origin, pool) = (Rc::new(over_http2(address)), Pool::default());
        // Until the origin has said how many it takes, its limit is not known.
        text(origin.send(&pool, head("GET", "/first"), empty()).await.unwrap()).await;
        let mut asked = tokio::task::JoinSet::new();
        for _ in 0..10 {
            let (origin, pool) = (origin.clone(), pool.clone());
            asked.spawn_local(async move {
                text(origin.send(&pool, head("GET", "/"), empty()).await.unwrap()).await.0
            });
        }
        // Four connections of two; the last two requests wait for room.
        let mut by_connection = [0; 4];
        for _ in 0..8 {
            by_connection[arrived.recv().await.unwrap()] += 1;
        }
        assert_eq!(by_connection, [2, 2, 2, 2]);
        waiting.borrow_mut().drain(..).for_each(|respond| answer(respond, "done"));
        arrived.recv().await.unwrap();
        arrived.recv().await.unwrap();
        waiting.borrow_mut().drain(..).for_each(|respond| answer(respond, "done"));
        assert_eq!(asked.join_all().await, vec!["done"; 10]);
    });
}

#[test]
fn trailers_and_the_word_that_they_are_welcome_cross_http2_in_both_directions() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        serve(listener, server::Builder::new(), |_, request, mut respond| async move {
            assert_eq!(request.headers()["te"], "trailers");
            let mut body = request.into_body();
            while body.data().await.is_some() {}
            let sent = body.trailers().await.unwrap().unwrap();
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"data"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", sent["x-end"].clone());
            for forbidden in ["content-length", "adit-not-here"] {
                trailers.insert(forbidden, HeaderValue::from_static("1"));
            }
            stream.send_trailers(trailers).unwrap();
        });
        let mut head = head("POST", "/");
        head.headers.insert("te", HeaderValue::from_static("trailers"));
        let origin = over_http2(address);
        let response = origin.send(&Pool::default(), head, body(&["x"], Some("7"))).await.unwrap();
        let (body, trailers) = text(response).await;
        let trailers = trailers.unwrap();
        assert_eq!(
            (body.as_str(), trailers.len(), &trailers["grpc-status"]),
            ("data", 1, &HeaderValue::from_static("7"))
        );
    });
}

#[test]
fn trailers_cross_http1_in_both_directions_when_they_are_announced() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"x-end: 7\r\n\r\n") {
                assert_ne!(
                    stream.read_buf(&mut request).await.unwrap(),
                    0,
                    "{}",
                    String::from_utf8_lossy(&request)
                );
            }
            let request = String::from_utf8(request).unwrap();
            assert!(
                request.contains("te: trailers\r\n") && request.contains("connection: te\r\n"),
                "{request}"
            );
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\ndata\r\n0\r\nx-sum: 9\r\n\r\n";
            stream.write_all(answer.as_bytes()).await.unwrap();
            // The connection is kept: it is the client's to close.
            assert_eq!(stream.read_buf(&mut Vec::new()).await.unwrap(), 0);
        };
        let asked = async {
            let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
            let mut head = head("POST", "/");
            head.headers.insert("te", HeaderValue::from_static("trailers"));
            head.headers.insert("trailer", HeaderValue::from_static("x-end"));
            let response = origin.send(&pool, head, body(&["x"], Some("7"))).await.unwrap();
            let (body, trailers) = text(response).await;
            assert_eq!(
                (body.as_str(), &trailers.unwrap()["x-sum"]),
                ("data", &HeaderValue::from_static("9"))
            );
        };
        tokio::join!(served, asked);
    });
}

#[test]
fn a_refused_stream_is_sent_again_with_its_whole_body() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let refusals = Rc::new(Cell::new(0));
        let count = refusals.clone();
        serve(listener, server::Builder::new(), move |_, request, mut respond| {
            let is_refused = count.get() < 2;
            count.set(count.get() + usize::from(is_refused));
            async move {
                let (head, mut body) = request.into_parts();
                assert_eq!(head.method, Method::POST);
                if is_refused {
                    // It was received, and still not looked at.
                    assert_eq!(body.data().await.unwrap().unwrap(), "one");
                    return respond.send_reset(Reason::REFUSED_STREAM);
                }
                answer(respond, &whole(body).await);
            }
        });
        let origin = over_http2(address);
        let response =
            origin.send(&Pool::default(), head("POST", "/"), body(&["one", "two"], None)).await.unwrap();
        assert_eq!((text(response).await.0.as_str(), refusals.get()), ("onetwo", 2));
    });
}

#[test]
fn an_origin_that_always_refuses_is_not_asked_for_ever_and_not_called_absent() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        serve(listener, server::Builder::new(), move |_, _, mut respond| {
            count.set(count.get() + 1);
            respond.send_reset(Reason::REFUSED_STREAM);
            async {}
        });
        let error =
            over_http2(address).send(&Pool::default(), head("GET", "/"), empty()).await.err().unwrap();
        assert!(matches!(error, OriginError::Exchange { .. }) && !error.is_unsent(), "{error}");
        assert_eq!(asked.get(), 4);
    });
}

#[test]
fn what_runs_is_finished_after_goaway_and_what_follows_takes_a_new_connection() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (go_on, mut may_go_on) = mpsc::channel::<()>(1);
        let (left, has_left) = oneshot::channel();
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            let mut pings = connection.ping_pong().unwrap();
            connection.graceful_shutdown();
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
            // With the answer to this, the other side has read all that was sent before.
            pings.ping(h2::Ping::opaque()).await.unwrap();
            left.send(()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, second) = connection.accept().await.unwrap().unwrap();
            answer(second, "second");
            tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
            may_go_on.recv().await.unwrap();
            answer(respond, "first");
        };
        let (origin, pool) = (over_http2(address), Pool::default());
        let first = async { text(origin.send(&pool, head("POST", "/"), empty()).await.unwrap()).await.0 };
        let second = async {
            has_left.await.unwrap();
            let answer = text(origin.send(&pool, head("POST", "/"), empty()).await.unwrap()).await.0;
            go_on.send(()).await.unwrap();
            answer
        };
        let ((), first, second) = tokio::join!(served, first, second);
        assert_eq!((first.as_str(), second.as_str()), ("first", "second"));
    });
}

/// The first connection leaves once a request has arrived; later ones serve.
async fn leaving(listener: TcpListener, last: u32, then_close: bool) -> usize {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = frames::leave(stream, last).await;
    if then_close {
        stream.shutdown().await.unwrap();
    }
    let mut served = 0;
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = server::handshake(stream).await.unwrap();
        while let Some(Ok((request, respond))) = connection.accept().await {
            served += 1;
            tokio::task::spawn_local(async move { answer(respond, &whole(request.into_body()).await) });
        }
    };
    let _ = timeout(Duration::from_millis(300), serve).await;
    served
}

#[test]
fn a_request_behind_the_last_that_a_leaving_origin_works_on_is_sent_again() {
    for method in ["GET", "POST"] {
        on_a_shard(async {
            let (listener, address) = listen().await;
            let (origin, pool) = (over_http2(address), Pool::default());
            let asked = origin.send(&pool, head(method, "/"), body(&["body"], None));
            let asked = async { text(asked.await.unwrap()).await.0 };
            let (served, answer) = tokio::join!(leaving(listener, 0, false), asked);
            assert_eq!((served, answer.as_str()), (1, "body"), "{method}");
        });
    }
}

#[test]
fn a_request_that_a_leaving_origin_may_have_worked_on_is_not_sent_again() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (origin, pool) = (over_http2(address), Pool::default());
        let asked = origin.send(&pool, head("POST", "/"), empty());
        let (served, answer) = tokio::join!(leaving(listener, 1, true), asked);
        assert_eq!((served, answer.is_err_and(|error| !error.is_unsent())), (0, true));
    });
}

#[test]
fn bytes_go_both_ways_at_once_and_the_origin_learns_that_the_visitor_left() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let (told, mut reset) = mpsc::channel(1);
        serve(listener, server::Builder::new(), move |_, request, mut respond| {
            let told = told.clone();
            async move {
                let mut stream = respond.send_response(Response::new(()), false).unwrap();
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    stream.send_data(data, false).unwrap();
                }
                let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap();
                told.send(reason).await.unwrap();
            }
        });
        let (sender, body) = open_body();
        let origin = over_http2(address);
        let mut response = origin.send(&Pool::default(), head("POST", "/"), body).await.unwrap();
        for number in 0..5 {
            // The next piece does not exist before the echo of this one.
            sender.send(Bytes::from(format!("piece {number}"))).await.unwrap();
            let echo = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(echo, format!("piece {number}"));
        }
        drop(response);
        assert_eq!(reset.recv().await, Some(Reason::CANCEL));
        drop(sender);
    });
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = server::handshake(stream).await.unwrap();
            let (_, respond) = connection.accept().await.unwrap().unwrap();
            answer(respond, "x");
            while connection.accept().await.is_some() {}
        };
        let asked = async {
            let origin = origin(&format!("http://{address}"), "http2 = true\nkeep-alive-timeout = \"0s\"");
            let pool = Pool::default();
            let response = origin.send(&pool, head("GET", "/"), empty()).await.unwrap();
            pool.multiplexed.borrow_mut().retain(|_, connections| connections.sweep());
            assert_eq!(pool.multiplexed.borrow().len(), 1, "it has a request");
            text(response).await;
            pool.multiplexed.borrow_mut().retain(|_, connections| connections.sweep());
            assert_eq!(pool.multiplexed.borrow().len(), 0);
        };
        tokio::join!(served, asked);
    });
}

#[test]
fn an_origin_that_is_not_there_gets_one_connection_for_all_that_wait() {
    on_a_shard(async {
        let gone = listen().await.1;
        let (origin, pool) = (over_http2(gone), Pool::default());
        let errors = join_all((0..8).map(|_| origin.send(&pool, head("GET", "/"), empty()))).await;
        for error in errors {
            let error = error.err().unwrap();
            assert!(matches!(error, OriginError::Connect { .. }) && error.is_unsent(), "{error}");
        }
    });
}

#[test]
fn an_origin_over_tls_must_agree_to_http2() {
    on_a_shard(async {
        for protocols in [vec![b"h2".to_vec()], vec![]] {
            let (listener, address) = listen().await;
            let agrees = !protocols.is_empty();
            let tls = frames::tls(protocols);
            let served = async {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.unwrap();
                if agrees {
                    let mut connection = server::handshake(stream).await.unwrap();
                    let (request, respond) = connection.accept().await.unwrap().unwrap();
                    assert_eq!(request.uri().scheme_str(), Some("https"));
                    answer(respond, "over TLS");
                    while connection.accept().await.is_some() {}
                }
            };
            let asked = async {
                let origin = origin(&format!("https://{address}"), "http2 = true\ntls-verify = false");
                origin.send(&Pool::default(), head("GET", "/"), empty()).await
            };
            let asked = async {
                match asked.await {
                    Ok(response) => text(response).await.0,
                    Err(error) => {
                        assert!(error.is_unsent());
                        error.to_string()
                    }
                }
            };
            let ((), outcome) = tokio::join!(served, asked);
            assert!(outcome.contains(if agrees { "over TLS" } else { "does not speak HTTP/2" }), "{outcome}");
        }
    });
}

#[test]
fn only_what_failed_before_there_was_a_connection_is_not_here() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let served = async {
            let (mut stream, _): (TcpStream, _) = listener.accept().await.unwrap();
            // The request is there, and the origin dies at it.
            stream.read_buf(&mut Vec::new()).await.unwrap();
        };
        let origin = origin(&format!("http://{address}"), "");
        let pool = Pool::default();
        let ((), answer) = tokio::join!(served, origin.send(&pool, head("GET", "/"), empty()));
        assert!(!answer.err().unwrap().is_unsent());
        drop(listener);
        assert!(origin.send(&pool, head("GET", "/"), empty()).await.err().unwrap().is_unsent());
    });
}
