//! When a change is worth telling: once it has lasted, and not each time if there is no end to it. Pure: is told what
//! time it is.
//!
//! ```text
//! told ── a change lasts for `hold` ──▶ Changed ── told
//!   └──── more than MOST_CHANGES in WINDOW ──▶ Flapping ── no more than that, and one lasts ──▶ Settled ── told
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What is known of one object.
#[derive(Debug)]
pub(crate) struct Damper<S> {
    told: S,
    is_flapping: bool,
    /// What it is now, and since when.
    now: Option<(S, Instant)>,
    /// The last changes, [`MOST_CHANGES`] and one.
    changes: VecDeque<Instant>,
}

/// What is worth telling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word<S> {
    /// It is this for a while.
    Changed(S),
    /// It changes all the time.
    Flapping,
    /// It did, and is this for a while.
    Settled(S),
}

impl<S: Copy + Eq> Damper<S> {
    pub(crate) fn new(told: S, is_flapping: bool) -> Self {
        Self { told, is_flapping, now: None, changes: VecDeque::new() }
    }

    /// Takes note of what it is; whether that is something else than before.
    pub(crate) fn see(&mut self, state: S, now: Instant) -> bool {
        let before = self.now.map(|(before, _)| before);
        if before == Some(state) {
            return false;
        }
        self.now = Some((state, now));
        if before.is_some() {
            self.changes.push_back(now);
            if self.changes.len() > MOST_CHANGES + 1 {
                self.changes.pop_front();
            }
        }
        before.is_some()
    }

    /// What is to be told now, if anything. The same again until it is [`told`](Self::tell).
    pub(crate) fn word(&self, now: Instant, hold: impl Fn(S) -> Duration) -> Option<Word<S>> {
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < WINDOW;
        let is_restless = self.changes.iter().filter(recent).count() > MOST_CHANGES;
        if is_restless {
            return (!self.is_flapping).then_some(Word::Flapping);
        }
        let (state, since) = self.now?;
        if now.saturating_duration_since(since) < hold(state) {
            return None;
        }
        if self.is_flapping {
            return Some(Word::Settled(state));
        }
        (state != self.told).then_some(Word::Changed(state))
    }

    /// Goes on from what was told last, by whomever.
    pub(crate) fn follow(&mut self, told: S, is_flapping: bool) {
        (self.told, self.is_flapping) = (told, is_flapping);
    }

    /// It was told.
    pub(crate) fn tell(&mut self, word: Word<S>) {
        match word {
            Word::Changed(state) | Word::Settled(state) => (self.told, self.is_flapping) = (state, false),
            Word::Flapping => self.is_flapping = true,
        }
    }
}

/// More changes than this within [`WINDOW`] are too many to tell each.
const MOST_CHANGES: usize = 4;
const WINDOW: Duration = Duration::from_secs(10 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(30);

    /// Tells what there is to be told as each second of this passes.
    fn told(
        damper: &mut Damper<bool>,
        from: Instant,
        states: impl Iterator<Item = bool>,
    ) -> Vec<(u64, Word<bool>)> {
        let mut said = Vec::new();
        for (second, state) in (0_u64..).zip(states) {
            let now = from + Duration::from_secs(second);
            damper.see(state, now);
            if let Some(word) = damper.word(now, |_| HOLD) {
                assert_eq!(damper.word(now, |_| HOLD), Some(word), "until it is told");
                damper.tell(word);
                said.push((second, word));
            }
        }
        said
    }

    #[test]
    fn a_change_is_told_once_it_has_lasted_and_one_that_does_not_last_is_none() {
        let mut damper = Damper::new(true, false);
        let states = (0..200).map(|second| !(10..20).contains(&second) && !(50..150).contains(&second));
        let said = told(&mut damper, Instant::now(), states);
        assert_eq!(said, [(80, Word::Changed(false)), (180, Word::Changed(true))]);
    }

    #[test]
    fn what_changes_every_second_for_five_minutes_is_told_twice() {
        let mut damper = Damper::new(true, false);
        let states = (0..1_200).map(|second| second >= 300 || second % 2 == 0);
        let said = told(&mut damper, Instant::now(), states);
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!(said[0].1, Word::Flapping);
        assert!(said[1].0 > 850 && said[1].1 == Word::Settled(true), "{said:?}");
    }

    #[test]
    fn what_another_edge_has_told_is_not_told_again() {
        let now = Instant::now();
        let mut damper = Damper::new(true, false);
        damper.see(false, now);
        assert_eq!(damper.word(now + HOLD, |_| HOLD), Some(Word::Changed(false)));
        damper.follow(false, false);
        assert_eq!(damper.word(now + HOLD, |_| HOLD), None);
        damper.follow(true, false);
        assert_eq!(damper.word(now + HOLD, |_| HOLD), Some(Word::Changed(false)), "it was taken back");
    }

    #[test]
    fn after_a_restart_it_goes_on_from_what_was_told() {
        let now = Instant::now();
        let mut down = Damper::new(false, false);
        assert_eq!(told(&mut down, now, (0..40).map(|_| true)), [(30, Word::Changed(true))]);
        let mut flapping = Damper::new(true, true);
        assert_eq!(told(&mut flapping, now, (0..40).map(|_| true)), [(30, Word::Settled(true))]);
        let mut fine = Damper::new(true, false);
        assert_eq!(told(&mut fine, now, (0..40).map(|_| true)), []);
    }
}
