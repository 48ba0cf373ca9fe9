//! Several replicas of one tunnel: who gets what, and how an operator says so.

use std::collections::HashMap;
use std::rc::Rc;

use adit_protocol::rpc::RegistrationAnswer;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::connector::{Connector, Habits, registration};
use crate::harness::{AnyBody, Fixture, HOST, LocalSet, empty, full, get, start, start_with};
use crate::office::Office;

/// A replica of one connection that answers every request with its name.
struct Replica {
    id: Uuid,
    connector: Rc<Connector>,
    serving: JoinHandle<()>,
}

impl Replica {
    async fn start(edge: &Fixture, id: Uuid, name: &'static str) -> Self {
        let connector = Rc::new(Connector::registered(edge, 0, id, 0).await);
        let one = connector.clone();
        let serving = tokio::task::spawn_local(async move {
            loop {
                one.accept().await.ok(name.as_bytes()).await;
            }
        });
        Self { id, connector, serving }
    }

    /// Ends as a process does that is killed, and waits until the edge has seen it.
    async fn end(self, edge: &Fixture) {
        self.serving.abort();
        self.connector.connection.close(0u32.into(), b"");
        let path = format!("/tunnels/demo/replicas/{}", self.id);
        while edge.admin(&path).await.1["connections"].as_array().is_some_and(|all| !all.is_empty()) {}
    }
}

impl Fixture {
    async fn change(&self, method: &str, path: &str, body: AnyBody) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(path).header("host", "admin").body(body);
        self.ask_admin(request.unwrap()).await
    }

    async fn weigh(&self, id: Uuid, weight: u8) {
        let body = full(json!({ "weight": weight }).to_string());
        let (status, replica) = self.change("PUT", &format!("/tunnels/demo/replicas/{id}"), body).await;
        assert_eq!((status.as_u16(), &replica["weight"]), (200, &weight.into()));
    }

    async fn drain(&self, id: Uuid, action: &str) {
        let path = format!("/tunnels/demo/replicas/{id}/{action}");
        let (status, replica) = self.change("POST", &path, empty()).await;
        assert_eq!((status.as_u16(), &replica["draining"]), (200, &(action == "drain").into()));
    }

    /// How many of `count` requests each replica answers.
    async fn shares(&self, count: usize) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for _ in 0..count {
            *shares.entry(self.page(get("/")).await.text).or_default() += 1;
        }
        shares
    }

    async fn only(&self, name: &str) {
        assert_eq!(self.shares(20).await, HashMap::from([(name.to_owned(), 20)]));
    }
}

#[tokio::test]
async fn a_drained_replica_gets_nothing_while_another_one_serves() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (one, other) = (
                Replica::start(&edge, Uuid::new_v4(), "one").await,
                Replica::start(&edge, Uuid::new_v4(), "other").await,
            );
            assert_eq!(edge.shares(100).await.len(), 2);
            edge.drain(one.id, "drain").await;
            edge.only("other").await;
            edge.weigh(other.id, 0).await;
            // Nobody else is there.
            assert_eq!(edge.shares(100).await.len(), 2);
            edge.drain(one.id, "undrain").await;
            edge.only("one").await;
            one.end(&edge).await;
            edge.only("other").await;
        })
        .await;
}

#[tokio::test]
async fn a_drain_outlives_the_connections_of_its_replica() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (one, other) = (
                Replica::start(&edge, Uuid::new_v4(), "one").await,
                Replica::start(&edge, Uuid::new_v4(), "other").await,
            );
            edge.drain(one.id, "drain").await;
            let id = one.id;
            one.end(&edge).await;
            let (_, replicas) = edge.admin("/tunnels/demo/replicas").await;
            assert_eq!(replicas["absent"][0], json!({"connector": id, "weight": 100, "draining": true}));
            let one = Replica::start(&edge, id, "one").await;
            edge.only("other").await;
            // So does a weight, for somebody who is not there yet.
            one.end(&edge).await;
            edge.drain(id, "undrain").await;
            let _one = Replica::start(&edge, id, "one").await;
            assert_eq!(edge.shares(100).await.len(), 2);
            drop(other);
        })
        .await;
}

#[tokio::test]
async fn replicas_get_what_their_weights_say() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let (one, other) = (
                Replica::start(&edge, Uuid::new_v4(), "one").await,
                Replica::start(&edge, Uuid::new_v4(), "other").await,
            );
            edge.weigh(one.id, 75).await;
            edge.weigh(other.id, 25).await;
            let shares = edge.shares(400).await;
            // Five standard deviations.
            assert!((60..140).contains(&shares["other"]), "{shares:?}");
        })
        .await;
}

#[tokio::test]
async fn a_visitor_stays_with_its_replica_as_long_as_that_is_there() {
    LocalSet::new()
        .run_until(async {
            let edge = start_with("stickiness = \"cookie:sid\"");
            let names = ["a", "b", "c"];
            let mut replicas = HashMap::new();
            for name in names {
                replicas.insert(name.to_owned(), Replica::start(&edge, Uuid::new_v4(), name).await);
            }
            let home = async |visitor: usize| {
                let request = Request::get("/").header("host", HOST);
                let request = request.header("cookie", format!("theme=dark; sid=visitor-{visitor}"));
                edge.page(request.body(empty()).unwrap()).await.text
            };
            let mut homes = Vec::new();
            for visitor in 0..24 {
                homes.push(home(visitor).await);
                assert_eq!(home(visitor).await, homes[visitor]);
            }
            assert!(names.iter().all(|name| homes.iter().any(|home| home == name)), "{homes:?}");

            let gone = replicas.remove(&homes[0]).unwrap();
            let (id, name) = (gone.id, names.into_iter().find(|name| *name == homes[0]).unwrap());
            gone.end(&edge).await;
            for (visitor, usual) in homes.iter().enumerate() {
                let now = home(visitor).await;
                assert!(if *usual == name { now != name } else { now == *usual }, "{usual} {now}");
                assert_eq!(home(visitor).await, now);
            }
            let _back = Replica::start(&edge, id, name).await;
            for (visitor, usual) in homes.iter().enumerate() {
                assert_eq!(home(visitor).await, *usual);
            }
        })
        .await;
}

#[tokio::test]
async fn twenty_five_replicas_serve_and_one_more_waits_for_a_place() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let mut replicas = Vec::new();
            for _ in 0..25 {
                let id = Uuid::new_v4();
                for index in 0..4 {
                    let server = usize::from(index % 2);
                    replicas.push((id, Connector::registered(&edge, server, id, index).await));
                }
            }
            let (_, tunnel) = edge.admin("/tunnels/demo").await;
            assert_eq!((&tunnel["replicas"], &tunnel["connections"]), (&25.into(), &100.into()));

            let late = Uuid::new_v4();
            let refused = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
            let error = refused.expect_refusal(&registration(&edge.credentials, late, 0)).await;
            let says = |part: &str| assert!(error.cause.contains(part), "{error:?}");
            says("100 connections");
            says("25 replicas");
            says("stop a replica");
            assert!(error.should_retry && (1..=60).contains(&error.retry_after.as_secs()), "{error:?}");
            assert_eq!(refused.closed().await, Some(0));

            // A slot that comes again is not one more.
            let (id, _) = replicas[0];
            let again = Connector::connect(&edge.ca, edge.servers[0], Habits::default()).await;
            let mut replacing = registration(&edge.credentials, id, 0);
            replacing.options.replace_existing = true;
            assert!(matches!(again.register(&replacing).await, RegistrationAnswer::Registered(_)));

            let (_, leaving) = replicas.pop().unwrap();
            leaving.unregister().await.unwrap();
            Connector::registered(&edge, 0, late, 0).await;
        })
        .await;
}

#[tokio::test]
async fn the_admin_api_shows_replicas_with_their_connections() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let one = Replica::start(&edge, Uuid::new_v4(), "one").await;
            let second = Connector::registered(&edge, 1, one.id, 1).await;
            for _ in 0..3 {
                let asked = edge.page(get("/"));
                tokio::select! {
                    page = asked => assert_eq!(page.text, "one"),
                    opened = second.accept() => opened.ok(b"second").await,
                }
            }
            let (status, tunnels) = edge.admin("/tunnels").await;
            let tunnel = &tunnels["tunnels"][0];
            assert_eq!(
                (status.as_u16(), &tunnel["name"], &tunnel["replicas"]),
                (200, &"demo".into(), &1.into())
            );
            let by_id = format!("/tunnels/{}/replicas/{}", edge.credentials.tunnel_id, one.id);
            let (_, replica) = edge.admin(&by_id).await;
            assert_eq!((&replica["weight"], &replica["draining"]), (&100.into(), &false.into()));
            assert_eq!((&replica["version"], &replica["arch"]), (&"test".into(), &"linux_amd64".into()));
            assert_eq!(replica["features"], json!(["serialized_headers"]));
            assert!(replica["requests_total"].as_u64() >= Some(2), "{replica}");
            let connections = replica["connections"].as_array().unwrap();
            let of = |key: &str| connections.iter().map(|one| one[key].clone()).collect::<Vec<_>>();
            assert_eq!(of("index"), [0, 1]);
            assert_eq!(of("region"), ["west", "east"]);
            assert_eq!(of("protocol"), ["quic", "quic"]);
            assert_eq!(of("suspect"), [false, false]);
            assert!(of("since").iter().all(|since| since.as_str().is_some_and(|text| text.ends_with('Z'))));
            let (_, all) = edge.admin("/tunnels/demo/replicas").await;
            assert_eq!(all["replicas"][0]["connector"], replica["connector"]);
        })
        .await;
}

#[tokio::test]
async fn whoever_asks_the_admin_api_wrongly_hears_what_would_be_right() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let one = Replica::start(&edge, Uuid::new_v4(), "one").await;
            let replica = format!("/tunnels/demo/replicas/{}", one.id);
            let (drain, id) = (format!("{replica}/drain"), one.id.to_string());
            let other = format!("/tunnels/demo/replicas/{}", Uuid::new_v4());
            let long = format!("{{\"weight\": 1{}}}", " ".repeat(5000));
            for (method, path, body, status, says) in [
                ("GET", "/tunnels/none", "", 404, "there are demo"),
                ("GET", other.as_str(), "", 404, id.as_str()),
                ("PUT", &other, "{\"weight\": 1}", 404, &id),
                ("GET", "/tunnels/demo/replicas/x", "", 404, &id),
                ("GET", "/tunnels/demo/other", "", 404, "/tunnels/ID/replicas"),
                ("DELETE", &replica, "", 405, "GET, HEAD, PUT, PATCH"),
                ("PUT", &drain, "", 405, "POST"),
                ("POST", "/tunnels", "", 405, "GET, HEAD"),
                ("PUT", &replica, "", 400, "{\"weight\": 0 to 100}"),
                ("PUT", &replica, "{}", 400, "changes nothing"),
                ("PUT", &replica, "{\"weight\": 101}", 400, "101 is out of range"),
                ("PUT", &replica, "{\"weight\": -1}", 400, "weight"),
                ("PUT", &replica, "{\"weight\": 1, \"wait\": 2}", 400, "`wait`"),
                ("PUT", &replica, "{\"weight\": 1, \"weight\": 2}", 400, "duplicate"),
                ("POST", &drain, "{}", 400, "no body"),
                ("PUT", &replica, &long, 413, "4096 bytes"),
            ] {
                let (answered, error) = edge.change(method, path, full(body.to_owned())).await;
                assert_eq!(answered.as_u16(), status, "{method} {path} {body:.30}");
                let error = error["error"].as_str().unwrap();
                assert!(error.contains(says), "{method} {path} {body:.30}: {error}");
            }
            let page = Request::post(&drain).header("host", "admin").header("origin", "http://evil.example");
            assert_eq!(edge.ask_admin(page.body(empty()).unwrap()).await.0.as_u16(), 403);
            let (_, now) = edge.admin(&replica).await;
            assert_eq!((&now["weight"], &now["draining"]), (&100.into(), &false.into()));
        })
        .await;
}

#[tokio::test]
async fn weights_and_draining_outlive_an_edge_that_keeps_a_state() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (light, drained, usual) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
            let mut hosts = Vec::new();
            for id in [light, drained, usual] {
                hosts.push(Connector::registered(&office.edge, 0, id, 0).await);
            }
            office.edge.weigh(light, 10).await;
            office.edge.drain(drained, "drain").await;
            office.edge.weigh(usual, 1).await;
            office.edge.weigh(usual, 100).await;
            drop(hosts);
            restart(&mut office).await;
            let (_, known) = office.edge.admin("/tunnels/demo/replicas").await;
            let mut absent: Vec<_> = known["absent"].as_array().unwrap().iter().collect();
            absent.sort_by_key(|one| one["weight"].as_u64());
            let wanted = [
                json!({ "connector": light, "weight": 10, "draining": false }),
                json!({ "connector": drained, "weight": 100, "draining": true }),
            ];
            assert_eq!(absent, wanted.iter().collect::<Vec<_>>(), "{known}");
            let back = Connector::registered(&office.edge, 0, drained, 0).await;
            let (_, replica) = office.edge.admin(&format!("/tunnels/demo/replicas/{drained}")).await;
            assert_eq!((&replica["draining"], &replica["weight"]), (&json!(true), &json!(100)));
            // What is usual again needs no memory.
            office.edge.drain(drained, "undrain").await;
            office.edge.weigh(light, 100).await;
            drop(back);
            restart(&mut office).await;
            let (_, known) = office.edge.admin("/tunnels/demo/replicas").await;
            assert_eq!(known["absent"], json!([]), "{known}");
        })
        .await;
}

/// Another process over the same state.
async fn restart(office: &mut Office) {
    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
    office.reopen();
}
