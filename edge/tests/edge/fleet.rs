//! Edges that keep their state in etcd: what one is told all serve, and what is known is served without it.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_edge::{Provisioning, Settings, TokenRequest};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::etcd::Server;
use crate::harness::{LocalSet, empty, http1, read, start_told};
use crate::office::{API, Office};
use crate::steering::{Does, Host};

/// An edge of the fleet, in a folder of its own. The first one makes the fleet.
async fn node(server: &Server) -> Office {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let more = format!("{API}[store]\nurl = {:?}\nallow-old = true\n", server.address("main"));
    let document = format!(
        "data-dir = \"edge-data\"\n[visitors]\nhttp = \"127.0.0.1:0\"\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n{more}"
    );
    // What seals secrets is the same at all of them.
    let data = folder.path().join("edge-data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("seal.key"), "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n").unwrap();
    let path = folder.path().join("first.toml");
    fs::write(&path, document).unwrap();
    let settings = Settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
    let zones = ["example.com".to_owned()];
    let (ledger, founding) = Provisioning::found_for(&settings, "main", &zones).await.unwrap();
    let (_, token) = ledger.create_token(TokenRequest::default()).await.unwrap();
    Office {
        edge: start_told(folder, "", &more),
        ledger,
        account: founding.account,
        zone: founding.zones[0].1.clone(),
        token: token.as_str().to_owned(),
    }
}

/// Ends a node and starts it again, whatever became of the store.
async fn restart(office: &mut Office, server: &Server) {
    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
    let more = format!("{API}[store]\nurl = {:?}\nallow-old = true\n", server.address("main"));
    office.edge = start_told(office.edge.folder.clone(), "", &more);
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < end, "after a minute: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

async fn ready(office: &Office) -> Value {
    let request = Request::get("/ready").header("host", "localhost").body(empty()).unwrap();
    let page = read(http1(office.edge.admin, request).await).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    serde_json::from_str(&page.text).unwrap()
}

#[tokio::test]
async fn what_one_edge_of_a_fleet_is_told_all_of_them_serve() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, mut other) = (node(&server).await, node(&server).await);
            assert_eq!(
                (&one.account, &one.zone),
                (&other.account, &other.zone),
                "the second joins what is there"
            );
            let host = Host::start(&mut one, "app", Does::Serve).await;
            one.route(&host.tunnel, "app.example.com", false).await.result();
            // The same tunnel connects to the other edge, whose visitors find it.
            let there = Host::join(&mut other, (&host.tunnel, &host.token), "there", Does::Serve).await;
            until("the other edge knows the name", async || {
                other.visit("app.example.com").await == StatusCode::OK
            })
            .await;
            assert_eq!(one.visit("app.example.com").await, StatusCode::OK);
            assert_eq!(other.get(&other.tunnel(&host.tunnel)).await["name"], "app");
            // A token that one has ended opens nothing at the other, at once.
            let (id, text) = one.ledger.create_token(TokenRequest::default()).await.unwrap();
            other.ask_as(text.as_str(), Method::GET, "/zones", None).await.result();
            one.ledger.revoke_token(&id).await.unwrap();
            let refused = other.ask_as(text.as_str(), Method::GET, "/zones", None).await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
            // Of two that change the same at once one is told so.
            let body = || Some(json!({ "name": "renamed" }));
            let path = one.tunnel(&host.tunnel);
            let (first, second) = tokio::join!(
                one.ask(Method::PATCH, &path, body()),
                other.ask(Method::PATCH, &path, Some(json!({ "name": "otherwise" })))
            );
            assert!([first.status, second.status].contains(&StatusCode::OK));
            let actions: Vec<_> =
                one.ledger.audit(50).await.unwrap().into_iter().map(|line| line.action).collect();
            for action in ["account.create", "zone.create", "token.create", "tunnel.create", "token.revoke"] {
                assert!(actions.iter().any(|known| known == action), "{action}: {actions:?}");
            }
            drop(there);
        })
        .await;
}

#[tokio::test]
async fn an_edge_serves_without_its_store_also_after_a_restart_refuses_changes_and_catches_up() {
    let Some(mut server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, other) = (node(&server).await, node(&server).await);
            let host = Host::start(&mut one, "app", Does::Serve).await;
            one.route(&host.tunnel, "app.example.com", false).await.result();
            assert_eq!(one.visit("app.example.com").await, StatusCode::OK);
            let begun = Instant::now();
            server.stop();
            assert_eq!(one.visit("app.example.com").await, StatusCode::OK);
            let refused = one.ask(Method::POST, &one.tunnels(), Some(json!({ "name": "more" }))).await;
            refused.refused(503, "cannot change its state now");

            // Whoever holds a token that was revoked elsewhere meanwhile must not read on.
            one.ask(Method::GET, &one.tunnels(), None).await.result();
            until("it does not know who may read", async || {
                one.ask(Method::GET, &one.tunnels(), None).await.status == StatusCode::SERVICE_UNAVAILABLE
            })
            .await;
            assert!(begun.elapsed() > Duration::from_secs(25), "a moment without etcd ends nobody's reading");
            assert!(
                ready(&one).await["store"].as_str().is_some_and(|store| store.starts_with("stale since 20"))
            );

            host.kill();
            restart(&mut one, &server).await;
            let back = Host::join(&mut one, (&host.tunnel, &host.token), "back", Does::Serve).await;
            until("it serves what it knew", async || one.visit("app.example.com").await == StatusCode::OK)
                .await;
            // A restart is no new beginning for whoever reads.
            let reply = one.ask(Method::GET, &one.tunnels(), None).await;
            reply.refused(503, "cut off from the fleet's store");
            assert!(
                ready(&one).await["store"].as_str().is_some_and(|store| store.starts_with("stale since 20"))
            );

            server.start_again().await;
            // Changed at another edge, while this one may still serve what it knew.
            until("the other edge takes changes again", async || {
                other.route(&host.tunnel, "new.example.com", false).await.status == StatusCode::OK
            })
            .await;
            until("it has caught up", async || one.visit("new.example.com").await == StatusCode::OK).await;
            assert!(ready(&one).await["store"].is_null());
            one.ask(Method::POST, &one.tunnels(), Some(json!({ "name": "more" }))).await.result();
            drop(back);
        })
        .await;
}
