//! Only who knows the secret of a tunnel may serve it.

use adit_protocol::credentials::{Credentials, TunnelSecret};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, get};
use uuid::Uuid;

/// A host with these credentials at this edge: it must end by itself, not well, and say why.
async fn refused(site: &Site, edge: &e2e::product::Edge, credentials: &Credentials) {
    site.write("other.json", credentials.to_json());
    let text = HostDocument::new().connections(2).otherwise("hello_world").to_toml(&edge.servers);
    site.write("host.toml", text.replace("demo.json", "other.json"));
    let host =
        e2e::process::Process::adit("host", &["tunnel", "run", "--config", "host.toml"], site.folder());
    let status = host.exit().await;
    assert_eq!(status.code(), Some(1), "{}", host.tail());
    let last = host.log().lines().last().unwrap().to_owned();
    assert!(last.starts_with("adit: ") && last.contains("refused this host"), "{}", host.tail());
    assert!(host.events("registered").is_empty());
    let secret =
        serde_json::from_str::<serde_json::Value>(&credentials.to_json()).unwrap()["TunnelSecret"].take();
    for said in [host.log(), edge.process.log()] {
        assert!(!said.contains(secret.as_str().unwrap()), "a secret is in a log");
    }
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 530);
}

#[tokio::test]
async fn a_wrong_secret_an_unknown_tunnel_and_a_wrong_account_are_refused() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 2).without_hold()).await;
    let right = site.credentials.clone();
    let secret = TunnelSecret::new(&[7; 32]).unwrap();
    refused(&site, &edge, &Credentials { tunnel_secret: secret, ..right.clone() }).await;
    // The right one, but longer.
    let longer = TunnelSecret::new(&[right.tunnel_secret.as_bytes(), &[0]].concat()).unwrap();
    refused(&site, &edge, &Credentials { tunnel_secret: longer, ..right.clone() }).await;
    refused(&site, &edge, &Credentials { tunnel_id: Uuid::new_v4(), ..right.clone() }).await;
    refused(&site, &edge, &Credentials { account_tag: "somebody else".into(), ..right }).await;
}

#[tokio::test]
async fn a_refused_host_does_not_disturb_the_one_that_serves() {
    let product = Product::simple("hello_world").await;
    let wrong = Credentials {
        tunnel_secret: TunnelSecret::new(&[7; 32]).unwrap(),
        ..product.site.credentials.clone()
    };
    product.site.write("other.json", wrong.to_json());
    let text = HostDocument::new().otherwise("http_status:599").to_toml(&product.edge.servers);
    product.site.write("other.toml", text.replace("demo.json", "other.json"));
    let arguments = ["tunnel", "run", "--config", "other.toml"];
    let other = e2e::process::Process::adit("other host", &arguments, product.site.folder());
    assert_eq!(other.exit().await.code(), Some(1));
    for _ in 0..10 {
        assert_eq!(product.get("/").await.status, 200);
    }
    assert!(product.host.process.events("connection lost").is_empty());
}

#[tokio::test]
async fn two_replicas_serve_one_tunnel() {
    let product = Product::simple("hello_world").await;
    let replica = product.site.host(&product.edge, &HostDocument::new().otherwise("hello_world")).await;
    assert_eq!(product.get("/").await.status, 200);
    // Either may go: the other serves.
    product.host.process.kill();
    product.edge.process.event("connection lost", |_| true).await;
    assert_eq!(product.get("/").await.status, 200);
    drop(replica);
}
