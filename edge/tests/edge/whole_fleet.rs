//! What is true of a fleet as a whole, whichever of its nodes is asked: which connections a tunnel has, how it stands,
//! that a host has each connection once, and what was changed at two nodes at once.

use adit_protocol::credentials::Credentials;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::connector::{Connector, Habits};
use crate::etcd::Server;
use crate::harness::{Fixture, LocalSet, empty, full, http1, read};
use crate::office::Office;
use crate::peers::{NAME, found, two, until};
use crate::steering::{Does, Host};

/// A connection with this index of one connector, at a node.
async fn connection(node: &mut Office, token: &str, connector: Uuid, index: u8) -> Connector {
    node.edge.credentials = Credentials::from_token(token).unwrap();
    let at = node.edge.servers[0];
    Connector::registered_as(&node.edge, at, Habits::default(), connector, index).await
}

async fn shown(node: &Office, tunnel: &str) -> Value {
    node.get(&node.tunnel(tunnel)).await
}

async fn connections(node: &Office, tunnel: &str) -> Vec<Value> {
    shown(node, tunnel).await["connections"].as_array().unwrap().clone()
}

fn ids(connections: &[Value]) -> Vec<&str> {
    let mut ids: Vec<&str> = connections.iter().map(|one| one["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn a_tunnels_connections_and_its_status_are_those_of_all_nodes_whichever_is_asked() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, mut other, (tunnel, token)) = two(&server).await;
            let connector = Uuid::new_v4();
            let mut held = Vec::new();
            for index in 0..4_u8 {
                let node = if index < 3 { &mut one } else { &mut other };
                held.push(connection(node, &token, connector, index).await);
                let status = if index < 3 { "degraded" } else { "healthy" };
                for node in [&one, &other] {
                    until("each node knows of it", async || {
                        let page = shown(node, &tunnel).await;
                        let count = page["connections"].as_array().unwrap().len();
                        (count, &page["status"]) == (usize::from(index) + 1, &json!(status))
                    })
                    .await;
                }
            }
            let (here, there) = (connections(&one, &tunnel).await, connections(&other, &tunnel).await);
            assert_eq!(ids(&here), ids(&there));
            for one in here.iter().chain(&there) {
                assert_eq!(one["client_id"], connector.to_string());
                assert_eq!(
                    (&one["origin_ip"], &one["is_pending_reconnect"]),
                    (&json!("127.0.0.1"), &json!(false))
                );
            }
            // In each list, and by the connector.
            for node in [&one, &other] {
                let page = node.get(&node.tunnels()).await;
                let listed =
                    page.as_array().unwrap().iter().find(|one| one["id"] == tunnel.as_str()).unwrap();
                assert_eq!(
                    (listed["connections"].as_array().unwrap().len(), &listed["status"]),
                    (4, &json!("healthy"))
                );
                let healthy = node.get(&format!("{}?status=healthy", node.tunnels())).await;
                assert_eq!(healthy.as_array().unwrap().len(), 1, "{healthy}");
                let all = node.get(&format!("{}/connections", node.tunnel(&tunnel))).await;
                assert_eq!(
                    (all.as_array().unwrap().len(), all[0]["conns"].as_array().unwrap().len()),
                    (1, 4),
                    "{all}"
                );
                let by_id = node.get(&format!("{}/connectors/{connector}", node.tunnel(&tunnel))).await;
                assert_eq!(by_id["conns"].as_array().unwrap().len(), 4, "{by_id}");
            }
            // A tunnel with hosts at the other node is not deleted by mistake.
            let last = held.pop().unwrap();
            held.iter().for_each(|one| one.connection.close(0u32.into(), b""));
            until("only the other node has one", async || connections(&one, &tunnel).await.len() == 1).await;
            let refused = one.ask(Method::DELETE, &one.tunnel(&tunnel), None).await;
            assert!(refused.status.is_client_error(), "{refused:?}");
            // What is cleaned up at one node is cleaned up at all.
            let path = format!("{}/connections", one.tunnel(&tunnel));
            one.ask(Method::DELETE, &path, None).await.result();
            last.connection.closed().await;
            until("nobody has any", async || {
                let is_gone = |page: &Value| {
                    // Where nobody has noted yet that it was there.
                    let status = page["status"].as_str().unwrap();
                    page["connections"] == json!([]) && ["down", "inactive"].contains(&status)
                };
                is_gone(&shown(&one, &tunnel).await) && is_gone(&shown(&other, &tunnel).await)
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn of_one_connection_at_two_nodes_the_newer_stays_and_the_older_is_told_to_go() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, mut other, (tunnel, token)) = two(&server).await;
            let connector = Uuid::new_v4();
            let older = connection(&mut one, &token, connector, 0).await;
            let beside = connection(&mut one, &token, connector, 1).await;
            until("the other node knows of both", async || connections(&other, &tunnel).await.len() == 2)
                .await;
            let newer = connection(&mut other, &token, connector, 0).await;
            older.connection.closed().await;
            until("there are two again", async || connections(&one, &tunnel).await.len() == 2).await;
            assert!(newer.connection.close_reason().is_none() && beside.connection.close_reason().is_none());
            // And back, many times, also where nobody waits until it is known.
            let mut now = newer;
            for turn in 0..6 {
                let node = if turn % 2 == 0 { &mut one } else { &mut other };
                let next = connection(node, &token, connector, 0).await;
                now.connection.closed().await;
                now = next;
            }
            // At the same moment at both: one of them stays.
            now.connection.close(0u32.into(), b"");
            until("one is left", async || connections(&one, &tunnel).await.len() == 1).await;
            for _ in 0..6 {
                one.edge.credentials = Credentials::from_token(&token).unwrap();
                other.edge.credentials = one.edge.credentials.clone();
                let register = |edge: &Fixture| {
                    let (at, ca) = (edge.servers[0], edge.ca.clone());
                    async move { Connector::connect(&ca, at, Habits::default()).await }
                };
                let (a, b) = tokio::join!(register(&one.edge), register(&other.edge));
                tokio::join!(
                    a.expect_registration(&one.edge, connector, 2),
                    b.expect_registration(&other.edge, connector, 2)
                );
                let lost = tokio::select! {
                    _ = a.connection.closed() => &a,
                    _ = b.connection.closed() => &b,
                };
                let kept = if std::ptr::eq(lost, &a) { &b } else { &a };
                until("one of them is known to both", async || {
                    let (here, there) =
                        (connections(&one, &tunnel).await, connections(&other, &tunnel).await);
                    ids(&here) == ids(&there) && here.len() == 2
                })
                .await;
                assert!(kept.connection.close_reason().is_none(), "one of them stays");
                kept.connection.close(0u32.into(), b"");
                until("it is gone", async || connections(&one, &tunnel).await.len() == 1).await;
            }
        })
        .await;
}

/// What an administrator says of a replica at one node.
async fn say(node: &Office, method: Method, path: &str, body: &str) {
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let page = read(http1(node.edge.admin, request.body(full(body.to_owned())).unwrap()).await).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
}

#[tokio::test]
async fn what_two_nodes_are_told_of_one_replica_at_once_both_counts() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, other, (tunnel, token)) = two(&server).await;
            let _host = Host::join(&mut one, (&tunnel, &token), "here", Does::Serve).await;
            found(&other).await;
            let path = format!("/tunnels/{tunnel}/replicas");
            let (_, page) = one.edge.admin(&path).await;
            let connector = page["replicas"][0]["connector"].as_str().unwrap().to_owned();
            let replica = format!("{path}/{connector}");
            let seen = async |node: &Office, list: &str| {
                let (_, page) = node.edge.admin(&path).await;
                (page[list][0]["weight"].clone(), page[list][0]["draining"].clone())
            };
            for weight in 1..=10_u8 {
                // Each says a thing of its own, and neither knows of the other's yet.
                let body = json!({ "weight": weight }).to_string();
                let (drain, action) = (weight % 2 == 1, if weight % 2 == 1 { "drain" } else { "undrain" });
                let action = format!("{replica}/{action}");
                tokio::join!(say(&one, Method::PUT, &replica, &body), say(&other, Method::POST, &action, ""));
                let wanted = (json!(weight), json!(drain));
                until("both count at both", async || {
                    seen(&one, "replicas").await == wanted && seen(&other, "elsewhere").await == wanted
                })
                .await;
                // The last word of two about the same thing counts at both.
                let bodies = [weight + 20, weight + 40].map(|weight| json!({ "weight": weight }).to_string());
                tokio::join!(
                    say(&one, Method::PUT, &replica, &bodies[0]),
                    say(&other, Method::PUT, &replica, &bodies[1])
                );
                until("they agree", async || {
                    let (here, there) = (seen(&one, "replicas").await, seen(&other, "elsewhere").await);
                    here == there && here.0 != json!(weight)
                })
                .await;
            }
        })
        .await;
}

#[tokio::test]
async fn a_node_counts_what_it_hands_to_each_other_one_and_what_became_of_it() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, mut other, (tunnel, token)) = two(&server).await;
            let host = Host::join(&mut other, (&tunnel, &token), "there", Does::Serve).await;
            found(&one).await;
            let figure = async |name: &str, labels: &str| -> f64 {
                let request = Request::get("/metrics").header("host", "localhost").body(empty()).unwrap();
                let page = read(http1(one.edge.admin, request).await).await.text;
                let start = format!("{name}{{{labels}}} ");
                let line = page.lines().find_map(|line| line.strip_prefix(&start));
                line.unwrap_or_else(|| panic!("{start} in {page}")).parse().unwrap()
            };
            let requests = async |outcome: &str| {
                let labels = format!("node=\"other\",outcome=\"{outcome}\"");
                figure("adit_edge_peer_requests_total", &labels).await
            };
            assert_eq!(figure("adit_edge_peer_connected", "node=\"other\",region=\"east\"").await, 1.0);
            assert!(figure("adit_edge_peer_silent_seconds", "node=\"other\"").await < 60.0);
            let before = (requests("answered").await, requests("refused").await);
            let sent = figure("adit_edge_peer_bytes_total", "node=\"other\",direction=\"sent\"").await;
            let body = vec![b'x'; 100_000];
            let page = one.edge.page(Request::post("/").header("host", NAME).body(full(body)).unwrap()).await;
            assert_eq!(page.status, StatusCode::OK);
            assert_eq!(requests("answered").await, before.0 + 1.0);
            let more = figure("adit_edge_peer_bytes_total", "node=\"other\",direction=\"sent\"").await;
            assert!(more >= sent + 100_000.0, "{sent} {more}");
            assert!(
                figure("adit_edge_peer_bytes_total", "node=\"other\",direction=\"received\"").await > 0.0
            );
            host.does.set(Does::TurnAway);
            one.ask_host(Method::GET, NAME).await;
            assert!(requests("refused").await > before.1);
        })
        .await;
}
