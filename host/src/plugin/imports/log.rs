//! The `log` interface: a guest's words in the host's log, tagged with its name, cut and rationed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::Level;

use super::super::bindings::adit::plugin::log as bound;
use super::super::store::State;
use super::super::text::printable;

/// Longest message, bytes; the rest is cut.
pub(super) const LONGEST_MESSAGE: usize = 4096;
/// Messages that one plugin may write in a second, over all its instances.
const MESSAGES_PER_SECOND: u64 = 100;

/// Where one plugin's messages go.
#[derive(Debug)]
pub(in crate::plugin) struct GuestLog {
    pub(in crate::plugin) plugin: Arc<str>,
    ration: Ration,
    heard: Option<Heard>,
}

/// What a plugin under test has said since somebody last listened: `warn: no keys`.
pub type Heard = Arc<Mutex<Vec<String>>>;

impl GuestLog {
    pub(in crate::plugin) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.into(), ration: Ration::new(MESSAGES_PER_SECOND), heard: None }
    }

    /// One whose messages are kept as well.
    pub(in crate::plugin) fn heard(plugin: &str, heard: Heard) -> Self {
        Self { heard: Some(heard), ..Self::new(plugin) }
    }

    /// `request` is the id of the request being handled; empty while the plugin is being loaded.
    pub(in crate::plugin) fn write(&self, level: Level, request: &str, message: &str) {
        let Some(dropped) = self.ration.take() else { return };
        let plugin = &*self.plugin;
        if dropped > 0 {
            tracing::warn!(target: "plugin", plugin, dropped, "plugin wrote too many log messages");
        }
        let message = printable(message, LONGEST_MESSAGE);
        if let Some(heard) = &self.heard {
            let line = format!("{}: {message}", level.as_str().to_ascii_lowercase());
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        match level {
            Level::TRACE => tracing::trace!(target: "plugin", plugin, id = request, "{message}"),
            Level::DEBUG => tracing::debug!(target: "plugin", plugin, id = request, "{message}"),
            Level::INFO => tracing::info!(target: "plugin", plugin, id = request, "{message}"),
            Level::WARN => tracing::warn!(target: "plugin", plugin, id = request, "{message}"),
            Level::ERROR => tracing::error!(target: "plugin", plugin, id = request, "{message}"),
        }
    }
}

impl bound::Host for State {
    fn write(&mut self, level: bound::Level, message: String) {
        let level = match level {
            bound::Level::Trace => Level::TRACE,
            bound::Level::Debug => Level::DEBUG,
            bound::Level::Info => Level::INFO,
            bound::Level::Warn => Level::WARN,
            bound::Level::Error => Level::ERROR,
        };
        self.sandbox.log.write(level, &self.request, &message);
    }
}

/// Lets so many events through in each second and counts the others.
#[derive(Debug)]
pub(in crate::plugin) struct Ration {
    per_second: u64,
    origin: Instant,
    /// The second since `origin` that `taken` belongs to.
    second: AtomicU64,
    taken: AtomicU64,
    dropped: AtomicU64,
}

impl Ration {
    pub(in crate::plugin) fn new(per_second: u64) -> Self {
        let zero = AtomicU64::default;
        Self { per_second, origin: Instant::now(), second: zero(), taken: zero(), dropped: zero() }
    }

    /// How many were dropped since the last one that passed; `None` drops this one. Two threads
    /// at the turn of a second may let one or two more through: a ration need not be exact.
    pub(in crate::plugin) fn take(&self) -> Option<u64> {
        self.take_in(self.origin.elapsed().as_secs())
    }

    fn take_in(&self, second: u64) -> Option<u64> {
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.taken.store(0, Ordering::Relaxed);
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.per_second {
            return Some(self.dropped.swap(0, Ordering::Relaxed));
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ration_drops_what_is_over_it_and_says_how_much_that_was() {
        let ration = Ration::new(2);
        let taken: Vec<_> = [5, 5, 5, 5, 6, 6].map(|second| ration.take_in(second)).into();
        assert_eq!(taken, [Some(0), Some(0), None, None, Some(2), Some(0)]);
    }
}
