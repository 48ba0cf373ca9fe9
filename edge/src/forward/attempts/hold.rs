//! Waiting for a connection to come: whether it is of use, in whose queue, and until when.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::select_all;
use tokio::sync::watch;

use super::Attempts;
use super::stop::Stop;
use crate::balancer::queue::{self, QueueGuard};
use crate::balancer::retry_budget::Reason;
use crate::metrics::NoHold;
use crate::registry::Tunnel;

impl<'a> Attempts<'a> {
    /// Whether nobody can come any more.
    pub(super) fn is_in_vain(&self) -> bool {
        match (&self.way, &self.stop) {
            (Some(way), _) => way.awaited().all(|tunnel| tunnel.is_gone()),
            (None, Some(stop)) => stop.tunnel().is_gone(),
            (None, None) => true,
        }
    }

    pub(super) fn arrivals(&self) -> Arrivals {
        Arrivals(match (&self.way, &self.stop) {
            (Some(way), _) => way.awaited().map(|tunnel| tunnel.arrivals()).collect(),
            (None, stop) => stop.iter().map(|stop| stop.tunnel().arrivals()).collect(),
        })
    }

    /// A place to wait for a connection, if that is of any use: also for one that says nothing to be heard
    /// again.
    pub(super) fn hold(&self) -> Option<(&'a Tunnel, QueueGuard<'a>)> {
        if let Some(missed) = &self.missed
            && (missed.reason == Reason::NotHere || !missed.is_over)
        {
            return None;
        }
        let tunnel = self.holder()?;
        let (held, shard) = (tunnel.holds.begin(), self.place.shard);
        tunnel.place.count(|traffic| match held {
            Some(_) => traffic.hold(shard),
            None => traffic.no_hold(shard, NoHold::Crowded),
        });
        Some((tunnel, held?))
    }

    /// The tunnel that a request may wait for a connection of.
    pub(super) fn holder(&self) -> Option<&'a Tunnel> {
        let now = Instant::now();
        let is_of_use = |tunnel: &&'a Arc<Tunnel>| {
            queue::is_of_use(tunnel.began, tunnel.lost(), now) && !tunnel.holds.patience.is_zero()
        };
        let found = match (&self.way, &self.stop) {
            (Some(way), _) => way.awaited().find(is_of_use),
            (None, stop) => stop.as_ref().map(Stop::tunnel).filter(is_of_use),
        };
        found.map(|tunnel| &**tunnel)
    }
}

/// A request that waits for a connection to come.
pub(super) struct Waiting<'a> {
    pub(super) arrivals: Arrivals,
    pub(super) until: Instant,
    /// Whose place to wait it has.
    pub(super) tunnel: &'a Tunnel,
    pub(super) _held: QueueGuard<'a>,
}

/// See [`Tunnel::arrivals`], of one tunnel or of several.
pub(super) struct Arrivals(Vec<watch::Receiver<()>>);

impl Arrivals {
    /// May be dropped midway.
    pub(super) async fn next(&mut self) {
        if self.0.is_empty() {
            return std::future::pending().await;
        }
        let _ = select_all(self.0.iter_mut().map(|arrivals| Box::pin(arrivals.changed()))).await;
    }
}
