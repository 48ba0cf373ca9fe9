//! Passive ejection: an endpoint whose requests fail is left out for a while, and one request finds out whether it
//! is well again. Per node of the edge; the rule is the same for every pool.
//!
//! [`Tally`] counts what becomes of the requests of one endpoint, by all threads; [`Ejector`] decides for a pool. It
//! limits only itself: whom monitors hold for down is none of its business, and it never ejects so many that
//! less than half of the endpoints that are otherwise able would be left. Does not know what a failure is.
//!
//! ```text
//!   In ──fails──▶ Out ──its time is over, a request tries──▶ Trial ──answered──▶ In
//!                  ▲                                           │
//!                  └────────────────── fails, longer ──────────┘
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{Window, unit};

/// What became of the requests of one endpoint lately. Times are since any moment that stays the same.
#[derive(Debug, Default)]
pub struct Tally {
    streak: AtomicU64,
    good: Window,
    bad: Window,
}

impl Tally {
    pub fn good(&self, now: Duration) {
        self.good.add(second(now));
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// Counts a failure of a request by `source`, a hash of the visitor's address: in a row each counts once, so
    /// that one visitor whose requests crash services ejects nobody. Says whether [`Ejector::judge`] should look.
    pub fn bad(&self, now: Duration, source: u64) -> bool {
        self.bad.add(second(now));
        // One part of the word for each source of the row; 0 is a part that is free.
        let mark = ((source ^ (source >> 32)) & 0xffff).max(1);
        let parts = |word: u64| (0..PARTS).map(move |part| (word >> (16 * part)) & 0xffff);
        let added = self.streak.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            if word == FULL || parts(word).any(|known| known == mark) {
                return None;
            }
            let free = parts(word).position(|known| known == 0);
            Some(free.map_or(FULL, |part| word | (mark << (16 * part))))
        });
        let is_row = added.is_ok_and(|before| parts(before).all(|known| known != 0));
        is_row || self.sums(now).is_poor()
    }

    fn is_row(&self) -> bool {
        self.streak.load(Ordering::Relaxed) == FULL
    }

    fn sums(&self, now: Duration) -> Sums {
        Sums { good: self.good.sum(second(now)), bad: self.bad.sum(second(now)) }
    }

    fn clear(&self) {
        self.streak.store(0, Ordering::Relaxed);
        self.good.clear();
        self.bad.clear();
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    good: u64,
    bad: u64,
}

impl Sums {
    fn all(self) -> u64 {
        self.good + self.bad
    }

    fn rate(self) -> f64 {
        self.good as f64 / self.all().max(1) as f64
    }

    fn is_poor(self) -> bool {
        self.all() >= ENOUGH && self.good * 2 < self.all()
    }
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Failures in a row, of different visitors.
    InARow,
    /// Most of what it was asked in ten seconds failed.
    MostFailed,
    /// It fails at least twice as often as the others serve.
    WorseThanOthers,
    /// The request that was to find out failed too.
    Trial,
}

/// What a look changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Ejected {
        at: usize,
        why: Why,
        lasts: Duration,
    },
    /// The trial was answered.
    Returned {
        at: usize,
    },
    /// Before its time, because others are no longer able: less than half would be left.
    Released {
        at: usize,
    },
}

/// Who of a pool is ejected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ejector(Vec<Member>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Member {
    state: State,
    /// How often in succession.
    times: u32,
    /// When the last ejection was over.
    ended: Duration,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    In,
    Out {
        until: Duration,
    },
    Trial {
        began: Duration,
    },
}

impl Ejector {
    pub fn new(endpoints: usize) -> Self {
        Self(vec![Member::default(); endpoints])
    }

    /// The same for a pool that was changed: for each endpoint the place that it had, if it was there.
    pub fn rearranged(&self, before: impl IntoIterator<Item = Option<usize>>) -> Self {
        let member = |at: Option<usize>| at.and_then(|at| self.0.get(at)).copied().unwrap_or_default();
        Self(before.into_iter().map(member).collect())
    }

    /// Whether it gets only a trial.
    pub fn is_out(&self, at: usize) -> bool {
        self.0.get(at).is_some_and(|member| member.state != State::In)
    }

    /// Looks at everybody: when [`Tally::bad`] asks for it, and when an endpoint becomes able or is not any more.
    /// `able` says who serves as far as others are concerned: enabled, connected, not down by a monitor.
    pub fn judge<'a>(
        &mut self,
        now: Duration,
        tally: impl Fn(usize) -> &'a Tally,
        able: impl Fn(usize) -> bool,
        chance: u64,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let count = (0..self.0.len()).filter(|at| able(*at)).count();
        let floor = most_ejected(count);
        self.release(floor, now, &tally, &able, &mut changes);
        let serving = |ejector: &Self, at: usize| able(at) && !ejector.is_out(at);
        while self.ejected(&able) < floor {
            let sums = |at: usize| tally(at).sums(now);
            let all = (0..self.0.len()).filter(|at| serving(self, *at)).map(sums);
            let all = all
                .fold(Sums::default(), |all, one| Sums { good: all.good + one.good, bad: all.bad + one.bad });
            let reasons = (0..self.0.len()).filter(|at| serving(self, *at)).filter_map(|at| {
                let own = sums(at);
                let others = Sums { good: all.good - own.good, bad: all.bad - own.bad };
                Some((at, reason(tally(at), own, others)?, own.rate()))
            });
            // The worst first, because the floor may let no more than one go.
            let Some((at, why, _)) = reasons.min_by(|(.., one), (.., other)| one.total_cmp(other)) else {
                break;
            };
            let lasts = self.eject(at, now, chance.rotate_left(at as u32));
            tally(at).clear();
            changes.push(Change::Ejected { at, why, lasts });
        }
        changes
    }

    /// Whether a request may be the one that finds out how an endpoint is; if so, it is. One that may be sent again
    /// is preferred: whoever fails here is sent elsewhere.
    pub fn begin_trial(&mut self, at: usize, now: Duration, is_repeatable: bool) -> bool {
        let Some(member) = self.0.get_mut(at) else { return false };
        let due = match member.state {
            State::In => return false,
            State::Out { until } => until,
            // What became of it nobody said.
            State::Trial { began } => began + LONGEST_TRIAL,
        };
        let is_due = now >= if is_repeatable { due } else { due + PREFERENCE };
        if is_due {
            member.state = State::Trial { began: now };
        }
        is_due
    }

    /// What became of the trial.
    pub fn end_trial(
        &mut self,
        at: usize,
        is_good: bool,
        now: Duration,
        tally: &Tally,
        chance: u64,
    ) -> Option<Change> {
        let member = self.0.get_mut(at).filter(|member| matches!(member.state, State::Trial { .. }))?;
        tally.clear();
        Some(if is_good {
            (member.state, member.ended) = (State::In, now);
            Change::Returned { at }
        } else {
            Change::Ejected { at, why: Why::Trial, lasts: self.eject(at, now, chance) }
        })
    }

    /// What became of the trial says nothing of the endpoint: the next request may be one.
    pub fn leave_trial(&mut self, at: usize, now: Duration) {
        if let Some(member) = self.0.get_mut(at).filter(|member| matches!(member.state, State::Trial { .. }))
        {
            member.state = State::Out { until: now };
        }
    }

    /// When the next endpoint may be tried, if one is out: until then a look for trials is in vain.
    pub fn next_trial(&self) -> Option<Duration> {
        let due = self.0.iter().filter_map(|member| match member.state {
            State::In => None,
            State::Out { until } => Some(until),
            State::Trial { began } => Some(began + LONGEST_TRIAL),
        });
        due.min()
    }

    fn ejected(&self, able: &impl Fn(usize) -> bool) -> usize {
        (0..self.0.len()).filter(|at| able(*at) && self.is_out(*at)).count()
    }

    /// Others are not able any more: those whose time is over first come back.
    fn release<'a>(
        &mut self,
        floor: usize,
        now: Duration,
        tally: &impl Fn(usize) -> &'a Tally,
        able: &impl Fn(usize) -> bool,
        changes: &mut Vec<Change>,
    ) {
        for _ in floor..self.ejected(able) {
            let out = self.0.iter().enumerate().filter(|(at, member)| able(*at) && member.state != State::In);
            let Some((at, _)) = out.min_by_key(|(_, member)| match member.state {
                State::In | State::Trial { .. } => Duration::ZERO,
                State::Out { until } => until,
            }) else {
                return;
            };
            (self.0[at].state, self.0[at].ended) = (State::In, now);
            tally(at).clear();
            changes.push(Change::Released { at });
        }
    }

    fn eject(&mut self, at: usize, now: Duration, chance: u64) -> Duration {
        let member = &mut self.0[at];
        let forgiven = (now.saturating_sub(member.ended).as_secs() / FORGIVEN.as_secs()) as u32;
        // One that fails its trial was never back.
        let forgiven = if member.state == State::In { forgiven } else { 0 };
        member.times = member.times.saturating_sub(forgiven).saturating_add(1);
        let lasts = (FIRST * member.times.min(MOST_TIMES)).min(LONGEST);
        let lasts = lasts.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit(chance));
        member.state = State::Out { until: now + lasts };
        lasts
    }
}

fn reason(tally: &Tally, own: Sums, others: Sums) -> Option<Why> {
    if tally.is_row() {
        Some(Why::InARow)
    } else if own.is_poor() {
        Some(Why::MostFailed)
    } else if own.all() >= FEW && others.all() >= ENOUGH && own.rate() * 2.0 < others.rate() {
        Some(Why::WorseThanOthers)
    } else {
        None
    }
}

/// How many of so many may be out at once.
pub fn most_ejected(able: usize) -> usize {
    able / 2
}

fn second(now: Duration) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// Sources of a row that a word has room for; the next one makes it [`FULL`], and is the fifth.
const PARTS: u32 = 4;
const FULL: u64 = u64::MAX;
/// Requests of ten seconds that say something about an endpoint by themselves, and beside others.
const ENOUGH: u64 = 20;
const FEW: u64 = 10;
/// The first ejection; the second takes twice as long, and so on up to the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
const MOST_TIMES: u32 = 30;
const JITTER: f64 = 0.2;
/// An ejection less is remembered for each of these without one.
const FORGIVEN: Duration = Duration::from_secs(60);
/// A trial of which nobody said what became of it.
const LONGEST_TRIAL: Duration = Duration::from_secs(30);
/// So long after its time only a request that may be sent again tries an endpoint.
const PREFERENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
