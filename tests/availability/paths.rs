//! Ways that swallow what is sent on them, without a word.

use std::time::Instant;

use e2e::document::HostDocument;
use e2e::fleet::Fleet;
use e2e::load::Load;
use e2e::origin::Origin;

use crate::beside_another;

/// Two servers in each of two regions.
const REGIONS: [&str; 4] = ["west", "east", "west", "east"];
/// Requests of methods that are not idempotent which one dead connection may cost.
const UNKNOWN_FATE: usize = 30;

fn host(origin: &Origin, protocol: &'static str) -> HostDocument {
    HostDocument::new().connections(4).over(protocol).otherwise(&origin.service())
}

#[tokio::test]
async fn udp_that_is_dropped_silently_fails_no_idempotent_request() {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let mut fleet = Fleet::edges(&REGIONS).await.with_gates();
    fleet.replicas(1, &host(&origin, "auto")).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    let pass = |passes| fleet.edges.iter().for_each(|edge| edge.gate.as_ref().unwrap().let_udp_pass(passes));
    let dropped = Instant::now();
    pass(false);
    let over = |protocol: &'static str| {
        fleet.hosts[0].until(protocol, move |places| {
            places.len() == 4 && places.iter().all(|place| place.protocol == protocol)
        })
    };
    over("http2").await;
    eprintln!("all four on HTTP/2 {:.3?} after UDP was lost", dropped.elapsed());
    load.passes(400).await;
    let report = load.finish("UDP dropped silently").await;
    report.assert_idempotent_spotless(4 * UNKNOWN_FATE, 4);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

/// The way of one of two hosts to one edge server.
async fn black_hole(protocol: &'static str) {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let document = host(&origin, protocol);
    let mut fleet = Fleet::edges(&REGIONS).await;
    fleet.replicas(1, &document).await;
    let mut fleet = fleet.with_gates();
    fleet.replicas(1, &document).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    let gate = fleet.edges[1].gate.as_ref().unwrap();
    gate.let_udp_pass(false);
    gate.let_tcp_pass(false);
    let dropped = Instant::now();
    fleet.hosts[1]
        .until("four connections elsewhere", |places| {
            places.len() == 4 && places.iter().all(|place| place.server != "east-1")
        })
        .await;
    eprintln!("four connections elsewhere {:.3?} after one address went dark, {protocol}", dropped.elapsed());
    fleet.edges[1].has(1).await;
    load.passes(200).await;
    let gate = fleet.edges[1].gate.as_ref().unwrap();
    gate.let_udp_pass(true);
    gate.let_tcp_pass(true);
    fleet.spread().await;
    load.passes(100).await;
    let report = load.finish(&format!("one address black-holed, {protocol}")).await;
    report.assert_idempotent_spotless(UNKNOWN_FATE, 1);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

#[tokio::test]
async fn an_address_that_swallows_everything_fails_no_idempotent_request_over_quic() {
    black_hole("quic").await;
}

#[tokio::test]
async fn an_address_that_swallows_everything_fails_no_idempotent_request_over_http2() {
    black_hole("http2").await;
}
