//! A fleet of nodes while its parts die, freeze, are cut off or leave: one row of the table of docs/fleet.md for each
//! test. Real processes on loopback over a real etcd; lines between regions through this process. `cargo xtask chaos`
//! runs all of them and prints the table; the test command runs the short forms that are not ignored.
//!
//! `ADIT_CHAOS=long` makes each as long as the table says, `ADIT_CHAOS_SEED` has another seed for chance.

// Every line here is part of a test.
#![allow(clippy::unwrap_used)]

mod cuts;
mod hops;
mod losses;
mod reference;
mod store;

use std::time::Duration;

use e2e::document::HostDocument;
use e2e::load::Report;
use e2e::nodes::Nodes;
use e2e::origin::Origin;
use tokio::sync::{Mutex, MutexGuard};

/// Two cores carry one fleet at a time.
static CORES: Mutex<()> = Mutex::const_new(());

async fn alone() -> MutexGuard<'static, ()> {
    CORES.lock().await
}

/// So long, or as long as the table says.
fn lasts<T>(short: T, long: T) -> T {
    if std::env::var_os("ADIT_CHAOS").is_some_and(|set| set == "long") { long } else { short }
}

fn seed() -> u64 {
    let said = std::env::var("ADIT_CHAOS_SEED").ok().map(|text| text.parse().expect("a number as seed"));
    let seed = said.unwrap_or_else(|| std::process::id().into());
    eprintln!("seed {seed}");
    seed
}

/// What a row has to show, for `cargo xtask chaos`.
fn figure(text: &str) {
    eprintln!("figure: {text}");
}

/// The usual summary of a load.
fn figure_of(report: &Report) {
    let text = report.to_string();
    figure(text.lines().next().unwrap());
}

/// Hosts with connections at the nodes of these numbers alone.
async fn hosts(nodes: &mut Nodes, at: &[usize], count: usize, origin: &Origin, protocol: &'static str) {
    let document = HostDocument { edge_ca: "ca.pem".into(), ..HostDocument::new() };
    let document = document.connections(at.len().min(4)).over(protocol).otherwise(&origin.service());
    nodes.fleet.replicas_at(at, count, &document).await;
    nodes.serve().await;
}

/// Requests of methods that are not idempotent which one death may cost: those that it is at.
const UNKNOWN_FATE: usize = 12;
/// How soon all is well again.
const SOON: Duration = Duration::from_secs(5);
