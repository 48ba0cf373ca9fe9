//! The moments of an edge's stop, in the order in which they come. Knows no part of the edge; each part
//! waits for the moments that concern it, and only `app` lets them come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// All of them. Clones are about the same stop.
#[derive(Clone, Default)]
pub(crate) struct Shutdown {
    /// The edge is about to go away: it is not ready any more, takes no new connection of a host, and tells
    /// visitors with each answer. They are still served, and so are new ones.
    pub(crate) draining: Phase,
    /// No more visitors: those who wait are let in, then nobody; whoever asks for nothing is let go.
    pub(crate) visitors: Phase,
    /// Hosts are told, so that they move their slots to other edges.
    pub(crate) hosts: Phase,
    /// The grace period is over: visitors are cut.
    pub(crate) cut: Phase,
    /// No visitor of any shard is left: the connections to hosts are closed.
    pub(crate) connections: Phase,
}

/// Something that happens once. Looking costs one atomic load; waiting is for tasks.
#[derive(Clone, Default)]
pub(crate) struct Phase(Arc<Inner>);

#[derive(Default)]
struct Inner {
    has_come: AtomicBool,
    token: CancellationToken,
}

impl Phase {
    pub(crate) fn fire(&self) {
        self.0.has_come.store(true, Ordering::SeqCst);
        self.0.token.cancel();
    }

    pub(crate) fn is_fired(&self) -> bool {
        self.0.has_come.load(Ordering::SeqCst)
    }

    /// Done when it has come. May be dropped midway.
    pub(crate) async fn wait(&self) {
        self.0.token.cancelled().await;
    }
}

impl Shutdown {
    /// Lets every moment come that has not.
    pub(crate) fn all(&self) {
        for moment in [&self.draining, &self.visitors, &self.hosts, &self.cut, &self.connections] {
            moment.fire();
        }
    }
}

/// Lets everything stop when it is dropped, however that comes.
pub(crate) struct AllAtOnce(pub(crate) Shutdown);

impl Drop for AllAtOnce {
    fn drop(&mut self) {
        self.0.all();
    }
}
