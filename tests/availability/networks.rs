//! A host behind a network of its own that goes dark, in part or as a whole, beside one that has none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use e2e::document::HostDocument;
use e2e::fleet::Fleet;
use e2e::load::Load;
use e2e::network::Network;
use e2e::origin::Origin;

use crate::beside_another;

/// Two servers in each of two regions.
const REGIONS: [&str; 4] = ["west", "east", "west", "east"];
/// How soon connections must be spread again.
const SPREAD: Duration = Duration::from_secs(30);
/// Requests of methods that are not idempotent which one dead connection may cost.
const UNKNOWN_FATE: usize = 30;

async fn a_network_that_goes_dark(protocol: &'static str) {
    let _turn = beside_another().await;
    let Some(network) = Network::new(REGIONS.len()).map(Arc::new) else { return };
    let origin = Origin::start_on(network.origin(REGIONS.len()));
    let document = HostDocument::new().connections(4).over(protocol).otherwise(&origin.service());
    let mut fleet = Fleet::edges_on(&REGIONS, &network).await;
    fleet.replicas(1, &document).await;
    fleet.replicas_on(&network, 1, &document).await;
    let mut load = Load::steady(&fleet.visitors()).await;

    // First one server of four.
    network.swallow(network.edge(1));
    let dark = Instant::now();
    fleet.edges[1].has(1).await;
    eprintln!("one connection missed after {:.3?}, {protocol}", dark.elapsed());
    load.passes(100).await;
    network.pass(network.edge(1));
    let back = Instant::now();
    fleet.spread().await;
    eprintln!("spread again after {:.3?}, {protocol}", back.elapsed());
    assert!(back.elapsed() < SPREAD, "{:?}", back.elapsed());

    // Then all of them.
    network.swallow(network.host());
    let dark = Instant::now();
    for edge in &fleet.edges {
        edge.has(1).await;
    }
    eprintln!("all connections missed after {:.3?}, {protocol}", dark.elapsed());
    load.passes(100).await;
    network.pass(network.host());
    let back = Instant::now();
    fleet.spread().await;
    eprintln!("spread again after {:.3?}, {protocol}", back.elapsed());
    assert!(back.elapsed() < SPREAD, "{:?}", back.elapsed());
    load.passes(100).await;
    let report = load.finish(&format!("a network went dark, in part and as a whole, {protocol}")).await;
    report.assert_idempotent_spotless(5 * UNKNOWN_FATE, 5);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

#[tokio::test]
async fn a_network_that_goes_dark_fails_no_idempotent_request_over_quic() {
    a_network_that_goes_dark("quic").await;
}

#[tokio::test]
async fn a_network_that_goes_dark_fails_no_idempotent_request_over_http2() {
    a_network_that_goes_dark("http2").await;
}
