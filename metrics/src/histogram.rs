//! How long things took, counted by upper bounds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds, seconds.
pub const BOUNDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Counts without a lock.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By upper bound, as [`BOUNDS`]; the last is for all that took longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

/// What was counted up to a moment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Durations {
    /// As [`BOUNDS`], each alone; the last is for all that took longer.
    pub buckets: [u64; BOUNDS.len() + 1],
    pub microseconds: u64,
}

impl Histogram {
    pub fn record(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS.partition_point(|bound| *bound < seconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    #[must_use]
    pub fn read(&self) -> Durations {
        let buckets = std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        Durations { buckets, microseconds: self.microseconds.load(Ordering::Relaxed) }
    }
}

impl Durations {
    pub fn add(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(sum, count)| *sum += count);
        self.microseconds += other.microseconds;
    }
}
