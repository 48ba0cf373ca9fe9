//! Requests under way, counted in several places at once. Knows numbers; does not know requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One request that is counted as long as this is held.
pub(crate) struct UnderWay([Arc<AtomicUsize>; 2]);

impl UnderWay {
    pub(crate) fn new(counts: [&Arc<AtomicUsize>; 2]) -> Self {
        Self(counts.map(|count| {
            count.fetch_add(1, Ordering::Relaxed);
            count.clone()
        }))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
