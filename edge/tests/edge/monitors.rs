//! Monitors: what is asked of endpoints through their tunnels, and what becomes of those that fail.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use adit_protocol::extensions;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use uuid::Uuid;

use crate::balancing::id;
use crate::connector::{Connector, Habits, Opened};
use crate::etcd::Server;
use crate::harness::{LocalSet, empty, http1, read};
use crate::http2;
use crate::office::Office;
use crate::peers::two;

const NAME: &str = "app.example.com";
const AGENT: &str = "Mozilla/5.0 (compatible; Cloudflare-Traffic-Manager/1.0;";

/// What a host does with the questions of monitors; visitors get its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Fine,
    Broken,
    Nothing,
}

struct Host {
    says: Rc<Cell<Says>>,
    /// Host and path of each question, with a header of the monitor's.
    asked: Rc<RefCell<Vec<String>>>,
    connector: Rc<Connector>,
    serving: JoinHandle<()>,
}

fn line(request: &Request<()>) -> String {
    let uri = request.uri();
    let key = request.headers().get("x-key").map_or("", |value| value.to_str().unwrap());
    format!("{} {}{} {key}", request.method(), uri.authority().unwrap(), uri.path_and_query().unwrap())
}

fn is_question(request: &Request<()>) -> bool {
    request.headers().get("user-agent").is_some_and(|agent| agent.to_str().unwrap().starts_with(AGENT))
}

impl Host {
    async fn start(office: &mut Office, token: &str, name: &'static str, says: Says) -> Self {
        Self::start_as(office, token, name, says, (Uuid::new_v4(), 0)).await
    }

    /// One connection of a host that may have others.
    async fn start_as(
        office: &mut Office,
        token: &str,
        name: &'static str,
        says: Says,
        (connector, index): (Uuid, u8),
    ) -> Self {
        office.edge.credentials = Credentials::from_token(token).unwrap();
        let connector = Rc::new(Connector::registered(&office.edge, 0, connector, index).await);
        let (says, asked) = (Rc::new(Cell::new(says)), Rc::new(RefCell::new(Vec::new())));
        let (one, does, noted) = (connector.clone(), says.clone(), asked.clone());
        let serving = tokio::task::spawn_local(async move {
            let mut unanswered: Vec<Opened> = Vec::new();
            loop {
                let opened = one.accept().await;
                if !is_question(opened.request()) {
                    opened.ok(name.as_bytes()).await;
                    continue;
                }
                noted.borrow_mut().push(line(opened.request()));
                match does.get() {
                    Says::Fine => opened.ok(b"all is Fine").await,
                    Says::Broken => opened.answer(Response::builder().status(503), b"fine").await,
                    Says::Nothing => unanswered.push(opened),
                }
            }
        });
        Self { says, asked, connector, serving }
    }

    /// Ends as a process does that is killed.
    fn end(self) {
        self.serving.abort();
        self.connector.connection.close(0u32.into(), b"");
    }
}

impl Office {
    /// Whether another node of the same account knows a pool already.
    async fn asks_pool(&self, other: &Self, pool: &str) -> bool {
        let path = self.objects(&format!("pools/{pool}"));
        other.ask_as(&self.token, Method::GET, &path, None).await.status.is_success()
    }

    async fn monitor(&self, more: Value) -> String {
        let mut body = json!({ "interval": 1, "timeout": 1, "retries": 0, "expected_body": "FINE" });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        id(&self.post(&self.objects("monitors"), body).await.done())
    }

    async fn watch(&self, pool: &str, monitor: &str) {
        self.edit(&self.objects(&format!("pools/{pool}")), json!({ "monitor": monitor })).await;
    }

    async fn seen(&self, pool: &str) -> Value {
        self.get(&self.objects(&format!("pools/{pool}/health"))).await["pop_health"]["edge"].clone()
    }

    /// Waits until the pool's endpoints are `up`, `down` or `unknown`, and says what is said of them.
    async fn until(&self, pool: &str, wanted: &[&str]) -> Vec<Value> {
        let mut turns = interval(Duration::from_millis(100));
        let mut last = Value::Null;
        let word = |endpoint: &Value| match (endpoint["healthy"] == true, endpoint["failure_reason"].as_str())
        {
            (true, _) => "up",
            (false, Some("no result of its monitor yet")) => "unknown",
            (false, _) => "down",
        };
        let seen = timeout(PATIENCE, async {
            loop {
                turns.tick().await;
                last = self.seen(pool).await;
                let endpoints = last["origins"].as_array().unwrap().iter();
                let endpoints: Vec<Value> =
                    endpoints.flat_map(|named| named.as_object().unwrap().values().cloned()).collect();
                if endpoints.iter().map(word).eq(wanted.iter().copied()) {
                    return endpoints;
                }
            }
        })
        .await;
        seen.unwrap_or_else(|_| panic!("not {wanted:?}: {last}"))
    }

    async fn answers(&self, count: usize) -> HashSet<String> {
        let mut answers = HashSet::new();
        for _ in 0..count {
            let request = Request::builder().method(Method::GET).uri("/").header("host", NAME);
            let page = self.edge.page(request.body(empty()).unwrap()).await;
            assert_eq!(page.status.as_u16(), 200, "{page:?}");
            answers.insert(page.text);
        }
        answers
    }
}

#[tokio::test]
async fn a_monitor_that_is_tried_out_says_what_it_sees_and_changes_nothing() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (one, token) = office.tunnel_named("one").await;
            let (other, other_token) = office.tunnel_named("other").await;
            let (absent, _) = office.tunnel_named("absent").await;
            let failing = Host::start(&mut office, &token, "one", Says::Broken).await;
            let _well = Host::start(&mut office, &other_token, "other", Says::Fine).await;
            let pool = office.pool("p", &[&one, &other, &absent]).await;
            let body = json!({ "path": "/up", "expected_body": "FINE", "timeout": 1, "retries": 0,
                "header": { "x-key": ["k"] } });
            let trial = office.objects(&format!("pools/{pool}/preview"));
            let made = office.post(&trial, body.clone()).await.done();
            assert_eq!(made["pools"], json!({ pool.clone(): "p" }));
            let looked = |id: &Value| office.objects(&format!("preview/{}", id.as_str().unwrap()));
            let first = looked(&made["preview_id"]);
            let mut turns = interval(Duration::from_millis(50));
            let seen = timeout(PATIENCE, async {
                loop {
                    turns.tick().await;
                    let seen = office.get(&first).await;
                    if !seen.to_string().contains("not asked yet") {
                        return seen[&pool].clone();
                    }
                }
            });
            let seen = seen.await.expect("each question has an end");
            let of = |at: usize, tunnel: &str| {
                let origin = &seen["origins"][at][format!("{tunnel}.cfargotunnel.com")];
                (origin["healthy"].clone(), origin["response_code"].clone(), origin["failure_reason"].clone())
            };
            let said = |healthy: bool, code: u16, why: &str| (json!(healthy), json!(code), json!(why));
            assert_eq!(of(0, &one), said(false, 503, "the status 503 is not expected"));
            assert_eq!(of(1, &other), said(true, 200, "No failures"));
            assert_eq!(of(2, &absent), said(false, 0, "no host of the tunnel is connected"));
            assert_eq!(seen["healthy"], true);
            assert_eq!(*failing.asked.borrow(), [format!("GET {one}.cfargotunnel.com/up k")]);
            // Nothing follows from it.
            let health = office.seen(&pool).await;
            assert_eq!(health["origins"][0][format!("{one}.cfargotunnel.com")]["healthy"], true);

            // Of a monitor that is kept: on the pools that name it.
            let monitor = office.monitor(json!({})).await;
            office.watch(&pool, &monitor).await;
            let by_monitor = office.objects(&format!("monitors/{monitor}/preview"));
            let made = office.post(&by_monitor, body.clone()).await.done();
            assert_eq!(made["pools"], json!({ pool.clone(): "p" }));
            let wrong = office.post(&trial, json!({ "interval": "soon", "method": 7 })).await;
            assert_eq!(wrong.faults().len(), 2, "{wrong:?}");
            office.post(&trial, json!({ "type": "icmp_ping" })).await.refused(400, "asks nothing");
            // An account has a few of them, and the oldest goes.
            for _ in 0..3 {
                office.post(&trial, body.clone()).await.done();
            }
            assert_eq!(office.ask(Method::GET, &first, None).await.status.as_u16(), 404);
            assert_eq!(
                office.ask(Method::GET, &looked(&made["preview_id"]), None).await.status.as_u16(),
                200
            );
        })
        .await;
}

#[tokio::test]
async fn an_endpoint_whose_service_fails_gets_no_requests_until_it_is_well_again() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (one, token) = office.tunnel_named("one").await;
            let (other, other_token) = office.tunnel_named("other").await;
            let failing = Host::start(&mut office, &token, "one", Says::Broken).await;
            let _well = Host::start(&mut office, &other_token, "other", Says::Fine).await;
            let pool = office.pool("p", &[&one, &other]).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            assert_eq!(office.answers(60).await.len(), 2, "without a monitor nobody asks");

            let headers = json!({ "Host": ["inner.example.com"], "X-Key": ["k"] });
            let monitor = json!({ "path": "/up?deep", "header": headers });
            office.watch(&pool, &office.monitor(monitor).await).await;
            let seen = office.until(&pool, &["down", "up"]).await;
            assert_eq!((&seen[0]["response_code"], &seen[1]["response_code"]), (&json!(503), &json!(200)));
            assert_eq!(seen[0]["failure_reason"], "the status 503 is not expected");
            assert_eq!(failing.asked.borrow()[0], "GET inner.example.com/up?deep k");
            assert_eq!(office.answers(40).await, HashSet::from(["other".to_owned()]));

            failing.says.set(Says::Nothing);
            let is_late = async {
                while office.until(&pool, &["down", "up"]).await[0]["failure_reason"]
                    != "no answer within 1 s"
                {}
            };
            timeout(PATIENCE, is_late).await.expect("silence is seen");
            failing.says.set(Says::Fine);
            office.until(&pool, &["up", "up"]).await;
            assert_eq!(office.answers(60).await.len(), 2);
        })
        .await;
}

#[tokio::test]
async fn an_edge_that_knows_nothing_yet_serves_and_one_that_is_known_to_be_well_goes_first() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (one, token) = office.tunnel_named("one").await;
            let (other, other_token) = office.tunnel_named("other").await;
            let (last, last_token) = office.tunnel_named("last").await;
            let silent = Host::start(&mut office, &token, "one", Says::Nothing).await;
            let late = Host::start(&mut office, &other_token, "other", Says::Nothing).await;
            let _last = Host::start(&mut office, &last_token, "last", Says::Nothing).await;
            let pool = office.pool("p", &[&one, &other]).await;
            let fallback = office.pool("fallback", &[&last]).await;
            let slow = json!({ "interval": 3600, "timeout": 60 });
            office.watch(&pool, &office.monitor(slow).await).await;
            office.balancer(NAME, &[&pool], json!({ "fallback_pool": fallback })).await;
            assert_eq!(office.answers(60).await, HashSet::from(["one".to_owned(), "other".to_owned()]));
            office.until(&pool, &["unknown", "unknown"]).await;

            // A host that comes is asked at once, and need not wait for the next hour.
            late.end();
            let _back = Host::start(&mut office, &other_token, "back", Says::Fine).await;
            office.until(&pool, &["unknown", "up"]).await;
            assert_eq!(office.answers(20).await, HashSet::from(["back".to_owned()]));
            assert!(silent.asked.borrow().len() <= 1, "asked once an hour");
        })
        .await;
}

#[tokio::test]
async fn a_restarted_edge_answers_everybody_before_its_monitors_know_anything() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (one, token) = office.tunnel_named("one").await;
            let (other, other_token) = office.tunnel_named("other").await;
            let _one = Host::start(&mut office, &token, "one", Says::Fine).await;
            let _other = Host::start(&mut office, &other_token, "other", Says::Fine).await;
            let pool = office.pool("p", &[&one, &other]).await;
            let rare = json!({ "interval": 3600, "timeout": 60 });
            office.watch(&pool, &office.monitor(rare).await).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            office.until(&pool, &["up", "up"]).await;

            office.restart_holding().await;
            let http = office.edge.http;
            let visitors: Vec<_> = (0..200)
                .map(|_| {
                    tokio::task::spawn_local(async move {
                        let request = Request::get("/").header("host", NAME).body(empty()).unwrap();
                        read(http1(http, request).await).await.status.as_u16()
                    })
                })
                .collect();
            let _one = Host::start(&mut office, &token, "one", Says::Nothing).await;
            let _other = Host::start(&mut office, &other_token, "other", Says::Nothing).await;
            for visitor in visitors {
                assert_eq!(visitor.await.unwrap(), 200);
            }
            office.until(&pool, &["unknown", "unknown"]).await;
            assert_eq!(office.answers(60).await, HashSet::from(["one".to_owned(), "other".to_owned()]));
        })
        .await;
}

#[tokio::test]
async fn where_all_are_down_the_fallback_serves_whatever_its_own_health() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (one, token) = office.tunnel_named("one").await;
            let (last, last_token) = office.tunnel_named("last").await;
            let _one = Host::start(&mut office, &token, "one", Says::Broken).await;
            let _last = Host::start(&mut office, &last_token, "last", Says::Broken).await;
            let pool = office.pool("p", &[&one]).await;
            let fallback = office.pool("fallback", &[&last]).await;
            let monitor = office.monitor(json!({})).await;
            office.watch(&pool, &monitor).await;
            office.watch(&fallback, &monitor).await;
            office.balancer(NAME, &[&pool], json!({ "fallback_pool": fallback })).await;
            office.until(&pool, &["down"]).await;
            office.until(&fallback, &["down"]).await;
            assert_eq!(office.answers(20).await, HashSet::from(["last".to_owned()]));
        })
        .await;
}

#[tokio::test]
async fn a_replica_that_fails_gets_no_requests_while_another_of_its_tunnel_is_well() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (tunnel, token) = office.tunnel_named("one").await;
            let failing = Host::start(&mut office, &token, "failing", Says::Broken).await;
            // The other one over HTTP/2.
            let mut connector = http2::Connector::registered(&office.edge, 100).await;
            let _serving = tokio::task::spawn_local(async move {
                loop {
                    let (request, mut respond) = connector.accept().await;
                    let (head, _body) = request.into_parts();
                    let is_question = is_question(&Request::from_parts(head, ()));
                    http2::answer(&mut respond, 200, "", if is_question { "fine" } else { "well" });
                }
            });
            let pool = office.pool("p", &[&tunnel]).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            assert_eq!(office.answers(60).await.len(), 2);
            let group = [json!({ "monitor_id": office.monitor(json!({})).await, "enabled": true,
                "must_be_healthy": true, "monitoring_only": false })];
            let body = json!({ "description": "", "members": group });
            let group = id(&office.post(&office.objects("monitor_groups"), body).await.done());
            let path = office.objects(&format!("pools/{pool}"));
            office.edit(&path, json!({ "monitor_group": group })).await;
            let only_well = async { while office.answers(20).await != HashSet::from(["well".to_owned()]) {} };
            timeout(PATIENCE, only_well).await.expect("nothing goes to the one that fails");
            // The endpoint is well as long as one of its replicas is.
            office.until(&pool, &["up"]).await;
            failing.says.set(Says::Fine);
            let both = async { while office.answers(20).await.len() < 2 {} };
            timeout(PATIENCE, both).await.expect("it gets requests again");
        })
        .await;
}

#[tokio::test]
async fn a_host_is_asked_for_connections_to_a_port() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (one, token) = office.tunnel_named("one").await;
            office.edge.credentials = Credentials::from_token(&token).unwrap();
            let habits = Habits { features: vec![extensions::FEATURE_NOTICES], ..Habits::default() };
            let server = office.edge.servers[0];
            let connector = Connector::registered_as(&office.edge, server, habits, Uuid::new_v4(), 0).await;
            let is_there = Rc::new(Cell::new(false));
            let says = is_there.clone();
            let _serving = tokio::task::spawn_local(async move {
                loop {
                    let opened = connector.accept().await;
                    assert_eq!(opened.request().headers()[extensions::NOTICE], "probe");
                    let report = json!({ "ready": says.get(), "origins": [
                        { "rule": "a", "origin": "ssh://10.0.0.7:22", "ok": says.get(), "error": "refused" },
                        { "rule": "b", "origin": "http://10.0.0.7:80", "ok": true, "error": null },
                    ] });
                    opened.ok(report.to_string().as_bytes()).await;
                }
            });
            let (other, other_token) = office.tunnel_named("other").await;
            let _other = Host::start(&mut office, &other_token, "other", Says::Fine).await;
            let pool = office.pool("p", &[&one, &other]).await;
            office.watch(&pool, &office.monitor(json!({ "type": "tcp", "port": 22 })).await).await;
            let reason = |seen: &[Value], at: usize| seen[at]["failure_reason"].as_str().unwrap().to_owned();
            let told = async {
                loop {
                    let seen = office.until(&pool, &["down", "down"]).await;
                    if reason(&seen, 0) == "refused" && reason(&seen, 1).contains("cannot be asked") {
                        return;
                    }
                }
            };
            timeout(PATIENCE, told).await.expect("both are down, and why is said");
            is_there.set(true);
            office.until(&pool, &["up", "down"]).await;
        })
        .await;
}

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn in_a_fleet_one_node_asks_tells_the_others_and_another_one_asks_when_it_is_gone() {
    let Some(server) = Server::start().await else { return };
    LocalSet::new()
        .run_until(async {
            let (mut one, mut other, (tunnel, token)) = two(&server).await;
            let host = Uuid::new_v4();
            let here = Host::start_as(&mut one, &token, "here", Says::Fine, (host, 0)).await;
            let there = Host::start_as(&mut other, &token, "there", Says::Fine, (host, 1)).await;
            let pool = one.pool("p", &[&tunnel]).await;
            let monitor = one.monitor(json!({})).await;
            one.watch(&pool, &monitor).await;
            one.until(&pool, &["up"]).await;
            let mut turns = interval(Duration::from_millis(50));
            let knows = timeout(PATIENCE, async {
                while !one.asks_pool(&other, &pool).await {
                    turns.tick().await;
                }
            });
            knows.await.expect("the other node hears of the pool");
            other.until(&pool, &["up"]).await;
            // As soon as both know of each other only one of them asks.
            let counts = || [here.asked.borrow().len(), there.asked.borrow().len()];
            let mut turns = interval(Duration::from_millis(50));
            let settled = timeout(PATIENCE, async {
                loop {
                    let before = counts();
                    let more = || [0, 1].map(|at| counts()[at] - before[at]);
                    while more().iter().sum::<usize>() < 4 {
                        turns.tick().await;
                    }
                    match more() {
                        [_, 0] => return true,
                        [0, _] => return false,
                        _ => {}
                    }
                }
            });
            let is_here = settled.await.expect("one of them asks");
            let asked = if is_here { &here } else { &there };
            asked.says.set(Says::Broken);
            for node in [&one, &other] {
                let seen = node.until(&pool, &["down"]).await;
                assert_eq!(
                    seen[0]["failure_reason"], "the status 503 is not expected",
                    "as the one that asked says"
                );
            }
            asked.says.set(Says::Fine);
            for node in [&one, &other] {
                node.until(&pool, &["up"]).await;
            }
            // The one that asks is gone, with its connection of the host.
            asked.says.set(Says::Broken);
            let (gone, stays) = if is_here { (one, other) } else { (other, one) };
            stays.until(&pool, &["down"]).await;
            gone.edge.running.abort();
            stays.until(&pool, &["up"]).await;
        })
        .await;
}
