//! Slow start: an endpoint that has come back gets a growing part of its weight, beside others that carry the rest.
//! Told what happens and when; does not know why an endpoint was away.

use std::time::Duration;

/// Where one endpoint stands. Times are since any moment that stays the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlowStart {
    began: Option<Duration>,
}

impl SlowStart {
    /// An endpoint is there that was not, or was down. With nobody beside it that is warm there is no use in being
    /// slow: when the edge starts, or when all endpoints are new.
    pub fn rise(&mut self, now: Duration, are_others_warm: bool) {
        self.began = are_others_warm.then_some(now);
    }

    /// It is down again, or ejected.
    pub fn leave(&mut self) {
        self.began = None;
    }

    /// Whether it still gets less than its weight.
    pub fn is_slow(&self, now: Duration, lasts: Duration) -> bool {
        self.factor(now, lasts) < 1.0
    }

    /// The part of its weight that it gets: a tenth at least, all of it after the time that a start `lasts`.
    pub fn factor(&self, now: Duration, lasts: Duration) -> f64 {
        let Some(began) = self.began else { return 1.0 };
        let elapsed = now.saturating_sub(began).max(FIRST_STEP);
        if elapsed >= lasts { 1.0 } else { (elapsed.as_secs_f64() / lasts.as_secs_f64()).max(LEAST) }
    }
}

const LEAST: f64 = 0.1;
const FIRST_STEP: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::selection::tests::cases;

    proptest! {
        #![proptest_config(cases())]

        #[test]
        fn what_it_gets_never_falls_and_is_all_in_the_end(
            lasts in 0..600_000_u64, steps in prop::collection::vec(0..30_000_u64, 1..50),
        ) {
            let (lasts, mut now, mut start) =
                (Duration::from_millis(lasts), Duration::from_secs(7), SlowStart::default());
            prop_assert_eq!(start.factor(now, lasts), 1.0);
            start.rise(now, true);
            let mut before = 0.0;
            for step in steps {
                now += Duration::from_millis(step);
                let factor = start.factor(now, lasts);
                prop_assert!((LEAST..=1.0).contains(&factor) && factor >= before);
                before = factor;
            }
            prop_assert_eq!(start.factor(Duration::from_secs(7) + lasts, lasts), 1.0);
        }
    }

    #[test]
    fn only_one_that_comes_beside_others_starts_slowly_and_only_as_long_as_it_is_well() {
        let (now, lasts, mut start) =
            (Duration::from_secs(100), Duration::from_secs(20), SlowStart::default());
        start.rise(now, false);
        assert!(!start.is_slow(now, lasts));
        start.rise(now, true);
        assert!(start.is_slow(now, lasts));
        assert!((start.factor(now + Duration::from_secs(10), lasts) - 0.5).abs() < 1e-9);
        start.leave();
        assert!(!start.is_slow(now, lasts));
    }
}
