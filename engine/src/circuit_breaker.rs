//! A plugin that breaks again and again is left in peace for a while: each break costs an instance,
//! and a visitor who has found out how to break it should not have all of the machine.
//!
//! ```text
//! closed ──TOLERANCE breaks in a row──▶ open ──rest is over──▶ one trial call ──returns──▶ closed
//!                                        ▲                          │
//!                                        └── rest, twice as long ── breaks
//! ```

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Traps and time-outs in a row after which a plugin rests.
const TOLERANCE: u32 = 10;
const SHORTEST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);

/// Counts the breaks of one plugin over all shards.
#[derive(Debug)]
pub(super) struct CircuitBreaker {
    origin: Instant,
    /// Breaks in a row. All that an ordinary call reads.
    strikes: AtomicU32,
    open: Mutex<Option<Open>>,
}

/// While the circuit is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    rest: Duration,
    /// When the next trial may begin, since the circuit's origin.
    until: Duration,
    /// Whether a trial has begun since the last break.
    tried: bool,
}

impl CircuitBreaker {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), strikes: AtomicU32::new(0), open: Mutex::new(None) }
    }

    /// Whether a call may begin.
    pub(super) fn admits(&self) -> bool {
        self.strikes.load(Ordering::Relaxed) < TOLERANCE || self.tries(self.origin.elapsed())
    }

    /// A call returned, whatever its answer.
    pub(super) fn returned(&self) {
        if self.strikes.load(Ordering::Relaxed) != 0 {
            self.strikes.store(0, Ordering::Relaxed);
            *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// A call trapped or ran out of time. Returns for how long the plugin rests if this opened the
    /// circuit or was a trial.
    pub(super) fn broke(&self) -> Option<Duration> {
        self.broke_at(self.origin.elapsed())
    }

    /// While open: whether this is the trial. The next one may begin a rest later, even if this
    /// one never comes to an end.
    #[cold]
    fn tries(&self, now: Duration) -> bool {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *open {
            None => true,
            Some(Open { until, .. }) if now < *until => false,
            Some(Open { rest, until, tried }) => {
                (*until, *tried) = (now + *rest, true);
                true
            }
        }
    }

    fn broke_at(&self, now: Duration) -> Option<Duration> {
        let strikes = self.strikes.load(Ordering::Relaxed).saturating_add(1);
        self.strikes.store(strikes, Ordering::Relaxed);
        if strikes < TOLERANCE {
            return None;
        }
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = match &*open {
            None => SHORTEST_REST,
            // A call that began before the circuit opened: nothing new.
            Some(Open { tried: false, .. }) => return None,
            Some(Open { rest, .. }) => (*rest * 2).min(LONGEST_REST),
        };
        *open = Some(Open { rest, until: now + rest, tried: false });
        Some(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn broken() -> CircuitBreaker {
        let circuit = CircuitBreaker::new();
        for _ in 1..TOLERANCE {
            assert_eq!(circuit.broke_at(Duration::ZERO), None);
        }
        assert_eq!(circuit.broke_at(Duration::ZERO), Some(SECOND));
        assert_eq!(circuit.broke_at(SECOND), None, "a call that began before");
        circuit
    }

    #[test]
    fn a_call_that_returns_forgives_all_breaks() {
        let circuit = CircuitBreaker::new();
        for _ in 0..100 {
            for _ in 1..TOLERANCE {
                circuit.broke();
            }
            assert!(circuit.admits());
            circuit.returned();
        }
    }

    #[test]
    fn after_a_rest_one_call_tries_and_decides_for_all() {
        let circuit = broken();
        assert!(!circuit.admits() && !circuit.tries(SECOND - Duration::from_millis(1)));
        assert!(circuit.tries(SECOND), "the trial");
        assert!(!circuit.tries(SECOND), "one at a time");
        circuit.returned();
        assert!(circuit.admits() && circuit.admits());
    }

    #[test]
    fn a_rest_grows_with_every_trial_that_breaks_up_to_a_limit() {
        let circuit = broken();
        let mut now = SECOND;
        for expected in [2, 4, 8, 16, 32, 60, 60] {
            assert!(circuit.tries(now));
            let rest = circuit.broke_at(now + Duration::from_millis(50)).expect("it stays open");
            assert_eq!(rest, expected * SECOND);
            assert!(!circuit.tries(now + rest));
            now += rest + Duration::from_millis(50);
        }
    }

    #[test]
    fn a_trial_that_never_ends_does_not_keep_the_circuit_open() {
        let circuit = broken();
        assert!(circuit.tries(SECOND) && !circuit.tries(SECOND * 3 / 2));
        assert!(circuit.tries(SECOND * 2));
    }
}
