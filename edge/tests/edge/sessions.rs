//! Sessions of load balancers: who stays where, by which cookie, and what becomes of a session whose endpoint fails or
//! is switched off.

use std::collections::{HashMap, HashSet};

use http::{Method, Request};
use serde_json::{Value, json};

use crate::balancing::endpoint;
use crate::harness::{LocalSet, Page, empty};
use crate::office::Office;
use crate::steering::{Does, Host, tries};

const NAME: &str = "app.example.com";

/// What a visitor's browser holds.
#[derive(Default, Clone)]
struct Jar(Option<String>);

/// An answer, and by whom.
struct Seen {
    by: String,
    /// The cookie that it sets, with its attributes.
    cookie: Option<String>,
    page: Page,
}

impl Jar {
    async fn ask(&mut self, office: &Office, method: Method, host: &str) -> Seen {
        let mut request = Request::builder().method(method).uri("/").header("host", host);
        if let Some(cookie) = &self.0 {
            request = request.header("cookie", format!("a=b; {cookie}"));
        }
        let page = office.edge.page(request.body(empty()).unwrap()).await;
        let cookie = page.headers.get("set-cookie").map(|value| value.to_str().unwrap().to_owned());
        if let Some(cookie) = &cookie {
            self.0 = Some(cookie.split(';').next().unwrap().to_owned());
        }
        Seen { by: page.text.split(' ').next().unwrap().to_owned(), cookie, page }
    }

    async fn get(&mut self, office: &Office) -> Seen {
        self.ask(office, Method::GET, NAME).await
    }
}

impl Office {
    async fn three(&mut self) -> HashMap<&'static str, Host> {
        let mut hosts = HashMap::new();
        for name in ["one", "two", "three"] {
            hosts.insert(name, Host::start(self, name, Does::Serve).await);
        }
        hosts
    }

    /// A load balancer over all of them that keeps sessions so; its pool.
    async fn keeping(&self, hosts: &HashMap<&'static str, Host>, by: &str, attributes: Value) -> String {
        let tunnels: Vec<&str> = hosts.values().map(|host| host.tunnel.as_str()).collect();
        let pool = self.pool("all", &tunnels).await;
        let more = json!({ "session_affinity": by, "session_affinity_attributes": attributes });
        self.balancer(NAME, &[&pool], more).await;
        pool
    }
}

#[tokio::test]
async fn a_visitor_stays_with_its_endpoint_as_long_as_that_is_there() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let hosts = office.three().await;
            office.keeping(&hosts, "cookie", json!({})).await;
            let mut jars = vec![Jar::default(); 30];
            let mut homes = Vec::new();
            for jar in &mut jars {
                let first = jar.get(&office).await;
                let cookie = first.cookie.expect("the first answer makes a session");
                let attributes = cookie.split_once(';').unwrap().1;
                assert_eq!(attributes, " Max-Age=82800; Path=/; HttpOnly; SameSite=Lax");
                homes.push(first.by);
            }
            assert_eq!(homes.iter().collect::<HashSet<_>>().len(), 3, "{homes:?}");
            for (jar, home) in jars.iter_mut().zip(&homes) {
                for _ in 0..3 {
                    let seen = jar.get(&office).await;
                    assert_eq!((&seen.by, seen.cookie), (home, None));
                }
            }
            hosts["two"].end(&office).await;
            for (jar, home) in jars.iter_mut().zip(&homes) {
                let seen = jar.get(&office).await;
                // Exactly those that were there move, and stay where they go.
                assert_eq!(seen.cookie.is_some(), home == "two");
                let moved = seen.by;
                assert_ne!(moved, "two");
                assert_eq!(moved == *home, home != "two");
                assert_eq!(jar.get(&office).await.by, moved);
            }
        })
        .await;
}

#[tokio::test]
async fn a_cookie_counts_for_its_load_balancer_alone_and_as_it_was_made() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let hosts = office.three().await;
            let pool = office.keeping(&hosts, "cookie", json!({})).await;
            let more = json!({ "session_affinity": "cookie" });
            office.balancer("b.example.com", &[&pool], more).await;
            let mut jar = Jar::default();
            jar.get(&office).await;
            let mut other = jar.clone();
            let seen = other.ask(&office, Method::GET, "b.example.com").await;
            assert!(seen.cookie.is_some(), "the cookie of another name is none");
            let value = jar.0.clone().unwrap();
            for at in "__cflb=".len()..value.len() {
                let mut forged = value.clone().into_bytes();
                forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
                // The last character has bits that are no part of the value.
                if at + 1 == value.len() {
                    continue;
                }
                let mut forged = Jar(Some(String::from_utf8(forged).unwrap()));
                assert!(forged.get(&office).await.cookie.is_some(), "forged at {at}");
            }
            assert!(jar.get(&office).await.cookie.is_none());

            // A new edge over the same state believes it, and one edited pool does not move it.
            let home = jar.get(&office).await.by;
            let mut origins: Vec<Value> = hosts.values().map(|host| endpoint(&host.tunnel)).collect();
            origins.reverse();
            office.edit(&office.pool_path(&pool), json!({ "origins": origins, "minimum_origins": 1 })).await;
            let seen = jar.get(&office).await;
            assert_eq!((seen.by, seen.cookie), (home.clone(), None));
            office.edge.stop.cancel();
            let _ = (&mut office.edge.running).await;
            office.reopen();
            let back = ["one", "two", "three"].map(|name| &hosts[name]);
            let mut joined = Vec::new();
            for (name, host) in ["one", "two", "three"].into_iter().zip(back) {
                joined.push(Host::join(&mut office, (&host.tunnel, &host.token), name, Does::Serve).await);
            }
            let seen = jar.get(&office).await;
            assert_eq!((seen.by, seen.cookie), (home, None));
        })
        .await;
}

/// What becomes of a session whose endpoint fails so: by whom its next request is answered, and whether the session
/// goes there.
async fn after(failover: &str, does: Does) -> (u16, bool, bool) {
    let mut office = Office::open().await;
    let hosts = office.three().await;
    office.keeping(&hosts, "cookie", json!({ "zero_downtime_failover": failover })).await;
    let mut jar = Jar::default();
    let home = jar.get(&office).await.by;
    hosts[&*home].does.set(does);
    let seen = jar.get(&office).await;
    (seen.page.status.as_u16(), seen.by != home && seen.page.status == 200, seen.cookie.is_some())
}

#[tokio::test]
async fn one_failed_attempt_moves_a_session_only_where_that_is_said() {
    LocalSet::new()
        .run_until(async {
            for (failover, does, wanted) in [
                // Broken: the endpoint may have seen it.
                ("none", Does::BreakOff, (502, false, false)),
                ("temporary", Does::BreakOff, (200, true, false)),
                ("sticky", Does::BreakOff, (200, true, true)),
                // Not here, refused: it has not.
                ("none", Does::BeNotHere, (200, true, true)),
                ("none", Does::TurnAway, (200, true, true)),
                ("temporary", Does::BeNotHere, (200, true, false)),
                ("sticky", Does::BeNotHere, (200, true, true)),
            ] {
                assert_eq!(after(failover, does).await, wanted, "{failover} {}", does as u8);
            }
        })
        .await;
}

#[tokio::test]
async fn an_endpoint_that_is_switched_off_serves_its_own_sessions_for_a_while_and_nobody_else() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let hosts = office.three().await;
            let pool = office.keeping(&hosts, "cookie", json!({ "drain_duration": 600 })).await;
            let mut jar = Jar::default();
            let home = jar.get(&office).await.by;
            let origins = |is_on: bool| {
                let origins = hosts.iter().map(|(name, host)| {
                    let mut origin = endpoint(&host.tunnel);
                    origin["enabled"] = json!(is_on || **name != *home);
                    origin
                });
                json!({ "origins": origins.collect::<Vec<_>>() })
            };
            office.edit(&office.pool_path(&pool), origins(false)).await;
            for _ in 0..40 {
                assert_ne!(Jar::default().get(&office).await.by, home, "no new session");
            }
            let seen = jar.get(&office).await;
            assert_eq!((&seen.by, seen.cookie), (&home, None));
            let balancers = office.get(&office.balancers("")).await;
            let path = office.balancers(&format!("/{}", balancers[0]["id"].as_str().unwrap()));
            let over = json!({ "session_affinity_attributes": { "drain_duration": 0 } });
            office.edit(&path, over).await;
            let seen = jar.get(&office).await;
            assert!(seen.by != home && seen.cookie.is_some(), "its time is over");
        })
        .await;
}

#[tokio::test]
async fn a_session_stays_with_a_replica_where_that_is_said() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let first = Host::start(&mut office, "first", Does::Serve).await;
            let second = Host::join(&mut office, (&first.tunnel, &first.token), "second", Does::Serve).await;
            let pool = office.pool("p", &[&first.tunnel]).await;
            let more =
                json!({ "session_affinity": "cookie", "session_affinity_attributes": { "replica": true } });
            office.balancer(NAME, &[&pool], more).await;
            let mut jars = vec![Jar::default(); 12];
            let mut homes = HashSet::new();
            for jar in &mut jars {
                let home = jar.get(&office).await.by;
                for _ in 0..6 {
                    let seen = jar.get(&office).await;
                    assert_eq!((&seen.by, seen.cookie), (&home, None));
                }
                homes.insert(home);
            }
            assert_eq!(homes.len(), 2);
            second.kill();
            for jar in &mut jars {
                assert_eq!(jar.get(&office).await.by, "first");
                assert!(jar.get(&office).await.cookie.is_none(), "the session is there now");
            }
        })
        .await;
}

#[tokio::test]
async fn who_is_known_by_an_address_or_by_headers_needs_no_cookie_to_come_back() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let hosts = office.three().await;
            let pool = office.keeping(&hosts, "ip_cookie", json!({})).await;
            let first = Jar::default().get(&office).await;
            assert!(first.cookie.is_some());
            for _ in 0..12 {
                assert_eq!(Jar::default().get(&office).await.by, first.by);
            }

            let by_headers = json!({ "session_affinity": "header",
                "session_affinity_attributes": { "headers": ["X-User", "cookie:sid"], "require_all_headers": true } });
            office.balancer("b.example.com", &[&pool], by_headers).await;
            let ask = async |user: Option<usize>| {
                let mut request = Request::get("/").header("host", "b.example.com");
                if let Some(user) = user {
                    request = request.header("x-user", "somebody").header("cookie", format!("sid={user}"));
                }
                let page = office.edge.page(request.body(empty()).unwrap()).await;
                assert!(!page.headers.contains_key("set-cookie") && tries(&page) == "1", "{page:?}");
                page.text.split(' ').next().unwrap().to_owned()
            };
            let mut homes = HashMap::new();
            for user in 0..30 {
                homes.insert(user, ask(Some(user)).await);
            }
            assert_eq!(homes.values().collect::<HashSet<_>>().len(), 3);
            hosts["three"].end(&office).await;
            for (user, home) in &homes {
                let now = ask(Some(*user)).await;
                assert_eq!(now == *home, home != "three", "only those of the one that is lost move");
            }
            let mut without = HashSet::new();
            for _ in 0..40 {
                without.insert(ask(None).await);
            }
            assert_eq!(without.len(), 2, "who says nothing belongs nowhere");
        })
        .await;
}
