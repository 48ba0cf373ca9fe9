//! The life of a node: it joins by a token, drains, leaves and is replaced; and what is done once in a fleet.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_edge::{FleetNodes, InvitationRequest, Joining, Provisioning, Settings, TokenRequest};
use hickory_proto::rr::RecordType;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::alerts::{Hook, TELLING};
use crate::etcd::Server;
use crate::harness::{LocalSet, empty, full, http1, read, start_told};
use crate::names::{ask, section};
use crate::office::{API, Office, Reply};
use crate::steering::{Does, Host};

/// A node's folder with its document, which is not a node yet.
struct Machine {
    folder: Arc<TempDir>,
    more: String,
    settings: Settings,
}

impl Machine {
    fn new(server: &Server, name: &str, region: &str) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let more = format!(
            "{API}[store]\nurl = {:?}\nallow-old = true\n[node]\nname = \"{name}\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\n",
            server.address("main")
        );
        let document = format!(
            "data-dir = \"edge-data\"\n[visitors]\nhttp = \"127.0.0.1:0\"\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n{more}"
        );
        let path = folder.path().join("first.toml");
        fs::write(&path, document).unwrap();
        let settings = Settings::load(&path).unwrap_or_else(|error| panic!("{error}"));
        Self { folder, more, settings }
    }

    /// The first node, with an account.
    async fn found(self) -> (Office, Settings) {
        let zones = ["example.com".to_owned()];
        let (ledger, founding) = Provisioning::found_for(&self.settings, "main", &zones).await.unwrap();
        assert!(founding.node.is_some());
        let (_, token) = ledger.create_token(TokenRequest::default()).await.unwrap();
        let office = Office {
            edge: start_told(self.folder, "", &self.more),
            ledger,
            account: founding.account,
            zone: founding.zones[0].1.clone(),
            token: token.as_str().to_owned(),
        };
        (office, self.settings)
    }

    /// Asks a node to let this one in; what it said.
    async fn ask(&self, token: &str, of: &Office) -> (Joining, Reply) {
        let joining = Joining::begin(&self.settings, token).unwrap();
        let body = full(joining.body.to_string());
        let request = Request::post("/nodes").header("host", "api").body(body).unwrap();
        let reply = of.send(request).await;
        (joining, reply)
    }

    /// Joins, and runs as an edge of the same account.
    async fn join(self, token: &str, of: &Office) -> (Office, Settings) {
        let (joining, reply) = self.ask(token, of).await;
        joining.finish(reply.result()).unwrap();
        let office = Office {
            edge: start_told(self.folder, "", &self.more),
            ledger: Provisioning::open(&self.settings).unwrap(),
            account: of.account.clone(),
            zone: of.zone.clone(),
            token: of.token.clone(),
        };
        (office, self.settings)
    }
}

async fn invite(settings: &Settings, name: Option<&str>, replaces: bool) -> String {
    let wish = InvitationRequest {
        name: name.map(str::to_owned),
        replaces,
        api: "http://127.0.0.1:20250".to_owned(),
    };
    FleetNodes::open(settings).unwrap().invite(wish).await.unwrap().token
}

async fn page(office: &Office, path: &str) -> (StatusCode, Value) {
    let request = Request::get(path).header("host", "localhost").body(empty()).unwrap();
    let page = read(http1(office.edge.admin, request).await).await;
    (page.status, serde_json::from_str(&page.text).unwrap())
}

/// A node as another one sees it.
async fn seen(office: &Office, name: &str) -> Value {
    let (status, page) = page(office, "/nodes").await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let nodes = page["nodes"].as_array().unwrap();
    nodes.iter().find(|node| node["name"] == name).cloned().unwrap_or_default()
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so().await {
        assert!(Instant::now() < end, "after a minute: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until an edge has ended by itself.
async fn ended(office: &mut Office) {
    timeout(Duration::from_secs(60), &mut office.edge.running)
        .await
        .expect("within a minute")
        .unwrap()
        .unwrap();
}

/// Why an edge does not start.
fn refused(folder: &TempDir) -> String {
    let settings = Settings::load(&folder.path().join("edge.toml")).unwrap();
    let Err(error) = adit_edge::Edge::build(settings) else { panic!("it starts") };
    format!("{error:#}")
}

#[tokio::test]
async fn a_machine_joins_by_a_token_that_is_good_once_and_is_given_the_fleets_key() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, first) = Machine::new(&server, "west-1", "west").found().await;
            until("the first is alive", async || !seen(&one, "west-1").await["alive"].is_null()).await;
            let token = invite(&first, None, false).await;
            let second = Machine::new(&server, "east-1", "east");
            let (two, _) = second.join(&token, &one).await;
            until("the second is alive", async || !seen(&one, "east-1").await["alive"].is_null()).await;
            assert_eq!(seen(&one, "east-1").await["region"], "east");
            // What was sealed at one is opened at the other: it serves the first one's tunnels.
            let mut one = one;
            let host = Host::start(&mut one, "app", Does::Serve).await;
            one.route(&host.tunnel, "app.example.com", false).await.result();
            let mut two = two;
            let there = Host::join(&mut two, (&host.tunnel, &host.token), "there", Does::Serve).await;
            until("the other edge serves it", async || two.visit("app.example.com").await == StatusCode::OK)
                .await;

            // It was good once.
            let third = Machine::new(&server, "east-2", "east");
            let (_, reply) = third.ask(&token, &one).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{reply:?}");
            // For this name alone.
            let named = invite(&first, Some("east-9"), false).await;
            let (_, reply) = third.ask(&named, &one).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{reply:?}");
            // Nobody has a name that another one has.
            let token = invite(&first, None, false).await;
            let again = Machine::new(&server, "east-1", "east");
            let (_, reply) = again.ask(&token, &one).await;
            assert_eq!(reply.status, StatusCode::CONFLICT, "{reply:?}");
            assert!(reply.json.to_string().contains("--replace east-1"), "{reply:?}");
            // What is no request by the token's secret.
            let (_, reply) = third.ask(&token, &one).await;
            let _ = reply.result();
            for body in [json!({}), json!({ "invitation": "x", "request": "{}", "proof": "AAAA" })] {
                let request =
                    Request::post("/nodes").header("host", "api").body(full(body.to_string())).unwrap();
                let reply = one.send(request).await;
                assert!(reply.status.is_client_error(), "{reply:?}");
            }
            let actions: Vec<_> =
                one.ledger.audit(50).await.unwrap().into_iter().map(|line| line.action).collect();
            assert!(actions.iter().any(|action| action == "node.join"), "{actions:?}");
            drop(there);
        })
        .await;
}

#[tokio::test]
async fn a_node_that_is_told_to_drain_ends_by_itself_and_does_not_come_back_before_it_may() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let dns = |name: &str, address: &str| {
                format!(
                    "[[dns.node]]\nregion = \"west\"\naddresses = [\"{address}\"]\nports = [7844]\nnode = \"{name}\"\n"
                )
            };
            let mut machine = Machine::new(&server, "a", "west");
            machine.more.push_str(&section(&(dns("a", "127.0.0.1") + &dns("b", "127.0.0.2"))));
            let (one, first) = machine.found().await;
            let token = invite(&first, None, false).await;
            let (mut two, second) = Machine::new(&server, "b", "west").join(&token, &one).await;
            until("it is alive", async || !seen(&one, "b").await["alive"].is_null()).await;
            let answers = async || {
                let mut all = ask(one.edge.dns.unwrap(), "example.com", RecordType::A).await.1;
                all.sort();
                all
            };
            until("both are in answers", async || answers().await == ["127.0.0.1", "127.0.0.2"]).await;
            let nodes = FleetNodes::open(&first).unwrap();
            nodes.drain("b", false).await.unwrap();
            until("it has left them", async || answers().await == ["127.0.0.1"]).await;
            ended(&mut two).await;
            until("its lease is gone with it", async || seen(&one, "b").await["alive"].is_null()).await;
            assert_eq!(seen(&one, "b").await["wanted"], "draining");
            assert!(refused(&two.edge.folder).contains("adit edge drain --undo b"));
            nodes.drain("b", true).await.unwrap();
            let more = fs::read_to_string(two.edge.folder.path().join("edge.toml")).unwrap();
            assert!(more.contains("[node]"));
            drop(second);
            let settings = Settings::load(&two.edge.folder.path().join("edge.toml")).unwrap();
            assert!(adit_edge::Edge::build(settings).is_ok(), "it may start again");
            assert!(nodes.drain("nobody", false).await.unwrap_err().to_string().contains("no node `nobody`"));
        })
        .await;
}

#[tokio::test]
async fn a_node_that_leaves_is_none_any_more_and_one_that_was_replaced_is_refused() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (one, first) = Machine::new(&server, "a", "west").found().await;
            let token = invite(&first, Some("b"), false).await;
            let (mut two, _) = Machine::new(&server, "b", "west").join(&token, &one).await;
            until("it is alive", async || !seen(&one, "b").await["alive"].is_null()).await;
            let old = seen(&one, "b").await;

            // Another machine has its place while it runs: it ends.
            let token = invite(&first, Some("b"), true).await;
            let (mut three, third) = Machine::new(&server, "b", "west").join(&token, &one).await;
            ended(&mut two).await;
            assert!(refused(&two.edge.folder).contains("this one was replaced"));
            until("the new one is alive", async || {
                let new = seen(&one, "b").await;
                new["pin"] != old["pin"] && new["alive"]["epoch"].as_u64() > old["alive"]["epoch"].as_u64()
            })
            .await;

            // It drains, ends, and is no node any more.
            let nodes = FleetNodes::open(&third).unwrap();
            assert_eq!(nodes.leave(&third).await.unwrap(), "b");
            ended(&mut three).await;
            until("the others know", async || seen(&one, "b").await["wanted"] == "left").await;
            assert!(refused(&three.edge.folder).contains("adit edge join"));
            assert!(!three.edge.folder.path().join("edge-data/node.key").exists());
            // Its name is free.
            let token = invite(&first, None, false).await;
            let (_, reply) = Machine::new(&server, "b", "east").ask(&token, &one).await;
            reply.result();
            assert_eq!(seen(&one, "b").await["wanted"], "active");
        })
        .await;
}

#[tokio::test]
async fn a_weight_that_one_edge_is_told_counts_at_all() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, first) = Machine::new(&server, "a", "west").found().await;
            let token = invite(&first, None, false).await;
            let (two, _) = Machine::new(&server, "b", "west").join(&token, &one).await;
            let host = Host::start(&mut one, "app", Does::Serve).await;
            let (_, all) = page(&one, &format!("/tunnels/{}/replicas", host.tunnel)).await;
            let connector = all["replicas"][0]["connector"].as_str().unwrap().to_owned();
            let path = format!("/tunnels/{}/replicas/{connector}", host.tunnel);
            let body = full(json!({ "weight": 7 }).to_string());
            let request = Request::put(path).header("host", "localhost").body(body).unwrap();
            let answer = read(http1(one.edge.admin, request).await).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            until("the other has heard of it", async || {
                let (status, all) = page(&two, &format!("/tunnels/{}/replicas", host.tunnel)).await;
                status == StatusCode::OK && all["elsewhere"][0]["weight"] == 7
            })
            .await;
            let _ = one.ask(Method::GET, &one.tunnels(), None).await.result();
        })
        .await;
}

#[tokio::test]
async fn what_is_to_be_told_is_told_and_sent_once_by_two_edges_of_one_store() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let machine = |name: &str| {
                let mut machine = Machine::new(&server, name, "west");
                machine.more.push_str(TELLING);
                machine
            };
            let (one, first) = machine("a").found().await;
            let token = invite(&first, None, false).await;
            let (two, _) = machine("b").join(&token, &one).await;
            until("both are alive", async || {
                !seen(&two, "a").await["alive"].is_null() && !seen(&one, "b").await["alive"].is_null()
            })
            .await;
            let hook = Hook::open().await;
            let made = one.hook(&hook.url(), None).await["id"].as_str().unwrap().to_owned();
            one.policy(&made, "expiring_api_token_alert", json!({})).await;
            for _ in 0..3 {
                let wish =
                    TokenRequest { valid_for: Some(Duration::from_secs(20)), ..TokenRequest::default() };
                one.token(wish).await;
            }
            // Each is said to end soon, and then to have ended.
            hook.alerts(6, "expiring_api_token_alert").await;
            let count = async |action: &str| {
                let lines = one.ledger.audit(500).await.unwrap();
                lines.iter().filter(|line| line.action == action).count()
            };
            until("what became of all is noted", async || count("alert.sent").await >= 6).await;
            assert_eq!((count("alert").await, count("alert.sent").await), (6, 6));
            assert!(count("alert.claim").await >= 6, "each was claimed before it was sent");
            assert_eq!(hook.count("expiring_api_token_alert"), 6);
        })
        .await;
}
