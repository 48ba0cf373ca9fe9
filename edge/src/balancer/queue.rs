//! Requests that wait for a host to come back: a tunnel that was connected a moment ago, or whose edge
//! has just started, is likely to be connected again in a moment. Knows when, and how many; does not know
//! requests or connections. The contract is docs/retries.md.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Counts the requests of one tunnel that wait.
pub(crate) struct PendingQueue {
    /// How long they do, from their arrival; zero if not at all.
    pub(crate) patience: Duration,
    held: AtomicUsize,
    total: AtomicU64,
}

/// One request that waits.
pub(crate) struct QueueGuard<'a>(&'a PendingQueue);

impl PendingQueue {
    pub(crate) fn new(patience: Duration) -> Self {
        Self { patience, held: AtomicUsize::new(0), total: AtomicU64::new(0) }
    }

    /// A place among those that wait, unless there are too many.
    pub(crate) fn begin(&self) -> Option<QueueGuard<'_>> {
        let before = self.held.fetch_add(1, Ordering::Relaxed);
        let held = QueueGuard(self);
        (before < MOST_HELD).then(|| {
            self.total.fetch_add(1, Ordering::Relaxed);
            held
        })
    }

    /// Requests that wait now.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Requests that ever waited.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

impl Drop for QueueGuard<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether it is of any use to wait for a tunnel without connections that the edge knows since `began`
/// and that had its last connection until `lost`.
pub(crate) fn is_of_use(began: Instant, lost: Option<Instant>, now: Instant) -> bool {
    let is_within = |then: Instant, period| now.saturating_duration_since(then) < period;
    is_within(began, AFTER_START) || lost.is_some_and(|lost| is_within(lost, AFTER_LOSS))
}

/// How long after its last connection a tunnel is believed to come back.
const AFTER_LOSS: Duration = Duration::from_secs(10);
/// How long hosts may take to find an edge that has started.
const AFTER_START: Duration = Duration::from_secs(15);
/// Requests that wait for one tunnel.
const MOST_HELD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_of_use_after_a_start_and_after_a_loss() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        for (lost, now, wanted) in
            [(None, 14, true), (None, 15, false), (Some(100), 109, true), (Some(100), 110, false)]
        {
            assert_eq!(is_of_use(began, lost.map(at), at(now)), wanted, "{lost:?} {now}");
        }
    }

    #[test]
    fn only_so_many_wait() {
        let holds = PendingQueue::new(AFTER_LOSS);
        let mut held: Vec<_> = (0..MOST_HELD).map(|_| holds.begin().unwrap()).collect();
        assert!(holds.begin().is_none());
        held.pop();
        assert!(holds.begin().is_some());
        assert_eq!((holds.held(), holds.total()), (MOST_HELD - 1, MOST_HELD as u64 + 1));
    }
}
