//! Time for guests: one thread that advances the engine's epoch while guests run and sleeps while
//! none does. Does not know which guest runs or how long it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often a running guest is interrupted to yield and to have its time counted. A guest that
/// loops holds its shard's thread for at most this long at a time, and a time limit is exact to
/// about this much. One millisecond is far above the few microseconds of an ordinary call, so that
/// those are hardly ever interrupted, and far below what a visitor notices.
pub(super) const TICK: Duration = Duration::from_millis(1);

/// How many ticks without any call before the thread goes to sleep. Under steady load no call
/// pays for waking it; without load it costs nothing.
const LINGER: u32 = 20;

/// Shards count their calls in different places, so that they share no cache line.
const LANES: usize = 16;

/// Owns the ticking thread, which ends when this is dropped.
pub(super) struct Clock {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// A call runs for as long as this exists.
pub(super) struct Running<'a>(&'a Lane);

#[derive(Default)]
struct Shared {
    lanes: [Lane; LANES],
    asleep: AtomicBool,
    ending: AtomicBool,
}

#[derive(Default)]
#[repr(align(128))]
struct Lane {
    started: AtomicU64,
    ended: AtomicU64,
}

impl Clock {
    /// Starts the thread, which calls `tick` each [`TICK`] while calls run.
    pub(super) fn start(tick: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let thread = thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || seen.run(&tick))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Keeps the clock ticking until the returned guard is dropped.
    pub(super) fn running(&self, shard: usize) -> Running<'_> {
        let lane = &self.shared.lanes[shard % LANES];
        // Sequentially consistent, as is the store to `asleep`: either this sees that the thread
        // is about to sleep, or the thread sees this call and does not.
        lane.started.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(lane)
    }

    #[cold]
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Shared {
    fn run(&self, tick: &dyn Fn()) {
        let (mut quiet, mut last) = (0, 0);
        while !self.ending.load(Ordering::SeqCst) {
            let (started, running) = self.calls();
            quiet = if running || started != last { 0 } else { quiet + 1 };
            last = started;
            if quiet <= LINGER {
                thread::park_timeout(TICK);
                tick();
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            let nothing_new = self.calls() == (last, false);
            if nothing_new && !self.ending.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            quiet = 0;
        }
    }

    /// How many calls were ever started, and whether one is running. What has ended is read
    /// first: a call that starts in between then counts as running.
    fn calls(&self) -> (u64, bool) {
        let sum = |count: fn(&Lane) -> &AtomicU64| {
            self.lanes.iter().fold(0u64, |sum, lane| sum.wrapping_add(count(lane).load(Ordering::SeqCst)))
        };
        let ended = sum(|lane| &lane.ended);
        let started = sum(|lane| &lane.started);
        (started, started != ended)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn clock() -> (Clock, mpsc::Receiver<()>) {
        let (sender, ticks) = mpsc::channel();
        let clock = Clock::start(move || sender.send(()).unwrap_or_default()).expect("a thread starts");
        (clock, ticks)
    }

    #[test]
    fn the_clock_ticks_for_as_long_as_a_call_runs() {
        let (clock, ticks) = clock();
        let _running = clock.running(3);
        for _ in 0..=3 * LINGER {
            ticks.recv().expect("the clock goes on");
        }
    }

    #[test]
    fn a_clock_without_calls_falls_asleep_and_a_call_wakes_it() {
        let (clock, ticks) = clock();
        while !clock.shared.asleep.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        while ticks.try_recv().is_ok() {}
        let _running = clock.running(0);
        ticks.recv().expect("the clock ticks again");
    }

    #[test]
    fn dropping_the_clock_ends_its_thread() {
        let (clock, ticks) = clock();
        drop(clock);
        while ticks.try_recv().is_ok() {}
        assert_eq!(ticks.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
