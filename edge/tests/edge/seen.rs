//! What an edge shows of its load balancers.

use adit_protocol::credentials::Credentials;
use http::{Request, StatusCode};
use serde_json::json;
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::{LocalSet, empty, http1, read};
use crate::office::Office;

impl Office {
    async fn metrics(&self) -> String {
        let request = Request::get("/metrics").header("host", "localhost").body(empty()).unwrap();
        read(http1(self.edge.admin, request).await).await.text
    }
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
