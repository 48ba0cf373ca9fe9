//! Requests through load balancers: which tunnel gets them, and what becomes of those that a tunnel does not answer.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use http::{Method, Request, Response};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use crate::balancing::endpoint;
use crate::connector::{Connector, Habits, Opened};
use crate::harness::{LocalSet, Page, empty};
use crate::office::Office;

/// What a host does with requests.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    /// Answers with its name and the host that was asked for.
    Serve,
    /// The same after a while.
    ServeSlowly,
    TurnAway,
    BreakOff,
    /// Says that it cannot reach its service.
    BeNotHere,
    /// Says that its service has failed.
    Refuse,
    /// A plugin of it answers in the place of the service, which is closed.
    AnswerInstead,
    /// Its service is waited for in vain.
    BeLate,
}

/// A tunnel with one host, which has one connection.
pub(crate) struct Host {
    pub(crate) tunnel: String,
    pub(crate) token: String,
    pub(crate) connector: Rc<Connector>,
    /// Requests that it got.
    pub(crate) asked: Rc<Cell<usize>>,
    pub(crate) does: Rc<Cell<Does>>,
    serving: JoinHandle<()>,
}

impl Host {
    pub(crate) async fn start(office: &mut Office, name: &'static str, does: Does) -> Self {
        let (tunnel, token) = office.tunnel_named(name).await;
        Self::join(office, (&tunnel, &token), name, does).await
    }

    /// A host of a tunnel that is there.
    pub(crate) async fn join(
        office: &mut Office,
        (tunnel, token): (&str, &str),
        name: &'static str,
        does: Does,
    ) -> Self {
        Self::join_as(office, (tunnel, token), name, does, Habits::default()).await
    }

    /// The same with habits of its own.
    pub(crate) async fn join_as(
        office: &mut Office,
        (tunnel, token): (&str, &str),
        name: &'static str,
        does: Does,
        habits: Habits,
    ) -> Self {
        office.edge.credentials = Credentials::from_token(token).unwrap();
        let (server, id) = (office.edge.servers[0], Uuid::new_v4());
        let connector = Rc::new(Connector::registered_as(&office.edge, server, habits, id, 0).await);
        let (asked, does) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(does)));
        let (one, count, habit) = (connector.clone(), asked.clone(), does.clone());
        let serving = tokio::task::spawn_local(async move {
            while let Ok((send, recv)) = one.connection.accept_bi().await {
                let opened = Opened::read_head(send, recv).await;
                count.set(count.get() + 1);
                tokio::task::spawn_local(serve(opened, name, habit.get()));
            }
        });
        let (tunnel, token) = (tunnel.to_owned(), token.to_owned());
        Self { tunnel, token, connector, asked, does, serving }
    }

    /// Ends as a process does that is killed.
    pub(crate) fn kill(&self) {
        self.serving.abort();
        self.connector.connection.close(0u32.into(), b"");
    }

    /// The same, and waits until the edge has seen it.
    pub(crate) async fn end(&self, office: &Office) {
        self.kill();
        while office.get(&office.tunnel(&self.tunnel)).await["status"] == "degraded" {}
    }
}

async fn serve(opened: Opened, name: &str, does: Does) {
    match does {
        Does::Serve | Does::ServeSlowly => {
            if matches!(does, Does::ServeSlowly) {
                sleep(Duration::from_millis(100)).await;
            }
            let host = opened.request().uri().host().unwrap_or_default().to_owned();
            opened.ok(format!("{name} {host}").as_bytes()).await;
        }
        Does::TurnAway => opened.turn_away(),
        Does::BreakOff => opened.break_off(),
        Does::BeNotHere => opened.refuse("not here: no connection").await,
        Does::Refuse => opened.refuse("no answer").await,
        Does::AnswerInstead => {
            opened.answer(Response::builder().status(503).header("adit-instead", "host"), b"closed").await;
        }
        Does::BeLate => {
            opened.answer(Response::builder().status(504).header("adit-instead", "late"), b"late").await;
        }
    }
}

async fn connect(office: &mut Office, token: &str, name: &'static str, does: Does) -> Host {
    Host::join(office, ("", token), name, does).await
}

impl Office {
    pub(crate) async fn ask_host(&self, method: Method, host: &str) -> Page {
        let request = Request::builder().method(method).uri("/").header("host", host);
        self.edge.page(request.header("accept", "application/json").body(empty()).unwrap()).await
    }

    /// How many of `count` requests each host answers.
    pub(crate) async fn shares(&self, host: &str, count: usize) -> HashMap<String, usize> {
        let mut shares = HashMap::new();
        for _ in 0..count {
            let page = self.ask_host(Method::GET, host).await;
            assert_eq!(page.status.as_u16(), 200, "{page:?}");
            *shares.entry(page.text.split(' ').next().unwrap().to_owned()).or_default() += 1;
        }
        shares
    }

    pub(crate) async fn only(&self, host: &str, name: &str) {
        assert_eq!(self.shares(host, 20).await, HashMap::from([(name.to_owned(), 20)]));
    }

    /// No endpoint may serve.
    pub(crate) async fn nobody(&self, host: &str) {
        let page = self.ask_host(Method::GET, host).await;
        let json: Value = serde_json::from_str(&page.text).unwrap();
        let seen = (page.status.as_u16(), &json["error"], &json["code"]);
        assert_eq!(seen, (530, &json!("no-endpoint"), &json!(1016)), "{page:?}");
    }

    pub(crate) fn pool_path(&self, id: &str) -> String {
        self.objects(&format!("pools/{id}"))
    }
}

pub(crate) fn tries(page: &Page) -> &str {
    page.headers.get("adit-tries").map_or("1", |value| value.to_str().unwrap())
}

const NAME: &str = "app.example.com";

#[tokio::test]
async fn traffic_flows_while_a_tunnel_runs_and_nobody_notices_one_that_stops() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let one = Host::start(&mut office, "one", Does::Serve).await;
            let other = Host::start(&mut office, "other", Does::Serve).await;
            let pool = office.pool("both", &[&one.tunnel, &other.tunnel]).await;
            let balancer = office.balancer(NAME, &[&pool], json!({})).await;
            let shares = office.shares(NAME, 100).await;
            assert_eq!(shares.len(), 2);
            let status = office.get(&office.balancers(&format!("/{balancer}/status"))).await;
            let endpoint = &status["pools"][0]["endpoints"][0];
            assert_eq!(endpoint["tunnel_name"], "one");
            assert_eq!(endpoint["requests_last_minute"], shares["one"]);
            assert_eq!(endpoint["share_by_weight"], 0.5);
            let health = format!("{}/health", office.pool_path(&pool));
            let healthy = office.get(&health).await;
            assert_eq!(healthy["pop_health"]["edge"]["healthy"], true);
            one.end(&office).await;
            office.only(NAME, "other").await;
            let origins = &office.get(&health).await["pop_health"]["edge"]["origins"];
            let address = format!("{}.cfargotunnel.com", one.tunnel);
            assert_eq!(origins[0][address.as_str()]["healthy"], false, "{origins}");
            other.end(&office).await;
            office.nobody(NAME).await;
            assert_eq!(office.get(&health).await["pop_health"]["edge"]["healthy"], false);
            let _back = connect(&mut office, &one.token, "back", Does::Serve).await;
            office.only(NAME, "back").await;
        })
        .await;
}

#[tokio::test]
async fn a_name_leads_where_it_says_most_closely_and_a_load_balancer_goes_before_a_route() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let one = Host::start(&mut office, "one", Does::Serve).await;
            let other = Host::start(&mut office, "other", Does::Serve).await;
            let pool = office.pool("p", &[&one.tunnel]).await;
            let balancer = office.balancer(NAME, &[&pool], json!({})).await;
            office.route(&other.tunnel, NAME, false).await.result();
            office.only(NAME, "one").await;
            let path = office.balancers(&format!("/{balancer}"));
            office.edit(&path, json!({ "enabled": false })).await;
            office.only(NAME, "other").await;
            office.edit(&path, json!({ "enabled": true, "name": "*.example.com" })).await;
            office.only(NAME, "other").await;
            office.only("else.example.com", "one").await;
            let gone = office.ask(Method::DELETE, &path, None).await;
            gone.result();
            assert_eq!(office.visit("else.example.com").await, 404);
            // Its name is free for others.
            office.balancer("*.example.com", &[&pool], json!({})).await;
            office.only("else.example.com", "one").await;
        })
        .await;
}

#[tokio::test]
async fn the_next_pool_serves_where_one_has_too_few_endpoints_and_the_fallback_where_none_may() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let one = Host::start(&mut office, "one", Does::Serve).await;
            let two = Host::start(&mut office, "two", Does::Serve).await;
            let three = Host::start(&mut office, "three", Does::Serve).await;
            let last = Host::start(&mut office, "last", Does::Serve).await;
            let first = office.pool("first", &[&one.tunnel, &two.tunnel]).await;
            let second = office.pool("second", &[&three.tunnel]).await;
            let fallback = office.pool("fallback", &[&last.tunnel]).await;
            let more = json!({ "fallback_pool": fallback, "steering_policy": "off" });
            office.balancer(NAME, &[&first, &second], more).await;
            assert_eq!(office.shares(NAME, 50).await.len(), 2);
            let minimum = |count: u32| json!({ "minimum_origins": count });
            office.edit(&office.pool_path(&first), minimum(2)).await;
            two.end(&office).await;
            office.only(NAME, "three").await;
            office.edit(&office.pool_path(&first), minimum(1)).await;
            office.only(NAME, "one").await;
            office.edit(&office.pool_path(&first), json!({ "enabled": false })).await;
            office.only(NAME, "three").await;
            three.end(&office).await;
            office.only(NAME, "last").await;
            // Whatever the health of the fallback, unless it is switched off.
            office.edit(&office.pool_path(&fallback), minimum(9)).await;
            office.only(NAME, "last").await;
            office.edit(&office.pool_path(&fallback), json!({ "enabled": false })).await;
            office.nobody(NAME).await;
            office.edit(&office.pool_path(&first), json!({ "enabled": true })).await;
            office.only(NAME, "one").await;
        })
        .await;
}

#[tokio::test]
async fn endpoints_and_pools_get_their_shares_and_a_host_of_their_own() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let one = Host::start(&mut office, "one", Does::Serve).await;
            let other = Host::start(&mut office, "other", Does::Serve).await;
            let pool = office.pool("p", &[&one.tunnel, &other.tunnel]).await;
            let path = office.pool_path(&pool);
            let weights = |first: f64, second: f64| {
                let mut origins = [endpoint(&one.tunnel), endpoint(&other.tunnel)];
                (origins[0]["weight"], origins[1]["weight"]) = (json!(first), json!(second));
                json!({ "origins": origins })
            };
            office.balancer(NAME, &[&pool], json!({})).await;
            office.edit(&path, weights(0.75, 0.25)).await;
            let count = 800;
            let share = office.shares(NAME, count).await["one"] as f64 / count as f64;
            // Fails by chance once in 150,000 times.
            let bound = 4.5 * (0.75 * 0.25 / count as f64).sqrt();
            assert!((share - 0.75).abs() <= bound, "{share}");
            office.edit(&path, weights(0.0, 0.5)).await;
            office.only(NAME, "other").await;
            other.end(&office).await;
            office.only(NAME, "one").await;

            let _back = connect(&mut office, &other.token, "other", Does::Serve).await;
            office.edit(&path, weights(1.0, 1.0)).await;
            office.edit(&path, json!({ "origin_steering": { "policy": "hash" } })).await;
            assert_eq!(office.shares(NAME, 20).await.len(), 1, "one visitor has one endpoint");

            let mut origins = weights(0.0, 1.0);
            origins["origins"][1]["header"] = json!({ "Host": ["inner.example.com"] });
            office.edit(&path, origins).await;
            let page = office.ask_host(Method::GET, NAME).await;
            assert_eq!(page.text, "other inner.example.com");

            let second = office.pool("q", &[&one.tunnel]).await;
            let more = json!({ "steering_policy": "random",
                "random_steering": { "default_weight": 0.5, "pool_weights": { second.clone(): 0.0 } } });
            office.balancer("b.example.com", &[&second, &pool], more).await;
            office.only("b.example.com", "other").await;
        })
        .await;
}

#[tokio::test]
async fn by_latency_a_slow_endpoint_gets_little_and_one_that_fails_fast_no_more() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let slow = Host::start(&mut office, "slow", Does::ServeSlowly).await;
            let quick = Host::start(&mut office, "quick", Does::Serve).await;
            let pool = office.pool("p", &[&slow.tunnel, &quick.tunnel]).await;
            let said = json!({ "origin_steering": { "policy": "peak_ewma" } });
            let kept = office.edit(&office.pool_path(&pool), said).await;
            assert_eq!(kept["origin_steering"]["policy"], "peak_ewma");
            office.balancer(NAME, &[&pool], json!({})).await;
            let shares = office.shares(NAME, 60).await;
            let of_slow = shares.get("slow").copied().unwrap_or_default();
            assert!(of_slow <= 6, "{shares:?}: by weight it would be 30");

            // A failure is no quick answer.
            let fails = Host::start(&mut office, "fails", Does::Refuse).await;
            let other = Host::start(&mut office, "other", Does::ServeSlowly).await;
            let pool = office.pool("q", &[&fails.tunnel, &other.tunnel]).await;
            let said = json!({ "origin_steering": { "policy": "peak_ewma" } });
            office.edit(&office.pool_path(&pool), said).await;
            office.balancer("q.example.com", &[&pool], json!({})).await;
            let mut failed = 0;
            for _ in 0..20 {
                failed +=
                    u32::from(office.ask_host(Method::GET, "q.example.com").await.status.as_u16() != 200);
            }
            assert!(failed <= 2, "{failed} of 20");
        })
        .await;
}

#[tokio::test]
async fn what_no_host_has_processed_goes_to_another_endpoint_whatever_its_method() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let away = Host::start(&mut office, "away", Does::TurnAway).await;
            let serves = Host::start(&mut office, "serves", Does::Serve).await;
            let first = office.pool("first", &[&away.tunnel]).await;
            let second = office.pool("second", &[&serves.tunnel]).await;
            let both = office.pool("both", &[&away.tunnel, &serves.tunnel]).await;
            office.balancer(NAME, &[&first, &second], json!({})).await;
            office.balancer("b.example.com", &[&both], json!({})).await;
            for method in [Method::GET, Method::POST, Method::PATCH] {
                let page = office.ask_host(method.clone(), NAME).await;
                assert_eq!((page.status.as_u16(), tries(&page)), (200, "2"), "{method}: {page:?}");
                for _ in 0..20 {
                    let page = office.ask_host(method.clone(), "b.example.com").await;
                    assert_eq!(page.status.as_u16(), 200, "{method}: {page:?}");
                }
            }
            serves.end(&office).await;
            office.nobody(NAME).await;
        })
        .await;
}

#[tokio::test]
async fn what_a_service_may_have_seen_goes_to_another_pool_only_where_that_is_allowed() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let breaks = Host::start(&mut office, "breaks", Does::BreakOff).await;
            let serves = Host::start(&mut office, "serves", Does::Serve).await;
            let first = office.pool("first", &[&breaks.tunnel]).await;
            let second = office.pool("second", &[&serves.tunnel]).await;
            let both = office.pool("both", &[&breaks.tunnel, &serves.tunnel]).await;
            let balancer = office.balancer(NAME, &[&first, &second], json!({})).await;
            office.balancer("b.example.com", &[&both], json!({})).await;
            let lost = office.ask_host(Method::GET, NAME).await;
            assert_eq!((lost.status.as_u16(), tries(&lost)), (502, "1"), "{lost:?}");
            let allow = json!({ "adaptive_routing": { "failover_across_pools": true } });
            office.edit(&office.balancers(&format!("/{balancer}")), allow).await;
            let page = office.ask_host(Method::GET, NAME).await;
            assert_eq!((page.status.as_u16(), tries(&page)), (200, "2"), "{page:?}");
            let posted = office.ask_host(Method::POST, NAME).await;
            assert_eq!((posted.status.as_u16(), tries(&posted)), (502, "1"), "never twice");
            // Within a pool it may, as between the replicas of a tunnel.
            for _ in 0..8 {
                assert_eq!(office.ask_host(Method::GET, "b.example.com").await.status.as_u16(), 200);
            }
        })
        .await;
}
