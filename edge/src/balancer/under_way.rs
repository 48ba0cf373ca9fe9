//! Requests of one endpoint: how many ever began, and how many of them are under way. Knows numbers; does not know
//! requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Both counts stand beside that of whoever holds them, so that a request touches one cache line of all its threads'.
#[derive(Default)]
pub(crate) struct Begun {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// One request that is under way as long as this is held.
pub(crate) struct UnderWay(Arc<Begun>);

impl Begun {
    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.clone())
    }

    /// All that ever began.
    pub(crate) fn total(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn under_way(&self) -> usize {
        // In this order, so that one that ends between the two is under way yet.
        let ended = self.ended.load(Ordering::Relaxed);
        usize::try_from(self.total().saturating_sub(ended)).unwrap_or(usize::MAX)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_under_way_and_stays_counted() {
        let begun = Arc::new(Begun::default());
        let (one, other) = (begun.begin(), begun.begin());
        assert_eq!((begun.under_way(), begun.total()), (2, 2));
        drop(one);
        assert_eq!((begun.under_way(), begun.total()), (1, 2));
        drop(other);
        assert_eq!((begun.under_way(), begun.total()), (0, 2));
    }
}
