//! What an edge shows of its load balancers.

use adit_protocol::credentials::Credentials;
use http::{Request, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::{LocalSet, empty, http1, read};
use crate::office::Office;
use crate::steering::{Does, Host};

impl Office {
    async fn metrics(&self) -> String {
        let request = Request::get("/metrics").header("host", "localhost").body(empty()).unwrap();
        read(http1(self.edge.admin, request).await).await.text
    }
}

#[tokio::test]
async fn what_becomes_of_the_requests_of_a_load_balancer_is_counted() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let away = Host::start(&mut office, "away", Does::TurnAway).await;
            let serves = Host::start(&mut office, "serves", Does::Serve).await;
            let last = Host::start(&mut office, "last", Does::Serve).await;
            let first = office.pool("first", &[&away.tunnel]).await;
            let second = office.pool("second", &[&serves.tunnel]).await;
            let fallback = office.pool("fallback", &[&last.tunnel]).await;
            let rule = json!({ "name": "closed", "condition": "http.request.uri.path eq \"/closed\"",
                "fixed_response": { "status_code": 404 } });
            let more = json!({ "fallback_pool": fallback, "session_affinity": "cookie", "rules": [rule] });
            let id = office.balancer("app.example.com", &[&first, &second], more).await;
            let ask = async |path: &str, cookie: Option<&str>| {
                let request = Request::get(path).header("host", "app.example.com");
                let request = cookie.into_iter().fold(request, |request, cookie| request.header("cookie", cookie));
                office.edge.page(request.body(empty()).unwrap()).await
            };
            // Turned away by the first pool, answered by the second, where the session stays.
            let page = ask("/", None).await;
            let cookie = page.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
            for _ in 0..2 {
                assert!(ask("/", Some(&cookie)).await.text.starts_with("serves"));
            }
            assert_eq!(ask("/closed", None).await.status, StatusCode::NOT_FOUND);
            let counts = |requests, rules, retries, fallbacks, [new, kept, moved]: [u32; 3]| {
                let name = |what: &str| format!("adit_edge_balancer_{what}_total{{balancer=\"{id}\"");
                let account = &office.account;
                [
                    format!(
                        "adit_edge_balancer_info{{balancer=\"{id}\",name=\"app.example.com\",account=\"{account}\"}} 1"
                    ),
                    format!("{},by=\"pools\"}} {requests}", name("requests")),
                    format!("{},by=\"rule\"}} {rules}", name("requests")),
                    format!("{}}} {retries}", name("retries")),
                    format!("{}}} {retries}", name("failovers")),
                    format!("{}}} {fallbacks}", name("fallbacks")),
                    format!("{},session=\"new\"}} {new}", name("sessions")),
                    format!("{},session=\"kept\"}} {kept}", name("sessions")),
                    format!("{},session=\"moved\"}} {moved}", name("sessions")),
                ]
            };
            let shows = async |lines: [String; 9]| {
                let seen = office.metrics().await;
                for line in lines {
                    assert!(seen.lines().any(|seen| seen == line), "no {line} in\n{seen}");
                }
            };
            shows(counts(3, 1, 1, 0, [1, 2, 0])).await;
            // Nobody but the fallback is left, which makes and moves no session.
            office.edit(&office.pool_path(&first), json!({ "enabled": false })).await;
            office.edit(&office.pool_path(&second), json!({ "enabled": false })).await;
            assert!(ask("/", Some(&cookie)).await.text.starts_with("last"));
            shows(counts(4, 1, 1, 1, [1, 2, 0])).await;
            // A change of the load balancer forgets nothing.
            office.edit(&office.balancers(&format!("/{id}")), json!({ "default_pools": [fallback] })).await;
            assert!(ask("/", Some(&cookie)).await.text.starts_with("last"));
            shows(counts(5, 1, 1, 1, [1, 2, 1])).await;
        })
        .await;
}

#[tokio::test]
async fn pools_and_endpoints_are_numbers_that_can_be_scraped() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let (here, token) = office.tunnel_named("here").await;
            let (away, _) = office.tunnel_named("away").await;
            office.edge.credentials = Credentials::from_token(&token).unwrap();
            let host = Connector::registered(&office.edge, 0, Uuid::new_v4(), 0).await;
            let serving = tokio::task::spawn_local(async move {
                loop {
                    host.accept().await.ok(b"ok").await;
                }
            });
            let shop = office.pool("shop", &[&here, &away]).await;
            let empty = office.pool("empty", &[&away]).await;
            office.balancer("app.example.com", &[&shop], json!({})).await;
            for _ in 0..3 {
                assert_eq!(office.visit("app.example.com").await, StatusCode::OK);
            }
            let seen = office.metrics().await;
            let account = &office.account;
            for line in [
                "adit_edge_pools{health=\"degraded\"} 1".to_owned(),
                "adit_edge_pools{health=\"critical\"} 1".to_owned(),
                format!("adit_edge_pool_info{{pool=\"{shop}\",name=\"shop\",account=\"{account}\"}} 1"),
                format!("adit_edge_pool_may_serve{{pool=\"{shop}\"}} 1"),
                format!("adit_edge_pool_may_serve{{pool=\"{empty}\"}} 0"),
                format!("adit_edge_endpoint_up{{pool=\"{shop}\",endpoint=\"{here}.cfargotunnel.com\"}} 1"),
                format!("adit_edge_endpoint_up{{pool=\"{shop}\",endpoint=\"{away}.cfargotunnel.com\"}} 0"),
                format!("adit_edge_endpoint_attempts_total{{pool=\"{shop}\",endpoint=\"{here}.cfargotunnel.com\"}} 3"),
                format!("adit_edge_endpoint_attempts_total{{pool=\"{shop}\",endpoint=\"{away}.cfargotunnel.com\"}} 0"),
            ] {
                assert!(seen.lines().any(|seen| seen == line), "no {line} in\n{seen}");
            }
            serving.abort();
        })
        .await;
}
