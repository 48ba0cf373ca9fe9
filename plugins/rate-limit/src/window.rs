//! Whether one more request fits in a window. Knows neither the clock nor where counts are kept.

use crate::plan::{Kind, Plan};

/// Counts that outlive a call.
pub trait Counts {
    type Full;
    /// Adds and returns the sum. A count that is new is forgotten after so many milliseconds.
    fn add(&mut self, key: &str, by: i64, forget_after: u64) -> Result<u64, Self::Full>;
    /// The count; 0 if there is none.
    fn read(&mut self, key: &str) -> u64;
}

/// What is decided of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub passes: bool,
    /// How many more fit now.
    pub left: u64,
    /// Milliseconds until there is room again, or until this window ends.
    pub reset: u64,
}

/// Counts one request of `key` at `now`, milliseconds of any clock that all who count share. One that is
/// refused does not use anything up, so that whoever keeps asking is served again as soon as there is room.
pub fn count<C: Counts>(plan: &Plan, key: &str, now: u64, counts: &mut C) -> Result<Verdict, C::Full> {
    let window = u64::try_from(plan.window.as_millis()).unwrap_or(u64::MAX);
    let (number, into) = (now / window, now % window);
    let this = format!("{key}.{number}");
    let used = counts.add(&this, 1, window.saturating_mul(2))?;
    let (spread, before) = match plan.kind {
        Kind::Fixed => (0, 0),
        Kind::Sliding => {
            let before = counts.read(&format!("{key}.{}", number.wrapping_sub(1)));
            (scaled(before, window - into, window), before)
        }
    };
    let total = used.saturating_add(spread);
    if total <= plan.limit {
        return Ok(Verdict { passes: true, left: plan.limit - total, reset: window - into });
    }
    // It was there a moment ago, so that there is a place for it.
    let used = counts.add(&this, -1, window.saturating_mul(2))?;
    let reset = match plan.kind {
        Kind::Fixed => window - into,
        Kind::Sliding => until_room(plan.limit, used, before, into, window),
    };
    Ok(Verdict { passes: false, left: 0, reset: reset.max(1) })
}

/// Milliseconds until one more fits, if nobody else comes.
fn until_room(limit: u64, used: u64, before: u64, into: u64, window: u64) -> u64 {
    if used >= limit {
        // In the next window what is used now fades: until limit - 1 of it is left.
        let fades = window - (scaled_down(limit - 1, window, used)).min(window);
        return window - into + fades;
    }
    // What came before fades: until it leaves room for what is used and one more.
    let at = window - scaled_down(limit - used - 1, window, before).min(window);
    at.saturating_sub(into)
}

/// `value * part / whole`, rounded up.
fn scaled(value: u64, part: u64, whole: u64) -> u64 {
    let scaled = (u128::from(value) * u128::from(part)).div_ceil(u128::from(whole.max(1)));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// The same, rounded down.
fn scaled_down(value: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use super::*;

    #[derive(Default)]
    struct Memory(HashMap<String, i64>);

    impl Counts for Memory {
        type Full = Infallible;

        fn add(&mut self, key: &str, by: i64, _forget_after: u64) -> Result<u64, Infallible> {
            let count = self.0.entry(key.to_owned()).or_default();
            *count += by;
            Ok(u64::try_from(*count).unwrap())
        }

        fn read(&mut self, key: &str) -> u64 {
            self.0.get(key).map_or(0, |count| u64::try_from(*count).unwrap())
        }
    }

    fn plan(kind: &str, limit: u64) -> Plan {
        Plan::read(&format!(r#"{{"limit": {limit}, "window": "10s", "kind": "{kind}"}}"#)).unwrap()
    }

    fn ask(plan: &Plan, memory: &mut Memory, now: u64) -> Verdict {
        count(plan, "k", now, memory).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn a_fixed_window_takes_its_limit_and_begins_anew() {
        let (plan, mut memory) = (plan("fixed", 3), Memory::default());
        for left in [2, 1, 0] {
            assert_eq!(ask(&plan, &mut memory, 12_000), Verdict { passes: true, left, reset: 8_000 });
        }
        for _ in 0..5 {
            assert_eq!(ask(&plan, &mut memory, 19_999), Verdict { passes: false, left: 0, reset: 1 });
        }
        assert!(ask(&plan, &mut memory, 20_000).passes);
    }

    #[test]
    fn a_sliding_window_never_passes_twice_the_limit_at_a_border() {
        let (plan, mut memory) = (plan("sliding", 10), Memory::default());
        let passed = |memory: &mut Memory, now| (0..20).filter(|_| ask(&plan, memory, now).passes).count();
        assert_eq!(passed(&mut memory, 9_999), 10);
        assert_eq!(passed(&mut memory, 10_000), 0);
        // Half of what came before has faded.
        assert_eq!(passed(&mut memory, 15_000), 5);
        assert_eq!(passed(&mut memory, 17_000), 2);
        assert_eq!(passed(&mut memory, 60_000), 10);
    }

    #[test]
    fn a_sliding_window_has_nobody_wait_longer_than_two_of_it() {
        let (plan, mut memory) = (plan("sliding", 1), Memory::default());
        assert!(ask(&plan, &mut memory, 13_000).passes);
        // The page says so: 10 s are the window, and this is more.
        assert_eq!(ask(&plan, &mut memory, 13_000).reset, 17_000);
    }

    #[test]
    fn whoever_waits_as_long_as_it_was_told_is_served() {
        for (first, then) in [(9_999, 10_000), (9_999, 13_000), (0, 9_000), (5_000, 5_000), (19_000, 21_500)]
        {
            for limit in [1, 2, 3, 7, 10] {
                let (plan, mut memory) = (plan("sliding", limit), Memory::default());
                while ask(&plan, &mut memory, first).passes {}
                let refused = loop {
                    let verdict = ask(&plan, &mut memory, then);
                    if !verdict.passes {
                        break verdict;
                    }
                };
                let at = then + refused.reset;
                assert!(ask(&plan, &mut memory, at).passes, "{limit} of {first} {then}: {refused:?}");
            }
        }
    }
}
