//! So many events a second, such as lines of a log that strangers cause. Knows the clock and numbers.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Lets so many events through in each second and counts the others.
#[derive(Debug)]
pub struct LogLimiter {
    per_second: u64,
    origin: OnceLock<Instant>,
    /// The second since `origin` that `taken` belongs to.
    second: AtomicU64,
    taken: AtomicU64,
    dropped: AtomicU64,
}

impl LogLimiter {
    #[must_use]
    pub const fn new(per_second: u64) -> Self {
        Self {
            per_second,
            origin: OnceLock::new(),
            second: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// How many were dropped since the last one that passed; `None` drops this one. Two threads
    /// at the turn of a second may let one or two more through: a ration need not be exact.
    pub fn take(&self) -> Option<u64> {
        self.take_in(self.origin.get_or_init(Instant::now).elapsed().as_secs())
    }

    fn take_in(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.taken.store(0, Ordering::Relaxed);
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.per_second {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ration_drops_what_is_over_it_and_says_how_much_that_was() {
        let ration = LogLimiter::new(2);
        let taken: Vec<_> = [5, 5, 5, 5, 6, 6].map(|second| ration.take_in(second)).into();
        assert_eq!(taken, [Some(0), Some(0), None, None, Some(2), Some(0)]);
    }
}
