//! Row 6: a region is cut off from the other one, and comes back.

use std::time::{Duration, Instant};

use e2e::load::Load;
use e2e::nodes::{Nodes, peers};
use e2e::origin::Origin;
use tokio::time::sleep;

use crate::{SOON, alone, figure, figure_of, hosts, lasts, seed};

const REGIONS: [&str; 4] = ["west", "east", "west", "east"];

/// How many tunnels a node believes that all others have together.
async fn believed(nodes: &Nodes, number: usize) -> u64 {
    let peers = peers(&nodes.fleet.edges[number]).await;
    peers.iter().map(|peer| peer["tunnels"].as_u64().unwrap_or_default()).sum()
}

#[tokio::test]
#[ignore = "a row of chaos: cargo xtask chaos"]
async fn a_region_that_is_cut_off_serves_its_own_and_finds_the_others_again() {
    let _turn = alone().await;
    let Some(mut nodes) = Nodes::start(&REGIONS, 1, seed()).await else { return };
    nodes.lines.weather(|weather| {
        weather.delay = Duration::from_millis(10);
        weather.lost = 5;
    });
    let origin = Origin::start();
    hosts(&mut nodes, &[0], 1, &origin, "quic").await;
    hosts(&mut nodes, &[3], 1, &origin, "http2").await;
    let mut load = Load::steady(&nodes.fleet.visitors()).await;
    nodes.lines.weather(|weather| weather.is_cut = true);
    // Until what the other region had is forgotten: each side serves by its own host.
    let lasting = Duration::from_secs(lasts(14, 60));
    let cut = Instant::now();
    while cut.elapsed() < lasting {
        load.passes(50).await;
    }
    for number in 0..REGIONS.len() {
        let edge = &nodes.fleet.edges[number];
        edge.until("that the other region is gone", async || {
            let peers = peers(edge).await;
            peers.iter().all(|peer| (peer["region"] == edge.region.as_str()) != (peer["gone"] == true))
        })
        .await;
    }
    // What ends meanwhile is heard of at once when the line is back.
    nodes.fleet.hosts[1].kill().await;
    sleep(Duration::from_secs(1)).await;
    nodes.lines.weather(|weather| weather.is_cut = false);
    let healed = Instant::now();
    nodes.acquainted().await;
    let mut counts = Vec::new();
    for number in 0..REGIONS.len() {
        // The host that is left is at node 0; nobody believes in another.
        let wanted = u64::from(number != 0);
        nodes.fleet.edges[number]
            .until("that it knows what is", async || believed(&nodes, number).await == wanted)
            .await;
        counts.push(believed(&nodes, number).await);
    }
    let converged = healed.elapsed();
    nodes.serve().await;
    load.passes(200).await;
    let report = load.finish("a region cut off and back").await;
    figure_of(&report);
    figure(&format!(
        "cut for {lasting:.0?}; all knew of all {converged:.1?} after it was healed; no ghosts: {counts:?}"
    ));
    assert_eq!(origin.repeated(), [""; 0], "{report}");
    assert!(converged < SOON * lasts(2, 1), "{converged:?}");
}
