//! docs/retries.md: a connection on which nothing is heard any more is found out long before it is given
//! up, and requests on it do not wait for that.

use futures_util::future::join_all;
use http::{Request, Response};
use uuid::Uuid;

use crate::connector::{Connector, Habits};
use crate::harness::{AnyBody, Fixture, HOST, LocalSet, full, get, start, start_holding};
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
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                let _asked = silent.accept().await;
                relay.kill();
                let other = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                other.accept().await.ok(b"served").await;
            });
            assert_eq!((page.text.as_str(), page.headers["adit-tries"].to_str().unwrap()), ("served", "2"));
            // Before the connection was given up.
            let retries = &edge.admin("/tunnels/demo").await.1["retries"];
            assert_eq!((&retries["silent"], &retries["broken"]), (&1.into(), &0.into()), "{retries}");
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
                until(&edge, "suspect").await;
                relay.revive();
                opened.ok(b"late").await;
            });
            assert_eq!(page.text, "late");
            assert!(!page.headers.contains_key("adit-tries"));
        })
        .await;
}

fn post() -> Request<AnyBody> {
    Request::post("/").header("host", HOST).body(full("body")).unwrap()
}

/// As many requests as are asked below, half of them of a kind that may not be asked twice.
const MANY: usize = 20;

fn many() -> impl Iterator<Item = Request<AnyBody>> {
    (0..MANY).map(|at| if at % 2 == 0 { post() } else { get("/") })
}

/// Answers so many requests with their bodies.
async fn echo(host: &Connector, count: usize) {
    for _ in 0..count {
        let mut opened = host.accept().await;
        let body = opened.read().await;
        opened.answer(Response::builder(), &body).await;
    }
}

/// Waits until a connection is silent.
async fn silence(edge: &Fixture) {
    until(edge, "silent").await;
}

/// Waits until a connection is found so.
async fn until(edge: &Fixture, state: &str) {
    loop {
        let (_, shown) = edge.admin("/tunnels/demo/replicas").await;
        let mut replicas = shown["replicas"].as_array().unwrap().iter();
        let is_silent = |connection: &serde_json::Value| connection[state] == true;
        if replicas.any(|replica| replica["connections"].as_array().unwrap().iter().any(is_silent)) {
            return;
        }
    }
}

/// Asks many times, answers when all of them wait, and wants every one to have been asked once.
async fn all_wait_for(edge: &Fixture, host: impl Future<Output = Connector>) {
    let asked = join_all(many().map(|request| edge.page(request)));
    let (pages, _host) = tokio::join!(asked, async {
        while edge.admin("/tunnels/demo").await.1["held"] != MANY {}
        let host = host.await;
        echo(&host, MANY).await;
        host
    });
    for page in pages {
        assert_eq!((page.status.as_u16(), page.headers.get("adit-tries")), (200, None), "{page:?}");
    }
}

/// A request to ask with while something else happens. What becomes of it does not matter.
async fn ask(edge: &Fixture) {
    edge.page(post()).await;
    std::future::pending().await
}

#[tokio::test]
async fn nothing_new_is_sent_into_the_silence_of_the_only_host() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            let (relay, silent) = relayed(&edge).await;
            let test = async {
                let _opened = silent.accept().await;
                relay.kill();
                silence(&edge).await;
                all_wait_for(&edge, Connector::registered(&edge, 1, Uuid::new_v4(), 0)).await;
            };
            tokio::select! { () = test => {}, () = ask(&edge) => {} }
        })
        .await;
}

#[tokio::test]
async fn nothing_new_is_sent_into_the_silence_of_the_only_host_over_http2() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            let relay = Relay::tcp(edge.servers[0]).await;
            let mut silent = http2::Connector::registered_as(&edge, relay.address, 100, &[]).await;
            let test = async {
                let _asked = silent.accept().await;
                relay.kill();
                silence(&edge).await;
                all_wait_for(&edge, Connector::registered(&edge, 1, Uuid::new_v4(), 0)).await;
            };
            tokio::select! { () = test => {}, () = ask(&edge) => {} }
        })
        .await;
}

#[tokio::test]
async fn a_host_that_is_heard_again_gets_what_waited_for_it() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            let (relay, host) = relayed(&edge).await;
            let test = async {
                let _opened = host.accept().await;
                relay.kill();
                silence(&edge).await;
                let heard = async {
                    relay.revive();
                    host
                };
                all_wait_for(&edge, heard).await;
            };
            tokio::select! { () = test => {}, () = ask(&edge) => {} }
        })
        .await;
}

#[tokio::test]
async fn what_one_replica_is_too_silent_for_another_gets_at_once() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            let (relay, silent) = relayed(&edge).await;
            let test = async {
                let _opened = silent.accept().await;
                let other = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                relay.kill();
                silence(&edge).await;
                let asked = join_all(many().map(|request| edge.page(request)));
                let (pages, ()) = tokio::join!(asked, echo(&other, MANY));
                assert!(pages.iter().all(|page| page.status.as_u16() == 200), "{pages:?}");
                assert_eq!(edge.admin("/tunnels/demo").await.1["held_total"], 0);
            };
            tokio::select! { () = test => {}, () = ask(&edge) => {} }
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_holds_nothing_asks_a_silent_host_after_all() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (relay, host) = relayed(&edge).await;
            let test = async {
                let _opened = host.accept().await;
                relay.kill();
                silence(&edge).await;
                let (page, ()) = tokio::join!(edge.page(post()), async {
                    // It is under way, and waits for nothing but the line.
                    while edge.admin("/tunnels/demo").await.1["requests"] != 2 {}
                    relay.revive();
                    echo(&host, 1).await;
                });
                assert_eq!(page.status.as_u16(), 200);
            };
            tokio::select! { () = test => {}, () = ask(&edge) => {} }
        })
        .await;
}
