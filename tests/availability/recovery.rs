//! How soon an edge that was killed and came back at once serves again.

use std::time::{Duration, Instant};

use e2e::document::{EdgeDocument, HostDocument};
use e2e::load::Load;
use e2e::origin::Origin;
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, get};
use e2e::within;

use crate::{alone, median};

/// From the moment that it listens.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
const ALL_CONNECTIONS: Duration = Duration::from_secs(3);
const TRIES: usize = 10;
/// How long connections last between two tries.
const STEADY: Duration = Duration::from_millis(500);

async fn killed_and_started_at_once(protocol: &'static str) {
    let _turn = alone().await;
    let origin = Origin::start();
    let document = HostDocument::new().connections(4).over(protocol).otherwise(&origin.service());
    let Product { host, mut edge, site } =
        Product::start_at(Site::new(), EdgeDocument::new(&["west", "east"], 2), document).await;
    let pinned = edge.pinned();
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for number in 0..TRIES {
        // What is restarted had been running.
        tokio::time::sleep(STEADY).await;
        edge.process.kill();
        edge.process.exit().await;
        edge = site.edge(&pinned).await;
        let listens = Instant::now();
        let visitor = edge.visitor(Speaks::Http1);
        let served = within("a served request", async {
            while visitor.send(get("/bytes/100")).await.status != 200 {
                tokio::time::sleep(POLL).await;
            }
        });
        let connected = within("four connections", async {
            while edge.admin("/ready").await.json()["connections"] != 4 {
                tokio::time::sleep(POLL).await;
            }
        });
        tokio::join!(
            async {
                served.await;
                first.push(listens.elapsed());
            },
            async {
                connected.await;
                all.push(listens.elapsed());
            }
        );
        eprintln!("try {number}: first request {:.3?}, four connections {:.3?}", first[number], all[number]);
    }
    median(&format!("first request after a restart of the edge, {protocol}"), first.clone());
    median(&format!("four connections after a restart of the edge, {protocol}"), all.clone());
    assert!(first.iter().all(|time| *time < FIRST_REQUEST), "{first:?}\n{}", host.process.tail());
    assert!(all.iter().all(|time| *time < ALL_CONNECTIONS), "{all:?}\n{}", host.process.tail());
    // What it serves then is what the origin says.
    let mut load = Load::steady(&[edge.http]).await;
    load.passes(100).await;
    load.finish(&format!("after ten restarts, {protocol}")).await.assert_spotless();
}

#[tokio::test]
async fn an_edge_that_is_killed_and_started_at_once_serves_again_within_a_second_over_quic() {
    killed_and_started_at_once("quic").await;
}

#[tokio::test]
async fn an_edge_that_is_killed_and_started_at_once_serves_again_within_a_second_over_http2() {
    killed_and_started_at_once("http2").await;
}

const POLL: Duration = Duration::from_millis(10);
