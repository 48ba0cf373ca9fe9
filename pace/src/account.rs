//! All flows of a process that wait for their peers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::flow::State;
use crate::judge::{self, Holding, Record, Shed};
use crate::{Cut, Limits};

/// To be looked after every [`Account::EVERY`] by the owner, which has the clock.
pub struct Account {
    limits: Limits,
    /// Those that have begun to wait since the last look, by shard, so that shards do not meet here.
    new: Box<[Mutex<Vec<Arc<State>>>]>,
    watched: Mutex<Watched>,
    held: AtomicU64,
    too_slow: AtomicU64,
    shed: AtomicU64,
}

#[derive(Default)]
struct Watched {
    flows: Vec<Entry>,
    last: Option<Instant>,
}

struct Entry {
    state: Arc<State>,
    taken: u64,
    record: Record,
    /// Until then it is expected to end, because what carries it was cut.
    leaves: Option<Instant>,
}

/// What one look has found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Bytes held for peers who do not take them, an upper estimate.
    pub held: u64,
    pub too_slow: usize,
    pub shed: usize,
}

impl Account {
    /// How often it wants to be looked after.
    pub const EVERY: Duration = Duration::from_millis(100);

    pub fn new(limits: Limits, shards: usize) -> Arc<Self> {
        let new = (0..shards.max(1)).map(|_| Mutex::default()).collect();
        let count = || AtomicU64::new(0);
        Arc::new(Self {
            limits,
            new,
            watched: Mutex::default(),
            held: count(),
            too_slow: count(),
            shed: count(),
        })
    }

    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What the last look has found to be held, and how many flows were cut so far: too slow, and shed.
    pub fn totals(&self) -> (u64, u64, u64) {
        let [held, too_slow, shed] =
            [&self.held, &self.too_slow, &self.shed].map(|count| count.load(Ordering::Relaxed));
        (held, too_slow, shed)
    }

    pub(crate) fn watch(&self, shard: usize, state: Arc<State>) {
        lock(&self.new[shard % self.new.len()]).push(state);
    }

    /// Looks at everything that waits, and ends what has to end. What is not waiting at this moment has taken
    /// all that there was, and begins anew when it waits again.
    pub fn sweep(&self, now: Instant) -> Swept {
        let mut watched = lock(&self.watched);
        let Watched { flows, last } = &mut *watched;
        // A process that was stopped for a while blames no peer for it.
        let elapsed = last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let elapsed = elapsed.min(4 * Self::EVERY);
        *last = Some(now);
        let mut swept = Swept::default();
        let mut over = Vec::new();
        flows.retain_mut(|entry| {
            let Entry { state, taken, record, .. } = entry;
            if state.is_over() {
                return false;
            }
            if !state.is_waiting() {
                return !state.leave();
            }
            let before = std::mem::replace(taken, state.taken());
            if record.wait(&self.limits, elapsed, taken.wrapping_sub(before)) || state.is_patient() {
                return true;
            }
            swept.too_slow += 1;
            over.push((state.clone(), Cut::TooSlow));
            false
        });
        let is_held = |entry: &&Entry| {
            !entry.record.is_moving(entry.state.held()) && entry.leaves.is_none_or(|until| until <= now)
        };
        swept.held = flows.iter().filter(is_held).map(|entry| entry.state.held()).sum();
        if swept.held > self.limits.held {
            let holding = |(at, Entry { state, record, .. }): (usize, &Entry)| Holding {
                at,
                source: state.source,
                group: state.group(),
                is_whole: state.is_whole(),
                held: state.held(),
                record: *record,
            };
            let holdings = flows.iter().enumerate().filter(|(_, entry)| is_held(entry)).map(holding);
            let Shed { cut, leaving, held } = judge::shed(holdings.collect(), self.limits.held);
            swept.shed = cut.len();
            swept.held = held;
            over.extend(cut.into_iter().map(|at| (flows[at].state.clone(), Cut::Shed)));
            for at in leaving {
                flows[at].leaves = Some(now + LEAVING);
            }
        }
        // How fast these are is seen at the next look.
        for new in &self.new {
            let new = std::mem::take(&mut *lock(new));
            let record = Record::new(&self.limits);
            let entry = |state: Arc<State>| Entry { taken: state.taken(), record, state, leaves: None };
            flows.extend(new.into_iter().filter(|state| !state.is_over()).map(entry));
        }
        self.held.store(swept.held, Ordering::Relaxed);
        self.too_slow.fetch_add(swept.too_slow as u64, Ordering::Relaxed);
        self.shed.fetch_add(swept.shed as u64, Ordering::Relaxed);
        drop(watched);
        // What a flow lets go of may take its time.
        for (state, cut) in over {
            state.end(cut);
        }
        swept
    }
}

/// How long the end of a connection may take before what it holds counts again.
const LEAVING: Duration = Duration::from_secs(1);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Weak;

    use super::*;
    use crate::{Flow, Release};

    const LIMITS: Limits = Limits { held: 1000, grace: Duration::from_secs(1), rate: 1000 };

    fn from(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    /// Looks `times` times in a row; who was cut meanwhile.
    fn look(account: &Account, now: &mut Instant, times: usize) -> (usize, usize) {
        (0..times).fold((0, 0), |(too_slow, shed), _| {
            *now += Account::EVERY;
            let swept = account.sweep(*now);
            (too_slow + swept.too_slow, shed + swept.shed)
        })
    }

    #[test]
    fn only_what_waits_for_its_peer_uses_up_its_grace() {
        let (account, mut now) = (Account::new(LIMITS, 2), Instant::now());
        let stalled = Flow::begin(&account, 0, from(1), 1, None);
        let asking = Flow::begin(&account, 1, from(1), 1, None);
        asking.gave(5);
        asking.asked();
        let idle = Flow::idle(&account, 1, from(1), None);
        assert_eq!(look(&account, &mut now, 5), (0, 0));
        assert_eq!(look(&account, &mut now, 20), (1, 0));
        assert_eq!(stalled.cause(), Some(Cut::TooSlow));
        assert_eq!((asking.cause(), idle.cause()), (None, None));
        // One that begins to wait later has all of its grace.
        idle.gave(1);
        assert_eq!(look(&account, &mut now, 8), (0, 0));
        assert_eq!(look(&account, &mut now, 8), (1, 0));
        assert_eq!(account.totals(), (0, 2, 0));
    }

    #[test]
    fn a_flow_that_moves_survives() {
        let (account, mut now) = (Account::new(LIMITS, 1), Instant::now());
        let flow = Flow::begin(&account, 0, from(1), 1, None);
        for _ in 0..100 {
            flow.gave(110);
            assert_eq!(look(&account, &mut now, 1), (0, 0));
        }
    }

    #[test]
    fn a_process_that_was_stopped_blames_no_peer() {
        let (account, mut now) = (Account::new(LIMITS, 1), Instant::now());
        let _flow = Flow::begin(&account, 0, from(1), 1, None);
        assert_eq!(look(&account, &mut now, 1), (0, 0));
        now += Duration::from_secs(3600);
        assert_eq!(look(&account, &mut now, 1), (0, 0));
    }

    struct Held(std::sync::atomic::AtomicUsize);

    impl Release for Held {
        fn release(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn beyond_the_cap_the_largest_source_loses_its_slowest_at_once() {
        let (account, mut now) = (Account::new(LIMITS, 2), Instant::now());
        let held = Arc::new(Held(Default::default()));
        let release: Weak<Held> = Arc::downgrade(&held);
        let begin = |source, bytes| {
            Flow::begin(&account, 1, from(source), bytes, Some(release.clone() as Weak<dyn Release>))
        };
        let (greedy, modest) = ([300; 4].map(|bytes| begin(1, bytes)), begin(2, 200));
        assert_eq!(look(&account, &mut now, 2), (0, 2));
        assert_eq!(held.0.load(Ordering::Relaxed), 2);
        assert_eq!(greedy.iter().filter(|flow| flow.cause() == Some(Cut::Shed)).count(), 2);
        assert_eq!(modest.cause(), None);
        assert_eq!(account.totals(), (800, 0, 2));
        drop((greedy, modest));
        look(&account, &mut now, 1);
        assert_eq!(account.totals().0, 0);
    }
}
