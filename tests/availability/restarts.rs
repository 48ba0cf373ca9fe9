//! Edge servers and hosts that are asked to stop cost nobody anything.

use std::time::Instant;

use e2e::document::HostDocument;
use e2e::fleet::Fleet;
use e2e::load::Load;
use e2e::origin::Origin;

use crate::beside_another;

/// Two servers in each of two regions.
const REGIONS: [&str; 4] = ["west", "east", "west", "east"];

async fn everything_in_turn(protocol: &'static str) {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let document = HostDocument::new().connections(4).over(protocol).otherwise(&origin.service());
    let mut fleet = Fleet::start(&REGIONS, 2, &document).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    for number in 0..fleet.edges.len() {
        let began = Instant::now();
        fleet.edges[number].stop().await;
        eprintln!("{} stopped within {:.3?}", fleet.edges[number].name, began.elapsed());
        load.passes(50).await;
        fleet.edges[number].start().await;
        fleet.spread().await;
        load.passes(50).await;
    }
    for host in &mut fleet.hosts {
        let began = Instant::now();
        host.stop().await;
        eprintln!("{} stopped within {:.3?}", host.name, began.elapsed());
        load.passes(50).await;
        host.start().await;
        load.passes(50).await;
    }
    let report = load.finish(&format!("everything restarted in turn, {protocol}")).await;
    report.assert_spotless();
    assert_eq!(origin.repeated(), [""; 0], "{report}");
}

#[tokio::test]
async fn everything_is_restarted_in_turn_and_no_request_fails_over_quic() {
    everything_in_turn("quic").await;
}

#[tokio::test]
async fn everything_is_restarted_in_turn_and_no_request_fails_over_http2() {
    everything_in_turn("http2").await;
}
