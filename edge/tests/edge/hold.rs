//! docs/retries.md: requests of a tunnel that has just lost its connections wait for it to come back.

use http::{Request, Response};
use uuid::Uuid;

use crate::connector::{Connector, Opened};
use crate::harness::{Fixture, HOST, LocalSet, full, get, start, start_holding};

async fn register(edge: &Fixture) -> Connector {
    Connector::registered(edge, 0, Uuid::new_v4(), 0).await
}

/// Answers with the body of the request.
async fn echo(mut opened: Opened) {
    let body = opened.read().await;
    opened.answer(Response::builder(), &body).await;
}

#[tokio::test]
async fn a_request_at_an_edge_that_has_just_started_waits_for_a_host() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            let asked = Request::post("/").header("host", HOST).body(full("body")).unwrap();
            let (first, second, ()) = tokio::join!(edge.page(asked), edge.page(get("/")), async {
                // Whoever comes first has sent its request by then.
                edge.admin("/ready").await;
                let host = register(&edge).await;
                tokio::join!(async { echo(host.accept().await).await }, async {
                    echo(host.accept().await).await;
                });
            });
            assert_eq!((first.status.as_u16(), first.text.as_str()), (200, "body"));
            assert_eq!((second.status.as_u16(), second.text.as_str()), (200, ""));
            // Waiting is not trying.
            assert!(!first.headers.contains_key("adit-tries"));
        })
        .await;
}

#[tokio::test]
async fn a_tunnel_that_lost_its_last_connection_gets_its_requests_when_it_is_back() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            for is_graceful in [true, false] {
                let host = register(&edge).await;
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    echo(host.accept().await).await;
                    if is_graceful {
                        host.unregister().await.unwrap();
                    } else {
                        host.connection.close(0u32.into(), b"killed");
                    }
                });
                assert_eq!(page.status.as_u16(), 200);
                // What goes to a connection that is dying may have been seen, and would be 502.
                while edge.admin("/ready").await.1["connections"] != 0 {}
                let asked = Request::post("/").header("host", HOST).body(full("body")).unwrap();
                let (page, ()) = tokio::join!(edge.page(asked), async {
                    let host = register(&edge).await;
                    echo(host.accept().await).await;
                    // For the next round.
                    host.unregister().await.unwrap();
                });
                assert_eq!((page.status.as_u16(), page.text.as_str()), (200, "body"));
            }
        })
        .await;
}

#[tokio::test]
async fn a_request_whose_only_connection_is_lost_waits_for_the_next_one() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("10s");
            for is_refusal in [true, false] {
                let host = register(&edge).await;
                let (page, ()) = tokio::join!(edge.page(get("/")), async {
                    let opened = host.accept().await;
                    if is_refusal {
                        opened.turn_away();
                        host.unregister().await.unwrap();
                    } else {
                        host.connection.close(0u32.into(), b"killed");
                    }
                    let host = register(&edge).await;
                    echo(host.accept().await).await;
                    host.unregister().await.unwrap();
                });
                assert_eq!(page.status.as_u16(), 200);
                assert_eq!(page.headers["adit-tries"], "2");
            }
        })
        .await;
}

#[tokio::test]
async fn a_request_that_has_waited_long_enough_is_530() {
    LocalSet::new()
        .run_until(async {
            let edge = start_holding("300ms");
            let began = std::time::Instant::now();
            assert_eq!(edge.page(get("/")).await.status.as_u16(), 530);
            assert!(began.elapsed().as_millis() >= 300);
            // What may have been seen is not said to have met nobody.
            let host = register(&edge).await;
            let (page, ()) = tokio::join!(edge.page(get("/")), async {
                let _opened = host.accept().await;
                host.connection.close(0u32.into(), b"killed");
            });
            assert_eq!(page.status.as_u16(), 502);
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_holds_nothing_says_at_once_that_nobody_is_there() {
    let edge = start();
    let began = std::time::Instant::now();
    assert_eq!(edge.page(get("/")).await.status.as_u16(), 530);
    assert!(began.elapsed().as_secs() < 5);
}
