//! What one visitor takes is not taken from others, and a full tunnel serves as soon as there is room anywhere.

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::connector::{Connector, Habits};
use crate::harness::{HOST, LocalSet, empty, get, start, start_for_visitors};

#[tokio::test]
async fn a_visitor_with_enough_connections_gets_no_more_until_one_ends() {
    let keys = "connections-per-address = 2\nunlimited-addresses = []";
    let edge = start_for_visitors(keys);
    let ask = async |visitor: &mut TcpStream| {
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        // Whoever was closed may be told so by either.
        let Ok(()) = visitor.write_all(request.as_bytes()).await else { return false };
        let mut answer = [0; 12];
        visitor.read_exact(&mut answer).await.is_ok_and(|_| &answer == b"HTTP/1.1 530")
    };
    let mut visitors = Vec::new();
    for _ in 0..2 {
        visitors.push(TcpStream::connect(edge.http).await.unwrap());
        assert!(ask(visitors.last_mut().unwrap()).await);
    }
    for address in [edge.http, edge.https] {
        let mut visitor = TcpStream::connect(address).await.unwrap();
        assert!(!ask(&mut visitor).await, "{address}");
    }
    visitors.pop();
    // The edge sees the end a little later.
    while !ask(&mut TcpStream::connect(edge.http).await.unwrap()).await {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_visitor_with_enough_requests_under_way_is_told_so_and_connections_do_not_matter() {
    LocalSet::new()
        .run_until(async {
            let edge = start_for_visitors("requests-per-address = 1\nunlimited-addresses = []");
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let asked = async {
                let opened = connector.accept().await;
                let one_more = Request::get("/").header("host", HOST).header("accept", "application/json");
                let page = edge.page(one_more.body(empty()).unwrap()).await;
                assert_eq!(
                    (page.status.as_u16(), &page.headers["retry-after"]),
                    (429, &"1".parse().unwrap())
                );
                assert!(page.text.contains("too-many-requests"), "{}", page.text);
                opened.ok(b"whole").await;
            };
            let (page, ()) = tokio::join!(edge.page(get("/")), asked);
            assert_eq!(page.text, "whole");
            // Its end makes room, and so does that of the one that was refused.
            let (page, ()) =
                tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"").await });
            assert_eq!(page.status.as_u16(), 200);
        })
        .await;
}

#[tokio::test]
async fn a_request_that_finds_all_connections_full_goes_over_the_first_that_has_room() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let client = Uuid::new_v4();
            let mut connectors = Vec::new();
            for index in 0..2 {
                let habits = Habits { streams: 1, ..Habits::default() };
                let address = edge.servers[usize::from(index)];
                connectors.push(Connector::registered_as(&edge, address, habits, client, index).await);
            }
            // Whichever of the two it would have waited for: one of these makes room, the other never does.
            for freed in 0..2 {
                let (first, second) = (edge.page(get("/first")), edge.page(get("/second")));
                let third = async {
                    let mut opened = vec![connectors[0].accept().await, connectors[1].accept().await];
                    let page = edge.page(get("/third"));
                    let served = async {
                        opened.remove(freed).ok(b"").await;
                        connectors[freed].accept().await.ok(b"third").await;
                    };
                    let (page, ()) = tokio::join!(page, served);
                    assert_eq!(page.text, "third");
                    opened.remove(0).ok(b"").await;
                };
                let (first, second, ()) = tokio::join!(first, second, third);
                assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
            }
        })
        .await;
}
