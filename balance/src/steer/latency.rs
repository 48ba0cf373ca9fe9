//! Latencies that are remembered: [`Ewma`], the mean of probes that fades, and [`Peak`], that of requests, which
//! believes bad news at once. Times are since any moment that stays the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A mean in which what is `fades` old counts an e-th: exact however irregular the samples are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ewma {
    fades: Duration,
    last: Option<(Duration, f64)>,
}

impl Ewma {
    pub fn new(fades: Duration) -> Self {
        Self { fades, last: None }
    }

    pub fn add(&mut self, now: Duration, sample: Duration) {
        let sample = sample.as_secs_f64();
        let value = match self.last {
            None => sample,
            Some((then, value)) => {
                let kept = remaining(now.saturating_sub(then), self.fades);
                value * kept + sample * (1.0 - kept)
            }
        };
        self.last = Some((now, value));
    }

    /// Seconds; `None` before the first sample.
    pub fn value(&self) -> Option<f64> {
        self.last.map(|(_, value)| value)
    }
}

/// The latency of an endpoint as the requests of all threads see it, without a lock. A slower sample replaces the
/// value at once, a faster one is mixed in. Left alone the value fades to nothing, so that an endpoint that
/// once was slow is tried again. One that was never asked has [`Peak::START`].
#[derive(Debug)]
pub struct Peak(AtomicU64);

impl Peak {
    /// Seconds that a new endpoint is believed to take.
    pub const START: f64 = 0.03;
    /// After so long an e-th is left.
    const FADES: Duration = Duration::from_secs(10);
    /// What a failure counts as at least: one that fails at once would look quick, and get everything.
    const FAILED: Duration = Duration::from_secs(5);

    pub fn new(now: Duration) -> Self {
        Self(AtomicU64::new(pack(millis(now), Self::START as f32)))
    }

    /// Takes note of a request that was answered after `took`.
    pub fn answered(&self, now: Duration, took: Duration) {
        let sample = took.as_secs_f64();
        let now = millis(now);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let (then, value) = unpack(word);
            let kept = remaining(since(then, now), Self::FADES);
            let faded = value * kept;
            let value = if sample >= value { sample } else { faded + sample * (1.0 - kept) };
            Some(pack(latest(then, now), value as f32))
        });
    }

    /// Takes note of one that failed.
    pub fn failed(&self, now: Duration, took: Duration) {
        self.answered(now, took.max(Self::FAILED));
    }

    /// Seconds.
    pub fn value(&self, now: Duration) -> f64 {
        let (then, value) = unpack(self.0.load(Ordering::Relaxed));
        value * remaining(since(then, millis(now)), Self::FADES)
    }
}

/// The part that is left after `elapsed`.
fn remaining(elapsed: Duration, fades: Duration) -> f64 {
    (-elapsed.as_secs_f64() / fades.as_secs_f64().max(f64::MIN_POSITIVE)).exp()
}

/// Milliseconds in 32 bits, which begin anew after 49 days.
fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

/// From `then` to `now`; a `now` that another thread took a little earlier is the same moment.
fn since(then: u32, now: u32) -> Duration {
    let elapsed = now.wrapping_sub(then);
    Duration::from_millis(if elapsed > u32::MAX / 2 { 0 } else { elapsed.into() })
}

fn latest(then: u32, now: u32) -> u32 {
    if now.wrapping_sub(then) > u32::MAX / 2 { then } else { now }
}

fn pack(at: u32, value: f32) -> u64 {
    (u64::from(at) << 32) | u64::from(value.to_bits())
}

fn unpack(word: u64) -> (u32, f64) {
    ((word >> 32) as u32, f64::from(f32::from_bits(word as u32)))
}
