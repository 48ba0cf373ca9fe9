//! What became of a load: counts, failures with their reasons, and the longest time that a visitor had
//! to wait for the next good answer.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;

/// One for a whole load.
pub struct Report {
    pub case: String,
    pub sent: u64,
    /// Idempotent requests that were sent once more after their connection broke.
    pub retried: u64,
    /// Requests of any method that found their connection or address gone before they were sent, or
    /// refused unread, and went elsewhere.
    pub moved: u64,
    /// Good answers for which the edge had to try more than once.
    pub mended: u64,
    pub failures: Vec<Failure>,
    /// The longest time between two good answers to the same visitor.
    pub longest_gap: Duration,
    latencies: Vec<Duration>,
}

#[derive(Debug, Clone)]
pub struct Failure {
    pub method: Method,
    pub mark: String,
    pub reason: String,
    /// The connection broke behind the first byte of the answer: nobody can mend that.
    pub was_cut: bool,
    /// Which edge was asked last.
    pub address: SocketAddr,
    /// When it was first sent.
    pub at: SystemTime,
    /// How long the visitor waited for nothing.
    pub took: Duration,
}

impl Report {
    pub(super) fn start() -> Self {
        Self {
            case: String::new(),
            sent: 0,
            retried: 0,
            moved: 0,
            mended: 0,
            failures: Vec::new(),
            longest_gap: Duration::ZERO,
            latencies: Vec::new(),
        }
    }

    pub(super) fn passed(&mut self, took: Duration, gap: Duration, was_mended: bool) {
        self.mended += u64::from(was_mended);
        self.latencies.push(took);
        self.longest_gap = self.longest_gap.max(gap);
    }

    /// Failures of idempotent requests, but for answers that were cut.
    pub fn failed_idempotent(&self) -> usize {
        self.failures.iter().filter(|failure| failure.method.is_idempotent() && !failure.was_cut).count()
    }

    pub fn cut(&self) -> usize {
        self.failures.iter().filter(|failure| failure.was_cut).count()
    }

    /// Nothing failed, whatever the method.
    pub fn assert_spotless(&self) {
        assert!(self.sent > 0, "{self}");
        assert!(self.failures.is_empty(), "{self}");
    }

    /// No idempotent request failed. Of the others `most` may have, and as many answers may have been cut
    /// as `deaths` can cut.
    pub fn assert_idempotent_spotless(&self, most: usize, deaths: usize) {
        assert!(self.sent > 0, "{self}");
        assert_eq!(self.failed_idempotent(), 0, "{self}");
        assert!(self.failures.len() <= most, "more than {most} failures: {self}");
        assert!(self.cut() <= deaths * MOST_CUT, "{} answers cut: {self}", self.cut());
    }

    fn percentile(&self, percent: usize) -> Duration {
        let mut latencies = self.latencies.clone();
        latencies.sort_unstable();
        let at = latencies.len() * percent / 100;
        latencies.get(at.min(latencies.len().saturating_sub(1))).copied().unwrap_or_default()
    }
}

/// The summary line, then what failed.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let idempotent = self.failures.iter().filter(|failure| failure.method.is_idempotent()).count();
        write!(
            f,
            "{}: sent {}, failed {} ({idempotent} idempotent; {} cut), retried {}, moved {}, mended by the edge {}, longest gap {} ms, p50 {:.1} ms, p99 {:.1} ms",
            self.case,
            self.sent,
            self.failures.len(),
            self.cut(),
            self.retried,
            self.moved,
            self.mended,
            self.longest_gap.as_millis(),
            self.percentile(50).as_secs_f64() * 1000.0,
            self.percentile(99).as_secs_f64() * 1000.0,
        )?;
        let mut reasons: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for failure in &self.failures {
            *reasons.entry((failure.method.as_str(), &failure.reason)).or_default() += 1;
        }
        for ((method, reason), count) in reasons {
            write!(f, "\n  {count} x {method}: {reason}")?;
            let alike = |failure: &&Failure| failure.method == method && failure.reason == reason;
            for failure in self.failures.iter().filter(alike).take(SHOWN) {
                let Failure { mark, address, at, took, .. } = failure;
                write!(f, "\n    {mark} at {address} from {} for {took:.3?}", Clock(*at))?;
            }
        }
        Ok(())
    }
}

/// A time of day (UTC) as logs have it.
struct Clock(SystemTime);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.0.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, milliseconds) = (since.as_secs() % 86_400, since.subsec_millis());
        let [hours, minutes, seconds] = [seconds / 3600, seconds / 60 % 60, seconds % 60];
        write!(f, "{hours:02}:{minutes:02}:{seconds:02}.{milliseconds:03}")
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many answers one death can cut: those whose body was on its way at that moment.
const MOST_CUT: usize = 2;
/// How many failures of one kind are told one by one.
const SHOWN: usize = 4;
