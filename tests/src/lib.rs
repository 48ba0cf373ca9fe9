//! The whole product over real sockets: what the promises in `e2e/` are written with.
//!
//! Knows how to start the product's one binary, an origin behind it and a visitor in front of it,
//! each on a free port. Knows no promise. Whatever waits here has a deadline, and a wait that fails
//! panics with what the processes said: a harness that cannot go on is a failed test.
//!
//! Read in this order: [`process`] (one running program and its log), [`document`] (the
//! configurations that tests write), [`product`] (an edge and a host together), [`fleet`] (many of
//! both), [`origin`] and [`visitor`] (the two ends), [`load`] (many visitors), [`stalled`] (those who take nothing), [`dns`] (a name server),
//! [`gate`] and [`network`] (between a host and an edge), [`nodes`] (edges that know of each other) and [`mod@line`] (between them), [`stand_in`] (an edge made only from the description of the wire),
//! [`registry`], [`metrics`] and [`promtool`], [`tcp`] (services of bytes).

pub mod bulk;
pub mod certificate;
pub mod chromium;
pub mod collector;
pub mod dns;
pub mod document;
pub mod etcd;
pub mod fleet;
pub mod gate;
pub mod grpc;
pub mod line;
pub mod load;
pub mod metrics;
pub mod network;
pub mod nodes;
pub mod origin;
pub mod process;
pub mod product;
pub mod promtool;
pub mod redis;
pub mod reference;
pub mod registry;
pub mod stalled;
pub mod stand_in;
pub mod tcp;
pub mod visitor;

use std::io::Write;
use std::time::Duration;

/// What any one step may take. Long, because a loaded machine with two cores runs several products
/// at once; whatever reaches it is broken, not slow.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A test, or a part of one, cannot be done on this machine. Says so where it is heard; fails where nothing
/// may be skipped, as in `cargo xtask test`.
pub fn skip(reason: &str) {
    let must_not = std::env::var_os(SKIP_NOTHING).is_some_and(|set| set == "1");
    assert!(!must_not, "{reason}, and {SKIP_NOTHING} is set");
    // Not `eprintln!`, which is heard only where a test fails.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
}

/// The variable that makes a skipped test a failed one, where it is `1`.
pub const SKIP_NOTHING: &str = "ADIT_SKIP_NOTHING";

/// The outcome of a step that must end, or a panic that names it.
pub async fn within<T>(what: &str, step: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, step).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}
