//! HTTP to the letter from one end to the other: what an origin must not say, and what it may.

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::{Origin, RawOrigin};
use e2e::product::Product;
use e2e::visitor::{Speaks, bare, to};
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
