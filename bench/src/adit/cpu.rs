//! Processor time of processes, by the kernel's own accounts.

use std::collections::HashMap;
use std::time::Duration;

/// Processor time that named processes have used.
pub(crate) struct Cpu(HashMap<&'static str, Duration>);

impl Cpu {
    pub(crate) fn of(processes: impl IntoIterator<Item = (&'static str, Vec<u32>)>) -> Self {
        let used = |ids: Vec<u32>| ids.into_iter().map(used).sum();
        Self(processes.into_iter().map(|(name, ids)| (name, used(ids))).collect())
    }

    pub(crate) fn since(&self, before: &Self) -> HashMap<&'static str, Duration> {
        let spent = |(name, now): (&&'static str, &Duration)| (*name, now.saturating_sub(before.0[*name]));
        self.0.iter().map(spent).collect()
    }
}

/// Nanoseconds on a processor, over all threads that are alive: finer than the ticks of `/proc/ID/stat`.
fn used(id: u32) -> Duration {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return Duration::ZERO };
    let of_thread = |path: std::path::PathBuf| -> Option<u64> {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok()
    };
    Duration::from_nanos(threads.flatten().filter_map(|thread| of_thread(thread.path())).sum())
}
