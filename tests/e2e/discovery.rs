//! A host finds its edge by name, and needs no name server to keep it.

use std::collections::HashSet;

use e2e::dns::NameServer;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::Process;
use e2e::product::{Edge, Host, Site};
use e2e::visitor::{Speaks, get};

/// A host that is told of no server but of a domain; `more` is further TOML of `[tunnel]`.
fn host_of_domain(site: &Site, domain: &str, dns: &NameServer, more: &str) -> Process {
    let text = HostDocument::new().connections(4).otherwise("hello_world").to_toml(&[]);
    let found = format!("edge-domain = {domain:?}\ndns-servers = [\"{}\"]\n{more}", dns.address);
    assert!(text.contains("edges = []"));
    site.write("host.toml", text.replace("edges = []", &found));
    Process::adit("host", &["tunnel", "run", "--config", "host.toml"], site.folder())
}

async fn admin(process: Process) -> Host {
    let listening = process.event("listening", |event| event["kind"] == "admin").await;
    let admin = listening["address"].as_str().unwrap().parse().unwrap();
    Host { process, admin }
}

fn servers(edge: &Edge) -> Vec<(&str, u16)> {
    let regions = edge.document.servers.iter().map(|server| server.region.as_str());
    regions.zip(edge.servers.iter().map(std::net::SocketAddr::port)).collect()
}

#[tokio::test]
async fn a_host_finds_an_edge_of_two_regions_by_name_and_outlives_the_name_server() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west", "east"], 2)).await;
    let dns = NameServer::start().await;
    dns.add_edge("edge.test", &servers(&edge)).await;
    let host = admin(host_of_domain(&site, "edge.test", &dns, "")).await;
    for slot in 0..4 {
        host.process.event("registered", |event| event["slot"] == slot).await;
    }
    let ready = host.ready().await;
    let connections = ready["connections"].as_array().unwrap();
    let locations: HashSet<&str> = connections.iter().map(|it| it["location"].as_str().unwrap()).collect();
    assert_eq!(locations, ["west-0", "west-1", "east-2", "east-3"].into(), "{ready}");
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);

    drop(dns);
    let mark = host.process.mark();
    let pinned = edge.pinned();
    edge.process.kill();
    edge.process.exit().await;
    host.process.event_after(mark, "connection lost", |_| true).await;
    let edge = site.edge(&pinned).await;
    for slot in 0..4 {
        host.process.event_after(mark, "registered", |event| event["slot"] == slot).await;
    }
    assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 200);
}

#[tokio::test]
async fn a_host_with_a_wrong_domain_says_so_and_finds_the_edge_once_there_is_one() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west", "east"], 2)).await;
    let dns = NameServer::start().await;
    let host = admin(host_of_domain(&site, "edge.test", &dns, "")).await;
    let failed = host.process.event("dialling the edge failed", |_| true).await;
    let wanted = format!(
        "looking up the SRV records of _v2-origintunneld._tcp.edge.test at {}: there is no such name",
        dns.address
    );
    assert_eq!(failed["error"], wanted.as_str(), "{failed}");
    let ready = host.admin("/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains(&wanted), "{ready:?}");
    assert!(host.process.is_running());
    dns.add_edge("edge.test", &servers(&edge)).await;
    for slot in 0..4 {
        host.process.event("registered", |event| event["slot"] == slot).await;
    }
}

#[tokio::test]
async fn connections_come_from_the_address_that_was_asked_for() {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["west", "east"], 2)).await;
    let dns = NameServer::start().await;
    dns.add_edge("edge.test", &servers(&edge)).await;
    let bound = "edge-bind-address = \"127.0.0.9\"\n";
    let host = host_of_domain(&site, "edge.test", &dns, bound);
    host.event("registered", |_| true).await;
    let sockets = std::fs::read_to_string(format!("/proc/{}/net/udp", host.id())).unwrap();
    // As the kernel writes 127.0.0.9.
    assert!(sockets.contains("0900007F:"), "{sockets}");
    drop(host);

    // An address of documentation is nobody's.
    let host = host_of_domain(&site, "edge.test", &dns, "edge-bind-address = \"192.0.2.1\"\n");
    assert_eq!(host.exit().await.code(), Some(2));
    assert!(host.log().contains("binding to 192.0.2.1, the edge-bind-address"), "{}", host.tail());
}
