//! The unmodified reference connector with its four connections at four nodes: `cargo xtask reference PROGRAM` runs
//! these tests.

use e2e::document::HostDocument;
use e2e::load::Load;
use e2e::nodes::Nodes;
use e2e::origin::Origin;
use e2e::reference;

use crate::{UNKNOWN_FATE, alone, figure_of, seed};

/// As it takes addresses: the first, third … are its first region.
const REGIONS: [&str; 4] = ["west", "east", "west", "east"];

async fn survives(protocol: &'static str) {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 1, seed()).await else { return };
    let origin = Origin::start();
    let document = HostDocument { edge_ca: "ca.pem".into(), grace: "30s", ..HostDocument::new() };
    let document = document.connections(4).over(protocol).otherwise(&origin.service());
    // Each address serves one connection at a time; listed twice, two.
    let servers: Vec<_> = nodes.fleet.edges.iter().map(|edge| edge.way()).collect();
    let host = reference::host(reference::program(), &nodes.fleet.site, &servers.repeat(2), &document).await;
    nodes.serve().await;
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    // A node, and then its whole region.
    nodes.fleet.edges[0].kill().await;
    load.passes(300).await;
    nodes.fleet.edges[2].kill().await;
    load.passes(300).await;
    assert!(host.process.is_running(), "{}", host.process.tail());
    for number in [0, 2] {
        nodes.start_again(number).await;
    }
    nodes.acquainted().await;
    nodes.serve().await;
    load.passes(100).await;
    let report =
        load.finish(&format!("the reference at four nodes loses one and a region, {protocol}")).await;
    figure_of(&report);
    report.assert_idempotent_spotless(2 * UNKNOWN_FATE, 2);
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_connector_at_four_nodes_survives_the_loss_of_one_and_of_a_region_over_quic() {
    survives("quic").await;
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_connector_at_four_nodes_survives_the_loss_of_one_and_of_a_region_over_http2() {
    survives("http2").await;
}
