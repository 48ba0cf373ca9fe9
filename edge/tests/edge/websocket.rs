//! The WebSocket upgrade: what is asked, what is answered, and bytes both ways afterwards.

use adit_protocol::stream::Connect;
use http::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::{Connector, Opened};
use crate::harness::{Fixture, LocalSet, start};

const ASK: &[u8] = b"GET /ws HTTP/1.1\r\nHost: demo.localhost\r\nConnection: keep-alive, Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n\r\n";

async fn upgraded() -> (Fixture, Connector, TcpStream, Opened) {
    let edge = start();
    let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
    let mut visitor = TcpStream::connect(edge.http).await.unwrap();
    visitor.write_all(ASK).await.unwrap();
    let mut opened = connector.accept().await;
    assert!(matches!(opened.connect, Connect::WebSocket(_)));
    assert_eq!(opened.request().headers()["sec-websocket-key"], "a2V5");
    opened.head(Response::builder().status(101).header("sec-websocket-accept", "YWNjZXB0")).await;
    // With the head, as an eager origin does.
    opened.send.write_all(b"eager").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\neager") {
        assert!(visitor.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    for line in
        ["http/1.1 101", "upgrade: websocket", "connection: upgrade", "sec-websocket-accept: ywnjzxb0"]
    {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    (edge, connector, visitor, opened)
}

#[tokio::test]
async fn bytes_go_both_ways_after_the_upgrade() {
    LocalSet::new()
        .run_until(async {
            let (_edge, _connector, mut visitor, mut opened) = upgraded().await;
            for turn in 0..3u8 {
                visitor.write_all(&[turn; 5000]).await.unwrap();
                let mut there = [0; 5000];
                opened.recv.read_exact(&mut there).await.unwrap();
                opened.send.write_all(&there).await.unwrap();
                let mut back = [9; 5000];
                visitor.read_exact(&mut back).await.unwrap();
                assert_eq!(back, [turn; 5000]);
            }
        })
        .await;
}

#[tokio::test]
async fn each_direction_ends_for_itself() {
    LocalSet::new()
        .run_until(async {
            let (_edge, _connector, mut visitor, mut opened) = upgraded().await;
            visitor.write_all(b"last words").await.unwrap();
            visitor.shutdown().await.unwrap();
            assert_eq!(opened.recv.read_to_end(100).await.unwrap(), b"last words");
            opened.send.write_all(b"answer").await.unwrap();
            opened.send.finish().unwrap();
            let mut answer = Vec::new();
            visitor.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"answer");
        })
        .await;
}

#[tokio::test]
async fn an_origin_that_breaks_off_ends_the_visitors_websocket() {
    LocalSet::new()
        .run_until(async {
            let (_edge, _connector, mut visitor, mut opened) = upgraded().await;
            opened.send.reset(0u32.into()).unwrap();
            let mut rest = Vec::new();
            let _ = visitor.read_to_end(&mut rest).await;
            assert!(rest.is_empty());
            assert!(opened.recv.read_to_end(100).await.is_err());
        })
        .await;
}

#[tokio::test]
async fn an_origin_may_decline_the_upgrade() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let mut visitor = TcpStream::connect(edge.http).await.unwrap();
            visitor.write_all(ASK).await.unwrap();
            let declining = Response::builder().status(403).header("content-length", 2);
            connector.accept().await.answer(declining, b"no").await;
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\nno") {
                assert!(visitor.read_buf(&mut answer).await.unwrap() > 0);
            }
            assert!(answer.starts_with(b"HTTP/1.1 403"));
        })
        .await;
}
