//! How often somebody may call: a bucket of calls per caller that fills up again over time. Knows counts
//! and clocks; does not know who is who.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Buckets of one size for many callers.
pub(super) struct Buckets<K> {
    size: f64,
    /// Calls per second that come back.
    refill: f64,
    buckets: Mutex<HashMap<K, Bucket>>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl<K: Eq + Hash> Buckets<K> {
    pub(super) fn new(size: u32, refill: f64) -> Self {
        Self { size: size.into(), refill, buckets: Mutex::default() }
    }

    /// Takes one call at the time `now`; else says after how long there is one.
    pub(super) fn take(&self, caller: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MOST_CALLERS && !buckets.contains_key(&caller) {
            buckets.retain(|_, bucket| self.level(bucket, now) < self.size);
            if buckets.len() >= MOST_CALLERS {
                // A flood of callers: the new ones wait, those who are there go on.
                return Err(Duration::from_secs(1));
            }
        }
        let bucket = buckets.entry(caller).or_insert(Bucket { left: self.size, at: now });
        bucket.left = self.level(bucket, now);
        bucket.at = now;
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / self.refill));
        }
        bucket.left -= 1.0;
        Ok(())
    }

    fn level(&self, bucket: &Bucket, now: Instant) -> f64 {
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        (bucket.left + since * self.refill).min(self.size)
    }
}

const MOST_CALLERS: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_waits_when_its_bucket_is_empty_and_no_other_does() {
        let buckets = Buckets::new(2, 0.5);
        let start = Instant::now();
        assert!(buckets.take("a", start).is_ok() && buckets.take("a", start).is_ok());
        assert_eq!(buckets.take("a", start), Err(Duration::from_secs(2)));
        assert!(buckets.take("b", start).is_ok());
        assert!(buckets.take("a", start + Duration::from_secs(2)).is_ok());
        assert!(buckets.take("a", start + Duration::from_secs(2)).is_err());
    }

    #[test]
    fn a_flood_of_callers_takes_a_bounded_room() {
        let buckets = Buckets::new(2, 0.5);
        let start = Instant::now();
        for caller in 0..2 * MOST_CALLERS {
            let _ = buckets.take(caller, start);
        }
        assert!(buckets.take(0, start).is_ok(), "who was there goes on");
        assert!(buckets.take(usize::MAX, start).is_err());
        assert!(buckets.take(usize::MAX, start + Duration::from_secs(10)).is_ok(), "full buckets make room");
    }
}
