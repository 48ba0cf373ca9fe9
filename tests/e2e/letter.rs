//! HTTP to the letter from one end to the other: what an origin must not say, and what it may.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::bulk::Bulk;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::{Origin, RawOrigin};
use e2e::product::Product;
use e2e::visitor::{Speaks, bare, get, to, with_body};
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn what_an_origin_must_not_say_is_502_and_an_odd_status_is_itself() {
    let switched =
        RawOrigin::start(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
    let socket = RawOrigin::start(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: YQ==\r\n\r\n",
    );
    let coded =
        RawOrigin::start(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    let odd = RawOrigin::start(b"HTTP/1.1 999 Odd\r\nContent-Length: 3\r\n\r\nodd");
    let rule = |host: &str, origin: &RawOrigin| {
        format!("hostname = \"{host}.app.localhost\"\nservice = \"{}\"", origin.service())
    };
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .rule(&rule("switched", &switched))
        .rule(&rule("socket", &socket))
        .rule(&rule("coded", &coded))
        .rule(&rule("odd", &odd))
        .otherwise("http_status:404");
    let product = Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await;
    for speaks in Speaks::ALL {
        for (host, status) in [("switched", 502), ("socket", 502), ("coded", 502), ("odd", 999)] {
            let request = bare(Request::get(format!("http://{host}.app.localhost/")));
            let answer = product.visitor(speaks).send(request).await;
            assert_eq!(answer.status, status, "{speaks:?} {host}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_visitor_that_half_closes_behind_its_request_gets_its_answer() {
    let origin = Origin::start();
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    let mut watched = origin.watch("/asked");
    let mut visitor = product.visitor(Speaks::Http1).dial().await;
    visitor.write_all(b"GET /asked HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await.unwrap();
    visitor.shutdown().await.unwrap();
    watched.arrived().await;
    watched.answer(Response::new(()));
    watched.say("an answer");
    watched.end();
    let mut answer = String::new();
    e2e::within("the answer", visitor.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("an answer"), "{answer}");
}

#[tokio::test]
async fn a_refused_websocket_keeps_its_answer_and_a_length_on_an_upgrade_counts_nothing() {
    let refused = RawOrigin::start(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\n\r\nnot for you");
    let taken = RawOrigin::start(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\nfirst",
    );
    let host = HostDocument::new()
        .over(super::PROTOCOL)
        .rule(&format!("hostname = \"taken.app.localhost\"\nservice = \"{}\"", taken.service()))
        .otherwise(&refused.service());
    let product = Product::start(EdgeDocument::new(&["west"], 1), host).await;
    for _ in 0..10 {
        for (host, status, body) in [("app", "403", "not for you"), ("taken.app", "101", "first")] {
            let ask = format!(
                "GET /ws HTTP/1.1\r\nHost: {host}.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\nContent-Length: 0\r\n\r\n"
            );
            let mut visitor = product.visitor(Speaks::Http1).dial().await;
            visitor.write_all(ask.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(body.as_bytes()) {
                let read = e2e::within("the answer", visitor.read_buf(&mut answer)).await.unwrap();
                assert!(read > 0, "{host}: {}", String::from_utf8_lossy(&answer));
            }
            assert!(answer.starts_with(format!("HTTP/1.1 {status}").as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_head_that_is_all_needs_no_length() {
    let origin = RawOrigin::start(b"HTTP/1.0 200 OK\r\n\r\n");
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&origin.service());
    let product = Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await;
    for speaks in Speaks::ALL {
        let answer = product.visitor(speaks).send(bare(to("GET", "/"))).await;
        assert_eq!((answer.status, answer.body.len()), (200, 0), "{speaks:?}");
    }
}

#[tokio::test]
async fn chunks_win_over_a_length_beside_them() {
    const REST: &str = "\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nchunks\r\n0\r\n\r\n";
    let mut host = HostDocument::new().over(super::PROTOCOL);
    for length in [0, 2, 99] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}{REST}");
        let origin = RawOrigin::start(answer.leak().as_bytes());
        host = host
            .rule(&format!("hostname = \"said-{length}.app.localhost\"\nservice = \"{}\"", origin.service()));
    }
    let host = host.otherwise("http_status:404");
    let product = Product::start(EdgeDocument::new(&["west"], 1).with_https(), host).await;
    for speaks in Speaks::ALL {
        for length in [0, 2, 99] {
            let request = bare(Request::get(format!("http://said-{length}.app.localhost/")));
            let answer = product.visitor(speaks).send(request).await;
            assert_eq!((answer.status, answer.text()), (200, "chunks"), "{speaks:?} {length}");
            assert_eq!(answer.header("content-length"), "", "{speaks:?} {length}");
        }
    }
}

#[tokio::test]
async fn how_long_an_answer_and_an_upload_may_take_is_what_the_edge_is_told() {
    // Its connections come about, and nobody reads or writes a byte.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = format!("http://{}", silent.local_addr().unwrap());
    let host = HostDocument::new().over(super::PROTOCOL).otherwise(&service);
    let edge = EdgeDocument::new(&["west"], 1);
    for keys in ["answer-timeout = \"1s\"", "upload-timeout = \"1s\""] {
        let product = Product::start(edge.clone().for_visitors(keys), host.clone()).await;
        for speaks in [Speaks::Http1, Speaks::Http2] {
            let request = match keys.starts_with("answer") {
                true => get("/"),
                // More than can wait on the way.
                false => with_body(to("POST", "/"), Bulk::new(64 << 20)),
            };
            let began = Instant::now();
            let answer = product.visitor(speaks).send(request).await;
            assert_eq!(answer.status, 504, "{speaks:?} {keys}: {answer:?}");
            assert!(began.elapsed() < Duration::from_secs(60), "{speaks:?} {keys}: {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn a_visitor_that_waits_before_its_upload_gets_a_refusal_at_once_and_is_asked_for_nothing() {
    // One that answers before it has the body may be heard before anything is asked for.
    let origin = Origin::start();
    let rule = format!("hostname = \"app.localhost\"\nservice = {:?}", origin.service());
    let host = HostDocument::new().over(super::PROTOCOL).rule(&rule).otherwise("http_status:404");
    let product = Product::start(EdgeDocument::new(&["west"], 1).without_hold(), host).await;
    let ask = async |host: &str| {
        let mut visitor = product.visitor(Speaks::Http1).dial().await;
        let head = format!(
            "POST /sink HTTP/1.1\r\nHost: {host}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
        );
        visitor.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = e2e::within("a head", visitor.read_buf(&mut answer)).await.unwrap();
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let unknown = ask("unknown.example").await;
    assert!(unknown.starts_with("HTTP/1.1 404 "), "{unknown}");
    assert!(unknown.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{unknown}");
    let taken = ask(HOST).await;
    assert!(taken.starts_with("HTTP/1.1 100 "), "{taken}");
    product.host.process.terminate();
    assert!(product.host.process.exit().await.success());
    let down = ask(HOST).await;
    assert!(down.starts_with("HTTP/1.1 530 "), "{down}");
    assert!(down.to_ascii_lowercase().contains("\r\nconnection: close\r\n"), "{down}");
}
