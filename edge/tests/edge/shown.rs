//! What load balancers do under load and failure, as tables for people: run with `--ignored --nocapture shown::`. The
//! bounds are asserted too.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Method, Request};
use serde_json::{Value, json};
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::alerts::Hook;
use crate::balancing::{endpoint, id};
use crate::harness::{Visitor, empty};
use crate::office::Office;
use crate::steering::{Does, Host};

const NAME: &str = "app.example.com";
const DOWN: &str = "TUNNEL_STATUS_TYPE_DOWN";

/// What became of a request: when it ended, how, by whom, and after how many attempts.
struct Seen {
    at: Instant,
    status: u16,
    by: String,
    tries: u32,
}

/// Visitors that ask one request after the other, together `rate` a second, until they are dropped.
struct Load {
    seen: Rc<RefCell<Vec<Seen>>>,
    is_over: Rc<Cell<bool>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(office: &Office, visitors: u32, rate: u32, method: &Method) -> Self {
        let (seen, is_over) = (Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let every = Duration::from_secs(1) * visitors / rate;
        let http = office.edge.http;
        let task = |number: u32| {
            let (seen, is_over, method) = (seen.clone(), is_over.clone(), method.clone());
            tokio::task::spawn_local(async move {
                let mut visitor = Visitor::connect(http).await;
                let began = Instant::now();
                for turn in 0.. {
                    if is_over.get() {
                        return;
                    }
                    sleep((every * turn + every * number / visitors).saturating_sub(began.elapsed())).await;
                    let request = Request::builder().method(method.clone()).uri("/").header("host", NAME);
                    let request = request.header("x-forwarded-for", format!("192.0.2.{number}"));
                    let page = visitor.ask(request.body(empty()).unwrap()).await;
                    let tries = page.headers.get("adit-tries").map(|tries| tries.to_str().unwrap().parse());
                    seen.borrow_mut().push(Seen {
                        at: Instant::now(),
                        status: page.status.as_u16(),
                        by: page.text.split(' ').next().unwrap().to_owned(),
                        tries: tries.map_or(1, Result::unwrap),
                    });
                }
            })
        };
        Self { tasks: (0..visitors).map(task).collect(), seen, is_over }
    }

    async fn end(self) -> Vec<Seen> {
        self.is_over.set(true);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.seen.take()
    }
}

#[tokio::test]
#[ignore = "a table that takes some minutes"]
async fn one_of_three_endpoints_is_killed_under_load_and_comes_back() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let mut hosts = HashMap::new();
            for name in ["one", "two", "three"] {
                hosts.insert(name, Host::start(&mut office, name, Does::Serve).await);
            }
            let tunnels: Vec<&str> = hosts.values().map(|host| host.tunnel.as_str()).collect();
            let pool = office.pool("all", &tunnels).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            println!("| method | requests/s | failed | last answer of the killed one |");
            println!("|---|---|---|---|");
            for method in [Method::GET, Method::POST] {
                let load = Load::start(&office, 40, 1_000, &method);
                // Longer than others have to serve until one beside them starts slowly.
                sleep(Duration::from_secs(16)).await;
                let killed = Instant::now();
                hosts["one"].kill();
                sleep(Duration::from_secs(2)).await;
                let (tunnel, token) = (hosts["one"].tunnel.clone(), hosts["one"].token.clone());
                let back = Host::join(&mut office, (&tunnel, &token), "one", Does::Serve).await;
                let began = Instant::now();
                sleep(Duration::from_secs(34)).await;
                let seen = load.end().await;
                hosts.insert("one", back);
                let failed = seen.iter().filter(|seen| seen.status != 200).count();
                let before = seen.iter().filter(|seen| seen.at < killed);
                let (mut count, mut first) = (0_u32, killed);
                for seen in before {
                    (count, first) = (count + 1, first.min(seen.at));
                }
                let rate = f64::from(count) / (killed - first).as_secs_f64();
                let last = seen.iter().filter(|seen| seen.by == "one" && seen.at < began).map(|seen| seen.at);
                let last = last.max().unwrap_or(killed).saturating_duration_since(killed);
                println!("| {method} | {rate:.0} | {failed} | {last:.1?} after |");
                let share = |second: u64| {
                    let from = began + Duration::from_secs(second);
                    let within = |seen: &&Seen| seen.at >= from && seen.at < from + Duration::from_secs(1);
                    let all = seen.iter().filter(within).count();
                    let own = seen.iter().filter(within).filter(|seen| seen.by == "one").count();
                    format!("{second} s {:.0} %", 100.0 * own as f64 / all.max(1) as f64)
                };
                let shares: Vec<_> = [0, 1, 3, 5, 10, 15, 20, 25, 30, 32].map(share).into();
                println!("back, its share: {}", shares.join(", "));
                if method == Method::GET {
                    assert_eq!(failed, 0);
                }
                assert!(failed <= 40, "only what was under way can be lost");
            }
        })
        .await;
}

#[tokio::test]
#[ignore = "a table that takes some minutes"]
async fn all_endpoints_fail_at_once() {
    LocalSet::new()
        .run_until(async {
            println!(
                "| pools | requests | answered before | attempts per request | left without an attempt |"
            );
            println!("|---|---|---|---|---|");
            for count in [1, 3] {
                let mut office = Office::open_behind_proxy("").await;
                let (mut hosts, mut pools) = (Vec::new(), Vec::new());
                for pool in 0..count {
                    let mut tunnels = Vec::new();
                    for name in ["a", "b", "c"] {
                        let host = Host::start(&mut office, name, Does::Serve).await;
                        tunnels.push(host.tunnel.clone());
                        hosts.push(host);
                        let path = office.tunnel(tunnels.last().unwrap());
                        let name = json!({ "name": format!("{name}{pool}") });
                        office.ask(Method::PATCH, &path, Some(name)).await.result();
                    }
                    let tunnels: Vec<&str> = tunnels.iter().map(String::as_str).collect();
                    pools.push(office.pool(&format!("p{pool}"), &tunnels).await);
                }
                let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
                let more = json!({ "adaptive_routing": { "failover_across_pools": true } });
                office.balancer(NAME, &pools, more).await;
                let load = Load::start(&office, 40, 800, &Method::GET);
                sleep(Duration::from_secs(11)).await;
                let failing = Instant::now();
                hosts.iter().for_each(|host| host.does.set(Does::BreakOff));
                sleep(Duration::from_secs(15)).await;
                let seen = load.end().await;
                let (after, before): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.at >= failing);
                let good = before.iter().filter(|seen| seen.status == 200).count();
                let attempts: u32 = after.iter().map(|seen| seen.tries).sum();
                let nobody = after.iter().filter(|seen| seen.status == 530).count();
                let each = f64::from(attempts) / after.len() as f64;
                println!("| {count} | {} | {good} of {} | {each:.3} | {nobody} |", after.len(), before.len());
                assert_eq!((nobody, good), (0, before.len()));
                assert!(each <= 1.2, "{each}");
            }
        })
        .await;
}

#[tokio::test]
#[ignore = "a table that takes ten minutes"]
async fn an_endpoint_that_flips_every_second_for_five_minutes_is_hardly_noticed() {
    LocalSet::new()
        .run_until(async {
            println!("| what flips | requests | its share | failed | the pool changed | alerts |");
            println!("|---|---|---|---|---|---|");
            for what in ["its requests fail", "its host goes"] {
                let mut office =
                    Office::open_behind_proxy("[alerts]\nprivate-networks = [\"127.0.0.0/8\"]\n").await;
                let mut hosts = Vec::new();
                for name in ["flips", "two", "three"] {
                    hosts.push(Host::start(&mut office, name, Does::Serve).await);
                }
                let tunnels: Vec<&str> = hosts.iter().map(|host| host.tunnel.as_str()).collect();
                let pool = office.pool("all", &tunnels).await;
                office.balancer(NAME, &[&pool], json!({})).await;
                let hook = Hook::open().await;
                let made = id(&office.hook(&hook.url(), None).await);
                let kinds = ["load_balancing_health_alert", "tunnel_health_event"];
                // Hosts of tests have one connection, so their tunnels are never more than degraded.
                for (kind, filters) in kinds.into_iter().zip([json!({}), json!({ "new_status": [DOWN] })]) {
                    office.policy(&made, kind, filters).await;
                }
                let load = Load::start(&office, 20, 100, &Method::GET);
                // Until health is told, and until who comes back starts slowly.
                sleep(Duration::from_secs(16)).await;
                let health = format!("{}/health", office.pool_path(&pool));
                let (mut flipping, mut is_up, mut healthy, mut changes) =
                    (hosts.remove(0), true, json!(true), 0);
                for _ in 0..300 {
                    is_up = !is_up;
                    match (what, is_up) {
                        ("its requests fail", true) => flipping.does.set(Does::Serve),
                        ("its requests fail", false) => flipping.does.set(Does::BreakOff),
                        (_, false) => flipping.kill(),
                        (_, true) => {
                            let (tunnel, token) = (flipping.tunnel.clone(), flipping.token.clone());
                            flipping = Host::join(&mut office, (&tunnel, &token), "flips", Does::Serve).await;
                        }
                    }
                    sleep(Duration::from_secs(1)).await;
                    let now = office.get(&health).await["pop_health"]["edge"]["healthy"].clone();
                    changes += u32::from(std::mem::replace(&mut healthy, now.clone()) != now);
                }
                let seen = load.end().await;
                let failed = seen.iter().filter(|seen| seen.status != 200).count();
                let own = seen.iter().filter(|seen| seen.by == "flips").count();
                let share = own as f64 / seen.len() as f64;
                let alerts: usize = kinds.iter().map(|kind| hook.count(kind)).sum();
                println!("| {what} | {} | {share:.3} | {failed} | {changes} times | {alerts} |", seen.len());
                assert!(share <= 1.0 / 3.0 && failed == 0 && changes <= 2 && alerts <= 2);
            }
        })
        .await;
}

#[tokio::test]
#[ignore = "a table that takes some minutes"]
async fn shares_of_pools_follow_weights_too() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let (mut hosts, mut pools) = (Vec::new(), Vec::new());
            for name in ["t0", "t1", "t2"] {
                hosts.push(Host::start(&mut office, name, Does::Serve).await);
                pools.push(office.pool(name, &[&hosts.last().unwrap().tunnel]).await);
            }
            let weights: Value = pools.iter().cloned().zip([0.6, 0.3, 0.1].map(Value::from)).collect();
            let pools: Vec<&str> = pools.iter().map(String::as_str).collect();
            println!("| policy of pools | 0.6 | 0.3 | 0.1 |");
            println!("|---|---|---|---|");
            for policy in ["random", "least_outstanding_requests", "least_connections", "hash"] {
                let more =
                    json!({ "steering_policy": policy, "random_steering": { "pool_weights": weights } });
                let balancer = office.balancer(NAME, &pools, more).await;
                let (mut visitor, mut counts, count) =
                    (Visitor::connect(office.edge.http).await, [0_u32; 3], 6_000);
                for number in 0..count {
                    let request = Request::get("/").header("host", NAME);
                    let from = format!("198.51.{}.{}", number / 250, number % 250);
                    let page =
                        visitor.ask(request.header("x-forwarded-for", from).body(empty()).unwrap()).await;
                    let at: usize = page.text[1..2].parse().unwrap();
                    counts[at] += 1;
                }
                office.ask(Method::DELETE, &office.balancers(&format!("/{balancer}")), None).await.result();
                let shares = counts.map(|one| f64::from(one) / f64::from(count));
                println!("| {policy} | {:.3} | {:.3} | {:.3} |", shares[0], shares[1], shares[2]);
                for (share, weight) in shares.into_iter().zip([0.6, 0.3, 0.1]) {
                    let bound = 4.5 * (weight * (1.0 - weight) / f64::from(count)).sqrt();
                    assert!((share - weight).abs() <= bound, "{policy}: {share} for {weight}");
                }
            }
        })
        .await;
}

#[tokio::test]
#[ignore = "a table that takes some minutes"]
async fn shares_follow_weights_and_exactly_the_lost_sessions_move() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let mut hosts = Vec::new();
            for name in ["t0", "t1", "t2", "t3", "t4", "t5", "t6", "t7", "t8", "t9"] {
                hosts.push(Host::start(&mut office, name, Does::Serve).await);
            }
            let three: Vec<&str> = hosts[..3].iter().map(|host| host.tunnel.as_str()).collect();
            let pool = office.pool("three", &three).await;
            office.balancer(NAME, &[&pool], json!({})).await;
            println!("| policy of endpoints | 0.6 | 0.3 | 0.1 |");
            println!("|---|---|---|---|");
            for policy in ["random", "least_outstanding_requests", "least_connections", "hash"] {
                let origins = three.iter().zip([0.6, 0.3, 0.1]).map(|(tunnel, weight)| {
                    let mut origin = endpoint(tunnel);
                    origin["weight"] = json!(weight);
                    origin
                });
                let said = json!({ "origins": origins.collect::<Vec<Value>>(), "origin_steering": { "policy": policy } });
                office.edit(&office.pool_path(&pool), said).await;
                let (mut visitor, mut counts, count) = (Visitor::connect(office.edge.http).await, [0_u32; 3], 6_000);
                for number in 0..count {
                    let request = Request::get("/").header("host", NAME);
                    let from = format!("198.51.{}.{}", number / 250, number % 250);
                    let page = visitor.ask(request.header("x-forwarded-for", from).body(empty()).unwrap()).await;
                    let at: usize = page.text[1..2].parse().unwrap();
                    counts[at] += 1;
                }
                let shares = counts.map(|one| f64::from(one) / f64::from(count));
                println!("| {policy} | {:.3} | {:.3} | {:.3} |", shares[0], shares[1], shares[2]);
                for (share, weight) in shares.into_iter().zip([0.6, 0.3, 0.1]) {
                    let bound = 4.5 * (weight * (1.0 - weight) / f64::from(count)).sqrt();
                    assert!((share - weight).abs() <= bound, "{policy}: {share} for {weight}");
                }
            }

            let all: Vec<&str> = hosts.iter().map(|host| host.tunnel.as_str()).collect();
            let homes = async |name: &str| {
                let (mut visitor, mut homes) = (Visitor::connect(office.edge.http).await, Vec::new());
                for user in 0..10_000 {
                    let request = Request::get("/").header("host", name).header("x-user", user.to_string());
                    let page = visitor.ask(request.body(empty()).unwrap()).await;
                    homes.push(page.text[1..2].parse::<usize>().unwrap());
                }
                homes
            };
            println!("| removed | sessions there | moved of them | moved of others |");
            println!("|---|---|---|---|");
            for removed in 0..hosts.len() {
                let (pool, name) = (format!("of-{removed}"), format!("b{removed}.example.com"));
                let pool = office.pool(&pool, &all).await;
                let sessions = json!({ "session_affinity": "header",
                    "session_affinity_attributes": { "headers": ["x-user"] } });
                office.balancer(&name, &[&pool], sessions).await;
                let before = homes(&name).await;
                let left = all.iter().enumerate().filter(|(at, _)| *at != removed);
                let origins: Vec<_> = left.map(|(_, id)| endpoint(id)).collect();
                office.edit(&office.pool_path(&pool), json!({ "origins": origins })).await;
                let after = homes(&name).await;
                let there = before.iter().filter(|home| **home == removed).count();
                let moved = |of: bool| {
                    let pairs = before.iter().zip(&after).filter(|(home, _)| (**home == removed) == of);
                    pairs.filter(|(home, now)| home != now).count()
                };
                println!("| t{removed} | {there} | {} | {} |", moved(true), moved(false));
                assert_eq!((moved(true), moved(false)), (there, 0));
            }
        })
        .await;
}
