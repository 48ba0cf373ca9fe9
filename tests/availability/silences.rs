//! What falls silent and says so to no peer: a tunnel's only host that is killed, an edge that stands still.
//! Whatever is asked then waits for a connection that answers, whatever its method.

use std::time::Duration;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::product::{Host, Product};
use e2e::visitor::{Answer, Speaks, Visitor, get, to, with_text};
use e2e::within;
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::beside_another;

/// From one request to the next.
const EVERY: Duration = Duration::from_millis(20);
/// How much of what is asked between the death of the only host and its discovery may be lost: what is asked
/// within the first moments. All of it would be lost if it went on into the dead connections.
const LOST: f64 = 0.34;

fn asked(visitor: Visitor, number: usize) -> impl Future<Output = Answer> + Send + 'static {
    let request = match number % 2 {
        0 => with_text(to("POST", "/echo"), "body"),
        _ => get("/bytes/4"),
    };
    async move { visitor.send(request).await }
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

#[tokio::test]
async fn the_only_host_that_is_killed_costs_what_was_asked_in_its_last_moments() {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let document = HostDocument::new().connections(4).over("quic").otherwise(&origin.service());
    let edge = EdgeDocument { hold: Some("30s"), ..EdgeDocument::new(&["west"], 1) };
    let Product { host, edge, site } = Product::start(edge, document.clone()).await;
    host.process.kill();
    host.process.exit().await;

    // As long as the edge takes to give the connections up.
    let mut answers = JoinSet::new();
    let asking = async {
        let mut ticks = interval(EVERY);
        loop {
            ticks.tick().await;
            answers.spawn(asked(edge.visitor(Speaks::Http1), 0));
        }
    };
    tokio::select! {
        () = asking => {}
        () = within("the end of its connections", async {
            while edge.admin("/ready").await.json()["connections"] != 0 {}
        }) => {}
    }
    let _host = Host::connected(site.spawn_host_named("again", &edge.servers, &document), 4).await;
    let answers = within("every answer", answers.join_all()).await;
    let (all, served, lost) = (answers.len(), count(&answers, 200), count(&answers, 502));
    eprintln!("of {all} POSTs to the dead only host {lost} were lost");
    assert_eq!(served + lost, all, "{answers:?}");
    assert!(all > 50 && (lost as f64) < LOST * all as f64, "{lost} of {all}");
}

async fn an_edge_that_stands_still(protocol: &'static str) {
    let _turn = beside_another().await;
    let origin = Origin::start();
    let document = HostDocument::new().connections(4).over(protocol).otherwise(&origin.service());
    let edge = EdgeDocument { hold: Some("30s"), ..EdgeDocument::new(&["west"], 1) };
    let Product { host, edge, site: _site } = Product::start(edge, document).await;
    edge.process.freeze();
    // They are let in by the system, and are read when the edge goes on.
    let mut answers = JoinSet::new();
    for number in 0..40 {
        answers.spawn(asked(edge.visitor(Speaks::Http1), number));
    }
    // The host has given up every connection by then, and the edge knows nothing of it.
    for lost in 1..=4 {
        within("lost connections", async {
            while host.process.events("connection lost").len() < lost {
                tokio::time::sleep(EVERY).await;
            }
        })
        .await;
    }
    edge.process.go_on();
    let answers = within("every answer", answers.join_all()).await;
    assert_eq!(count(&answers, 200), 40, "{answers:?}\n{}", edge.process.tail());
}

#[tokio::test]
async fn an_edge_that_stood_still_sends_nothing_into_connections_that_are_over_by_then() {
    an_edge_that_stands_still("quic").await;
}

#[tokio::test]
async fn an_edge_that_stood_still_sends_nothing_into_connections_that_are_over_by_then_over_http2() {
    an_edge_that_stands_still("http2").await;
}
