//! One tunnel on the way of a request: its connections in the order in which they are tried. Knows connections; does
//! not know why another one is wanted.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::ForwardContext;
use crate::registry::{Candidates, Connection, Tunnel};
use crate::steering::Stopover;

pub(super) struct Stop<'a> {
    tunnel: &'a Arc<Tunnel>,
    choices: Candidates<'a>,
    /// Connections that were passed over in favour of another replica.
    aside: Vec<Arc<Connection>>,
    /// Which endpoint of a load balancer it is.
    pub(super) stopover: Option<Stopover<'a>>,
}

impl<'a> Stop<'a> {
    /// The only one.
    pub(super) fn plain(tunnel: &'a Arc<Tunnel>, place: &ForwardContext<'_>) -> Self {
        Self { tunnel, choices: tunnel.choices(place.shard, place.key), aside: Vec::new(), stopover: None }
    }

    /// One replica, as it is connected here.
    pub(super) fn here(tunnel: &'a Arc<Tunnel>, connector: Uuid, place: &ForwardContext<'_>) -> Self {
        let stop = Self::plain(tunnel, place);
        Self { choices: stop.choices.only_here(connector), ..stop }
    }

    /// An endpoint of a load balancer.
    pub(super) fn of(stopover: Stopover<'a>, place: &ForwardContext<'_>) -> Self {
        let stop = Self::plain(stopover.tunnel, place);
        Self { choices: stop.choices.at_home(stopover.replica()), stopover: Some(stopover), ..stop }
    }

    /// Whether the session of the request is here.
    pub(super) fn is_home(&self) -> bool {
        self.stopover.as_ref().is_some_and(|stopover| stopover.is_home)
    }

    pub(super) fn tunnel(&self) -> &'a Arc<Tunnel> {
        self.tunnel
    }

    /// The next connection to try. After a failed attempt the other replicas come first, unless the
    /// visitor belongs to the one that failed: what killed one connection of a host may have killed
    /// all of them.
    pub(super) fn candidate(&mut self, avoided: Option<Uuid>) -> Option<Arc<Connection>> {
        for live in self.choices.by_ref() {
            if !live.is_serving() {
                continue;
            }
            let Some(avoided) = avoided else { return Some(live) };
            // Those that nobody wants come last, so what was put aside is better.
            let is_unwanted =
                live.is_silent(Instant::now()) || self.tunnel.share(&live.connector).effective() == 0;
            if live.connector == avoided || (is_unwanted && !self.aside.is_empty()) {
                self.aside.push(live);
            } else {
                return Some(live);
            }
        }
        self.aside.retain(|aside| aside.is_serving());
        let now = Instant::now();
        let rank = |live: &Arc<Connection>| (live.is_silent(now), Some(live.connector) == avoided);
        let (at, _) = self.aside.iter().enumerate().min_by_key(|(_, aside)| rank(aside))?;
        Some(self.aside.remove(at))
    }

    /// Hands out no connection of this replica any more.
    pub(super) fn exclude(&mut self, connector: Uuid) {
        self.choices.exclude(connector);
        self.aside.retain(|aside| aside.connector != connector);
    }

    pub(super) fn put_back(&mut self, live: &Connection) {
        self.choices.put_back(live);
    }

    pub(super) fn refresh(&mut self) {
        self.choices.refresh();
    }

    /// Whether there is a connection left that was heard lately.
    pub(super) fn has_healthy(&self, now: Instant) -> bool {
        self.aside.iter().any(|aside| aside.is_serving() && !aside.is_silent(now))
            || self.choices.has_healthy()
    }

    /// Whether there is a connection left, be it a silent one.
    pub(super) fn has_any(&self) -> bool {
        self.choices.has_any()
    }

    /// Whether this is the tunnel of a connection.
    pub(super) fn has(&self, live: &Connection) -> bool {
        self.choices.has(live)
    }
}
