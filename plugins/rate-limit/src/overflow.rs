//! Counts for those who find the bucket full: a fixed number of them, in the memory of one instance.
//!
//! Whoever fills the bucket with addresses of its own neither shuts others out nor gets past the limit.
//! Several may share a count then, and each instance counts by itself.

use crate::window::Counts;

const SLOTS: usize = 4096;

#[derive(Debug)]
pub struct Overflow(Vec<Slot>);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// Of the window that is counted, and of the one before.
    number: u64,
    count: u64,
    before: u64,
}

impl Default for Overflow {
    fn default() -> Self {
        Self(vec![Slot::default(); SLOTS])
    }
}

impl Overflow {
    /// Keys are of the form `HEX.NUMBER`, as [`crate::window::count`] makes them.
    fn slot(&mut self, key: &str) -> Option<(&mut Slot, u64)> {
        let (hash, number) = key.split_once('.')?;
        let at = usize::from_str_radix(hash.get(..4)?, 16).ok()? % SLOTS;
        Some((self.0.get_mut(at)?, number.parse().ok()?))
    }
}

impl Counts for Overflow {
    type Full = ();

    fn add(&mut self, key: &str, by: i64, _forget_after: u64) -> Result<u64, ()> {
        let (slot, number) = self.slot(key).ok_or(())?;
        if slot.number != number {
            let before = if slot.number.checked_add(1) == Some(number) { slot.count } else { 0 };
            *slot = Slot { number, count: 0, before };
        }
        slot.count = slot.count.saturating_add_signed(by);
        Ok(slot.count)
    }

    fn read(&mut self, key: &str) -> u64 {
        match self.slot(key) {
            Some((slot, number)) if slot.number == number => slot.count,
            Some((slot, number)) if slot.number == number.wrapping_add(1) => slot.before,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;
    use crate::window::count;

    #[test]
    fn a_limit_holds_without_a_bucket_too() {
        for kind in ["fixed", "sliding"] {
            let plan = Plan::read(&format!(r#"{{"limit": 3, "window": "10s", "kind": "{kind}"}}"#)).unwrap();
            let mut overflow = Overflow::default();
            let mut passed =
                |key, now| (0..9).filter(|_| count(&plan, key, now, &mut overflow).unwrap().passes).count();
            assert_eq!(passed("0001aa", 9_000), 3);
            assert_eq!(passed("0002aa", 9_000), 3);
            assert_eq!(passed("0001aa", 10_000), if kind == "fixed" { 3 } else { 0 });
            assert_eq!(passed("0001aa", 50_000), 3);
        }
    }
}
