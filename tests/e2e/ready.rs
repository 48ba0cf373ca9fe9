//! The host says how well it is connected.

use std::collections::HashSet;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::product::Product;
use serde_json::Value;

#[tokio::test]
async fn four_connections_go_to_four_servers_in_two_regions() {
    let edge = EdgeDocument::new(&["west", "east"], 2);
    let product = Product::start(edge, HostDocument::new().connections(4).otherwise("hello_world")).await;
    let ready = product.host.ready().await;
    assert_eq!(ready["readyConnections"], 4, "{ready}");
    let connections = ready["connections"].as_array().unwrap();
    let each = |field: &str| connections.iter().map(|it| it[field].as_str().unwrap()).collect::<HashSet<_>>();
    assert_eq!(each("edge").len(), 4, "{ready}");
    let regions: HashSet<_> =
        each("location").iter().map(|name| name.split('-').next().unwrap().to_owned()).collect();
    assert_eq!(regions, ["west", "east"].map(str::to_owned).into(), "{ready}");
    assert!(connections.iter().all(|connection| connection["state"] == "connected"), "{ready}");

    // The edge sees the same four.
    for server in each("location") {
        product.edge.process.event("registered", |event| event["server"] == server).await;
    }
    assert_eq!(product.get("/").await.status, 200);
}

#[tokio::test]
async fn the_admin_listeners_tell_health_apart_from_readiness() {
    let product = Product::simple("hello_world").await;
    assert_eq!(product.host.admin("/healthcheck").await.status, 200);
    assert_eq!(product.host.admin("/ready").await.status, 200);
    let status = product.host.admin("/status").await.json();
    assert_eq!(status["tunnelId"], product.site.credentials.tunnel_id.to_string());
    assert_eq!(status["connectorId"], product.host.ready().await["connectorId"]);
    assert_eq!(product.host.admin("/nothing").await.status, 404);

    for path in ["/healthcheck", "/ready", "/status"] {
        let answer = product.edge.admin(path).await;
        assert_eq!(answer.status, 200, "{path}");
        let secret: Value = serde_json::from_str(&product.site.credentials.to_json()).unwrap();
        assert!(!answer.text().contains(secret["TunnelSecret"].as_str().unwrap()));
    }
}
