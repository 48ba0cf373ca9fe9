//! The unmodified reference connector against our edge: `cargo xtask reference PROGRAM` runs these tests.

use std::time::{Duration, Instant};

use e2e::document::HostDocument;
use e2e::fleet::Fleet;
use e2e::load::Load;
use e2e::origin::Origin;
use e2e::product::Host;
use e2e::reference;
use e2e::visitor::{Speaks, Visitor, get};
use http::Response;

use crate::rolling::updated_under;
use crate::{alone, beside_another};

const REGIONS: [&str; 4] = ["west", "east", "west", "east"];
/// What it would wait for if nobody told it that it is idle.
const GRACE: &str = "30s";
/// It looks once in a second.
const EARLY: Duration = Duration::from_secs(5);

/// A fleet that the reference connector serves.
async fn served(protocol: &'static str, origin: &Origin) -> (Fleet, Host) {
    let fleet = Fleet::edges(&REGIONS).await;
    let host = connector(&fleet, protocol, origin).await;
    (fleet, host)
}

/// One replica of it.
async fn connector(fleet: &Fleet, protocol: &'static str, origin: &Origin) -> Host {
    let document = HostDocument { grace: GRACE, edge_ca: "ca.pem".into(), ..HostDocument::new() };
    let document = document.connections(4).over(protocol).otherwise(&origin.service());
    let servers: Vec<_> = fleet.edges.iter().map(|edge| edge.way()).collect();
    reference::host(reference::program(), &fleet.site, &servers, &document).await
}

async fn a_stop_ends_once_idle(protocol: &'static str) {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let (fleet, host) = served(protocol, &origin).await;
    let mut watched = origin.watch("/thinking");
    let visitor = Visitor::new(fleet.edges[0].http(), Speaks::Http1, None).connect().await;
    let directed = async {
        watched.arrived().await;
        host.process.terminate();
        for edge in &fleet.edges {
            edge.edge().process.event("unregistered", |_| true).await;
        }
        watched.answer(Response::new(()));
        watched.say("a late answer");
        watched.end();
    };
    let (answer, ()) = tokio::join!(visitor.ask(get("/thinking")), directed);
    assert_eq!((answer.status, answer.text()), (200, "a late answer"));
    let idle = Instant::now();
    let status = host.process.exit().await;
    eprintln!("the reference connector ended {:.3?} after it was idle, {protocol}", idle.elapsed());
    assert_eq!(status.code(), Some(0), "{}", host.process.tail());
    assert!(idle.elapsed() < EARLY, "{:?} {}", idle.elapsed(), host.process.tail());
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn a_stop_of_the_reference_connector_ends_once_it_is_idle_over_quic() {
    a_stop_ends_once_idle("quic").await;
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn a_stop_of_the_reference_connector_ends_once_it_is_idle_over_http2() {
    a_stop_ends_once_idle("http2").await;
}

/// What the reference loses where ours loses nothing: printed, since it is not ours to promise. Its replicas are
/// replaced as `rolling` replaces ours, under the same load.
async fn update(protocol: &'static str) {
    let _turn = alone().await;
    let origin = Origin::start();
    let (fleet, first) = served(protocol, &origin).await;
    let mut hosts = [first, connector(&fleet, protocol, &origin).await];
    let (wanted, mut load) = updated_under(&fleet).await;
    let (mut updates, mut answered) = (0, 0);
    while updates < 2 || answered < wanted {
        let old = std::mem::replace(&mut hosts[updates % 2], connector(&fleet, protocol, &origin).await);
        old.process.terminate();
        old.process.exit().await;
        load.passes(100).await;
        updates += 1;
        answered = load.answered();
    }
    load.finish(&format!("{updates} replicas of the reference replaced by new ones, {protocol}")).await;
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn replicas_of_the_reference_are_replaced_by_new_ones_over_quic() {
    update("quic").await;
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn replicas_of_the_reference_are_replaced_by_new_ones_over_http2() {
    update("http2").await;
}

async fn outlives_an_edge_server(protocol: &'static str) {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let (mut fleet, host) = served(protocol, &origin).await;
    let mut load = Load::steady(&fleet.visitors()).await;
    fleet.edges[1].kill().await;
    load.passes(400).await;
    let report = load.finish(&format!("kill -9 of an edge server under the reference, {protocol}")).await;
    assert!(host.process.is_running(), "{}", host.process.tail());
    report.assert_idempotent_spotless(12, 1);
    assert_eq!(origin.repeated(), [""; 0], "{report}");

    // When it comes back is its own business.
    let returned = Instant::now();
    fleet.edges[1].start().await;
    fleet.edges[1].has(1).await;
    eprintln!(
        "the reference connector was back {:.3?} after the edge server, {protocol}",
        returned.elapsed()
    );
    let load = Load::steady(&fleet.visitors()).await;
    load.finish(&format!("and back under the reference, {protocol}")).await.assert_spotless();
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_connector_outlives_an_edge_server_over_quic() {
    outlives_an_edge_server("quic").await;
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_connector_outlives_an_edge_server_over_http2() {
    outlives_an_edge_server("http2").await;
}
