//! What happened to a plugin's calls, counted in each shard and summed for status.

use std::sync::atomic::{AtomicU64, Ordering};

use super::failure::FailureKind;

/// What happened to a plugin since it was loaded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Calls of either phase, whatever became of them.
    pub calls: u64,
    /// Calls that the plugin answered with an error of its own.
    pub faults: u64,
    /// Calls in which the plugin crashed.
    pub traps: u64,
    /// Calls that used up their time.
    pub timeouts: u64,
    /// Calls that found no free instance.
    pub busy: u64,
    /// Calls whose answer asked for something that is not allowed.
    pub invalid: u64,
    /// Calls that were not made since the plugin rests after it broke again and again.
    pub resting: u64,
    /// Calls that wanted something of the server of shared buckets while that was away.
    pub away: u64,
    /// Calls of the plugin into the host that were refused: not granted, or over a limit.
    pub denied: u64,
    /// Instances made, the one at load included.
    pub instantiations: u64,
}

/// The counters of one shard.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: AtomicU64,
    pub(super) instantiations: AtomicU64,
    faults: AtomicU64,
    traps: AtomicU64,
    timeouts: AtomicU64,
    busy: AtomicU64,
    invalid: AtomicU64,
    resting: AtomicU64,
    away: AtomicU64,
}

impl Tally {
    pub(super) fn count(&self, failure: &FailureKind) {
        let counter = match failure {
            FailureKind::Fault { .. } => &self.faults,
            FailureKind::Trap { .. } => &self.traps,
            FailureKind::Timeout => &self.timeouts,
            FailureKind::Busy => &self.busy,
            FailureKind::Invalid { .. } => &self.invalid,
            FailureKind::Resting => &self.resting,
            FailureKind::Away(_) => &self.away,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add_to(&self, sum: &mut Counters) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        sum.calls += read(&self.calls);
        sum.faults += read(&self.faults);
        sum.traps += read(&self.traps);
        sum.timeouts += read(&self.timeouts);
        sum.busy += read(&self.busy);
        sum.invalid += read(&self.invalid);
        sum.resting += read(&self.resting);
        sum.away += read(&self.away);
        sum.instantiations += read(&self.instantiations);
    }
}
