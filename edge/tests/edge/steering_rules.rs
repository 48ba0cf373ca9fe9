//! Rules of load balancers: what some requests are told or where they go otherwise.

use http::{Method, Request};
use serde_json::json;

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
