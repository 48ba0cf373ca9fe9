//! What the edge counts. Every shard has counters of its own, without a lock; who reads them adds them up.
//! Knows what there is to count, and that the number of series has an end; does not know requests, connections
//! or how numbers are shown.

mod series;
mod traffic;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use series::{Place, Series};
pub(crate) use traffic::{NoHold, PAGES, Speaks, Totals, Traffic};

/// Everything that is counted for the edge as a whole, and where its tunnels count.
pub(crate) struct Counters {
    shards: Box<[OfShard]>,
    /// Of the control API, by status from 100.
    api: [AtomicU64; STATUSES],
    pub(crate) series: Series,
}

// On cache lines of its own: neighbours belong to other threads.
#[derive(Default)]
#[repr(align(128))]
struct OfShard {
    visitors: [Visitors; Door::ALL.len()],
    handshakes: [[AtomicU64; Handshake::ALL.len()]; Listener::ALL.len()],
    registrations: [[AtomicU64; Registration::ALL.len()]; TRANSPORTS.len()],
}

#[derive(Default)]
struct Visitors {
    opened: AtomicU64,
    closed: AtomicU64,
    turned_away: AtomicU64,
}

/// Where visitors come in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Door {
    Http,
    Https,
}

/// Where TLS is spoken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Listener {
    Https,
    Quic,
    Http2,
    Api,
}

/// How a handshake of TLS ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Done,
    Failed,
    Late,
}

/// What came of a connection of a host.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Registration {
    Registered,
    /// Unknown tunnel, or another secret.
    Unauthorized,
    /// The edge is about to stop.
    Draining,
    /// The connector has this connection already.
    Duplicate,
    /// The tunnel has as many connections as it may.
    Full,
    /// The tunnel was deleted.
    Gone,
    /// The connection had registered, or was refused, before.
    Repeated,
    /// It did not ask in time.
    Late,
}

/// As [`crate::transport::connection::Transport::protocol`] says them.
pub(crate) const TRANSPORTS: [&str; 2] = ["quic", "http2"];

/// A visitor's connection, as long as it lives.
pub(crate) struct Open {
    counters: Arc<Counters>,
    shard: usize,
    door: Door,
}

/// Visitors' connections of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Visits {
    pub(crate) open: u64,
    pub(crate) total: u64,
    pub(crate) turned_away: u64,
}

impl Counters {
    pub(crate) fn new(shards: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..shards.max(1)).map(|_| OfShard::default()).collect(),
            api: [const { AtomicU64::new(0) }; STATUSES],
            series: Series::default(),
        })
    }

    pub(crate) fn open(self: &Arc<Self>, shard: usize, door: Door) -> Open {
        one_more(&self.shard(shard).visitors[door as usize].opened);
        Open { counters: self.clone(), shard, door }
    }

    /// A visitor's source has as many connections as it may.
    pub(crate) fn turned_away(&self, shard: usize, door: Door) {
        one_more(&self.shard(shard).visitors[door as usize].turned_away);
    }

    pub(crate) fn handshake(&self, shard: usize, listener: Listener, outcome: Handshake) {
        one_more(&self.shard(shard).handshakes[listener as usize][outcome as usize]);
    }

    pub(crate) fn registration(&self, shard: usize, transport: &str, outcome: Registration) {
        let Some(at) = TRANSPORTS.iter().position(|known| *known == transport) else { return };
        one_more(&self.shard(shard).registrations[at][outcome as usize]);
    }

    /// An answer of the control API.
    pub(crate) fn api(&self, status: u16) {
        let at = usize::from(status).checked_sub(LEAST_STATUS);
        if let Some(count) = at.and_then(|at| self.api.get(at)) {
            one_more(count);
        }
    }

    pub(crate) fn visits(&self, door: Door) -> Visits {
        let sum = |of: fn(&Visitors) -> &AtomicU64| self.sum(|shard| of(&shard.visitors[door as usize]));
        // In this order, so that what is closed meanwhile does not make the difference negative.
        let closed = sum(|visitors| &visitors.closed);
        let total = sum(|visitors| &visitors.opened);
        Visits {
            open: total.saturating_sub(closed),
            total,
            turned_away: sum(|visitors| &visitors.turned_away),
        }
    }

    pub(crate) fn handshakes(&self, listener: Listener, outcome: Handshake) -> u64 {
        self.sum(|shard| &shard.handshakes[listener as usize][outcome as usize])
    }

    /// The place of the transport in [`TRANSPORTS`].
    pub(crate) fn registrations(&self, transport: usize, outcome: Registration) -> u64 {
        self.sum(|shard| &shard.registrations[transport][outcome as usize])
    }

    /// Each status that the control API has answered, and how often.
    pub(crate) fn api_statuses(&self) -> impl Iterator<Item = (usize, u64)> {
        let counts = self.api.iter().map(|count| count.load(Ordering::Relaxed)).enumerate();
        counts.filter(|(_, count)| *count > 0).map(|(at, count)| (at + LEAST_STATUS, count))
    }

    fn sum<'a>(&'a self, of: impl Fn(&'a OfShard) -> &'a AtomicU64) -> u64 {
        self.shards.iter().map(|shard| of(shard).load(Ordering::Relaxed)).sum()
    }

    fn shard(&self, shard: usize) -> &OfShard {
        &self.shards[shard % self.shards.len()]
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        one_more(&self.counters.shard(self.shard).visitors[self.door as usize].closed);
    }
}

impl Door {
    pub(crate) const ALL: [Self; 2] = [Self::Http, Self::Https];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http => "visitors-http",
            Self::Https => "visitors-https",
        }
    }
}

impl Listener {
    pub(crate) const ALL: [Self; 4] = [Self::Https, Self::Quic, Self::Http2, Self::Api];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Https => "visitors-https",
            Self::Quic => "connectors-quic",
            Self::Http2 => "connectors-http2",
            Self::Api => "api",
        }
    }
}

impl Handshake {
    pub(crate) const ALL: [Self; 3] = [Self::Done, Self::Failed, Self::Late];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Late => "late",
        }
    }
}

impl Registration {
    pub(crate) const ALL: [Self; 8] = [
        Self::Registered,
        Self::Unauthorized,
        Self::Draining,
        Self::Duplicate,
        Self::Full,
        Self::Gone,
        Self::Repeated,
        Self::Late,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Unauthorized => "unauthorized",
            Self::Draining => "draining",
            Self::Duplicate => "duplicate",
            Self::Full => "full",
            Self::Gone => "gone",
            Self::Repeated => "repeated",
            Self::Late => "late",
        }
    }
}

fn one_more(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

const LEAST_STATUS: usize = 100;
/// Up to 599.
const STATUSES: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shards_count_adds_up_and_a_connection_counts_as_open_while_it_lives() {
        let counters = Counters::new(2);
        let visitor = counters.open(0, Door::Https);
        drop(counters.open(1, Door::Https));
        counters.turned_away(3, Door::Https);
        assert_eq!(counters.visits(Door::Https), Visits { open: 1, total: 2, turned_away: 1 });
        drop(visitor);
        assert_eq!(counters.visits(Door::Https).open, 0);
        assert_eq!(counters.visits(Door::Http).total, 0);

        counters.handshake(0, Listener::Quic, Handshake::Late);
        counters.handshake(1, Listener::Quic, Handshake::Late);
        assert_eq!(counters.handshakes(Listener::Quic, Handshake::Late), 2);
        counters.registration(0, "http2", Registration::Full);
        counters.registration(0, "pigeon", Registration::Full);
        assert_eq!([0, 1].map(|at| counters.registrations(at, Registration::Full)), [0, 1]);
        for status in [99, 100, 200, 200, 599, 600] {
            counters.api(status);
        }
        assert_eq!(counters.api_statuses().collect::<Vec<_>>(), [(100, 1), (200, 2), (599, 1)]);
    }
}
