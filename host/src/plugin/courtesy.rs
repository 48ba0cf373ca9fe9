//! How a guest that runs for long shares its thread: pure, told what happened and how long it took.
//!
//! A request of somebody else takes its thread a handful of short turns. If each of them had to wait
//! for a slice of a guest that loops, it would take some milliseconds more. So a guest that finds
//! others waiting stays away for a while after each slice, longer if there are many like it.

use std::time::Duration;

/// A guest that gave way for so long was waited for: the thread has other work.
const BUSY: Duration = Duration::from_micros(20);
/// How long it stays away between slices then, at first and at most.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(32);
/// A pause that ends so much later than asked for: others like it are about, as timers alone are not so
/// late.
const LATE: Duration = Duration::from_millis(2);
/// Slices after which it looks again whether anybody waits.
const SLICES: u32 = 16;

/// What a guest does at the end of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Lets everybody who is ready have a turn.
    Yield,
    /// Stays away for so long.
    Pause(Duration),
}

/// One guest's.
#[derive(Debug, Default)]
pub(super) struct Courtesy {
    pause: Duration,
    slices: u32,
}

impl Courtesy {
    /// What to do now.
    pub(super) fn turn(&self) -> Turn {
        if self.slices == 0 { Turn::Yield } else { Turn::Pause(self.pause) }
    }

    /// A turn took so long.
    pub(super) fn took(&mut self, turn: Turn, time: Duration) {
        match turn {
            Turn::Yield if time > BUSY => (self.pause, self.slices) = (SHORTEST, SLICES),
            Turn::Yield => {}
            Turn::Pause(pause) => {
                self.slices = self.slices.saturating_sub(1);
                if time > pause + LATE {
                    (self.pause, self.slices) = ((pause * 2).min(LONGEST), SLICES);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: Duration = Duration::from_micros(5);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn nobody_waits_so_it_goes_on_at_once() {
        let mut courtesy = Courtesy::default();
        for _ in 0..100 {
            assert_eq!(courtesy.turn(), Turn::Yield);
            courtesy.took(Turn::Yield, PROMPT);
        }
    }

    #[test]
    fn where_others_wait_it_stays_away_and_looks_again_after_some_slices() {
        let mut courtesy = Courtesy::default();
        courtesy.took(Turn::Yield, MS);
        for _ in 0..SLICES {
            assert_eq!(courtesy.turn(), Turn::Pause(SHORTEST));
            courtesy.took(courtesy.turn(), SHORTEST + MS);
        }
        assert_eq!(courtesy.turn(), Turn::Yield);
    }

    #[test]
    fn where_many_loop_each_stays_away_for_longer() {
        let mut courtesy = Courtesy::default();
        courtesy.took(Turn::Yield, MS);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let Turn::Pause(pause) = courtesy.turn() else { panic!("{courtesy:?}") };
            pauses.push(pause.as_millis());
            courtesy.took(courtesy.turn(), pause * 3 + LATE);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 32]);
    }
}
