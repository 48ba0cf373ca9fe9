//! Origins over HTTP/1.1: connections that are used again, and answers that are said in more ways than one.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};

use super::*;
use crate::origin::{Circuits, Room};

/// Reads one request with its body, which ends in `end` if its head says that there is one; `None` if the other
/// side has closed.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    loop {
        if stream.read_buf(&mut read).await.unwrap_or_default() == 0 {
            return None;
        }
        let text = String::from_utf8_lossy(&read);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let is_chunked = head.contains("transfer-encoding: chunked");
        let has_body = is_chunked || head.contains("content-length: 3");
        if !has_body || (is_chunked && body.ends_with("0\r\n\r\n")) || (!is_chunked && body.ends_with("end"))
        {
            return Some(text.into_owned());
        }
    }
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[derive(Debug, Clone, Copy)]
enum Ending {
    Fin,
    Rst,
    /// Something of an answer, then FIN.
    Begun,
}

async fn end(mut stream: TcpStream, ending: Ending) {
    match ending {
        Ending::Fin => {}
        Ending::Rst => stream.set_zero_linger().unwrap(),
        Ending::Begun => stream.write_all(b"HTTP/1.1 2").await.unwrap(),
    }
}

/// Answers so many requests on its first connection, reads one more there and ends it; answers on all that
/// follow. Says how many requests came on each.
fn leaves_after(listener: TcpListener, answered: usize, ending: Ending) -> Rc<RefCell<Vec<usize>>> {
    let counts = Rc::new(RefCell::new(Vec::new()));
    let seen = counts.clone();
    tokio::task::spawn_local(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            seen.borrow_mut().push(0);
            let seen = seen.clone();
            tokio::task::spawn_local(async move {
                while request(&mut stream).await.is_some() {
                    seen.borrow_mut()[number] += 1;
                    if number == 0 && seen.borrow()[0] > answered {
                        return end(stream, ending).await;
                    }
                    stream.write_all(ANSWER).await.unwrap();
                }
            });
        }
    });
    counts
}

#[test]
fn an_origin_that_closes_as_the_next_request_comes_loses_none_that_may_be_sent_twice() {
    for ending in [Ending::Fin, Ending::Rst] {
        for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "PATCH"] {
            on_a_shard(async {
                let (listener, address) = listen().await;
                let counts = leaves_after(listener, 1, ending);
                let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
                text(origin.send(&pool, head("GET", "/"), empty()).await.unwrap()).await;
                let has_body = ["PUT", "POST", "PATCH"].contains(&method);
                let body = if has_body { body(&["one, ", "two, ", "end"], None) } else { empty() };
                let answer = origin.send(&pool, head(method, "/"), body).await;
                if ["POST", "PATCH"].contains(&method) {
                    let error = answer.err().unwrap();
                    assert!(!error.is_unsent(), "{method} {ending:?}: {error}");
                    assert_eq!(
                        *counts.borrow(),
                        [2],
                        "{method} {ending:?}: whether it took effect is unknown"
                    );
                } else {
                    assert_eq!(answer.unwrap().status(), 200, "{method} {ending:?}");
                    assert_eq!(*counts.borrow(), [2, 1], "{method} {ending:?}");
                }
            });
        }
    }
}

#[test]
fn a_request_of_which_nothing_was_sent_goes_again_whatever_its_method() {
    for ending in [Ending::Fin, Ending::Rst] {
        on_a_shard(async {
            let (listener, address) = listen().await;
            let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
            let first = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                request(&mut stream).await.unwrap();
                stream.write_all(ANSWER).await.unwrap();
                stream
            };
            let (stream, answer) = tokio::join!(first, origin.send(&pool, head("GET", "/"), empty()));
            text(answer.unwrap()).await;
            // Nobody on this thread has heard of it when the next request begins.
            end(stream, ending).await;
            let second = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = request(&mut stream).await.unwrap();
                stream.write_all(ANSWER).await.unwrap();
                request
            };
            let sent = origin.send(&pool, head("POST", "/"), body(&["one, ", "end"], None));
            let (request, answer) = tokio::join!(second, sent);
            assert_eq!(answer.unwrap().status(), 200, "{ending:?}");
            assert!(request.contains("one, ") && request.contains("end"), "{request}");
        });
    }
}

#[test]
fn what_breaks_off_within_its_answer_or_on_a_new_connection_is_not_sent_again() {
    for (answered, ending) in [(1, Ending::Begun), (0, Ending::Fin), (0, Ending::Rst)] {
        on_a_shard(async {
            let (listener, address) = listen().await;
            let counts = leaves_after(listener, answered, ending);
            let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
            for _ in 0..answered {
                text(origin.send(&pool, head("GET", "/"), empty()).await.unwrap()).await;
            }
            let error = origin.send(&pool, head("GET", "/"), empty()).await.err().unwrap();
            assert!(matches!(error, OriginError::Exchange { .. }), "{error}");
            assert_eq!(*counts.borrow(), [answered + 1], "{ending:?}");
        });
    }
}

#[test]
fn a_request_that_ends_every_connection_is_sent_twice_at_most() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let asked = Rc::new(Cell::new(0));
        let count = asked.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let count = count.clone();
                tokio::task::spawn_local(async move {
                    while let Some(request) = request(&mut stream).await {
                        if request.starts_with("GET /deadly") {
                            count.set(count.get() + 1);
                            return;
                        }
                        stream.write_all(ANSWER).await.unwrap();
                    }
                });
            }
        });
        let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
        // Several idle connections.
        join_all((0..4).map(async |_| {
            text(origin.send(&pool, head("GET", "/"), empty()).await.unwrap()).await;
        }))
        .await;
        assert!(origin.send(&pool, head("GET", "/deadly"), empty()).await.is_err());
        assert_eq!(asked.get(), 2);
    });
}

#[test]
fn a_connection_is_not_used_again_when_the_origin_says_that_it_ends() {
    on_a_shard(async {
        let (listener, address) = listen().await;
        let connections = Rc::new(Cell::new(0));
        let count = connections.clone();
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                tokio::task::spawn_local(async move {
                    while let Some(request) = request(&mut stream).await {
                        let seconds = request[..].split(['/', ' ']).nth(2).unwrap();
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nkeep-alive: timeout={seconds}\r\ncontent-length: 0\r\n\r\n"
                        );
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
        for (path, so_far) in [("/60", 1), ("/60", 1), ("/0", 1), ("/60", 2), ("/60", 2)] {
            text(origin.send(&pool, head("GET", path), empty()).await.unwrap()).await;
            assert_eq!(connections.get(), so_far, "{path}");
        }
    });
}

/// What becomes of an answer that is these bytes.
async fn answered(method: &str, bytes: &'static [u8]) -> Result<Response<Body>, OriginError> {
    let (listener, address) = listen().await;
    let served = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await.unwrap();
        stream.write_all(bytes).await.unwrap();
    };
    let (origin, pool) = (origin(&format!("http://{address}"), ""), Pool::default());
    tokio::join!(served, origin.send(&pool, head(method, "/"), empty())).1
}

#[test]
fn chunks_win_over_a_length_that_stands_beside_them() {
    on_a_shard(async {
        for length in ["0", "2", "5", "99", "5\r\ncontent-length: 6", "x"] {
            for method in ["GET", "HEAD"] {
                let body = if method == "HEAD" { "" } else { "5\r\nhello\r\n0\r\n\r\n" };
                let bytes = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\ntransfer-encoding: Chunked\r\n\r\n{body}"
                );
                let response = answered(method, Box::leak(bytes.into_boxed_str()).as_bytes()).await.unwrap();
                assert!(!response.headers().contains_key(CONTENT_LENGTH), "{method} {length}");
                let wanted = if method == "HEAD" { "" } else { "hello" };
                assert_eq!(text(response).await.0, wanted, "{method} {length}");
            }
        }
    });
}

#[test]
fn a_length_that_is_said_twice_is_said_once_behind_us() {
    on_a_shard(async {
        for lengths in ["content-length: 2\r\ncontent-length: 2", "content-length: 2, 2"] {
            let bytes = format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\nok");
            let response = answered("GET", Box::leak(bytes.into_boxed_str()).as_bytes()).await.unwrap();
            let lengths: Vec<_> = response.headers().get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(lengths, ["2"]);
            assert_eq!(text(response).await.0, "ok");
        }
    });
}

#[test]
fn headers_that_nobody_may_write_any_more_are_read_and_not_written_on() {
    on_a_shard(async {
        let bytes =
            b"HTTP/1.1 200 OK\r\nx-long: one\r\n two\r\nx-spaced : three\r\ncontent-length: 2\r\n\r\nok";
        let response = answered("GET", bytes).await.unwrap();
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-long").split_whitespace().collect::<Vec<_>>(), ["one", "two"]);
        assert!(!header("x-long").contains(['\r', '\n']));
        assert_eq!(header("x-spaced"), "three");
        assert_eq!(text(response).await.0, "ok");
    });
}

#[test]
fn no_coding_beside_a_length_is_not_waited_for_until_the_connection_ends() {
    on_a_shard(async {
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ncontent-length: 2\r\n\r\nok";
        let error = answered("GET", bytes).await.err().unwrap();
        assert!(error.to_string().contains("identity"), "{error}");
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nok";
        assert_eq!(text(answered("GET", bytes).await.unwrap()).await.0, "ok");
    });
}

#[test]
fn a_coding_that_was_not_asked_for_does_not_pass_for_the_body() {
    on_a_shard(async {
        for coding in ["gzip, chunked", "gzip"] {
            let bytes = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: {coding}\r\n\r\n2\r\nok\r\n0\r\n\r\n");
            let error = answered("GET", Box::leak(bytes.into_boxed_str()).as_bytes()).await.err().unwrap();
            assert!(error.to_string().contains("gzip") && !error.is_unsent(), "{error}");
        }
        let response = answered("GET", b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: gzip\r\n\r\n").await;
        assert_eq!(response.unwrap().headers().get(TRANSFER_ENCODING).unwrap(), "gzip");
    });
}

#[test]
fn names_of_headers_are_written_as_the_rule_says() {
    on_a_shard(async {
        for (keys, names) in [
            ("", ["host: ", "cf-ray: ", "x-forwarded-for: "]),
            ("header-case = \"title\"", ["Host: ", "Cf-Ray: ", "X-Forwarded-For: "]),
        ] {
            for upgrades in [false, true] {
                let (listener, address) = listen().await;
                let served = async {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let request = request(&mut stream).await.unwrap();
                    stream.write_all(ANSWER).await.unwrap();
                    request
                };
                let (origin, pool) = (origin(&format!("http://{address}"), keys), Pool::default());
                let mut head = head("GET", "/");
                for name in ["cf-ray", "x-forwarded-for"] {
                    head.headers.insert(name, HeaderValue::from_static("1"));
                }
                let circuits = Circuits::new(1);
                let source = std::net::Ipv4Addr::LOCALHOST.into();
                let room = Room { circuits: &circuits, shard: 0, source, most: 1 };
                let sent = async {
                    if upgrades {
                        origin.upgrade(room, head, empty()).await
                    } else {
                        origin.send(&pool, head, empty()).await
                    }
                };
                let (request, answer) = tokio::join!(served, sent);
                answer.unwrap();
                for name in names {
                    assert!(request.contains(&format!("\r\n{name}")), "{name:?} {upgrades}: {request}");
                }
            }
        }
    });
}
