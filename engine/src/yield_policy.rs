//! How a guest that runs for long shares its thread: pure, told what happened.
//!
//! A request of somebody else takes its thread a handful of short turns. If each of them had to wait
//! for a slice of a guest that loops, it would take some milliseconds more. So a guest that finds
//! others at work stays away for a while after each slice, longer if they take all of it.

use std::time::Duration;

/// Others who worked for longer while a guest gave way have more to do than to look around.
const BUSY: Duration = Duration::from_micros(30);
/// How long it stays away between slices then, at first and at most.
const SHORTEST: Duration = Duration::from_millis(2);
const LONGEST: Duration = Duration::from_millis(32);
/// After so many pauses in which nobody did anything it goes on without.
const QUIET: u32 = 4;

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
pub(super) struct YieldPolicy {
    /// Zero if it does not stay away.
    pause: Duration,
    quiet: u32,
}

impl YieldPolicy {
    /// What to do now.
    pub(super) fn turn(&self) -> Turn {
        if self.pause.is_zero() { Turn::Yield } else { Turn::Pause(self.pause) }
    }

    /// In the guest's last turn, others on its thread worked for so long.
    pub(super) fn others_worked(&mut self, turn: Turn, time: Duration) {
        self.quiet = if time > BUSY { 0 } else { self.quiet + 1 };
        self.pause = match turn {
            Turn::Yield if time > BUSY => SHORTEST,
            Turn::Yield => Duration::ZERO,
            Turn::Pause(_) if self.quiet >= QUIET => Duration::ZERO,
            // There is no end of it: others like this one are about.
            Turn::Pause(pause) if time >= pause => (pause * 2).min(LONGEST),
            Turn::Pause(pause) => (pause / 2).max(SHORTEST),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: Duration = Duration::from_micros(5);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn where_nobody_has_work_it_goes_on_at_once() {
        let mut policy = YieldPolicy::default();
        for _ in 0..100 {
            assert_eq!(policy.turn(), Turn::Yield);
            policy.others_worked(Turn::Yield, LITTLE);
        }
    }

    #[test]
    fn where_others_work_it_stays_away_until_they_have_done() {
        let mut policy = YieldPolicy::default();
        policy.others_worked(Turn::Yield, MS);
        for work in [MS, LITTLE, LITTLE, MS, LITTLE, LITTLE, LITTLE, LITTLE] {
            assert_eq!(policy.turn(), Turn::Pause(SHORTEST));
            policy.others_worked(policy.turn(), work);
        }
        assert_eq!(policy.turn(), Turn::Yield);
    }

    #[test]
    fn where_many_loop_each_stays_away_for_longer() {
        let mut policy = YieldPolicy::default();
        policy.others_worked(Turn::Yield, MS);
        let mut pauses = Vec::new();
        for factor in [3, 1, 2, 1, 1, 1, 0, 0] {
            let Turn::Pause(pause) = policy.turn() else { panic!("{policy:?}") };
            pauses.push(pause.as_millis());
            policy.others_worked(policy.turn(), pause * factor + LITTLE);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 32, 32, 16]);
    }
}
