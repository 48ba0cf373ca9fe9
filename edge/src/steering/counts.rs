//! What became of the requests of one load balancer since the edge started. Knows numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that are the same for a load balancer however it is changed.
#[derive(Default)]
pub(crate) struct Counts {
    /// By shard, since each request is counted.
    requests: [OfShard; MOST_SHARDS],
    rules: AtomicU64,
    retries: AtomicU64,
    failovers: AtomicU64,
    fallbacks: AtomicU64,
    sessions: [AtomicU64; Stay::ALL.len()],
}

// On cache lines of its own: neighbours belong to other threads.
#[derive(Default)]
#[repr(align(128))]
struct OfShard(AtomicU64);

/// What becomes of a session by cookie with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It begins.
    New,
    /// It is where it was.
    Kept,
    /// It goes to another endpoint, or replica.
    Moved,
}

impl Stay {
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Kept, Self::Moved];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Moved => "moved",
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Those that went to its pools.
    pub(crate) requests: u64,
    /// Those that a rule of it answered.
    pub(crate) rules: u64,
    /// Attempts after the first one of a request.
    pub(crate) retries: u64,
    /// Of these, those in another pool than the first.
    pub(crate) failovers: u64,
    /// Attempts in the fallback pool, because no other may serve.
    pub(crate) fallbacks: u64,
    /// In the order of [`Stay::ALL`].
    pub(crate) sessions: [u64; Stay::ALL.len()],
}

impl Counts {
    pub(super) fn request(&self, shard: usize) {
        self.requests[shard % MOST_SHARDS].0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn rule(&self) {
        self.rules.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn retry(&self, is_elsewhere: bool) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        self.failovers.fetch_add(is_elsewhere.into(), Ordering::Relaxed);
    }

    pub(super) fn fallback(&self) {
        self.fallbacks.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn session(&self, kept: Stay) {
        self.sessions[kept as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counted {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counted {
            requests: self.requests.iter().map(|shard| read(&shard.0)).sum(),
            rules: read(&self.rules),
            retries: read(&self.retries),
            failovers: read(&self.failovers),
            fallbacks: read(&self.fallbacks),
            sessions: self.sessions.each_ref().map(read),
        }
    }
}

/// Further shards share counters with these.
const MOST_SHARDS: usize = 8;
