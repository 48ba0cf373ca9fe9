//! A configuration that is put once at the edge reaches every replica, and the verdict of each can be read.

use std::time::{Duration, Instant};

use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::{Process, component};
use e2e::product::{Edge, Host, Site};
use e2e::reference;
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_text};
use serde_json::{Value, json};

/// A host that waits for its rules, with a plugin that pushed rules may name.
fn document(protocol: &'static str, keys: &str) -> HostDocument {
    let config = "[plugin.config]\nresponse.set = { x-mark = \"plugin\" }";
    HostDocument::new().over(protocol).keys(&format!("config-source = \"remote\"\n{keys}")).plugin(
        "marks",
        &component("headers"),
        config,
    )
}

/// Rules of which every request gets this status.
fn rules(status: u16) -> Value {
    json!({ "ingress": [{ "service": format!("http_status:{status}") }], "warp-routing": {} })
}

async fn start(site: &Site, edge: &Edge, name: &str, document: &HostDocument) -> Host {
    site.write(name, document.to_toml(&edge.servers));
    let process = Process::adit(name, &["tunnel", "run", "--config", name], site.folder());
    let event = process.event("listening", |event| event["kind"] == "admin").await;
    let admin = event["address"].as_str().unwrap().parse().unwrap();
    process.event("registered", |_| true).await;
    Host { process, admin }
}

async fn put(edge: &Edge, config: &Value) -> Answer {
    let request = to("PUT", "/tunnels/demo/config").header("host", "localhost");
    Visitor::new(edge.admin, Speaks::Http1, None).send(with_text(request, &config.to_string())).await
}

async fn fleet(edge: &Edge) -> Value {
    let request = bare(to("GET", "/tunnels/demo/config").header("host", "localhost"));
    Visitor::new(edge.admin, Speaks::Http1, None).send(request).await.json()
}

async fn status(edge: &Edge) -> u16 {
    edge.visitor(Speaks::Http1).send(get("/")).await.status
}

async fn serves_what_is_pushed(protocol: &'static str) {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let host = start(&site, &edge, "host.toml", &document(protocol, "state-dir = \"state\"")).await;
    // It has no rules yet, and so is not ready, however well it is connected.
    assert_eq!(status(&edge).await, 503);
    for path in ["/ready", "/readyz"] {
        assert_eq!(host.admin(path).await.status, 503, "{path}");
    }

    let answer = put(&edge, &rules(201)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = answer.json();
    assert_eq!(
        (&page["version"], &page["applied"], &page["refused"]),
        (&json!(1), &json!(1), &json!(0)),
        "{page}"
    );
    assert_eq!(status(&edge).await, 201);
    for path in ["/ready", "/readyz"] {
        assert_eq!(host.admin(path).await.status, 200, "{path}");
    }

    // What no host could serve is refused before one is asked.
    let bad =
        json!({ "ingress": [{ "hostname": "a b", "service": "ftp://x" }, { "service": "hello_world" }] });
    let answer = put(&edge, &bad).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    let reasons = answer.json()["reasons"].to_string();
    assert!(reasons.contains("ingress[0].hostname") && reasons.contains("ingress[0].service"), "{reasons}");

    // A refusal is told with its reasons, and changes nothing.
    let bad = json!({ "ingress": [
        { "hostname": "a.example.com", "service": "hello_world", "plugins": ["nowhere"] },
        { "service": "hello_world", "plugins": ["nobody"] },
    ]});
    let answer = put(&edge, &bad).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    let replica = answer.json()["replicas"][0].clone();
    assert_eq!((&replica["pushed"], &replica["applied"]), (&json!(2), &json!(1)), "{replica}");
    for part in ["ingress[0].plugins", "ingress[1].plugins", "nobody"] {
        assert!(replica["error"].as_str().unwrap().contains(part), "{part} is not in {replica}");
    }
    assert_eq!(status(&edge).await, 201);

    // A service that this host does not know costs its own rule, and the verdict says so.
    // So does one that asks for a check that this host does not make.
    let unknown = json!({ "ingress": [
        { "path": "^/socket", "service": "unix:/run/x" },
        { "path": "^/private", "service": "http_status:200", "originRequest": { "access": { "required": true } } },
        { "service": "http_status:202" },
    ]});
    let answer = put(&edge, &unknown).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let replica = answer.json()["replicas"][0].clone();
    assert_eq!((&replica["applied"], &replica["error"]), (&json!(3), &Value::Null), "{replica}");
    for part in ["ingress[0].service", "ingress[1].originRequest.access"] {
        assert!(replica["warning"].as_str().unwrap().contains(part), "{part} is not in {replica}");
    }
    for path in ["/socket", "/private"] {
        assert_eq!(edge.visitor(Speaks::Http1).send(get(path)).await.status, 501, "{path}");
    }
    assert_eq!(status(&edge).await, 202);

    // Pushed rules may use plugins of the host.
    let marked = json!({ "ingress": [{ "service": "hello_world", "plugins": ["marks"] }] });
    assert_eq!(put(&edge, &marked).await.json()["version"], 4);
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.header("x-mark"), "plugin");

    // They outlive the process, and versions do not begin again.
    host.process.terminate();
    assert!(host.process.exit().await.success());
    let host = start(&site, &edge, "host.toml", &document(protocol, "state-dir = \"state\"")).await;
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.header("x-mark"), "plugin");
    assert_eq!(put(&edge, &rules(204)).await.json()["replicas"][0]["applied"], 5);
    assert_eq!(status(&edge).await, 204);
    let metrics = host.admin("/metrics").await;
    assert!(metrics.text().contains("\ncloudflared_orchestration_config_version 5\n"), "{}", metrics.text());
}

#[tokio::test]
async fn over_quic_a_host_serves_what_is_pushed() {
    serves_what_is_pushed("quic").await;
}

#[tokio::test]
async fn over_http2_a_host_serves_what_is_pushed() {
    serves_what_is_pushed("http2").await;
}

#[tokio::test]
async fn every_replica_is_given_it_and_a_refusal_of_one_is_not_hidden() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 2)).await;
    let mut hosts = Vec::new();
    for (name, protocol) in [("a.toml", "quic"), ("b.toml", "http2"), ("c.toml", "quic")] {
        hosts.push(start(&site, &edge, name, &document(protocol, "")).await);
    }
    // One keeps to its own document.
    let own = HostDocument::new().otherwise("http_status:201");
    hosts.push(start(&site, &edge, "own.toml", &own).await);

    let begun = Instant::now();
    let answer = put(&edge, &rules(201)).await;
    eprintln!("{} replicas had their verdict after {:?}", hosts.len(), begun.elapsed());
    assert_eq!(answer.status, 422, "{answer:?}");
    let page = answer.json();
    assert_eq!(
        (&page["connected"], &page["applied"], &page["refused"]),
        (&json!(4), &json!(3), &json!(1)),
        "{page}"
    );
    let replicas = page["replicas"].as_array().unwrap();
    let refusal = replicas.iter().find(|replica| !replica["error"].is_null()).unwrap();
    assert!(refusal["error"].as_str().unwrap().contains("its own document"), "{refusal}");

    // A replica that comes later is given it too.
    let late = start(&site, &edge, "late.toml", &document("quic", "")).await;
    late.process.event("configuration applied", |event| event["source"] == "Edge").await;
    let page = loop {
        let page = fleet(&edge).await;
        if page["applied"] == 4 {
            break page;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(page["config"], rules(201), "{page}");
}

/// Replicas of the big fleet.
const MANY: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_five_replicas_have_it_within_seconds_and_each_verdict_can_be_read() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 2)).await;
    let mut starting = Vec::new();
    for number in 0..MANY {
        let protocol = if number % 2 == 0 { "quic" } else { "http2" };
        let mut document = HostDocument::new().over(protocol).keys("config-source = \"remote\"");
        document.shards = Some(1);
        starting.push(site.spawn_host_named(&format!("host-{number}"), &edge.servers, &document));
    }
    let mut hosts = Vec::new();
    for process in starting {
        hosts.push(Host::connected(process, 1).await);
    }

    let begun = Instant::now();
    let answer = put(&edge, &rules(201)).await;
    let took = begun.elapsed();
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = answer.json();
    assert_eq!(
        (&page["connected"], &page["applied"], &page["refused"]),
        (&json!(MANY), &json!(MANY), &json!(0)),
        "{page}"
    );
    let mut each: Vec<u64> = Vec::new();
    for replica in page["replicas"].as_array().unwrap() {
        assert_eq!((&replica["applied"], &replica["error"]), (&json!(1), &Value::Null), "{replica}");
        each.push(replica["milliseconds"].as_u64().unwrap());
    }
    each.sort_unstable();
    eprintln!("all of {MANY} replicas had applied it after {took:?}; each of them after, ms: {each:?}");
    assert!(took < Duration::from_secs(10), "it took {took:?}");
    // What the edge is told is what they serve.
    for host in &hosts {
        let metrics = host.admin("/metrics").await;
        let version = "\ncloudflared_orchestration_config_version 1\n";
        assert!(metrics.text().contains(version), "{}", metrics.text());
    }
    for _ in 0..MANY {
        assert_eq!(status(&edge).await, 201);
    }

    // One of them is replaced by one that keeps to itself: the others serve what is new, and it is named.
    let gone = hosts.pop().unwrap();
    gone.process.terminate();
    assert!(gone.process.exit().await.success());
    let own = HostDocument::new().otherwise("http_status:202");
    hosts.push(Host::connected(site.spawn_host_named("own", &edge.servers, &own), 1).await);
    let answer = put(&edge, &rules(203)).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    let page = answer.json();
    assert_eq!(
        (&page["connected"], &page["applied"], &page["refused"]),
        (&json!(MANY), &json!(MANY - 1), &json!(1)),
        "{page}"
    );
}

#[tokio::test]
async fn layered_rules_come_behind_the_local_ones() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let document = HostDocument::new()
        .keys("config-source = \"layered\"")
        .rule("path = \"^/local\"\nservice = \"http_status:201\"")
        .otherwise("http_status:202");
    let _host = start(&site, &edge, "host.toml", &document).await;
    let ask = async |path: &str| edge.visitor(Speaks::Http1).send(get(path)).await.status;
    assert_eq!((ask("/local").await, ask("/other").await), (201, 202));
    assert_eq!(put(&edge, &rules(203)).await.status, 200);
    assert_eq!((ask("/local").await, ask("/other").await), (201, 203));
}

#[tokio::test]
async fn no_web_page_configures_a_fleet() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    let admin = Visitor::new(edge.admin, Speaks::Http1, None);
    let foreign = to("PUT", "/tunnels/demo/config").header("host", "evil.example");
    assert_eq!(admin.send(with_text(foreign, "{}")).await.status, 403);
    let page = to("PUT", "/tunnels/demo/config").header("host", "localhost").header("origin", "null");
    assert_eq!(admin.send(with_text(page, "{}")).await.status, 403);
    let other = to("PUT", "/tunnels/other/config").header("host", "localhost");
    assert_eq!(admin.send(with_text(other, "{}")).await.status, 404);
    let odd = to("PUT", "/tunnels/demo/config").header("host", "localhost");
    assert_eq!(admin.send(with_text(odd, "[]")).await.status, 400);
    assert_eq!(fleet(&edge).await["version"], Value::Null);
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_connector_takes_what_is_pushed() {
    for protocol in ["quic", "http2"] {
        let document = HostDocument::new().over(protocol).otherwise("http_status:201");
        let program = reference::program();
        let site = Site::new();
        let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
        assert_eq!(put(&edge, &rules(203)).await.status, 200);
        let _host = reference::host(program, &site, &edge.servers, &document).await;
        // Given to it when it registered.
        let mut page = fleet(&edge).await;
        while page["applied"] != 1 {
            tokio::task::yield_now().await;
            page = fleet(&edge).await;
        }
        assert_eq!(status(&edge).await, 203, "{page}");
        let page = put(&edge, &rules(204)).await.json();
        assert_eq!((&page["applied"], &page["version"]), (&json!(1), &json!(2)), "{page}");
        assert_eq!(status(&edge).await, 204);
        // A flag of regular expressions that ours know and its do not.
        let foreign = json!({ "ingress": [
            { "path": "(?x) ^/a", "service": "hello_world" }, { "service": "hello_world" },
        ]});
        let refused = put(&edge, &foreign).await;
        assert_eq!((refused.status, &refused.json()["refused"]), (422, &json!(1)), "{refused:?}");
        assert_eq!(status(&edge).await, 204);
    }
}
