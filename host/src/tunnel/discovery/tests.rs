//! Addresses from lists and from a real name server.

mod name_server;

use std::collections::HashSet;

use std::net::UdpSocket;

use futures_util::future::join_all;
use name_server::NameServer;

use super::dns::Dns;
use super::source::has_route;
use super::*;
use crate::config::settings::{DnsServer, EdgeSource};

const SERVICE: &str = "_v2-origintunneld._tcp.edge.test.";

/// Two regions with two addresses each.
const FLEET: [&str; 6] = [
    "_v2-origintunneld._tcp.edge.test. SRV 1 1 7844 west.test.",
    "_v2-origintunneld._tcp.edge.test. SRV 2 1 7845 east.test.",
    "west.test. 192.0.2.1",
    "west.test. 192.0.2.2",
    "east.test. 192.0.2.11",
    "east.test. 192.0.2.12",
];

fn listed_edges(entries: &[&str]) -> Edges {
    Edges {
        source: EdgeSource::Listed(entries.iter().map(|&entry| entry.to_owned()).collect()),
        ip_version: IpVersion::Auto,
        bind_address: None,
        dns_servers: vec![DnsServer::System],
    }
}

fn domain(name: &str, server: &NameServer) -> Edges {
    Edges {
        source: EdgeSource::Domain { name: name.into(), region: None },
        ip_version: IpVersion::Auto,
        bind_address: None,
        dns_servers: vec![DnsServer::Plain(server.address)],
    }
}

async fn look_up(edges: &Edges) -> Result<Vec<Region>, String> {
    Source::new(edges.clone()).look_up(&[]).await.map_err(|error| error.to_string())
}

fn shown(regions: &[Region]) -> Vec<String> {
    let show = |region: &Region| {
        let mut addresses: Vec<String> = region.addresses.iter().map(SocketAddr::to_string).collect();
        addresses.sort();
        format!("{}: {}", region.name, addresses.join(" "))
    };
    regions.iter().map(show).collect()
}

/// What a slot that has nothing dials; it stays there.
async fn pick(addresses: &Addresses, slot: usize) -> Result<SocketAddr, Unresolved> {
    let edge = addresses.seek(slot, Goal::Connect).await?.unwrap();
    addresses.allocation().judge(slot, Verdict::Keep, now());
    Ok(edge)
}

/// The dial of this slot failed.
fn rotate(addresses: &Addresses, slot: usize) {
    addresses.allocation().judge(slot, Verdict::Unreachable, now());
    addresses.failed.notify_one();
}

async fn picked(addresses: &Addresses, slots: usize) -> Vec<SocketAddr> {
    let mut picked = Vec::new();
    for slot in 0..slots {
        picked.push(pick(addresses, slot).await.unwrap());
    }
    picked
}

#[tokio::test]
async fn listed_addresses_are_handed_out_in_their_order() {
    let entries = ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:5"];
    let addresses = Addresses::start(listed_edges(&entries), 4);
    let ports: Vec<u16> = picked(&addresses, 4).await.iter().map(SocketAddr::port).collect();
    assert_eq!(ports, [1, 2, 3, 4]);
    rotate(&addresses, 1);
    assert_eq!(pick(&addresses, 1).await.unwrap().port(), 5);
}

#[tokio::test]
async fn listed_names_are_resolved_and_those_that_cannot_be_are_left_out() {
    let addresses = Addresses::start(listed_edges(&["nowhere.invalid:7844", "localhost:7844"]), 1);
    let address = pick(&addresses, 0).await.unwrap();
    assert!(address.ip().is_loopback() && address.port() == 7844, "{address}");
    let addresses = Addresses::start(listed_edges(&["nowhere.invalid:7844"]), 1);
    assert!(pick(&addresses, 0).await.unwrap_err().to_string().contains("nowhere.invalid:7844"));
}

#[tokio::test]
async fn a_listed_name_is_resolved_for_each_dial_and_all_its_addresses_are_used() {
    let server = NameServer::start(&["edge.test. 192.0.2.1", "edge.test. 192.0.2.2"]).await;
    let edges = Edges {
        dns_servers: vec![DnsServer::Plain(server.address)],
        ..listed_edges(&["edge.test:7844", "other.test:7844"])
    };
    let addresses = Addresses::start(edges, 4);
    let first: HashSet<SocketAddr> = picked(&addresses, 2).await.into_iter().collect();
    assert_eq!(first, ["192.0.2.1:7844", "192.0.2.2:7844"].map(|it| it.parse().unwrap()).into());
    server.add("other.test. 192.0.2.11").await;
    assert_eq!(pick(&addresses, 2).await.unwrap(), "192.0.2.11:7844".parse().unwrap());
    server.stop().await;
    // What is known stays.
    assert!(pick(&addresses, 3).await.is_ok());
}

#[tokio::test]
async fn service_records_lead_to_two_regions() {
    let server = NameServer::start(&FLEET).await;
    let edges = domain("edge.test", &server);
    let found = look_up(&edges).await.unwrap();
    assert_eq!(
        shown(&found),
        ["west.test: 192.0.2.1:7844 192.0.2.2:7844", "east.test: 192.0.2.11:7845 192.0.2.12:7845"]
    );
    let addresses = Addresses::start(edges, 4);
    let picked = picked(&addresses, 4).await;
    assert_eq!(picked.iter().collect::<HashSet<_>>().len(), 4);
    for pair in picked.chunks(2) {
        assert_ne!(pair[0].port(), pair[1].port(), "{picked:?}");
    }
}

#[tokio::test]
async fn the_two_preferred_targets_are_used_and_one_target_may_have_several_ports() {
    let server = NameServer::start(&FLEET).await;
    for line in [
        "_v2-origintunneld._tcp.edge.test. SRV 2 0 7844 spare.test.",
        "_v2-origintunneld._tcp.edge.test. SRV 0 0 7844 absent.test.",
        "_v2-origintunneld._tcp.edge.test. SRV 0 0 7844 .",
        "_v2-origintunneld._tcp.edge.test. SRV 2 1 7846 EAST.test.",
        "spare.test. 192.0.2.21",
    ] {
        server.add(line).await;
    }
    let found = look_up(&domain("edge.test", &server)).await.unwrap();
    assert_eq!(
        shown(&found),
        [
            "west.test: 192.0.2.1:7844 192.0.2.2:7844",
            "east.test: 192.0.2.11:7845 192.0.2.11:7846 192.0.2.12:7845 192.0.2.12:7846",
        ]
    );
}

#[tokio::test]
async fn a_part_of_the_fleet_has_a_name_of_its_own() {
    let server = NameServer::start(&FLEET).await;
    server.add("_us-v2-origintunneld._tcp.edge.test. SRV 1 1 7 us.test.").await;
    server.add("us.test. 192.0.2.31").await;
    let source = EdgeSource::Domain { name: "edge.test".into(), region: Some("us".into()) };
    let found = look_up(&Edges { source, ..domain("edge.test", &server) }).await.unwrap();
    assert_eq!(shown(&found), ["us.test: 192.0.2.31:7"]);
}

#[tokio::test]
async fn only_the_family_that_was_asked_for_is_used() {
    let server = NameServer::start(&FLEET).await;
    for line in ["west.test. 2001:db8::1", "east.test. 2001:db8::11"] {
        server.add(line).await;
    }
    let mut edges = domain("edge.test", &server);
    let both = look_up(&edges).await.unwrap();
    assert!(both.iter().all(|region| region.addresses.len() == 3), "{both:?}");
    edges.ip_version = IpVersion::V6;
    let v6 = look_up(&edges).await.unwrap();
    assert_eq!(shown(&v6), ["west.test: [2001:db8::1]:7844", "east.test: [2001:db8::11]:7845"]);
    edges.ip_version = IpVersion::V4;
    assert!(look_up(&edges).await.unwrap().iter().flat_map(|it| &it.addresses).all(SocketAddr::is_ipv4));
}

#[tokio::test]
async fn what_is_missing_in_dns_is_named() {
    let server = NameServer::start(&[
        "west.test. 192.0.2.1",
        "_v2-origintunneld._tcp.v4.test. SRV 1 1 7844 west.test.",
        "_v2-origintunneld._tcp.dead.test. SRV 1 1 7844 absent.test.",
    ])
    .await;
    let at = server.address;
    let wrong = look_up(&domain("wrong.test", &server)).await.unwrap_err();
    let wanted = "the SRV records of _v2-origintunneld._tcp.wrong.test";
    assert_eq!(wrong, format!("looking up {wanted} at {at}: there is no such name"));
    let without = look_up(&domain("dead.test", &server)).await.unwrap_err();
    assert_eq!(without, "no target of the SRV records of _v2-origintunneld._tcp.dead.test has an address");
    let v6 = Edges { ip_version: IpVersion::V6, ..domain("v4.test", &server) };
    assert!(look_up(&v6).await.unwrap_err().ends_with("has an address of IPv6"));
    let refused = Edges { dns_servers: vec![DnsServer::Plain(server.tls)], ..domain("v4.test", &server) };
    server.stop().await;
    let refused = look_up(&refused).await.unwrap_err();
    assert!(
        refused.starts_with("looking up the SRV records of _v2-origintunneld._tcp.v4.test at"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_region_that_cannot_be_resolved_now_keeps_its_addresses() {
    let server = NameServer::start(&FLEET).await;
    // Nobody here is responsible for this name, which says nothing about it.
    server.add("_v2-origintunneld._tcp.edge.test. SRV 0 1 7844 north.example.").await;
    let source = Source::new(domain("edge.test", &server));
    let names = |regions: &[Region]| regions.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&source.look_up(&[]).await.unwrap()), ["west.test", "east.test"]);
    let north = Region { name: "north.example".into(), addresses: vec!["192.0.2.41:7844".parse().unwrap()] };
    let found = source.look_up(std::slice::from_ref(&north)).await.unwrap();
    assert_eq!(names(&found), ["north.example", "west.test"]);
    assert_eq!(found[0], north);
    // A name that does not exist says that the region is gone.
    let gone = Region { name: "absent.test".into(), ..north };
    server.add("_v2-origintunneld._tcp.edge.test. SRV 0 0 7844 absent.test.").await;
    assert_eq!(names(&source.look_up(&[gone]).await.unwrap()), ["west.test", "east.test"]);
}

#[tokio::test]
async fn one_region_is_too_few_for_the_public_edge_only() {
    let server = NameServer::start(&[
        "_v2-origintunneld._tcp.edge.test. SRV 1 1 7844 west.test.",
        "west.test. 192.0.2.1",
    ])
    .await;
    let mut source = Source::new(domain("edge.test", &server));
    assert_eq!(source.look_up(&[]).await.unwrap().len(), 1);
    let Source::Domain { needs_two_regions, .. } = &mut source else { panic!() };
    assert!(!*needs_two_regions);
    *needs_two_regions = true;
    let error = source.look_up(&[]).await.unwrap_err().to_string();
    assert!(error.contains("one region only (west.test)"), "{error}");
    let public = EdgeSource::Domain { name: "argotunnel.com".into(), region: None };
    let Source::Domain { needs_two_regions, .. } =
        Source::new(Edges { source: public, ..domain("edge.test", &server) })
    else {
        panic!()
    };
    assert!(needs_two_regions);
}

#[tokio::test]
async fn the_next_server_is_asked_if_one_does_not_answer_over_tls_too() {
    let server = NameServer::start(&FLEET).await;
    let dead = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tls = |name: &str| DnsServer::Tls { address: server.tls, name: name.into() };
    let dns = |servers: Vec<DnsServer>| {
        Dns::new(servers, IpVersion::Auto, Duration::from_secs(4)).trusting(server.roots.clone())
    };
    let found = dns(vec![DnsServer::Plain(dead), tls("dns.test")]).regions(SERVICE, &[]).await.unwrap();
    assert_eq!(found.len(), 2);
    // A server with another name is not believed, and the first reason is the one that is told.
    let error = dns(vec![tls("other.test"), DnsServer::Plain(dead)]).regions(SERVICE, &[]).await.unwrap_err();
    assert!(error.to_string().contains("other.test"), "{error}");
}

#[tokio::test]
async fn addresses_outlive_the_name_server_and_new_ones_are_found_after_a_failure() {
    let server = NameServer::start(&FLEET).await;
    let pace = Pace { least_pause: Duration::from_millis(50), ..PACE };
    let addresses = Addresses::start_with(domain("edge.test", &server), 4, pace);
    let before = picked(&addresses, 4).await;
    for line in ["west.test. 192.0.2.3", "east.test. 192.0.2.13"] {
        server.add(line).await;
    }
    // The next lookup is due when a connection fails.
    rotate(&addresses, 0);
    let found = async {
        while addresses.allocation().regions().iter().any(|region| region.len() < 3) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(30), found).await.unwrap();
    let fresh = pick(&addresses, 0).await.unwrap();
    assert!(!before.contains(&fresh), "{fresh}");
    server.stop().await;
    rotate(&addresses, 1);
    assert!(pick(&addresses, 1).await.is_ok());
    assert!(addresses.look_up().await.is_err());
    assert_eq!(pick(&addresses, 0).await.unwrap(), fresh);
    assert_eq!(addresses.allocation().regions().len(), 2);
}

#[tokio::test]
async fn slots_that_wait_at_once_share_one_lookup_and_its_failure() {
    let server = NameServer::start(&[]).await;
    let addresses = Addresses::start(domain("edge.test", &server), 4);
    let outcomes = join_all((0..4).map(|slot| pick(&addresses, slot))).await;
    for outcome in outcomes {
        assert!(outcome.unwrap_err().to_string().contains("_v2-origintunneld._tcp.edge.test"));
    }
    // And whoever comes later is answered by a new one.
    for line in FLEET {
        server.add(line).await;
    }
    assert!(pick(&addresses, 0).await.is_ok());
}

#[tokio::test]
async fn addresses_without_a_route_are_left_out_unless_there_are_no_others() {
    let source = Source::new(listed_edges(&["127.0.0.1:1"]));
    let region = |addresses: &[&str]| Region {
        name: "west".into(),
        addresses: addresses.iter().map(|it| it.parse().unwrap()).collect(),
    };
    // No socket reaches the address "any" of documentation over IPv6 from a machine without a route; on one with a
    // route both stay. Loopback always stays.
    let arranged = source.arrange(&[region(&["127.0.0.1:1", "[2001:db8::1]:1"])]);
    assert!(arranged[0].contains(&"127.0.0.1:1".parse().unwrap()));
    let is_routed = has_route(&"[2001:db8::1]:1".parse().unwrap());
    assert_eq!(arranged[0].len(), if is_routed { 2 } else { 1 });
    let arranged = source.arrange(&[region(&["[2001:db8::1]:1"])]);
    assert_eq!(arranged[0].len(), 1);
}
