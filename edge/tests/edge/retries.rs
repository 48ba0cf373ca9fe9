//! docs/retries.md over QUIC and HTTP/2: what is asked again, where, and what never is.

use adit_protocol::extensions;
use adit_protocol::stream::Connect;
use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::{Connector, Opened};
use crate::harness::{AnyBody, Fixture, HOST, LocalSet, Page, full, get, start};
use crate::http2;

/// An edge with so many replicas of one connection each.
async fn replicas(count: usize) -> (Fixture, Vec<Connector>) {
    let edge = start();
    let mut replicas = Vec::new();
    for at in 0..count {
        replicas.push(Connector::registered(&edge, at % 2, Uuid::new_v4(), 0).await);
    }
    (edge, replicas)
}

/// The next request, and which of the connectors has it.
async fn next(connectors: &[Connector]) -> (usize, Opened) {
    let accepting = connectors.iter().map(|connector| Box::pin(connector.connection.accept_bi()));
    let (accepted, at, _) = futures_util::future::select_all(accepting).await;
    let (send, recv) = accepted.unwrap();
    (at, Opened::read_head(send, recv).await)
}

fn request(method: Method, body: AnyBody) -> Request<AnyBody> {
    Request::builder().method(method).uri("/path?query").header("host", HOST).body(body).unwrap()
}

fn post(bytes: &Bytes) -> Request<AnyBody> {
    request(Method::POST, full(bytes.clone()))
}

fn noise(length: usize) -> Bytes {
    (0..length).map(|at| (at % 251) as u8).collect()
}

fn tries(headers: &HeaderMap) -> Option<&str> {
    headers.get("adit-tries").map(|value| value.to_str().unwrap())
}

fn word(page: &Page) -> String {
    let json: serde_json::Value = serde_json::from_str(&page.text).unwrap();
    json["error"].as_str().unwrap().to_owned()
}

fn as_json(mut request: Request<AnyBody>) -> Request<AnyBody> {
    request.headers_mut().insert("accept", "application/json".parse().unwrap());
    request
}

#[tokio::test]
async fn what_a_leaving_host_turns_away_another_gets_whole() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            for length in [0, 1, 10_000, 64 << 10] {
                let bytes = noise(length);
                let chunks: Vec<_> =
                    bytes.chunks(5000).map(|part| Ok(Frame::data(bytes.slice_ref(part)))).collect();
                let chunked = StreamBody::new(futures_util::stream::iter(chunks)).boxed();
                for request in [post(&bytes), request(Method::POST, chunked)] {
                    let (page, ()) = tokio::join!(edge.page(request), async {
                        let (first, mut opened) = next(&hosts).await;
                        assert_eq!(opened.read().await, bytes);
                        opened.turn_away();
                        let (second, mut opened) = next(&hosts).await;
                        assert_ne!(first, second);
                        assert_eq!(opened.request().method(), "POST");
                        assert_eq!(opened.request().uri().path_and_query().unwrap(), "/path?query");
                        assert_eq!(opened.read().await, bytes);
                        opened.ok(b"served").await;
                    });
                    assert_eq!((page.status.as_u16(), page.text.as_str()), (200, "served"), "{length}");
                    assert_eq!(tries(&page.headers), Some("2"));
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_body_that_was_not_all_there_goes_on_where_it_was() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            visitor
                .write_all(b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: 9\r\n\r\nabc")
                .await
                .unwrap();
            let (_, mut opened) = next(&hosts).await;
            while !opened.body.ends_with(b"abc") {
                let chunk = opened.recv.read_chunk(9, true).await.unwrap().unwrap();
                opened.body.extend_from_slice(&chunk.bytes);
            }
            opened.turn_away();
            let (_, mut opened) = next(&hosts).await;
            visitor.write_all(b"defghi").await.unwrap();
            assert_eq!(opened.read().await, "abcdefghi");
            opened.ok(b"").await;
            let mut answer = [0; 12];
            visitor.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
        })
        .await;
}

#[tokio::test]
async fn a_body_that_is_too_long_to_be_kept_is_never_sent_in_part() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            let bytes = noise((64 << 10) + 1);
            for (is_refusal, status, error) in [(true, 503, "not-taken"), (false, 502, "connection-lost")] {
                // PUT, so that only the body stands in the way.
                let asked = as_json(request(Method::PUT, full(bytes.clone())));
                let (page, ()) = tokio::join!(edge.page(asked), async {
                    let (_, mut opened) = next(&hosts).await;
                    assert_eq!(opened.read().await, bytes);
                    if is_refusal { opened.turn_away() } else { opened.break_off() }
                });
                assert_eq!((page.status.as_u16(), word(&page).as_str()), (status, error));
                assert_eq!(tries(&page.headers), None);
                assert_eq!(page.headers.contains_key("retry-after"), is_refusal);
                // The next that anybody hears of is another request.
                let (page, ()) = tokio::join!(edge.page(get("/other")), async {
                    let (_, opened) = next(&hosts).await;
                    assert_eq!(opened.request().uri().path(), "/other");
                    opened.ok(b"").await;
                });
                assert_eq!(page.status.as_u16(), 200);
            }
        })
        .await;
}

#[tokio::test]
async fn what_may_have_been_seen_is_asked_again_only_if_that_changes_nothing() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            for (method, is_retried) in [
                (Method::GET, true),
                (Method::HEAD, true),
                (Method::OPTIONS, true),
                (Method::PUT, true),
                (Method::DELETE, true),
                (Method::POST, false),
                (Method::PATCH, false),
                (Method::from_bytes(b"PURGE").unwrap(), false),
            ] {
                for is_ended in [true, false] {
                    let asked = as_json(request(method.clone(), full("body")));
                    let (page, ()) = tokio::join!(edge.page(asked), async {
                        let (_, mut opened) = next(&hosts).await;
                        assert_eq!(opened.read().await, "body");
                        if is_ended {
                            opened.send.finish().unwrap()
                        } else {
                            opened.break_off()
                        }
                        if is_retried {
                            let (_, mut opened) = next(&hosts).await;
                            assert_eq!(opened.read().await, "body");
                            opened.ok(b"").await;
                        }
                    });
                    if is_retried {
                        assert_eq!(
                            (page.status.as_u16(), tries(&page.headers)),
                            (200, Some("2")),
                            "{method}"
                        );
                    } else {
                        assert_eq!(page.status.as_u16(), 502, "{method}");
                        assert_eq!((word(&page).as_str(), tries(&page.headers)), ("connection-lost", None));
                    }
                }
            }
        })
        .await;
}

#[tokio::test]
async fn a_lost_connection_loses_no_request_that_may_be_asked_again() {
    LocalSet::new()
        .run_until(async {
            let (edge, mut hosts) = replicas(3).await;
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                for _ in 0..2 {
                    let (at, _opened) = next(&hosts).await;
                    hosts.remove(at).connection.close(0u32.into(), b"killed");
                }
                let (_, opened) = next(&hosts).await;
                opened.ok(b"served").await;
            });
            assert_eq!((page.text.as_str(), tries(&page.headers)), ("served", Some("3")));
        })
        .await;
}

#[tokio::test]
async fn what_cannot_reach_its_origin_here_goes_to_another_replica_only() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
            let mut hosts = Vec::new();
            for (index, client) in [one, one, one].into_iter().enumerate() {
                hosts.push(Connector::registered(&edge, 0, client, index as u8).await);
            }
            let not_here = format!("{}connection refused", extensions::NOT_HERE_REASON);
            let asked = || as_json(post(&noise(1000)));
            let (page, ()) = tokio::join!(edge.page(asked()), async {
                next(&hosts).await.1.refuse(&not_here).await;
            });
            assert_eq!((page.status.as_u16(), word(&page).as_str()), (502, "origin-failed"));
            assert_eq!(tries(&page.headers), None);

            hosts.push(Connector::registered(&edge, 1, other, 0).await);
            for _ in 0..5 {
                let (page, ()) = tokio::join!(edge.page(asked()), async {
                    let (mut at, mut opened) = next(&hosts).await;
                    if at < 3 {
                        opened.refuse(&not_here).await;
                        (at, opened) = next(&hosts).await;
                    }
                    assert_eq!((at, opened.read().await), (3, noise(1000)));
                    opened.ok(b"").await;
                });
                assert_eq!(page.status.as_u16(), 200);
            }
        })
        .await;
}

#[tokio::test]
async fn what_a_host_refuses_for_another_reason_is_its_last_word() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                next(&hosts).await.1.refuse("the origin took too long").await;
            });
            assert_eq!((page.status.as_u16(), tries(&page.headers)), (502, None));
        })
        .await;
}

#[tokio::test]
async fn an_answer_of_an_origin_counts_whatever_it_says() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            for status in [421, 502, 503, 504] {
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    // Nobody but the edge counts tries.
                    let answer = Response::builder().status(status).header("adit-tries", "9");
                    next(&hosts).await.1.answer(answer, b"own words").await;
                });
                assert_eq!((page.status.as_u16(), page.text.as_str()), (status, "own words"));
                assert_eq!(tries(&page.headers), None);
            }
        })
        .await;
}

#[tokio::test]
async fn an_answer_that_has_begun_is_never_begun_again() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            let (response, opened) = tokio::join!(edge.send(get("/")), async {
                let (_, mut opened) = next(&hosts).await;
                opened.head(Response::builder()).await;
                opened
            });
            opened.break_off();
            assert!(response.into_body().collect().await.is_err());
        })
        .await;
}

#[tokio::test]
async fn a_request_is_tried_four_times_at_most() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(6).await;
            let (page, ()) = tokio::join!(edge.page(as_json(post(&noise(10)))), async {
                let mut asked = Vec::new();
                for _ in 0..4 {
                    let (at, opened) = next(&hosts).await;
                    opened.turn_away();
                    asked.push(at);
                }
                asked.sort_unstable();
                asked.dedup();
                assert_eq!(asked.len(), 4, "nobody is asked twice");
            });
            assert_eq!((page.status.as_u16(), word(&page).as_str()), (503, "not-taken"));
            assert_eq!(tries(&page.headers), Some("4"));
        })
        .await;
}

#[tokio::test]
async fn a_dying_origin_does_not_get_its_load_twice() {
    const REQUESTS: usize = 200;
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            let mut asked = 0;
            let visiting = join_all((0..REQUESTS).map(|_| edge.page(get("/"))));
            let pages = tokio::select! {
                pages = visiting => pages,
                () = async {
                    loop {
                        next(&hosts).await.1.break_off();
                        asked += 1;
                    }
                } => unreachable!(),
            };
            assert!(pages.iter().all(|page| page.status.as_u16() == 502));
            // Ten per second, over ten seconds; a fifth of the requests is less.
            assert_eq!(asked, REQUESTS + 100);
        })
        .await;
}

#[tokio::test]
async fn a_websocket_that_was_turned_away_is_opened_elsewhere() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(2).await;
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            let head = "GET /chat HTTP/1.1\r\nHost: demo.localhost\r\nConnection: Upgrade\r\n\
                        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n\r\n";
            visitor.write_all(head.as_bytes()).await.unwrap();
            next(&hosts).await.1.turn_away();
            let (_, mut opened) = next(&hosts).await;
            assert!(matches!(opened.connect, Connect::WebSocket(_)));
            opened.head(Response::builder().status(101)).await;
            let mut answer = vec![0; 12];
            visitor.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 101");

            // What may have been opened is not opened twice.
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            visitor.write_all(head.as_bytes()).await.unwrap();
            next(&hosts).await.1.break_off();
            visitor.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, b"HTTP/1.1 502");
        })
        .await;
}

#[tokio::test]
async fn words_between_edge_and_host_are_nobody_elses() {
    LocalSet::new()
        .run_until(async {
            let (edge, hosts) = replicas(1).await;
            let mut asked = get("/");
            for name in ["adit-trailers", "adit-notice", "adit-not-here", "adit_notice", "adit-tries"] {
                asked.headers_mut().insert(name, "probe".parse().unwrap());
            }
            let (page, ()) = tokio::join!(edge.page(asked), async {
                let (_, opened) = next(&hosts).await;
                assert!(!opened.request().headers().keys().any(|name| name.as_str().starts_with("adit")));
                let answer = Response::builder().header("adit-trailers", "1").header("adit-not-here", "1");
                opened.answer(answer, b"plain").await;
            });
            assert_eq!(page.text, "plain");
            assert!(!page.headers.keys().any(|name| name.as_str().starts_with("adit")));
        })
        .await;
}

#[tokio::test]
async fn the_same_words_over_http2() {
    LocalSet::new()
        .run_until(async {
            for word in ["refused", "not here", "broken"] {
                let edge = start();
                let mut first = http2::Connector::registered(&edge, 100).await;
                let (page, ()) =
                    tokio::join!(edge.page(as_json(request(Method::PUT, full("body")))), async {
                        let (asked, mut respond) = first.accept().await;
                        let mut body = asked.into_body();
                        assert_eq!(body.data().await.unwrap().unwrap(), "body");
                        let second = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                        match word {
                            "refused" => respond.send_reset(h2::Reason::REFUSED_STREAM),
                            "broken" => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                            _ => {
                                let head = Response::builder()
                                    .status(502)
                                    .header("cf-cloudflared-response-meta", r#"{"src":"cloudflared"}"#)
                                    .header(extensions::NOT_HERE, "1");
                                respond.send_response(head.body(()).unwrap(), true).unwrap();
                            }
                        }
                        let mut opened = second.accept().await;
                        assert_eq!(opened.read().await, "body");
                        opened.ok(b"served").await;
                    });
                assert_eq!((page.text.as_str(), tries(&page.headers)), ("served", Some("2")), "{word}");
            }
        })
        .await;
}
