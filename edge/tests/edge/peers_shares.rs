//! What strangers may have of the connections between two nodes, and what a node hands on that wanted to be a WebSocket
//! and is none.

use adit_protocol::credentials::Credentials;
use adit_protocol::stream::Connect;
use futures_util::future::join_all;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::connector::{Connector, Habits};
use crate::etcd::Server;
use crate::harness::{LocalSet, empty};
use crate::peers::{NAME, found, knows, two, until};
use crate::steering::{Does, Host};
use crate::strangers::allow_files;

#[tokio::test]
async fn a_page_in_the_place_of_a_websocket_crosses_a_second_node_as_a_page() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (_, token)) = two(&server).await;
            other.edge.credentials = Credentials::from_token(&token).unwrap();
            let connector = Connector::registered(&other.edge, 0, uuid::Uuid::new_v4(), 0).await;
            let serve = async {
                for turn in 0.. {
                    let opened = connector.accept().await;
                    let answer = Response::builder().status(if turn % 2 == 0 { 200 } else { 203 });
                    if matches!(opened.connect, Connect::WebSocket(_)) {
                        opened.answer(answer.header("content-length", "4"), b"page").await;
                    } else {
                        opened.ok(b"").await;
                    }
                }
            };
            let visit = async {
                found(&one).await;
                let mut seen = Vec::new();
                for _ in 0..2 {
                    let mut visitor = TcpStream::connect(one.edge.http).await.unwrap();
                    let ask = format!(
                        "GET /ws HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: a2V5\r\n\r\n"
                    );
                    visitor.write_all(ask.as_bytes()).await.unwrap();
                    let mut answer = Vec::new();
                    while !answer.ends_with(b"page") {
                        assert!(visitor.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
                    }
                    let text = String::from_utf8(answer).unwrap().to_ascii_lowercase();
                    assert!(!text.contains("adit-not-switched"), "{text}");
                    seen.push(text.get(9..12).unwrap().to_owned());
                }
                seen.sort();
                assert_eq!(seen, ["200", "203"]);
            };
            tokio::select! {
                () = serve => {}
                () = visit => {}
            }
        })
        .await;
}

/// Two tunnels whose hosts are at another node. The visitors of one wait for answers that do not come, more of them
/// than the connections between the nodes of two shards take.
#[tokio::test]
async fn the_visitors_of_one_tunnel_leave_those_of_another_room_between_two_nodes() {
    const STALLED: usize = 2_250;
    allow_files();
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (tunnel, token)) = two(&server).await;
            let _host = Host::join(&mut other, (&tunnel, &token), "there", Does::Serve).await;
            found(&one).await;
            let (_, slow_token) = one.tunnel_named("slow").await;
            let slow = Credentials::from_token(&slow_token).unwrap();
            one.route(&slow.tunnel_id.to_string(), "slow.example.com", false).await.result();
            until("the other node has heard of it", async || knows(&other.edge, &slow_token).await).await;
            other.edge.credentials = slow;
            let habits = Habits { streams: 4 * STALLED as u32, ..Habits::default() };
            let at = other.edge.servers[0];
            let connector = Connector::registered_as(&other.edge, at, habits, uuid::Uuid::new_v4(), 0).await;
            let held = std::cell::RefCell::new(Vec::new());
            let hold = async {
                loop {
                    let opened = connector.accept().await;
                    held.borrow_mut().push(opened);
                }
            };
            let ask = || async {
                let mut visitor = TcpStream::connect(one.edge.http).await.unwrap();
                visitor.write_all(b"GET / HTTP/1.1\r\nHost: slow.example.com\r\n\r\n").await.unwrap();
                visitor
            };
            let visit = async {
                until("the node knows of the slow host", async || {
                    let _asked = ask().await;
                    !held.borrow().is_empty()
                })
                .await;
                let _stalled = join_all((0..STALLED).map(|_| ask())).await;
                // As many as there may be are under way.
                let mut before = 0;
                until("no more of them get there", async || {
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    let now = held.borrow().len();
                    std::mem::replace(&mut before, now) == now && now > 200
                })
                .await;
                for _ in 0..5 {
                    let page =
                        one.edge.page(Request::get("/").header("host", NAME).body(empty()).unwrap()).await;
                    assert_eq!(page.status, StatusCode::OK, "{page:?}, beside {before}");
                }
                assert!(before < STALLED, "{before} of one tunnel");
            };
            tokio::select! {
                () = hold => {}
                () = visit => {}
            }
        })
        .await;
}
