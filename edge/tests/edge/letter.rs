//! HTTP to the letter, where a library or haste would have it otherwise: what visitors may say, and in which
//! order ends may come.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Fixture, LocalSet, get, one, start, start_for_visitors};
use crate::http2;

/// Sends bytes and reads until the edge closes.
async fn ask(edge: &Fixture, bytes: &[u8]) -> String {
    let mut visitor = TcpStream::connect(edge.http).await.unwrap();
    visitor.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = visitor.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same, but reads no more than a head.
async fn head(visitor: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        assert!(visitor.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

#[tokio::test]
async fn a_visitor_that_half_closes_behind_its_request_gets_its_answer() {
    LocalSet::new()
        .run_until(async {
            let edge = start_for_visitors("half-closed-timeout = \"50s\"");
            let connector = crate::connector::Connector::registered(&edge, 0, uuid::Uuid::new_v4(), 0).await;
            for upload in [
                &b"GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n"[..],
                b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: 4\r\n\r\nbody",
                b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
            ] {
                let mut visitor = TcpStream::connect(edge.http).await.unwrap();
                visitor.write_all(upload).await.unwrap();
                visitor.shutdown().await.unwrap();
                let mut opened = connector.accept().await;
                let body = opened.read().await;
                assert_eq!(body, if upload.starts_with(b"POST") { "body" } else { "" });
                // The end has been seen by now, if it is ever to be.
                let seen = timeout(Duration::from_millis(300), opened.send.stopped()).await;
                assert!(seen.is_err(), "the request was cancelled: {seen:?}");
                opened.answer(Response::builder().header("content-length", 6), b"answer").await;
                let mut answer = String::new();
                // Nothing else can come of its connection, so that is over as well.
                let read = timeout(Duration::from_secs(20), visitor.read_to_string(&mut answer));
                read.await.expect("the connection ends behind the answer").unwrap();
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("answer"), "{answer}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_half_closed_visitor_that_nothing_can_be_sent_to_is_taken_for_gone() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            visitor.write_all(b"GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n").await.unwrap();
            visitor.shutdown().await.unwrap();
            let opened = connector.accept().await;
            let began = Instant::now();
            assert_eq!(opened.send.stopped().await.unwrap(), Some(0u32.into()));
            assert!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
        })
        .await;
}

#[tokio::test]
async fn half_a_body_is_not_waited_for_once_its_visitor_has_ended() {
    LocalSet::new()
        .run_until(async {
            let edge = start_for_visitors("half-closed-timeout = \"50s\"");
            let connector = crate::connector::Connector::registered(&edge, 0, uuid::Uuid::new_v4(), 0).await;
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            let half = b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: 9\r\n\r\nabc";
            visitor.write_all(half).await.unwrap();
            let opened = connector.accept().await;
            visitor.shutdown().await.unwrap();
            let ended = timeout(Duration::from_secs(20), opened.send.stopped()).await.expect("it is seen");
            assert_eq!(ended.unwrap(), Some(0u32.into()));
        })
        .await;
}

#[tokio::test]
async fn a_large_body_for_an_unknown_name_does_not_cost_its_sender_the_answer() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            let length = 8 << 20;
            let head =
                format!("POST / HTTP/1.1\r\nHost: unknown.example\r\nContent-Length: {length}\r\n\r\n");
            visitor.write_all(head.as_bytes()).await.unwrap();
            // As most clients do: everything first, then the answer.
            visitor.write_all(&vec![b'x'; length]).await.unwrap();
            let answer = self::head(&mut visitor).await;
            assert!(answer.starts_with("http/1.1 404"), "{answer}");
        })
        .await;
}

#[tokio::test]
async fn one_source_keeps_the_edge_reading_only_a_few_bodies_that_it_has_no_use_for() {
    let edge = start();
    let sending: Vec<_> = (0..24)
        .map(|_| {
            let address = edge.http;
            tokio::spawn(async move {
                let mut visitor = TcpStream::connect(address).await.unwrap();
                let head =
                    "POST / HTTP/1.1\r\nHost: unknown.example\r\nContent-Length: 1099511627776\r\n\r\n";
                visitor.write_all(head.as_bytes()).await.unwrap();
                let piece = vec![b'x'; 64 << 10];
                while visitor.write_all(&piece).await.is_ok() {}
            })
        })
        .collect();
    timeout(Duration::from_secs(8), async {
        while sending.iter().filter(|task| task.is_finished()).count() < 8 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("those beyond its share end at once");
    assert!(sending.iter().any(|task| !task.is_finished()), "the others are read on");
    sending.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_question_about_the_server_is_answered_by_the_edge() {
    let edge = start();
    let answer = ask(&edge, b"OPTIONS * HTTP/1.1\r\nHost: demo.localhost\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("allow: GET, HEAD"), "{answer}");
    let answer =
        ask(&edge, b"OPTIONS * HTTP/1.1\r\nHost: unknown.example\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_a_page() {
    let edge = start();
    for (request, status, word) in [
        ("GET /a<b HTTP/1.1\r\nHost: demo.localhost\r\n\r\n".to_owned(), "400", "%3C"),
        ("nonsense\r\n\r\n".to_owned(), "400", "is not an HTTP request"),
        (format!("GET /{} HTTP/1.1\r\nHost: demo.localhost\r\n\r\n", "x".repeat(66_000)), "431", "longer"),
        (
            format!("GET / HTTP/1.1\r\nHost: demo.localhost\r\nx: {}\r\n\r\n", "x".repeat(66_000)),
            "431",
            "longer",
        ),
    ] {
        let answer = ask(&edge, request.as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", page.len())), "{answer}");
        assert!(head.contains("cf-ray: ") && page.contains(word), "{answer}");
    }
}

#[tokio::test]
async fn a_transfer_coding_that_would_be_lost_is_refused() {
    let edge = start();
    let request = b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nConnection: close\r\n\
        Transfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
    let answer = ask(&edge, request).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
}

#[tokio::test]
async fn how_long_an_answer_may_take_is_what_the_document_says() {
    LocalSet::new()
        .run_until(async {
            let edge = start_for_visitors("answer-timeout = \"1s\"");
            let connector = crate::connector::Connector::registered(&edge, 0, uuid::Uuid::new_v4(), 0).await;
            let (page, _opened) = tokio::join!(edge.page(get("/")), connector.accept());
            assert_eq!(page.status.as_u16(), 504);
        })
        .await;
}

#[tokio::test]
async fn how_long_an_upload_may_stall_is_what_the_document_says() {
    LocalSet::new()
        .run_until(async {
            let edge = start_for_visitors("upload-timeout = \"1s\"");
            let connector = crate::connector::Connector::registered(&edge, 0, uuid::Uuid::new_v4(), 0).await;
            let (visitor, _opened) = tokio::join!(
                async {
                    let mut visitor = TcpStream::connect(edge.http).await.unwrap();
                    let head = b"POST / HTTP/1.1\r\nHost: demo.localhost\r\nContent-Length: 99999999\r\n\r\n";
                    visitor.write_all(head).await.unwrap();
                    // More than the connector's window, which nobody empties.
                    let (mut read, mut write) = visitor.into_split();
                    let sending = tokio::task::spawn_local(async move {
                        while write.write_all(&[b'x'; 65536]).await.is_ok() {}
                    });
                    let mut answer = [0; 12];
                    read.read_exact(&mut answer).await.unwrap();
                    sending.abort();
                    answer
                },
                connector.accept(),
            );
            assert_eq!(&visitor, b"HTTP/1.1 504");
        })
        .await;
}

/// A visitor that asks for a WebSocket, with more in its head.
async fn websocket(edge: &Fixture, more: &str) -> TcpStream {
    let mut visitor = TcpStream::connect(edge.http).await.unwrap();
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: demo.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n{more}\r\n"
    );
    visitor.write_all(ask.as_bytes()).await.unwrap();
    visitor
}

#[tokio::test]
async fn a_refused_websocket_of_a_connector_over_http2_keeps_its_answer() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = http2::Connector::registered(&edge, 100).await;
            for _ in 0..10 {
                let mut visitor = websocket(&edge, "").await;
                let (request, mut respond) = connector.accept().await;
                let head = Response::builder()
                    .status(403)
                    .header("cf-cloudflared-response-meta", r#"{"src":"origin"}"#)
                    .header("cf-cloudflared-response-headers", "");
                let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                let answer = self::head(&mut visitor).await;
                assert!(answer.starts_with("http/1.1 403"), "{answer}");
                // The edge has ended its direction, and has cancelled nothing.
                let mut body = request.into_body();
                assert!(body.data().await.is_none_or(|data| data.is_ok_and(|data| data.is_empty())));
                stream.send_data("not for you".into(), true).unwrap();
                let mut rest = answer.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
                while !rest.windows(11).any(|part| part == b"not for you") {
                    assert!(visitor.read_buf(&mut rest).await.unwrap() > 0, "the body was cut");
                }
            }
        })
        .await;
}

#[tokio::test]
async fn what_came_of_an_answer_that_breaks_off_at_once_reaches_the_visitor() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = http2::Connector::registered(&edge, 100).await;
            let mut wrapped = HeaderMap::new();
            wrapped.insert("content-length", HeaderValue::from_static("10"));
            let wrapped = adit_protocol::headers::serialized::serialize(&wrapped);
            let mut breaks_off = async || {
                let (_, mut respond) = connector.accept().await;
                let head = Response::builder()
                    .header("cf-cloudflared-response-meta", r#"{"src":"origin"}"#)
                    .header("cf-cloudflared-response-headers", wrapped.clone());
                let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
                stream.send_data("12345".into(), true).unwrap();
            };
            for _ in 0..5 {
                let visitor = ask(&edge, b"GET / HTTP/1.1\r\nHost: demo.localhost\r\n\r\n");
                let (answer, ()) = tokio::join!(visitor, breaks_off());
                assert!(
                    answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\n12345"),
                    "{answer:?}"
                );
            }
            let socket = TcpStream::connect(edge.http).await.unwrap();
            let (mut visitor, connection) = h2::client::handshake(socket).await.unwrap();
            tokio::task::spawn_local(connection);
            for _ in 0..5 {
                let request = http::Request::get("http://demo.localhost/").body(()).unwrap();
                let (answer, _) = visitor.send_request(request, true).unwrap();
                let (answer, ()) = tokio::join!(answer, breaks_off());
                let mut answer = answer.unwrap();
                assert_eq!(answer.body_mut().data().await.unwrap().unwrap(), "12345");
                assert!(answer.body_mut().data().await.unwrap().is_err(), "it looks whole");
            }
        })
        .await;
}

#[tokio::test]
async fn a_length_on_an_upgrade_counts_nothing_of_the_websocket() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = http2::Connector::registered(&edge, 100).await;
            let mut visitor = websocket(&edge, "Content-Length: 0\r\n").await;
            let (request, mut respond) = connector.accept().await;
            assert!(!request.headers().contains_key("content-length"));
            let mut wrapped = HeaderMap::new();
            wrapped.insert("upgrade", HeaderValue::from_static("websocket"));
            wrapped.insert("content-length", HeaderValue::from_static("0"));
            let head =
                Response::builder().header("cf-cloudflared-response-meta", r#"{"src":"origin"}"#).header(
                    "cf-cloudflared-response-headers",
                    adit_protocol::headers::serialized::serialize(&wrapped),
                );
            let mut stream = respond.send_response(head.body(()).unwrap(), false).unwrap();
            let answer = self::head(&mut visitor).await;
            assert!(answer.starts_with("http/1.1 101") && !answer.contains("content-length"), "{answer}");
            visitor.write_all(b"up").await.unwrap();
            let mut body = request.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "up");
            stream.send_data("down".into(), false).unwrap();
            let mut down = [0; 4];
            visitor.read_exact(&mut down).await.unwrap();
            assert_eq!(&down, b"down");
        })
        .await;
}

#[tokio::test]
async fn statuses_that_http_does_not_define_pass_as_they_are() {
    LocalSet::new()
        .run_until(async {
            let (edge, connector) = one().await;
            for status in [600, 999] {
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    connector.accept().await.answer(Response::builder().status(status), b"odd").await;
                });
                assert_eq!((page.status.as_u16(), page.text.as_str()), (status, "odd"));
            }
        })
        .await;
}

/// A frame of HTTP/2 on stream 1.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// A header as it stands in a block, neither compressed nor kept.
fn field(name: &str, value: &str) -> Vec<u8> {
    let name = [&[0, name.len() as u8], name.as_bytes()].concat();
    [name, vec![value.len() as u8], value.as_bytes().to_vec()].concat()
}

#[tokio::test]
async fn pseudo_headers_among_trailers_end_at_the_edge() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connector = http2::Connector::registered(&edge, 100).await;
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            visitor.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
            // POST, http and / stand in the table.
            let head = [
                vec![0x83, 0x86, 0x84],
                field(":authority", "demo.localhost"),
                field("te", "trailers"),
                field("trailer", "x-sum"),
            ];
            let trailers =
                [field(":path", "/private"), field(":authority", "other.localhost"), field("x-sum", "4")];
            visitor.write_all(&frame(1, 4, &head.concat())).await.unwrap();
            visitor.write_all(&frame(0, 0, b"body")).await.unwrap();
            visitor.write_all(&frame(1, 4 | 1, &trailers.concat())).await.unwrap();
            let (request, _respond) = connector.accept().await;
            assert_eq!(request.uri(), "http://demo.localhost/");
            let mut body = request.into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "body");
            assert!(body.data().await.is_none());
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!((trailers.len(), &trailers["x-sum"]), (1, &HeaderValue::from_static("4")));
        })
        .await;
}
