//! Who gets to serve a tunnel, and how a connection comes and goes.

use adit_protocol::credentials::{Credentials, TunnelSecret};
use rustls::crypto::aws_lc_rs::kx_group;
use uuid::Uuid;

use crate::connector::{Connector, Habits, dial, registration};
use crate::harness::{LocalSet, get, start};

#[tokio::test]
async fn the_right_secret_registers_and_the_connection_serves() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::connect(&edge.ca, edge.servers[1], Habits::default()).await;
            let details = connector.expect_registration(&edge, Uuid::new_v4(), 0).await;
            assert_eq!(details.location_name, "east-1");
            assert!(!details.tunnel_is_remotely_managed);
            let (page, ()) =
                tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"hello").await });
            assert_eq!((page.status.as_u16(), page.text.as_str()), (200, "hello"));
        })
        .await;
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_tunnel_get_the_same_refusal_and_a_normal_close() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let right = &edge.credentials;
            let wrong = [
                Credentials { tunnel_secret: TunnelSecret::new(&[8; 32]).unwrap(), ..right.clone() },
                Credentials { account_tag: "another".to_owned(), ..right.clone() },
                Credentials { tunnel_id: Uuid::new_v4(), ..right.clone() },
            ];
            let mut causes = Vec::new();
            for credentials in wrong {
                let connector = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
                let error = connector.expect_refusal(&registration(&credentials, Uuid::new_v4(), 0)).await;
                assert!(error.cause.starts_with("Unauthorized") && !error.should_retry, "{error:?}");
                causes.push(error.cause);
                // The second chance on the same connection is none.
                let again = connector.expect_refusal(&registration(right, Uuid::new_v4(), 0)).await;
                assert!(!again.should_retry);
                assert_eq!(connector.closed().await, Some(0));
            }
            causes.dedup();
            assert_eq!(causes.len(), 1, "{causes:?}");
            assert_eq!(edge.page(get("/")).await.status.as_u16(), 530);
        })
        .await;
}

#[tokio::test]
async fn a_connection_serves_nothing_before_it_has_registered() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
            assert!(connector.unregister().await.is_err());
            assert!(connector.report(b"{}").await.is_err());
            assert_eq!(edge.page(get("/")).await.status.as_u16(), 530);
            connector.expect_registration(&edge, Uuid::new_v4(), 0).await;
            let (page, ()) =
                tokio::join!(edge.page(get("/")), async { connector.accept().await.ok(b"").await });
            assert_eq!(page.status.as_u16(), 200);
        })
        .await;
}

#[tokio::test]
async fn the_same_slot_of_a_living_connector_is_a_duplicate_and_of_a_dead_one_is_not() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let client = Uuid::new_v4();
            let first = Connector::registered(&edge, 0, client, 0).await;
            let second = Connector::connect(&edge.ca, edge.servers[1], Habits::default()).await;
            let error = second.expect_refusal(&registration(&edge.credentials, client, 0)).await;
            assert_eq!(error.cause, "EDUPCONN");
            let other_slot = Connector::registered(&edge, 1, client, 1).await;

            first.connection.close(0u32.into(), b"");
            let again = loop {
                // Until the edge has seen the end of the first one.
                let again = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
                match again.register(&registration(&edge.credentials, client, 0)).await {
                    adit_protocol::rpc::RegistrationAnswer::Registered(_) => break again,
                    adit_protocol::rpc::RegistrationAnswer::Refused(error) => {
                        assert_eq!(error.cause, "EDUPCONN")
                    }
                }
            };
            let mut replacing = registration(&edge.credentials, client, 0);
            replacing.options.replace_existing = true;
            let pushy = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
            pushy.register(&replacing).await;
            assert_eq!(again.closed().await, Some(0));
            drop(other_slot);
        })
        .await;
}

#[tokio::test]
async fn a_tunnel_has_at_most_a_hundred_connections() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut connectors = Vec::new();
            for _ in 0..100 {
                connectors.push(Connector::registered(&edge, 0, Uuid::new_v4(), 0).await);
            }
            let one_more = Connector::connect(&edge.ca, edge.servers[1], Habits::default()).await;
            let error = one_more.expect_refusal(&registration(&edge.credentials, Uuid::new_v4(), 0)).await;
            assert!(error.cause.contains("100 connections") && error.should_retry, "{error:?}");
        })
        .await;
}

#[tokio::test]
async fn after_unregister_no_request_begins_and_those_under_way_finish() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let leaving = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            let under_way = async {
                let opened = leaving.accept().await;
                leaving.unregister().await.unwrap();
                // Only the other connection may get this one.
                let staying = Connector::registered(&edge, 1, Uuid::new_v4(), 0).await;
                for _ in 0..4 {
                    let (page, ()) = tokio::join!(edge.page(get("/")), async {
                        staying.accept().await.ok(b"other").await
                    });
                    assert_eq!(page.text, "other");
                }
                opened.ok(b"finished").await;
                staying
            };
            let (page, _staying) = tokio::join!(edge.page(get("/")), under_way);
            assert_eq!(page.text, "finished");
            assert_eq!(leaving.closed().await, Some(0));
        })
        .await;
}

#[tokio::test]
async fn a_lost_connection_leaves_the_tunnel_without_one() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
            connector.connection.close(0u32.into(), b"gone");
            while edge.admin("/ready").await.1["connections"] != 0 {}
            assert_eq!(edge.page(get("/")).await.status.as_u16(), 530);
        })
        .await;
}

#[tokio::test]
async fn both_groups_of_the_reference_connector_are_spoken_and_no_others() {
    let edge = start();
    for (group, spoken) in
        [(kx_group::X25519MLKEM768, true), (kx_group::SECP256R1, true), (kx_group::X25519, false)]
    {
        let habits = Habits { groups: vec![group], ..Habits::default() };
        assert_eq!(dial(&edge.ca, edge.servers[0], habits).await.is_ok(), spoken, "{group:?}");
    }
    // A key share for a group that the edge does not have, and P-256 by HelloRetryRequest.
    let groups = vec![kx_group::X25519, kx_group::SECP256R1];
    assert!(dial(&edge.ca, edge.servers[0], Habits { groups, ..Habits::default() }).await.is_ok());
}

#[tokio::test]
async fn every_name_that_connectors_ask_for_is_in_the_certificate() {
    let edge = start();
    for server_name in ["quic.cftunnel.com", "h2.cftunnel.com", "probe.cftunnel.com"] {
        let habits = Habits { server_name, ..Habits::default() };
        dial(&edge.ca, edge.servers[0], habits).await.unwrap();
    }
    let habits = Habits { server_name: "example.com", ..Habits::default() };
    assert!(dial(&edge.ca, edge.servers[0], habits).await.is_err());
    let habits = Habits { alpn: "h3", ..Habits::default() };
    assert!(dial(&edge.ca, edge.servers[0], habits).await.is_err());
}

#[tokio::test]
async fn the_admin_listener_tells_who_is_connected() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let client = Uuid::new_v4();
            let (_one, two) = (
                Connector::registered(&edge, 0, client, 0).await,
                Connector::registered(&edge, 1, client, 1).await,
            );
            two.report(b"{\"ingress\":[]}").await.unwrap();
            let (status, ready) = edge.admin("/ready").await;
            assert_eq!((status.as_u16(), &ready["connections"]), (200, &2.into()));
            assert_eq!(edge.admin("/healthcheck").await.0.as_u16(), 200);
            assert_eq!(edge.admin("/other").await.0.as_u16(), 404);
            let (_, status) = edge.admin("/status").await;
            assert_eq!(status["servers"][1]["region"], "east");
            let connections = status["tunnels"][0]["connections"].as_array().unwrap();
            let second = connections.iter().find(|connection| connection["index"] == 1).unwrap();
            assert_eq!(second["connector"], client.to_string());
            assert_eq!(second["server"], "east-1");
            assert_eq!(second["version"], "test");
            assert_eq!(second["configuration"]["bytes"], 14);
            // Who may read the status must not learn what opens the tunnel.
            assert!(!status.to_string().contains(&edge.credentials.account_tag));
        })
        .await;
}
