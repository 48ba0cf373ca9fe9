//! A disk that is full: what serves goes on, what cannot be kept is refused or said, and both ends are well again by
//! themselves once there is room.

use std::time::Duration;

use adit_protocol::credentials::OriginCert;
use e2e::document::{ANY_PORT, EdgeDocument, HostDocument};
use e2e::metrics::Scraped;
use e2e::process::Process;
use e2e::product::{Edge, Host, Product, Site};
use e2e::visitor::{Answer, Speaks, Visitor, to, with_text};
use e2e::within;
use serde_json::{Value, json};
use tokio::time::sleep;

/// The control API of an edge, asked with what cert.pem allows.
struct Api<'e> {
    edge: &'e Edge,
    cert: OriginCert,
}

impl Api<'_> {
    async fn tunnels(&self, method: &str, body: &Value) -> Answer {
        let listens = self.edge.process.event("listening", |event| event["kind"] == "api").await;
        let address = listens["address"].as_str().unwrap().parse().unwrap();
        let request = to(method, &format!("/accounts/{}/cfd_tunnel", self.cert.account_id))
            .header("host", "api")
            .header("authorization", format!("Bearer {}", self.cert.api_token.as_str()));
        Visitor::new(address, Speaks::Http1, None).send(with_text(request, &body.to_string())).await
    }

    async fn create(&self, name: &str) -> Answer {
        self.tunnels("POST", &json!({ "name": name })).await
    }

    /// By name, in order.
    async fn names(&self) -> Vec<String> {
        let all = self.tunnels("GET", &Value::Null).await.json();
        let mut names: Vec<String> = serde_json::from_value(
            all["result"].as_array().unwrap().iter().map(|tunnel| tunnel["name"].clone()).collect(),
        )
        .unwrap();
        names.sort();
        names
    }
}

/// Waits until the edge says whether it would take a change.
async fn is_writable(edge: &Edge, wanted: f64) {
    let asked = async {
        while Scraped::parse(edge.admin("/metrics").await.text()).sum("adit_edge_store_writable", &[])
            != wanted
        {
            // Each question takes a port, and those of the edge are to be free for it again.
            sleep(Duration::from_millis(20)).await;
        }
    };
    within("the word of /metrics", asked).await;
}

#[tokio::test]
async fn an_edge_with_a_full_disk_serves_and_refuses_changes_and_takes_them_again_by_itself() {
    let site = Site::new().on_disks_that_fill();
    let document = EdgeDocument {
        more: format!("[api]\nlisten = {ANY_PORT:?}\ntunnel-domain = \"tunnels.test\"\n"),
        ..EdgeDocument::new(&["west"], 1)
    };
    site.write("edge.toml", document.to_toml());
    let made = Process::run(&["edge", "init", "--zone", "example.test"], site.folder(), "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let cert = std::fs::read_to_string(site.path("cert.pem")).unwrap();
    let cert = OriginCert::from_pem(&cert).unwrap();
    let host = HostDocument::new().otherwise("http_status:201");
    let mut product = Product::start_at(site, document, host).await;
    let api = Api { edge: &product.edge, cert: cert.clone() };
    assert_eq!(api.create("before").await.status, 200);
    is_writable(&product.edge, 1.0).await;

    product.edge.process.fill_disk();
    for _ in 0..3 {
        let refused = api.create("refused").await;
        let code = &refused.json()["errors"][0]["code"];
        assert_eq!((refused.status, code), (503, &json!(1006)), "{refused:?}");
    }
    let refused = Visitor::new(product.edge.admin, Speaks::Http1, None)
        .send(with_text(to("PUT", "/tunnels/demo/config").header("host", "localhost"), r#"{"ingress":[]}"#))
        .await;
    assert_eq!(refused.status, 507, "{refused:?}");
    is_writable(&product.edge, 0.0).await;
    assert_eq!(product.get("/").await.status, 201, "visitors are served");
    assert_eq!(api.names().await, ["before"]);
    let said = product.edge.process.events(
        "the state cannot be written: what was known is served, and changes are refused until it can",
    );
    assert_eq!(said.len(), 1, "{}", product.edge.process.tail());

    // Nobody asks for a change.
    product.edge.process.free_disk();
    let again = "the state can be written again; changes are taken";
    product.edge.process.event(again, |_| true).await;
    is_writable(&product.edge, 1.0).await;
    assert_eq!(api.create("behind").await.status, 200);

    product.edge.process.kill();
    product.edge.process.exit().await;
    let edge = product.site.edge(&product.edge.pinned()).await;
    assert_eq!(Api { edge: &edge, cert: cert.clone() }.names().await, ["before", "behind"]);

    // One that is started on a full disk serves what it finds, and is the same edge once there is room.
    edge.process.terminate();
    edge.process.exit().await;
    product.site.fill_disks();
    product.edge = product.site.edge(&edge.pinned()).await;
    let api = Api { edge: &product.edge, cert };
    assert_eq!(api.names().await, ["before", "behind"]);
    assert_eq!(api.create("refused").await.status, 503);
    is_writable(&product.edge, 0.0).await;
    product.edge.process.free_disk();
    product.edge.process.event(again, |_| true).await;
    assert_eq!(api.create("last").await.status, 200);
    product.edge.process.kill();
    product.edge.process.exit().await;
    let edge = product.site.edge(&product.edge.pinned()).await;
    assert_eq!(Api { edge: &edge, cert: api.cert.clone() }.names().await, ["before", "behind", "last"]);
}

/// A host with a state folder that answers with this status.
fn answering(status: u16) -> HostDocument {
    HostDocument::new().keys("state-dir = \"state\"").otherwise(&format!("http_status:{status}"))
}

async fn put(host: &Host, path: &str, text: &str) -> Answer {
    let request = to("PUT", path).header("host", "localhost").header("if-match", "*");
    Visitor::new(host.admin, Speaks::Http1, None).send(with_text(request, text)).await
}

/// Kills the host and starts it with nothing but what is kept.
async fn restart(product: &mut Product) {
    product.host.process.kill();
    product.host.process.exit().await;
    product.site.write("host.toml", "state-dir = \"state\"\nthis is = not [a document");
    let process = Process::adit("host", &["tunnel", "run", "--config", "host.toml"], product.site.folder());
    product.host = Host::connected(process, 1).await;
}

#[tokio::test]
async fn a_host_with_a_full_disk_says_what_it_cannot_keep_and_the_next_start_has_all_it_was_not_told_of() {
    let site = Site::new().on_disks_that_fill();
    let mut product = Product::start_at(site, EdgeDocument::new(&["west"], 1), answering(201)).await;
    let text = |status| answering(status).to_toml(&product.edge.servers);
    let [two, three, four, five] = [202, 203, 204, 205].map(text);
    let not_kept = |answer: &Answer| answer.json()["warnings"].to_string().contains("is not kept");
    let applied = put(&product.host, "/config", &two).await;
    assert!(applied.status == 200 && !not_kept(&applied), "{applied:?}");

    product.host.process.fill_disk();
    let refused = put(&product.host, "/config", &three).await;
    let reasons = refused.json()["reasons"].to_string();
    assert!(refused.status == 422 && reasons.contains("host.toml cannot be written"), "{refused:?}");
    assert_eq!(product.get("/").await.status, 202, "what was refused does not serve");
    assert_eq!(std::fs::read_to_string(product.site.path("host.toml")).unwrap(), two);
    let left = std::fs::read_dir(product.site.folder()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_str().unwrap().starts_with(".host.toml")));
    // What is asked for without being saved serves, and it is said that it does not stay.
    let applied = put(&product.host, "/config?save=false", &three).await;
    assert!(applied.status == 200 && not_kept(&applied), "{applied:?}");
    assert_eq!(product.get("/").await.status, 203);
    let mark = product.host.process.mark();
    product.host.process.hang_up();
    // What the log says of the change before may come only now.
    let is_asked_for = |event: &Value| event["source"] == "Signal";
    product.host.process.event_after(mark, "configuration applied", is_asked_for).await;
    assert_eq!(product.get("/").await.status, 202);

    // Nobody asks for a change.
    product.host.process.free_disk();
    product.host.process.event("what serves is kept for the next start now", |_| true).await;
    restart(&mut product).await;
    assert_eq!(product.get("/").await.status, 202, "it was kept after all");

    let applied = put(&product.host, "/config", &four).await;
    assert!(applied.status == 200 && !not_kept(&applied), "{applied:?}");

    // A state folder that is none is a mistake of the document, and made anew once there can be one.
    let state = product.site.path("state");
    std::fs::rename(&state, product.site.path("away")).unwrap();
    std::fs::write(&state, "").unwrap();
    let refused = put(&product.host, "/config?save=false", &five).await;
    assert!(refused.status == 422 && refused.text().contains("is not a folder"), "{refused:?}");
    assert_eq!(product.get("/").await.status, 204);
    std::fs::remove_file(&state).unwrap();
    let applied = put(&product.host, "/config?save=false", &five).await;
    assert!(applied.status == 200 && !not_kept(&applied), "{applied:?}");

    restart(&mut product).await;
    assert_eq!(product.get("/").await.status, 205, "the last that was kept");
}
