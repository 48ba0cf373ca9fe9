//! The `log` interface: a guest's words in the host's log, tagged with its name, cut and rationed.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use adit_net::log_limiter::LogLimiter;
use tracing::Level;

use super::super::bindings::adit::plugin::log as bound;
use super::super::store::State;
use super::super::text::printable;

/// What these lines are to whoever chooses levels: a part of the engine.
const TARGET: &str = "adit_engine::guest";
/// Longest message, bytes; the rest is cut.
pub(super) const LONGEST_MESSAGE: usize = 4096;
/// Messages that one plugin may write in a second, over all its instances.
const MESSAGES_PER_SECOND: u64 = 100;

/// Where one plugin's messages go.
#[derive(Debug)]
pub(crate) struct GuestLog {
    pub(crate) plugin: Arc<str>,
    ration: LogLimiter,
    heard: Option<CapturedLogs>,
}

/// What a plugin under test has said since somebody last listened.
pub type CapturedLogs = Arc<Mutex<Vec<GuestLine>>>;

/// One line of it. Shown as `warn: no keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestLine {
    pub level: Level,
    /// The id of the request that it belongs to; empty beside requests.
    pub request: String,
    pub message: String,
}

impl fmt::Display for GuestLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.level.as_str().to_ascii_lowercase(), self.message)
    }
}

impl GuestLog {
    pub(crate) fn new(plugin: &str) -> Self {
        Self { plugin: plugin.into(), ration: LogLimiter::new(MESSAGES_PER_SECOND), heard: None }
    }

    /// One whose messages are kept as well.
    pub(crate) fn heard(plugin: &str, heard: CapturedLogs) -> Self {
        Self { heard: Some(heard), ..Self::new(plugin) }
    }

    /// `request` is the id of the request being handled; empty while the plugin is being loaded.
    pub(crate) fn write(&self, level: Level, request: &str, message: &str) {
        let Some(dropped) = self.ration.take() else { return };
        let plugin = &*self.plugin;
        if dropped > 0 {
            tracing::warn!(target: TARGET, plugin, dropped, "plugin wrote too many log messages");
        }
        let message = printable(message, LONGEST_MESSAGE);
        if let Some(heard) = &self.heard {
            let line =
                GuestLine { level, request: request.to_owned(), message: message.clone().into_owned() };
            heard.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
        match level {
            Level::TRACE => tracing::trace!(target: TARGET, plugin, id = request, "{message}"),
            Level::DEBUG => tracing::debug!(target: TARGET, plugin, id = request, "{message}"),
            Level::INFO => tracing::info!(target: TARGET, plugin, id = request, "{message}"),
            Level::WARN => tracing::warn!(target: TARGET, plugin, id = request, "{message}"),
            Level::ERROR => tracing::error!(target: TARGET, plugin, id = request, "{message}"),
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
