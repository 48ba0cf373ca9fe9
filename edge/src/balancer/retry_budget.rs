//! What the requests of one tunnel may try again: why they do, how often they did, and the budget that
//! keeps one dying origin from multiplying its own load. Knows numbers and the clock; does not know
//! requests or connections. The contract is docs/retries.md.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use adit_balance::Window;
use serde::Serialize;

/// Why one attempt of a request gave no answer, where another one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There was no stream, or the connection was gone before the head had left.
    NotSent,
    /// The host turned the stream away and has processed nothing of it.
    Refused,
    /// The host cannot reach the origin: no byte of the request got there.
    NotHere,
    /// The connection or the stream broke after the head had left. What became of it nobody knows.
    Broken,
    /// The same, though the connection has not ended: nothing is heard of the host any more.
    Silent,
}

impl Reason {
    pub(crate) const ALL: [Self; 5] =
        [Self::NotSent, Self::Refused, Self::NotHere, Self::Broken, Self::Silent];

    /// Whether the origin may have seen the request. Only then does it matter what is asked.
    pub(crate) fn is_unknown(self) -> bool {
        match self {
            Self::NotSent | Self::Refused | Self::NotHere => false,
            Self::Broken | Self::Silent => true,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::NotSent => "not-sent",
            Self::Refused => "refused",
            Self::NotHere => "not-here",
            Self::Broken => "broken",
            Self::Silent => "silent",
        }
    }
}

/// Counts retries of one tunnel, and allows them.
pub(crate) struct RetryBudget {
    began: Instant,
    requests: Window,
    charged: Window,
    totals: Totals,
}

#[derive(Default)]
struct Totals {
    not_sent: AtomicU64,
    refused: AtomicU64,
    not_here: AtomicU64,
    broken: AtomicU64,
    silent: AtomicU64,
    denied: AtomicU64,
}

/// How often something was tried again since the edge started, by reason, and how often it was not
/// because the budget was used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) not_sent: u64,
    pub(crate) refused: u64,
    pub(crate) not_here: u64,
    pub(crate) broken: u64,
    pub(crate) silent: u64,
    pub(crate) denied: u64,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: Window::default(),
            charged: Window::default(),
            totals: Totals::default(),
        }
    }

    /// Counts a request, from which the budget grows.
    pub(crate) fn request(&self, now: Instant) {
        self.requests.add(self.second(now));
    }

    /// Whether one more attempt may begin, which is then counted. Only what may have reached the origin
    /// costs anything: the rest is no load for it.
    pub(crate) fn allow(&self, reason: Reason, now: Instant) -> bool {
        if reason.is_unknown() {
            let second = self.second(now);
            let share = self.requests.sum(second) / REQUESTS_PER_RETRY;
            let budget = share.max(FLOOR * Window::SECONDS as u64);
            if self.charged.sum(second) >= budget {
                self.totals.denied.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            self.charged.add(second);
        }
        self.totals.of(reason).fetch_add(1, Ordering::Relaxed);
        true
    }

    pub(crate) fn counts(&self) -> Counts {
        let Totals { not_sent, refused, not_here, broken, silent, denied } = &self.totals;
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counts {
            not_sent: read(not_sent),
            refused: read(refused),
            not_here: read(not_here),
            broken: read(broken),
            silent: read(silent),
            denied: read(denied),
        }
    }

    fn second(&self, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.began);
        u32::try_from(elapsed.as_secs()).unwrap_or(u32::MAX)
    }
}

impl Totals {
    fn of(&self, reason: Reason) -> &AtomicU64 {
        match reason {
            Reason::NotSent => &self.not_sent,
            Reason::Refused => &self.refused,
            Reason::NotHere => &self.not_here,
            Reason::Broken => &self.broken,
            Reason::Silent => &self.silent,
        }
    }
}

/// Attempts of one request, the first one included.
pub(crate) const MOST_TRIES: u32 = 4;
/// From the arrival of a request to the beginning of its last attempt.
pub(crate) const LAST_TRY: Duration = Duration::from_secs(10);
/// One retry for so many requests.
const REQUESTS_PER_RETRY: u64 = 5;
/// But so many per second in any case: where few ask, a fifth is nothing.
const FLOOR: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(retries: &RetryBudget, seconds: u64) -> Instant {
        retries.began + Duration::from_secs(seconds)
    }

    #[test]
    fn the_budget_is_a_fifth_of_the_requests_of_ten_seconds_and_a_floor() {
        let retries = RetryBudget::new();
        let now = after(&retries, 100);
        let allowed = |at| (0..10_000).take_while(|_| retries.allow(Reason::Broken, at)).count();
        assert_eq!(allowed(now), 100);
        for _ in 0..1000 {
            retries.request(now);
        }
        assert_eq!(allowed(now), 100, "a fifth in all, and not besides");
        // Another second of the same ten.
        assert_eq!(allowed(after(&retries, 109)), 0);
        assert_eq!(allowed(after(&retries, 110)), 100);
        assert_eq!(retries.counts().broken, 300);
        assert_eq!(retries.counts().denied, 4);
    }

    #[test]
    fn what_never_reached_the_origin_costs_nothing() {
        let retries = RetryBudget::new();
        let now = after(&retries, 0);
        for reason in [Reason::NotSent, Reason::Refused, Reason::NotHere] {
            assert!((0..1000).all(|_| retries.allow(reason, now)));
        }
        assert!((0..100).all(|_| retries.allow(Reason::Silent, now)));
        assert!(!retries.allow(Reason::Broken, now));
    }
}
