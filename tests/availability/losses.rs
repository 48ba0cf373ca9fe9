//! Whatever dies without a word: one edge server, a region, a replica.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use e2e::document::HostDocument;
use e2e::fleet::{Fleet, Place};
use e2e::load::Load;
use e2e::origin::Origin;

use crate::{alone, beside_another, median};

/// Two servers in each of two regions.
const REGIONS: [&str; 4] = ["west", "east", "west", "east"];
/// How soon the slot of a dead server must serve elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(2);
/// How soon connections must be spread again.
const SPREAD: Duration = Duration::from_secs(30);
/// Requests of methods that are not idempotent which one death may cost: those that it is at.
const UNKNOWN_FATE: usize = 12;

fn host(origin: &Origin, protocol: &'static str) -> HostDocument {
    HostDocument::new().connections(4).over(protocol).otherwise(&origin.service())
}

/// All four slots serve, none of them at one of these servers.
fn avoid(places: &[Place], dead: &[&str]) -> bool {
    places.len() == 4 && places.iter().all(|place| !dead.contains(&place.server.as_str()))
}

async fn any_one_edge_server(protocol: &'static str) {
    let _turn = alone().await;
    let origin = Origin::start();
    let mut fleet = Fleet::start(&REGIONS, 1, &host(&origin, protocol)).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    let mut times = Vec::new();
    // The first one twice, for a median of five.
    for dead in [0, 1, 2, 3, 0] {
        let name = fleet.edges[dead].name.clone();
        let killed = Instant::now();
        fleet.edges[dead].kill().await;
        fleet.hosts[0].until("four connections elsewhere", |places| avoid(places, &[&name])).await;
        times.push(killed.elapsed());
        load.passes(100).await;
        fleet.edges[dead].start().await;
        fleet.spread().await;
        load.passes(100).await;
    }
    let report = load.finish(&format!("kill -9 of each edge server, {protocol}")).await;
    let median = median(&format!("a killed server's slot serves elsewhere, {protocol}"), times);
    report.assert_idempotent_spotless(5 * UNKNOWN_FATE, 5);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
    assert!(median < ELSEWHERE, "{median:?}");
}

#[tokio::test]
async fn an_edge_server_that_dies_fails_no_idempotent_request_over_quic() {
    any_one_edge_server("quic").await;
}

#[tokio::test]
async fn an_edge_server_that_dies_fails_no_idempotent_request_over_http2() {
    any_one_edge_server("http2").await;
}

#[tokio::test]
async fn a_region_that_dies_fails_no_idempotent_request_and_is_used_again_when_it_returns() {
    let _turn = alone().await;
    let origin = Origin::start();
    let mut fleet = Fleet::start(&REGIONS, 1, &host(&origin, "auto")).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    for dead in [0, 2] {
        fleet.edges[dead].kill().await;
    }
    let killed = Instant::now();
    fleet.hosts[0].until("four connections in the east", |places| avoid(places, &["west-0", "west-2"])).await;
    eprintln!("all in one region after {:.3?}", killed.elapsed());
    load.passes(300).await;
    for returning in [0, 2] {
        fleet.edges[returning].start().await;
    }
    let returned = Instant::now();
    let places = fleet.hosts[0]
        .until("four connections to four servers", |places| {
            places.iter().map(|place| &place.server).collect::<BTreeSet<_>>().len() == 4
        })
        .await;
    let took = returned.elapsed();
    eprintln!("over two regions again after {took:.3?}");
    load.passes(100).await;
    let report = load.finish("kill -9 of a region, and its return").await;
    report.assert_idempotent_spotless(2 * UNKNOWN_FATE, 2);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
    assert!(took < SPREAD, "{took:?}: {places:?}");
}

async fn one_of_two_replicas(protocol: &'static str) {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let mut fleet = Fleet::start(&REGIONS, 2, &host(&origin, protocol)).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    fleet.hosts[0].kill().await;
    // Until every edge server has noticed, and on from there.
    for edge in &fleet.edges {
        edge.has(1).await;
    }
    load.passes(200).await;
    fleet.hosts[0].start().await;
    load.passes(200).await;
    let report = load.finish(&format!("kill -9 of one of two replicas, {protocol}")).await;
    report.assert_idempotent_spotless(8 * UNKNOWN_FATE, 4);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

#[tokio::test]
async fn a_replica_that_dies_fails_no_idempotent_request_over_quic() {
    one_of_two_replicas("quic").await;
}

#[tokio::test]
async fn a_replica_that_dies_fails_no_idempotent_request_over_http2() {
    one_of_two_replicas("http2").await;
}
