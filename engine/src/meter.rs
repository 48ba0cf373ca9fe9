//! Drives one call into a guest: counts the time that the guest really runs, ends it when that or
//! the time on the wall is used up, and turns a panic of ours into a failure of that call alone.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Sleep;
use wasmtime::UpdateDeadline;

use super::clock::TICK;
use super::yield_policy::{Turn, YieldPolicy};

/// How long a call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallBudget {
    /// Time that the guest runs.
    pub(super) run: Duration,
    /// Time from start to end, with the turns of everybody else and the guest's own sleep.
    pub(super) wall: Duration,
    /// Whether the guest stays away from its thread where others work on it. One that does not only lets them have
    /// their turns, and what counts as its time is what the system gave it.
    pub(super) gives_way: bool,
}

/// For each step of a load, which whoever asked for a change waits for. One that waits for others, as its probe may,
/// has the time on the wall.
pub(super) const LOADING: CallBudget =
    CallBudget { run: Duration::from_secs(2), wall: Duration::from_secs(30), gives_way: false };
/// For an instance's start and the reading of its configuration on a thread that serves.
pub(super) const SETUP: CallBudget =
    CallBudget { run: Duration::from_secs(5), wall: Duration::from_secs(30), gives_way: true };

/// For a call in the background, which nobody waits for but a load, and that for the first alone.
pub(super) const WORK: CallBudget =
    CallBudget { run: Duration::from_secs(5), wall: Duration::from_secs(30), gives_way: true };

/// The clock on the wall is believed for one part in so many of a call's run time.
const BELIEVED: u64 = 8;

/// Why a call did not return.
#[derive(Debug)]
pub(super) enum Stop {
    Timeout,
    Panicked(String),
    Trapped(wasmtime::Error),
}

/// Counts the run time of one instance's call. The call borrows the instance's store as a whole,
/// so this is shared between [`drive`] and the store's epoch callback; both run on one thread.
///
/// The clock is first read when a call is interrupted for the first time: an ordinary call ends
/// before that and pays for no clock at all. Then it is that on the wall, which is cheap, but counts what the
/// system gave to others as the guest's. So it is believed for a share of the time only: from then on the
/// guest's time is what its thread really worked.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    /// Nanoseconds since `origin` at which the guest was last let run; 0 while unknown.
    resumed: AtomicU64,
    used: AtomicU64,
    limit: AtomicU64,
    gives_way: AtomicBool,
    /// Whether all these times are the thread's.
    by_thread: AtomicBool,
    // Looked at only at the end of a slice, by the one thread that runs the guest.
    sharing: Mutex<Sharing>,
}

/// How the call that runs shares its thread.
#[derive(Debug, Default)]
struct Sharing {
    yield_policy: YieldPolicy,
    /// The turn that others have now, and how long this thread had worked when it began.
    turn: Option<(Turn, Duration)>,
}

/// What the epoch callback ends a guest with.
#[derive(Debug, thiserror::Error)]
#[error("time limit")]
struct TimeIsUp;

impl Meter {
    pub(super) fn new() -> Self {
        Self {
            origin: Instant::now(),
            resumed: AtomicU64::new(0),
            used: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            gives_way: AtomicBool::new(true),
            by_thread: AtomicBool::new(false),
            sharing: Mutex::default(),
        }
    }

    /// The epoch callback: the guest has run for a tick. Ends it or lets the others have a turn.
    pub(super) fn interrupt(&self) -> wasmtime::Result<UpdateDeadline> {
        let now = self.now();
        if self.is_used_up(now) {
            return Err(TimeIsUp.into());
        }
        if !self.gives_way.load(Ordering::Relaxed) {
            return Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())));
        }
        let mut sharing = self.sharing();
        let turn = sharing.yield_policy.turn();
        sharing.turn = Some((turn, thread_time()));
        Ok(match turn {
            // tokio's own yield lets its driver look at the sockets first. A plain self-wake would
            // starve them: the scheduler polls them only once in dozens of turns while tasks are ready.
            Turn::Yield => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
            Turn::Pause(pause) => UpdateDeadline::YieldCustom(1, Box::pin(tokio::time::sleep(pause))),
        })
    }

    fn sharing(&self) -> MutexGuard<'_, Sharing> {
        self.sharing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, CallBudget { run, gives_way, wall: _ }: CallBudget) {
        self.gives_way.store(gives_way, Ordering::Relaxed);
        self.by_thread.store(!gives_way, Ordering::Relaxed);
        self.resumed.store(0, Ordering::Relaxed);
        self.used.store(0, Ordering::Relaxed);
        self.limit.store(nanoseconds(run), Ordering::Relaxed);
    }

    fn is_used_up(&self, now: u64) -> bool {
        if self.resumed.load(Ordering::Relaxed) == 0 {
            // The first slice of this call, which began at most a tick ago.
            self.resume(now.saturating_sub(nanoseconds(TICK)));
        }
        let slice = now.saturating_sub(self.resumed.load(Ordering::Relaxed));
        let used = self.used.load(Ordering::Relaxed) + slice;
        let limit = self.limit.load(Ordering::Relaxed);
        if self.by_thread.load(Ordering::Relaxed) {
            return used >= limit;
        }
        let believed = limit / BELIEVED;
        if used >= believed {
            self.by_thread.store(true, Ordering::Relaxed);
            self.used.store(believed, Ordering::Relaxed);
            self.resumed.store(self.now(), Ordering::Relaxed);
        }
        false
    }

    fn resume(&self, now: u64) {
        self.resumed.store(now.max(1), Ordering::Relaxed);
        let mut sharing = self.sharing();
        if let Some((turn, before)) = sharing.turn.take() {
            sharing.yield_policy.others_worked(turn, thread_time().saturating_sub(before));
        }
    }

    fn suspend(&self, now: u64) {
        let resumed = self.resumed.load(Ordering::Relaxed);
        if resumed != 0 {
            self.used.fetch_add(now.saturating_sub(resumed), Ordering::Relaxed);
        }
    }

    /// Nanoseconds; at least a tick, so that the beginning of the first slice is not before zero.
    fn now(&self) -> u64 {
        // A guest stays on one thread from when it is let run until it is not.
        let by_thread = self.by_thread.load(Ordering::Relaxed);
        nanoseconds(TICK + if by_thread { thread_time() } else { self.origin.elapsed() })
    }
}

/// Runs `call` within `budget`. Dropping this midway ends the guest where it stands; its
/// instance must then be dropped too. A call is some kilobytes, and stays where it was made.
pub(super) async fn drive<T>(
    meter: &Meter,
    budget: CallBudget,
    mut call: Pin<&mut impl Future<Output = wasmtime::Result<T>>>,
) -> Result<T, Stop> {
    let mut wall: Option<Pin<Box<Sleep>>> = None;
    meter.begin(budget);
    poll_fn(|context| {
        if wall.is_some() {
            meter.resume(meter.now());
        }
        // Whatever the call has left half done is dropped with its instance.
        match catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context))) {
            Ok(Poll::Ready(result)) => return Poll::Ready(result.map_err(Stop::from)),
            Ok(Poll::Pending) => {}
            Err(panic) => return Poll::Ready(Err(Stop::Panicked(message(&*panic)))),
        }
        meter.suspend(meter.now());
        let wall = wall.get_or_insert_with(|| Box::pin(tokio::time::sleep(budget.wall)));
        wall.as_mut().poll(context).map(|()| Err(Stop::Timeout))
    })
    .await
}

impl From<wasmtime::Error> for Stop {
    fn from(error: wasmtime::Error) -> Self {
        if error.is::<TimeIsUp>() { Self::Timeout } else { Self::Trapped(error) }
    }
}

/// How long this thread has worked. Time in which the system gave its CPU to others does not count.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const PLENTY: CallBudget = CallBudget { run: HOUR, wall: HOUR, gives_way: true };

    #[tokio::test]
    async fn a_panic_of_the_host_ends_the_call_and_nothing_else() {
        let stop = drive::<()>(&Meter::new(), PLENTY, pin!(async { panic!("in a host function") })).await;
        assert!(matches!(stop, Err(Stop::Panicked(message)) if message == "in a host function"));
    }

    #[tokio::test]
    async fn a_guest_that_sleeps_is_ended_by_the_clock_on_the_wall() {
        let budget = CallBudget { wall: Duration::from_millis(1), ..PLENTY };
        let stop = drive(&Meter::new(), budget, pin!(std::future::pending::<wasmtime::Result<()>>())).await;
        assert!(matches!(stop, Err(Stop::Timeout)));
    }

    #[test]
    fn only_the_turns_of_the_guest_count() {
        const MS: u64 = 1_000_000;
        let meter = Meter::new();
        let budget = CallBudget { run: Duration::from_millis(80), ..PLENTY };
        meter.begin(budget);
        assert!(!meter.is_used_up(5 * MS), "the first slice counts as a tick");
        meter.suspend(5 * MS);
        meter.resume(1000 * MS);
        assert!(!meter.is_used_up(1008 * MS), "the second of waiting does not count: 1 + 8");
        meter.suspend(1008 * MS);
        assert!(!meter.by_thread.load(Ordering::Relaxed));
        meter.resume(2000 * MS);
        assert!(!meter.is_used_up(2001 * MS), "1 + 8 + 1");
        assert!(meter.by_thread.load(Ordering::Relaxed), "which is an eighth");
        let now = meter.now();
        assert!(!meter.is_used_up(now + 69 * MS), "what remains is the thread's");
        assert!(meter.is_used_up(now + 71 * MS));
        meter.begin(budget);
        assert!(!meter.is_used_up(3000 * MS), "the next call begins at nothing");
    }

    /// One of thousands of calls failed beside four loops of others: the system had given its CPU to them.
    #[tokio::test]
    async fn time_that_the_system_gave_to_others_is_not_the_guests() {
        let budget = CallBudget { run: 20 * TICK, ..PLENTY };
        let meter = Meter::new();
        let guest = async {
            for _ in 0..3 {
                std::thread::sleep(budget.run);
                meter.interrupt()?;
            }
            wasmtime::Result::Ok(())
        };
        assert!(drive(&meter, budget, pin!(guest)).await.is_ok());
    }

    #[tokio::test]
    async fn a_guest_that_does_not_give_way_never_stays_away_and_only_its_own_time_counts() {
        let budget = CallBudget { run: 20 * TICK, wall: HOUR, gives_way: false };
        let meter = Meter::new();
        let mut turns = 0;
        let guest = async {
            while turns < 1000 {
                // The time of others.
                std::thread::sleep(4 * TICK);
                let end = thread_time() + TICK;
                while thread_time() < end {}
                let UpdateDeadline::YieldCustom(_, turn) = meter.interrupt()? else { continue };
                let began = Instant::now();
                turn.await;
                assert!(began.elapsed() < Duration::from_millis(500), "it stays away");
                turns += 1;
            }
            wasmtime::Result::Ok(())
        };
        let stop = drive::<()>(&meter, budget, pin!(guest)).await;
        assert!(matches!(stop, Err(Stop::Timeout)));
        assert!(turns >= 8, "the sleep counted: {turns}");
    }

    #[tokio::test]
    async fn a_guest_that_has_used_its_time_is_ended_at_the_next_tick() {
        let meter = Meter::new();
        let budget = CallBudget { run: 8 * TICK, ..PLENTY };
        let guest = async {
            loop {
                let end = thread_time() + TICK;
                while thread_time() < end {}
                meter.interrupt()?;
            }
        };
        let began = thread_time();
        assert!(matches!(drive::<()>(&meter, budget, pin!(guest)).await, Err(Stop::Timeout)));
        let took = thread_time() - began;
        assert!(took < 3 * budget.run, "{took:?}");
    }
}
