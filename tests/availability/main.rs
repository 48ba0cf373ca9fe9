//! Four connections that nothing takes down: what visitors notice while servers, regions, hosts and
//! transports go away, under a steady load. Real processes, real sockets, free ports.
//!
//! `cargo test --workspace --test availability -- --nocapture` prints what was sent, failed and
//! retried, the longest gap, and how long recoveries took.

// Every line here is part of a test.
#![allow(clippy::unwrap_used)]

mod losses;
mod networks;
mod paths;
mod recovery;
mod reference;
mod replicas;
mod restarts;
mod rolling;
mod silences;

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Two cores carry two loads at once, or one measurement.
static CORES: Semaphore = Semaphore::const_new(2);

/// For a test that only counts.
async fn beside_another() -> SemaphorePermit<'static> {
    CORES.acquire().await.unwrap()
}

/// For a test that measures time, or is heavy.
async fn alone() -> SemaphorePermit<'static> {
    CORES.acquire_many(2).await.unwrap()
}

/// Prints the figures of a case, in order, and hands back the middle one.
fn median(case: &str, mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let median = times[times.len() / 2];
    eprintln!("{case}: {} times, median {median:.3?}, all {times:.3?}", times.len());
    median
}
