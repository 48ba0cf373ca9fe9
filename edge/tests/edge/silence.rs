//! docs/retries.md: a connection on which nothing is heard any more is found out long before it is given
//! up, and requests on it do not wait for that.

use std::time::{Duration, Instant};

use http::Request;
use uuid::Uuid;

use crate::connector::{Connector, Habits};
use crate::harness::{Fixture, HOST, LocalSet, full, get, start};
use crate::http2;
use crate::relay::Relay;

/// A connector behind a line that can die.
async fn relayed(edge: &Fixture) -> (Relay, Connector) {
    let relay = Relay::udp(edge.servers[0]).await;
    let connector = Connector::registered_as(edge, relay.address, Habits::default(), Uuid::new_v4(), 0).await;
    (relay, connector)
}

#[tokio::test]
async fn a_request_on_a_dead_line_is_served_elsewhere_at_once() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (relay, silent) = relayed(&edge).await;
            let (page, other) = tokio::join!(edge.page(get("/")), async {
                let _opened = silent.accept().await;
                relay.kill();
                let other = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                other.accept().await.ok(b"served").await;
                other
            });
            assert_eq!((page.text.as_str(), page.headers["adit-tries"].to_str().unwrap()), ("served", "2"));
            // From now on it is chosen last, which nobody has to wait for.
            for _ in 0..10 {
                let (page, ()) =
                    tokio::join!(edge.page(get("/")), async { other.accept().await.ok(b"").await });
                assert!(!page.headers.contains_key("adit-tries"));
            }
        })
        .await;
}

#[tokio::test]
async fn the_same_over_http2() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let relay = Relay::tcp(edge.servers[0]).await;
            let mut silent = http2::Connector::registered_as(&edge, relay.address, 100, &[]).await;
            let began = Instant::now();
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                let _asked = silent.accept().await;
                relay.kill();
                let other = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                other.accept().await.ok(b"served").await;
            });
            assert_eq!((page.text.as_str(), page.headers["adit-tries"].to_str().unwrap()), ("served", "2"));
            // Long before the connection is given up.
            assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
        })
        .await;
}

#[tokio::test]
async fn what_may_not_be_asked_twice_waits_to_the_end() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (relay, silent) = relayed(&edge).await;
            let asked = Request::post("/").header("host", HOST).body(full("body")).unwrap();
            let (page, other) = tokio::join!(edge.page(asked), async {
                let opened = silent.accept().await;
                relay.kill();
                let other = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                drop(opened);
                other
            });
            assert_eq!(page.status.as_u16(), 502);
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                let opened = other.accept().await;
                assert_eq!(opened.request().method(), "GET");
                opened.ok(b"").await;
            });
            assert_eq!(page.status.as_u16(), 200);
        })
        .await;
}

#[tokio::test]
async fn where_there_is_nobody_else_a_request_waits_for_the_line_to_come_back() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (relay, silent) = relayed(&edge).await;
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                let opened = silent.accept().await;
                relay.kill();
                // Longer than it takes to be suspect, shorter than it takes to be lost.
                tokio::time::sleep(Duration::from_millis(2500)).await;
                relay.revive();
                opened.ok(b"late").await;
            });
            assert_eq!(page.text, "late");
            assert!(!page.headers.contains_key("adit-tries"));
        })
        .await;
}
