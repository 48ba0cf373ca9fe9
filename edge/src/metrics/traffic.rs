//! What happens to the requests of one tunnel, or of several together.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use adit_metrics::{Durations, Histogram};

use super::one_more;
use crate::balancer::retry_budget::Reason;

/// Counters of requests, made on each shard when its first one comes.
#[derive(Default)]
pub(crate) struct Traffic([OnceLock<Box<OfShard>>; MOST_SHARDS]);

/// What a visitor speaks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaks {
    Http1,
    Http2,
}

/// Why a request that could have waited for a host got none that way.
#[derive(Debug, Clone, Copy)]
pub(crate) enum NoHold {
    /// It waited in vain.
    InVain,
    /// Too many waited already.
    Crowded,
}

// On cache lines of its own: neighbours belong to other threads.
#[derive(Default)]
#[repr(align(128))]
struct OfShard {
    /// By the first digit of the status; 0 is for visitors who left before there was one.
    answers: [[AtomicU64; CLASSES]; Speaks::ALL.len()],
    /// In the order of [`PAGES`].
    pages: [AtomicU64; PAGES.len()],
    head: Histogram,
    /// In the order of [`Reason::ALL`].
    retries: [AtomicU64; Reason::ALL.len()],
    denied: AtomicU64,
    holds: AtomicU64,
    no_holds: [AtomicU64; NoHold::ALL.len()],
}

/// The sum over all shards.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) answers: [[u64; CLASSES]; Speaks::ALL.len()],
    pub(crate) pages: [u64; PAGES.len()],
    pub(crate) head: Durations,
    pub(crate) retries: [u64; Reason::ALL.len()],
    pub(crate) denied: u64,
    pub(crate) holds: u64,
    pub(crate) no_holds: [u64; NoHold::ALL.len()],
}

impl Traffic {
    /// The head of an answer leaves for the visitor, so long after the head of its request came.
    pub(crate) fn answered(&self, shard: usize, speaks: Speaks, status: u16, after: Duration) {
        let shard = self.shard(shard);
        one_more(&shard.answers[speaks as usize][usize::from(status / 100).min(CLASSES - 1)]);
        shard.head.record(after);
    }

    /// A visitor has left before there was an answer.
    pub(crate) fn left(&self, shard: usize, speaks: Speaks) {
        one_more(&self.shard(shard).answers[speaks as usize][0]);
    }

    /// The answer is a page of the edge; `word` is one of [`PAGES`].
    pub(crate) fn page(&self, shard: usize, word: &str) {
        if let Some(at) = PAGES.iter().position(|known| *known == word) {
            one_more(&self.shard(shard).pages[at]);
        }
    }

    /// Another attempt begins, unless it was not `allowed`.
    pub(crate) fn retry(&self, shard: usize, reason: Reason, allowed: bool) {
        let shard = self.shard(shard);
        let at = Reason::ALL.iter().position(|known| *known == reason);
        one_more(if allowed { &shard.retries[at.unwrap_or_default()] } else { &shard.denied });
    }

    /// A request waits for a host.
    pub(crate) fn hold(&self, shard: usize) {
        one_more(&self.shard(shard).holds);
    }

    pub(crate) fn no_hold(&self, shard: usize, why: NoHold) {
        one_more(&self.shard(shard).no_holds[why as usize]);
    }

    pub(crate) fn read(&self) -> Totals {
        let mut totals = Totals::default();
        for shard in self.0.iter().filter_map(OnceLock::get) {
            for (sums, counts) in totals.answers.iter_mut().zip(&shard.answers) {
                add(sums, counts);
            }
            add(&mut totals.pages, &shard.pages);
            totals.head.add(&shard.head.read());
            add(&mut totals.retries, &shard.retries);
            totals.denied += shard.denied.load(Ordering::Relaxed);
            totals.holds += shard.holds.load(Ordering::Relaxed);
            add(&mut totals.no_holds, &shard.no_holds);
        }
        totals
    }

    fn shard(&self, shard: usize) -> &OfShard {
        self.0[shard % MOST_SHARDS].get_or_init(Box::default)
    }
}

fn add(sums: &mut [u64], counts: &[AtomicU64]) {
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count.load(Ordering::Relaxed);
    }
}

impl Speaks {
    pub(crate) const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

impl NoHold {
    pub(crate) const ALL: [Self; 2] = [Self::InVain, Self::Crowded];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::InVain => "in-vain",
            Self::Crowded => "crowded",
        }
    }
}

/// Pages that the edge makes itself, by the words that programs read on them.
pub(crate) const PAGES: [&str; 15] = [
    "bad-request",
    "transfer-coding",
    "unknown-host",
    "no-certificate",
    "misdirected",
    "method-not-allowed",
    "too-many-requests",
    "head-too-long",
    "origin-failed",
    "connection-lost",
    "not-taken",
    "origin-timeout",
    "no-connection",
    "no-endpoint",
    "loop",
];
/// First digits of statuses.
pub(crate) const CLASSES: usize = 10;
/// Further shards share counters with these.
const MOST_SHARDS: usize = 8;
