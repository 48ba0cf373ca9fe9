//! Endpoints whose requests fail: who is left out for a while, who never is, and how one comes back.

use std::time::Duration;

use adit_protocol::credentials::Credentials;
use http::{Method, Request};
use serde_json::json;
use tokio::time::timeout;

use crate::balancing::endpoint;
use crate::connector::Habits;
use crate::harness::{LocalSet, Page, empty};
use crate::http2;
use crate::office::Office;
use crate::steering::{Does, Host};

const NAME: &str = "app.example.com";

impl Office {
    /// Asks as a visitor of this number.
    async fn ask_from(&self, visitor: usize) -> Page {
        let request = Request::builder().method(Method::GET).uri("/").header("host", NAME);
        let request = request.header("x-forwarded-for", format!("192.0.2.{}", visitor % 250));
        self.edge.page(request.body(empty()).unwrap()).await
    }

    /// What is said of the endpoints of a pool.
    async fn reasons(&self, pool: &str) -> Vec<String> {
        let health = self.get(&format!("{}/health", self.pool_path(pool))).await;
        let endpoints = health["pop_health"]["edge"]["origins"].as_array().unwrap().clone();
        let said = endpoints.iter().flat_map(|named| named.as_object().unwrap().values());
        said.map(|endpoint| endpoint["failure_reason"].as_str().unwrap().to_owned()).collect()
    }

    /// How many endpoints of a pool are left out.
    async fn left_out(&self, pool: &str) -> usize {
        self.reasons(pool).await.iter().filter(|reason| reason.contains("requests failed")).count()
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_many_visitors_is_left_out_until_one_request_finds_it_well() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let failing = Host::start(&mut office, "failing", Does::BreakOff).await;
            let well = Host::start(&mut office, "well", Does::Serve).await;
            let pool = office.pool("both", &[&failing.tunnel, &well.tunnel]).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            let mut visitor = 0;
            let out = async {
                while office.left_out(&pool).await == 0 {
                    visitor += 1;
                    assert_eq!(office.ask_from(visitor).await.status.as_u16(), 200, "nobody notices");
                }
            };
            timeout(PATIENCE, out).await.expect("it is left out");
            // Its pool does not count it as down.
            let health = office.get(&format!("{}/health", office.pool_path(&pool))).await;
            assert_eq!(health["pop_health"]["edge"]["healthy"], true);
            let before = failing.asked.get();
            for visitor in 0..100 {
                assert_eq!(office.ask_from(visitor).await.status.as_u16(), 200);
            }
            // One may be the trial, on a machine that is very busy.
            assert!(failing.asked.get() <= before + 1, "{} after {before}", failing.asked.get());

            failing.does.set(Does::Serve);
            let back = async { while !office.ask_from(7).await.text.starts_with("failing") {} };
            timeout(PATIENCE, back).await.expect("a request finds out");
            assert_eq!(office.left_out(&pool).await, 0);
        })
        .await;
}

/// A pool of one that gets the requests and of one that gets those it fails; and the first.
async fn first_of_two(office: &mut Office, features: &[&'static str]) -> (String, Host) {
    let (tunnel, token) = office.tunnel_named("first").await;
    let habits = Habits { features: features.to_vec(), ..Habits::default() };
    let first = Host::join_as(office, (&tunnel, &token), "first", Does::Serve, habits).await;
    let second = Host::start(office, "second", Does::Serve).await;
    let pool = office.pool("both", &[&tunnel, &second.tunnel]).await;
    let mut origins = [endpoint(&tunnel), endpoint(&second.tunnel)];
    origins[1]["weight"] = json!(0);
    office.edit(&office.pool_path(&pool), json!({ "origins": origins })).await;
    office.balancer(NAME, &[&pool], json!({})).await;
    (pool, first)
}

#[tokio::test]
async fn what_a_plugin_answers_is_neither_good_nor_bad_of_its_endpoint_and_a_late_service_is_bad() {
    LocalSet::new()
        .run_until(async {
            // Only a host that can tell them apart is believed.
            for (features, is_told) in [(&["adit_instead"][..], true), (&[], false)] {
                let mut office = Office::open_behind_proxy("").await;
                let (pool, first) = first_of_two(&mut office, features).await;
                first.does.set(Does::BreakOff);
                for visitor in 0..4 {
                    assert_eq!(office.ask_from(visitor).await.status.as_u16(), 200, "the other one serves");
                }
                first.does.set(Does::AnswerInstead);
                for visitor in 0..40 {
                    let page = office.ask_from(visitor).await;
                    assert_eq!((page.status.as_u16(), &*page.text), (503, "closed"));
                    assert!(!page.headers.contains_key("adit-instead"), "{page:?}");
                }
                assert_eq!(office.left_out(&pool).await, 0, "no answer leaves it out");
                first.does.set(Does::BreakOff);
                office.ask_from(4).await;
                assert_eq!(
                    office.left_out(&pool).await == 1,
                    is_told,
                    "it is the fifth in a row, or the first"
                );
            }
            let mut office = Office::open_behind_proxy("").await;
            let (pool, first) = first_of_two(&mut office, &["adit_instead"]).await;
            first.does.set(Does::BeLate);
            for visitor in 0..5 {
                assert_eq!(office.ask_from(visitor).await.status.as_u16(), 504);
            }
            assert_eq!(office.left_out(&pool).await, 1);
        })
        .await;
}

#[tokio::test]
async fn a_host_over_http2_says_who_has_answered_too() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let (tunnel, token) = office.tunnel_named("first").await;
            office.edge.credentials = Credentials::from_token(&token).unwrap();
            let features = ["adit_instead"];
            let server = office.edge.servers[0];
            let mut first = http2::Connector::registered_as(&office.edge, server, 100, &features).await;
            let second = Host::start(&mut office, "second", Does::Serve).await;
            let pool = office.pool("both", &[&tunnel, &second.tunnel]).await;
            let mut origins = [endpoint(&tunnel), endpoint(&second.tunnel)];
            origins[1]["weight"] = json!(0);
            office.edit(&office.pool_path(&pool), json!({ "origins": origins })).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            // `adit-instead: host` between failures; four, an answer, and the fifth.
            for (visitor, breaks) in [(0, true), (1, true), (2, true), (3, true), (9, false), (4, true)] {
                assert_eq!(office.left_out(&pool).await, 0, "before {visitor}");
                let (page, ()) = tokio::join!(office.ask_from(visitor), async {
                    let (_, mut respond) = first.accept().await;
                    if breaks {
                        respond.send_reset(h2::Reason::INTERNAL_ERROR);
                    } else {
                        http2::answer(&mut respond, 503, "YWRpdC1pbnN0ZWFk:aG9zdA", "closed");
                    }
                });
                assert_eq!(page.status.as_u16(), if breaks { 200 } else { 503 }, "{page:?}");
                assert!(!page.headers.contains_key("adit-instead"), "{page:?}");
            }
            assert_eq!(office.left_out(&pool).await, 1);
        })
        .await;
}

#[tokio::test]
async fn one_visitor_whose_requests_crash_services_leaves_nobody_out() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let hosts = [
                Host::start(&mut office, "one", Does::Refuse).await,
                Host::start(&mut office, "other", Does::Refuse).await,
            ];
            let pool = office.pool("both", &[&hosts[0].tunnel, &hosts[1].tunnel]).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            // Fewer than say something by themselves.
            for _ in 0..16 {
                assert_eq!(office.ask_from(1).await.status.as_u16(), 502);
            }
            assert_eq!(office.left_out(&pool).await, 0);
            // The same by many is another matter.
            for visitor in 0..16 {
                office.ask_from(visitor).await;
            }
            assert_eq!(office.left_out(&pool).await, 1, "{:?}", office.reasons(&pool).await);
        })
        .await;
}

#[tokio::test]
async fn where_all_fail_at_once_half_of_them_stay_and_the_last_one_is_never_left_out() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let mut hosts = Vec::new();
            for name in ["one", "two", "three"] {
                hosts.push(Host::start(&mut office, name, Does::BreakOff).await);
            }
            let tunnels: Vec<&str> = hosts.iter().map(|host| host.tunnel.as_str()).collect();
            let pool = office.pool("all", &tunnels).await;
            let alone = office.pool("alone", &tunnels[..1]).await;
            office.balancer(NAME, &[&pool], json!({ "fallback_pool": alone })).await;
            let asked = || hosts.iter().map(|host| host.asked.get()).sum::<usize>();
            for visitor in 0..200 {
                let before = asked();
                assert_eq!(office.ask_from(visitor).await.status.as_u16(), 502);
                assert!(asked() > before, "somebody is asked each time");
            }
            assert_eq!(office.left_out(&pool).await, 1);
            hosts.iter().for_each(|host| host.does.set(Does::Serve));
            for visitor in 0..20 {
                assert_eq!(office.ask_from(visitor).await.status.as_u16(), 200);
            }

            // One alone may fail as long as it likes.
            let only = office.pool("only", &tunnels[..1]).await;
            let body = json!({ "default_pools": [only], "fallback_pool": only });
            let balancers = office.get(&office.balancers("")).await;
            let id = balancers[0]["id"].as_str().unwrap();
            office.edit(&office.balancers(&format!("/{id}")), body).await;
            hosts[0].does.set(Does::BreakOff);
            for visitor in 0..60 {
                office.ask_from(visitor).await;
            }
            assert_eq!(office.left_out(&only).await, 0);
            hosts[0].does.set(Does::Serve);
            assert_eq!(office.ask_from(1).await.status.as_u16(), 200);
        })
        .await;
}

const PATIENCE: Duration = Duration::from_secs(90);
