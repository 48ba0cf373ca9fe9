//! How often a slot dials, whatever happens, and how long it waits: pure arithmetic.

use std::time::{Duration, Instant};

/// Dials that may follow each other at once.
pub const BURST: u32 = 10;
/// What each further one has to wait for.
pub const EVERY: Duration = Duration::from_millis(500);

/// A uniform random number in [0, 1), drawn by the caller so that the table stays pure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(pub f64);

impl Jitter {
    /// Half of the bound is certain, so that nothing becomes a hot loop.
    pub fn spread(self, bound: Duration) -> Duration {
        bound.mul_f64(0.5 + 0.5 * self.0.clamp(0.0, 1.0))
    }
}

/// At most [`BURST`] dials at once, and one more for each [`EVERY`] that passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Budget {
    /// When all that was spent is earned again.
    even: Instant,
}

impl Budget {
    pub fn new(now: Instant) -> Self {
        Self { even: now }
    }

    /// Takes one dial, or says when there is one.
    pub fn spend(&mut self, now: Instant) -> Result<(), Instant> {
        let even = self.even.max(now) + EVERY;
        let limit = now + EVERY * BURST;
        if even > limit {
            return Err(now + (even - limit));
        }
        self.even = even;
        Ok(())
    }
}

pub fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(8)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for _ in 0..BURST {
            assert_eq!(budget.spend(start), Ok(()));
        }
        assert_eq!(budget.spend(start), Err(start + EVERY));
        let later = start + EVERY;
        assert_eq!(budget.spend(later), Ok(()));
        assert_eq!(budget.spend(later), Err(later + EVERY));
        let idle = later + EVERY * 100;
        for _ in 0..BURST {
            assert_eq!(budget.spend(idle), Ok(()));
        }
        assert!(budget.spend(idle).is_err());
    }
}
