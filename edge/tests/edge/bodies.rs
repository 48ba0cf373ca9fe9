//! Bodies both ways: whole, early, one by one, broken off, or none.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{HOST, LocalSet, empty, full, get, one};

#[tokio::test]
async fn an_upload_with_length_and_one_in_chunks_arrive_whole() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let bytes: Bytes = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
            let request = Request::post("/").header("host", HOST).body(full(bytes.clone())).unwrap();
            let (page, ()) = tokio::join!(edge.page(request), async {
                let mut opened = connector.accept().await;
                assert_eq!(opened.request().headers()["content-length"], bytes.len().to_string());
                assert!(!opened.request().headers().contains_key("transfer-encoding"));
                assert_eq!(opened.read().await, bytes);
                opened.ok(b"thanks").await;
            });
            assert_eq!(page.text, "thanks");

            let pieces: Vec<_> =
                bytes.chunks(70_000).map(|piece| Ok(Frame::data(bytes.slice_ref(piece)))).collect();
            let body = StreamBody::new(futures_util::stream::iter(pieces)).boxed();
            let request = Request::post("/").header("host", HOST).body(body).unwrap();
            let (page, ()) = tokio::join!(edge.page(request), async {
                let mut opened = connector.accept().await;
                assert_eq!(opened.request().headers()["transfer-encoding"], "chunked");
                assert_eq!(opened.read().await, bytes);
                opened.ok(&bytes).await;
            });
            assert_eq!(page.text.len(), String::from_utf8_lossy(&bytes).len());
        })
        .await;
}

#[tokio::test]
async fn an_early_answer_arrives_although_the_visitor_still_sends() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let (mut sender, body) = Channel::<Bytes, std::convert::Infallible>::new(1);
            let request = Request::post("/").header("host", HOST).body(body.boxed()).unwrap();
            let (page, ()) = tokio::join!(edge.page(request), async {
                sender.send_data("beginning".into()).await.unwrap();
                let mut opened = connector.accept().await;
                // As the reference does: the answer, STOP_SENDING, the end (wire.md 4.3).
                opened.head(Response::builder().status(413)).await;
                opened.recv.stop(0u32.into()).unwrap();
                opened.send.write_all(b"enough").await.unwrap();
                opened.send.finish().unwrap();
                let _ = opened.send.stopped().await;
            });
            assert_eq!((page.status.as_u16(), page.text.as_str()), (413, "enough"));
            drop(sender);
        })
        .await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let (response, mut opened) = tokio::join!(edge.send(get("/events")), async {
                let mut opened = connector.accept().await;
                opened.head(Response::builder().header("content-type", "text/event-stream")).await;
                opened
            });
            let mut body = response.into_body();
            for event in ["data: 1\n\n", "data: 2\n\n"] {
                opened.send.write_all(event.as_bytes()).await.unwrap();
                let frame = body.frame().await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), event);
            }
            opened.send.finish().unwrap();
            assert!(body.frame().await.is_none());
        })
        .await;
}

#[tokio::test]
async fn a_visitor_that_leaves_cancels_the_request_at_the_origin() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let ask = |head: &'static [u8]| async move {
                let mut stream = TcpStream::connect(edge.http).await.unwrap();
                stream.write_all(head).await.unwrap();
                stream
            };
            // Before the answer.
            let visitor = ask(b"GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n").await;
            let opened = connector.accept().await;
            drop(visitor);
            assert_eq!(opened.send.stopped().await.unwrap(), Some(0u32.into()));

            // In the middle of the answer.
            let mut visitor = ask(b"GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n").await;
            let mut opened = connector.accept().await;
            opened.head(Response::builder()).await;
            opened.send.write_all(b"beginning").await.unwrap();
            assert!(visitor.read(&mut [0; 1024]).await.unwrap() > 0);
            drop(visitor);
            assert_eq!(opened.send.stopped().await.unwrap(), Some(0u32.into()));

            // In the middle of the upload: both directions are told (wire.md section 0, finding 3).
            let visitor =
                ask(b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: 9\r\n\r\nabc").await;
            let mut opened = connector.accept().await;
            while !opened.body.ends_with(b"abc") {
                let chunk = opened.recv.read_chunk(9, true).await.unwrap().unwrap();
                opened.body.extend_from_slice(&chunk.bytes);
            }
            drop(visitor);
            assert_eq!(opened.send.stopped().await.unwrap(), Some(0u32.into()));
            assert!(matches!(
                opened.recv.read_chunk(9, true).await,
                Err(quinn::ReadError::Reset(code)) if code == 0u32.into()
            ));
        })
        .await;
}

#[tokio::test]
async fn an_origin_that_dies_in_the_middle_breaks_the_body() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let uri = format!("http://{HOST}/");
            for (length, is_h2) in [(None, false), (Some(100), false), (None, true), (Some(100), true)] {
                for is_reset in [true, false] {
                    if length.is_none() && !is_reset {
                        // An end without length is an end.
                        continue;
                    }
                    let request = if is_h2 { Request::get(&uri).body(empty()).unwrap() } else { get("/") };
                    let (response, opened) = tokio::join!(
                        async { if is_h2 { edge.send_h2c(request).await } else { edge.send(request).await } },
                        async {
                            let mut opened = connector.accept().await;
                            let response = Response::builder();
                            let response = length.into_iter().fold(response, |response, length: u32| {
                                response.header("content-length", length)
                            });
                            opened.head(response).await;
                            opened.send.write_all(b"beginning").await.unwrap();
                            opened
                        },
                    );
                    let mut body = response.into_body();
                    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
                    assert_eq!(first, "beginning");
                    let mut opened = opened;
                    if is_reset {
                        opened.send.reset(0u32.into()).unwrap();
                    } else {
                        opened.send.finish().unwrap();
                    }
                    let rest = body.collect().await;
                    assert!(rest.is_err(), "length {length:?}, HTTP/2 {is_h2}, reset {is_reset}");
                }
            }
        })
        .await;
}

#[tokio::test]
async fn answers_without_body_have_none() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            for (method, status) in [(Method::HEAD, 200), (Method::GET, 204), (Method::GET, 304)] {
                let request = Request::builder().method(&method).uri("/").header("host", HOST);
                let (page, ()) = tokio::join!(edge.page(request.body(empty()).unwrap()), async {
                    let opened = connector.accept().await;
                    assert_eq!(opened.request().method(), method);
                    let response = Response::builder().status(status);
                    let response =
                        if status == 200 { response.header("content-length", 5) } else { response };
                    opened.answer(response, b"").await;
                });
                assert_eq!((page.status.as_u16(), page.text.as_str()), (status, ""));
                if status == 200 {
                    assert_eq!(page.headers["content-length"], "5");
                }
            }
        })
        .await;
}
