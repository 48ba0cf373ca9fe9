//! What outlives a generation: how long its answers may go on once another serves, and what was counted
//! while it served. Knows no plan and no plugin, so that keeping it keeps nothing else.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use adit_metrics::{Durations, Histogram};

/// The time of one generation. An answer that is under way holds this, not the generation: what a
/// swap replaces is freed at once, however long somebody listens to a stream.
#[derive(Debug)]
pub struct GenerationLifetime {
    /// The number of the generation.
    pub number: u64,
    /// When answers that are still under way are cut; unset while the generation serves.
    over: OnceLock<Instant>,
    shards: Box<[Shard]>,
    /// Counts on from the lifetime before.
    codes: Arc<Codes>,
}

/// How many answers had which status, in all generations.
#[derive(Debug)]
struct Codes(Box<[CodesOfShard]>);

#[derive(Debug)]
#[repr(align(128))]
struct CodesOfShard([AtomicU64; CODES.end as usize - CODES.start as usize]);

/// Statuses that are counted (RFC 9110, 15).
const CODES: Range<u16> = 100..1000;

// On cache lines of its own: neighbours belong to other threads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// What happened to the requests of one rule, in whichever generation. Counts only up.
#[derive(Debug)]
pub struct RuleMetrics {
    /// The name of the rule.
    pub name: String,
    shards: Box<[Counts]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    /// By the first digit of the status; 0 is for those that ended without an answer.
    statuses: [AtomicU64; 10],
    bytes: AtomicU64,
    broken: AtomicU64,
    unreachable: AtomicU64,
    durations: Histogram,
}

/// The sum over all shards.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Totals {
    /// By the first digit of the status; 0 is for those that ended without an answer.
    pub statuses: [u64; 10],
    /// Of the bodies of answers.
    pub bytes: u64,
    /// Answers that were not sent to their end.
    pub broken: u64,
    /// Requests whose origin was not reached.
    pub unreachable: u64,
    pub durations: Durations,
}

/// The retired_generations that are over or will be: those with answers under way, and the last few.
#[derive(Debug, Default)]
pub struct RetiredGenerations {
    inner: Mutex<Retired>,
}

#[derive(Debug, Default)]
struct Retired {
    /// The oldest first.
    known: VecDeque<Arc<GenerationLifetime>>,
    /// Requests of those that are not known any more.
    forgotten: u64,
}

/// How one request ended.
#[derive(Debug, Clone, Copy)]
pub struct RequestEnd {
    /// 0 if there was no answer.
    pub status: u16,
    /// Of the answer's body.
    pub bytes: u64,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// The answer was sent to its end.
    pub is_whole: bool,
    pub is_reached: bool,
}

impl GenerationLifetime {
    pub fn new(number: u64, shards: usize) -> Self {
        let codes = (0..shards.max(1)).map(|_| CodesOfShard([const { AtomicU64::new(0) }; _]));
        Self::over(number, shards, Arc::new(Codes(codes.collect())))
    }

    /// The one after this.
    pub fn next(&self, number: u64) -> Self {
        Self::over(number, self.shards.len(), self.codes.clone())
    }

    fn over(number: u64, shards: usize, codes: Arc<Codes>) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard::default()).collect();
        Self { number, over: OnceLock::new(), shards, codes }
    }

    /// Another generation serves; answers of this one may go on until `over`. The first word counts.
    pub fn retire(&self, over: Instant) {
        let _ = self.over.set(over);
    }

    pub fn is_retired(&self) -> bool {
        self.over.get().is_some()
    }

    /// Whether answers must end now.
    pub fn is_over(&self) -> bool {
        self.over.get().is_some_and(|over| *over <= Instant::now())
    }

    pub fn begin(&self, shard: usize) {
        self.shard(shard).begun.fetch_add(1, Ordering::Relaxed);
    }

    /// `status` is 0 if there was no answer.
    pub fn end(&self, shard: usize, status: u16) {
        self.shard(shard).ended.fetch_add(1, Ordering::Relaxed);
        if CODES.contains(&status) {
            let codes = &self.codes.0[shard % self.codes.0.len()];
            codes.0[usize::from(status - CODES.start)].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Each status that was answered in this or an earlier generation, and how often.
    pub fn codes(&self) -> Vec<(u16, u64)> {
        let of = |code: u16| -> u64 {
            let at = usize::from(code - CODES.start);
            self.codes.0.iter().map(|shard| shard.0[at].load(Ordering::Relaxed)).sum()
        };
        CODES.map(|code| (code, of(code))).filter(|(_, count)| *count > 0).collect()
    }

    /// Requests that this generation took, and how many of them are still under way.
    pub fn requests(&self) -> (u64, u64) {
        // In this order, so that what ends meanwhile does not make the difference negative.
        let ended: u64 = self.shards.iter().map(|shard| shard.ended.load(Ordering::Relaxed)).sum();
        let begun: u64 = self.shards.iter().map(|shard| shard.begun.load(Ordering::Relaxed)).sum();
        (begun, begun.saturating_sub(ended))
    }

    fn shard(&self, shard: usize) -> &Shard {
        &self.shards[shard % self.shards.len()]
    }
}

impl RetiredGenerations {
    /// Remembers one that was retired.
    pub fn add(&self, lifetime: Arc<GenerationLifetime>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.known.push_back(lifetime);
        let idle = inner.known.iter().filter(|lifetime| lifetime.requests().1 == 0).count();
        let surplus = idle.saturating_sub(RETIRED_KNOWN).max(inner.known.len().saturating_sub(MOST_RETIRED));
        for _ in 0..surplus {
            let oldest = inner.known.iter().position(|lifetime| lifetime.requests().1 == 0).unwrap_or(0);
            if let Some(lifetime) = inner.known.remove(oldest) {
                inner.forgotten += lifetime.requests().0;
            }
        }
    }

    /// Those that are known, the oldest first, and how many requests the others had.
    pub fn known(&self) -> (Vec<Arc<GenerationLifetime>>, u64) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        (inner.known.iter().cloned().collect(), inner.forgotten)
    }
}

/// Retired retired_generations that are known though nothing of them is under way.
const RETIRED_KNOWN: usize = 8;
/// Retired retired_generations that are known at all.
const MOST_RETIRED: usize = 256;

impl RuleMetrics {
    pub fn new(name: &str, shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Counts::default()).collect();
        Self { name: name.to_owned(), shards }
    }

    pub fn count(&self, shard: usize, ending: RequestEnd) {
        let counts = &self.shards[shard % self.shards.len()];
        let class = usize::from(ending.status / 100).min(9);
        counts.statuses[class].fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(ending.bytes, Ordering::Relaxed);
        if !ending.is_whole {
            counts.broken.fetch_add(1, Ordering::Relaxed);
        }
        if !ending.is_reached {
            counts.unreachable.fetch_add(1, Ordering::Relaxed);
        }
        counts.durations.record(ending.duration);
    }

    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        for counts in &self.shards {
            let add = |sum: &mut u64, count: &AtomicU64| *sum += count.load(Ordering::Relaxed);
            totals.statuses.iter_mut().zip(&counts.statuses).for_each(|(sum, count)| add(sum, count));
            totals.durations.add(&counts.durations.read());
            add(&mut totals.bytes, &counts.bytes);
            add(&mut totals.broken, &counts.broken);
            add(&mut totals.unreachable, &counts.unreachable);
        }
        totals
    }
}

impl Totals {
    pub fn add(&mut self, other: &Self) {
        self.statuses.iter_mut().zip(&other.statuses).for_each(|(sum, count)| *sum += count);
        self.durations.add(&other.durations);
        self.bytes += other.bytes;
        self.broken += other.broken;
        self.unreachable += other.unreachable;
    }
}

#[cfg(test)]
mod tests {
    use adit_metrics::BOUNDS;

    use super::*;

    #[test]
    fn a_tenure_is_over_only_after_its_retirement() {
        let lifetime = GenerationLifetime::new(7, 2);
        assert!(!lifetime.is_retired() && !lifetime.is_over());
        lifetime.retire(Instant::now() + Duration::from_secs(3600));
        assert!(lifetime.is_retired() && !lifetime.is_over());

        let lifetime = GenerationLifetime::new(8, 2);
        lifetime.retire(Instant::now());
        // A later word does not give it more time.
        lifetime.retire(Instant::now() + Duration::from_secs(3600));
        assert!(lifetime.is_over());
    }

    #[test]
    fn what_shards_count_adds_up() {
        let metrics = RuleMetrics::new("rule", 2);
        let whole = RequestEnd {
            status: 200,
            bytes: 5,
            duration: Duration::from_millis(2),
            is_whole: true,
            is_reached: true,
        };
        metrics.count(0, whole);
        metrics.count(1, RequestEnd { status: 503, ..whole });
        metrics
            .count(1, RequestEnd { status: 0, is_whole: false, duration: Duration::from_secs(60), ..whole });
        let totals = metrics.totals();
        assert_eq!((totals.statuses[2], totals.statuses[5], totals.statuses[0]), (1, 1, 1));
        assert_eq!((totals.bytes, totals.broken), (15, 1));
        assert_eq!((totals.durations.buckets[1], totals.durations.buckets[BOUNDS.len()]), (2, 1));
        assert_eq!(totals.durations.buckets.iter().sum::<u64>(), 3);
    }

    #[test]
    fn requests_under_way_are_those_that_have_begun_and_not_ended() {
        let lifetime = GenerationLifetime::new(1, 2);
        lifetime.begin(0);
        lifetime.begin(1);
        lifetime.end(0, 200);
        assert_eq!(lifetime.requests(), (2, 1));
    }

    #[test]
    fn statuses_are_counted_on_over_generations() {
        let first = GenerationLifetime::new(1, 2);
        first.end(0, 200);
        first.end(1, 0);
        let second = first.next(2);
        second.end(1, 200);
        second.end(0, 999);
        assert_eq!(second.codes(), [(200, 2), (999, 1)]);
    }
}
