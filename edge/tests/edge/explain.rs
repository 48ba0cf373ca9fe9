//! Where a request would go, as the admin API says it: the same as where it goes, and nobody notices the question.

use std::collections::HashMap;

use http::{Method, Request};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Fixture, LocalSet, empty, full, start};
use crate::http2;
use crate::office::Office;
use crate::steering::{Does, Host};

const NAME: &str = "app.example.com";

async fn explain(edge: &Fixture, question: Value) -> Value {
    let request = Request::builder().method(Method::POST).uri("/explain").body(full(question.to_string()));
    let (status, page) = edge.ask_admin(request.unwrap()).await;
    assert_eq!(status, 200, "{page}");
    page
}

impl Office {
    async fn explain(&self, url: &str, headers: Value) -> Value {
        explain(&self.edge, json!({ "url": url, "headers": headers })).await
    }
}

#[tokio::test]
async fn a_request_goes_where_the_explanation_says_and_the_question_counts_nowhere() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open_behind_proxy("").await;
            let mut names = HashMap::new();
            let mut hosts = Vec::new();
            for name in ["one", "two", "three"] {
                let host = Host::start(&mut office, name, Does::Serve).await;
                names.insert(host.tunnel.clone(), name);
                hosts.push(host);
            }
            let tunnels: Vec<&str> = hosts.iter().map(|host| host.tunnel.as_str()).collect();
            let pool = office.pool("all", &tunnels).await;
            let hash = json!({ "origin_steering": { "policy": "hash" } });
            office.edit(&office.pool_path(&pool), hash).await;
            let balancer = office.balancer(NAME, &[&pool], json!({})).await;
            let visitors: Vec<String> = (1..=40).map(|last| format!("192.0.2.{last}")).collect();
            let mut explained = Vec::new();
            for visitor in &visitors {
                let told = office
                    .explain(&format!("http://{NAME}/x?y"), json!([["x-forwarded-for", visitor]]))
                    .await;
                assert_eq!((&told["name"], &told["visitor"]["address"]), (&json!(NAME), &json!(visitor)));
                assert_eq!(told["balancer"]["pools"][0]["policy"], "hash");
                let offer = &told["offers"][0];
                assert_eq!((&offer["pool"], &offer["protocol"]), (&json!(pool), &json!("quic")), "{told}");
                explained.push(names[offer["tunnel"].as_str().unwrap()]);
            }
            // Nobody was asked, and nothing counted.
            assert!(hosts.iter().all(|host| host.asked.get() == 0));
            let status = office.get(&office.balancers(&format!("/{balancer}/status"))).await;
            for endpoint in status["pools"][0]["endpoints"].as_array().unwrap() {
                assert_eq!(
                    (&endpoint["requests_last_minute"], &endpoint["requests_open"]),
                    (&json!(0), &json!(0))
                );
            }
            for (visitor, explained) in visitors.iter().zip(&explained) {
                let request = Request::builder().uri("/x?y").header("host", NAME);
                let request = request.header("x-forwarded-for", visitor).body(empty()).unwrap();
                assert_eq!(office.edge.page(request).await.text, format!("{explained} {NAME}"), "{visitor}");
            }
            // Each was the answer for somebody.
            assert!(names.values().all(|name| explained.contains(name)), "{explained:?}");
        })
        .await;
}

#[tokio::test]
async fn an_explanation_says_why_an_endpoint_gets_nothing_and_what_rules_and_sessions_say() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let well = Host::start(&mut office, "well", Does::Serve).await;
            let gone = Host::start(&mut office, "gone", Does::Serve).await;
            let beta = Host::start(&mut office, "beta", Does::Serve).await;
            let pool = office.pool("usual", &[&gone.tunnel, &well.tunnel]).await;
            let other = office.pool("beta", &[&beta.tunnel]).await;
            let rules = json!([
                { "name": "try beta", "condition": "any(http.request.headers[\"x-beta\"][*] eq \"yes\")",
                  "overrides": { "default_pools": [other] } },
                { "name": "closed", "condition": "http.request.uri.path eq \"/closed\"",
                  "fixed_response": { "status_code": 302, "location": "https://else.test/" } },
            ]);
            let more = json!({ "rules": rules, "session_affinity": "cookie", "fallback_pool": pool });
            office.balancer("*.example.com", &[&pool], more).await;
            let url = format!("https://{NAME}/");
            let states = |told: &Value| -> Vec<(String, String)> {
                let endpoints = told["balancer"]["pools"][0]["endpoints"].as_array().unwrap();
                let text = |endpoint: &Value, name: &str| endpoint[name].as_str().unwrap().to_owned();
                endpoints.iter().map(|one| (text(one, "state"), text(one, "why"))).collect()
            };
            let said = |pair: (&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
            gone.end(&office).await;
            let told = office.explain(&url, json!([])).await;
            assert_eq!(told["name"], "*.example.com");
            assert_eq!(told["visitor"]["secure"], true);
            let down = said(("not-connected", "no host of the tunnel is connected"));
            assert_eq!(states(&told), [down, said(("up", "No failures"))]);
            assert_eq!(told["balancer"]["pools"][0]["endpoints"][1]["part"], 1.0);
            assert_eq!(told["balancer"]["list"], "default_pools");
            assert_eq!(
                told["balancer"]["session"],
                json!({ "by": "cookie", "known": false, "serves": false })
            );
            assert_eq!(told["offers"].as_array().unwrap().len(), 1, "{told}");
            assert_eq!(told["offers"][0]["tunnel_name"], "well");

            // The session that a real answer makes.
            let page = office.ask_host(Method::GET, NAME).await;
            let cookie = page.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
            let told = office.explain(&url, json!([["cookie", cookie]])).await;
            let session = &told["balancer"]["session"];
            let endpoint = format!("{}.cfargotunnel.com", well.tunnel);
            let seen = (&session["known"], &session["serves"], &session["endpoint"]);
            assert_eq!(seen, (&json!(true), &json!(true), &json!(endpoint)), "{told}");
            assert_eq!(told["offers"][0]["session"], true);

            let told = office.explain(&url, json!([["x-beta", "yes"]])).await;
            assert_eq!(told["rules"], json!(["try beta"]));
            assert_eq!(told["offers"][0]["tunnel_name"], "beta");
            let told = office.explain(&format!("https://{NAME}/closed"), json!([])).await;
            assert_eq!((&told["rules"], &told["answer"]["status"]), (&json!(["closed"]), &json!(302)));

            well.end(&office).await;
            let told = office.explain(&url, json!([["cookie", cookie]])).await;
            let answer = &told["answer"];
            assert_eq!((&answer["status"], &answer["error"]), (&json!(530), &json!("no-endpoint")), "{told}");
            assert_eq!(told["balancer"]["session"]["serves"], false);
            assert_eq!(told["balancer"]["pools"][0]["may_serve"], false);
            office.nobody(NAME).await;
        })
        .await;
}

#[tokio::test]
async fn a_route_is_explained_over_http2_and_what_leads_nowhere_says_so() {
    LocalSet::new()
        .run_until(async {
            let edge = start();
            let _connector = http2::Connector::registered(&edge, 10).await;
            let told = explain(&edge, json!({ "url": "http://a.demo.localhost/" })).await;
            assert_eq!(told["name"], "*.demo.localhost");
            assert_eq!(told["tunnel"]["name"], "demo");
            let offer = &told["offers"][0];
            assert_eq!((&offer["protocol"], &offer["index"]), (&json!("http2"), &json!(0)), "{told}");
            assert!(offer["connector"].as_str().unwrap().parse::<Uuid>().is_ok());
            let told = explain(&edge, json!({ "url": "http://else.test/" })).await;
            assert_eq!(told["answer"]["error"], "unknown-host");
            let told = explain(&edge, json!({ "url": "http://demo.localhost/", "method": "TRACE" })).await;
            assert_eq!(told["answer"]["error"], "method-not-allowed");
            for (question, wrong) in [
                (json!({ "url": "/no-host" }), "whole address"),
                (json!({ "url": "ftp://demo.localhost/" }), "whole address"),
                (
                    json!({ "url": "http://demo.localhost/", "headers": [["a b", "c"]] }),
                    "not the name of a header",
                ),
                (json!({ "url": "http://demo.localhost/", "from": "nobody" }), "IP address"),
                (json!({ "where": "http://demo.localhost/" }), "unknown field"),
            ] {
                let request = Request::builder().method(Method::POST).uri("/explain");
                let request = request.body(full(question.to_string())).unwrap();
                let (status, page) = edge.ask_admin(request).await;
                assert_eq!(status, 400, "{question}");
                assert!(page["error"].as_str().unwrap().contains(wrong), "{page}");
            }
        })
        .await;
}
