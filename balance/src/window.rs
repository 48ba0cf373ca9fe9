//! Counts of the last seconds, by threads that do not wait for each other. Told which second it is.

use std::sync::atomic::{AtomicU64, Ordering};

/// A cell for each second: the second in the upper half of the word, the count in the lower one, so that a cell
/// begins anew without a lock.
#[derive(Debug)]
pub struct Recent<const LENGTH: usize>([AtomicU64; LENGTH]);

/// Those of the last ten seconds.
pub type Window = Recent<10>;

/// Those of the last minute.
pub type Minute = Recent<60>;

impl<const LENGTH: usize> Default for Recent<LENGTH> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Window {
    /// What it looks back on, with the second that has begun.
    pub const SECONDS: usize = 10;
}

impl<const LENGTH: usize> Recent<LENGTH> {
    pub fn add(&self, second: u32) {
        let cell = &self.0[second as usize % LENGTH];
        let one_more = |word: u64| {
            Some(if (word >> 32) as u32 == second { word + 1 } else { (u64::from(second) << 32) + 1 })
        };
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    }

    pub fn sum(&self, second: u32) -> u64 {
        let is_recent = |then: u32| then <= second && second - then < LENGTH as u32;
        let words = self.0.iter().map(|cell| cell.load(Ordering::Relaxed));
        words.filter(|word| is_recent((word >> 32) as u32)).map(|word| word & u64::from(u32::MAX)).sum()
    }

    pub fn clear(&self) {
        for cell in &self.0 {
            cell.store(0, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ten_seconds_old_no_longer_counts() {
        let window = Window::default();
        for second in 0..30 {
            window.add(second);
            window.add(second);
            assert_eq!(window.sum(second), 2 * u64::from(second + 1).min(10));
        }
        assert_eq!(window.sum(38), 2);
        assert_eq!(window.sum(39), 0);
        // A look at the clock that was a little earlier.
        assert_eq!(window.sum(28), 18);
        window.clear();
        assert_eq!(window.sum(29), 0);
    }
}
