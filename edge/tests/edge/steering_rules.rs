//! What makes requests go elsewhere than usual: rules of load balancers, places, and how soon pools answer.

use std::time::Duration;

use http::{Method, Request};
use serde_json::json;
use tokio::time::{interval, timeout};

use crate::harness::{LocalSet, Page, empty};
use crate::office::Office;
use crate::steering::{Does, Host};

const NAME: &str = "app.example.com";

impl Office {
    async fn ask_path(&self, path: &str, beta: bool) -> Page {
        let mut request = Request::builder().method(Method::GET).uri(path).header("host", NAME);
        if beta {
            request = request.header("x-beta", "yes");
        }
        self.edge.page(request.body(empty()).unwrap()).await
    }
}

#[tokio::test]
async fn rules_send_requests_to_other_pools_or_answer_them() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let usual = Host::start(&mut office, "usual", Does::Serve).await;
            let beta = Host::start(&mut office, "beta", Does::Serve).await;
            let pool = office.pool("usual", &[&usual.tunnel]).await;
            let other = office.pool("beta", &[&beta.tunnel]).await;
            let rules = json!([
                { "name": "beta", "condition": "any(http.request.headers[\"x-beta\"][*] eq \"yes\")",
                  "overrides": { "default_pools": [other], "session_affinity": "cookie" } },
                { "name": "closed", "condition": "http.request.uri.path eq \"/closed\"",
                  "fixed_response": { "status_code": 302, "location": "https://else.test/",
                                      "content_type": "text/plain", "message_body": "gone" } },
            ]);
            let balancer = office.balancer(NAME, &[&pool], json!({ "rules": rules })).await;
            let page = office.ask_path("/", false).await;
            assert!(page.text.starts_with("usual") && !page.headers.contains_key("set-cookie"), "{page:?}");
            let page = office.ask_path("/", true).await;
            assert!(page.text.starts_with("beta") && page.headers.contains_key("set-cookie"), "{page:?}");
            for beta in [false, true] {
                let page = office.ask_path("/closed?x", beta).await;
                assert_eq!((page.status.as_u16(), &*page.text), (302, "gone"));
                assert_eq!(page.headers["location"], "https://else.test/");
            }
            assert_eq!((usual.asked.get(), beta.asked.get()), (1, 1));

            let path = office.balancers(&format!("/{balancer}"));
            let wrong = json!({ "rules": [{ "name": "a", "condition": "http.host eq" }] });
            let reply = office.ask(Method::PATCH, &path, Some(wrong)).await;
            reply.refused(400, "at character 13");
            office.edit(&path, json!({ "rules": [] })).await;
            assert_eq!(office.ask_path("/closed", true).await.status.as_u16(), 200);
        })
        .await;
}

const PLACES: &str = r#"
[geography]
region = "WEU"
latitude = 50.0
longitude = 8.6
country-header = "x-country"
[[geography.network]]
addresses = ["192.0.2.0/24"]
country = "PL"
region = "EEU"
"#;

#[tokio::test]
async fn requests_go_to_the_pools_of_their_place() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy(PLACES).await;
            let mut pools = Vec::new();
            let mut hosts = Vec::new();
            for name in ["usual", "poland", "east", "west"] {
                let host = Host::start(&mut office, name, Does::Serve).await;
                pools.push(office.pool(name, &[&host.tunnel]).await);
                hosts.push(host);
            }
            let [usual, poland, east, west] = &pools[..] else { panic!("four pools") };
            let lists = json!({ "steering_policy": "geo", "country_pools": { "PL": [poland] },
                "region_pools": { "EEU": [east], "WEU": [west] } });
            let balancer = office.balancer(NAME, &[usual], lists).await;
            let ask = async |visitor: &str, country: Option<&str>| {
                let mut request = Request::get("/").header("host", NAME).header("x-forwarded-for", visitor);
                if let Some(country) = country {
                    request = request.header("x-country", country);
                }
                let page = office.edge.page(request.body(empty()).unwrap()).await;
                page.text.split(' ').next().unwrap().to_owned()
            };
            assert_eq!(ask("192.0.2.7", None).await, "poland");
            assert_eq!(ask("192.0.2.7", Some("DE")).await, "east", "a proxy knows better than the table");
            assert_eq!(ask("203.0.113.7", Some("pl")).await, "poland");
            assert_eq!(ask("203.0.113.7", None).await, "west", "as if it were where the edge is");
            let path = office.balancers(&format!("/{balancer}"));
            office.edit(&path, json!({ "steering_policy": "off" })).await;
            assert_eq!(ask("192.0.2.7", None).await, "usual");

            // The nearest one, whatever the order.
            let near = |latitude: f64| json!({ "latitude": latitude, "longitude": 9.0 });
            office.edit(&office.pool_path(east), near(10.0)).await;
            office.edit(&office.pool_path(west), near(51.0)).await;
            let more = json!({ "steering_policy": "proximity", "default_pools": [usual, east, west] });
            office.edit(&path, more).await;
            assert_eq!(ask("192.0.2.7", None).await, "west");
            hosts[3].end(&office).await;
            assert_eq!(ask("192.0.2.7", None).await, "east");
        })
        .await;
}

#[tokio::test]
async fn the_pool_that_monitors_see_answer_first_gets_the_requests() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let slow = Host::start(&mut office, "slow", Does::ServeSlowly).await;
            let quick = Host::start(&mut office, "quick", Does::Serve).await;
            let first = office.pool("slow", &[&slow.tunnel]).await;
            let second = office.pool("quick", &[&quick.tunnel]).await;
            let policy = json!({ "steering_policy": "dynamic_latency" });
            office.balancer(NAME, &[&first, &second], policy).await;
            office.only(NAME, "slow").await;
            let monitor = json!({ "interval": 1, "timeout": 1, "retries": 0 });
            let monitor = office.post(&office.objects("monitors"), monitor).await.done();
            for pool in [&first, &second] {
                office.edit(&office.pool_path(pool), json!({ "monitor": monitor["id"] })).await;
            }
            let mut turns = interval(Duration::from_millis(100));
            let are_known = async {
                while !office.ask_host(Method::GET, NAME).await.text.starts_with("quick") {}
                for pool in [&first, &second] {
                    let path = format!("{}/health", office.pool_path(pool));
                    while office.get(&path).await["pop_health"]["edge"]["healthy"] != true {
                        turns.tick().await;
                    }
                }
            };
            timeout(Duration::from_secs(60), are_known).await.expect("both are seen by their monitor");
            // The slow one is the first of the list, and may serve.
            office.only(NAME, "quick").await;
        })
        .await;
}
