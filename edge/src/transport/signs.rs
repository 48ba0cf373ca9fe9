//! What can be told from outside of whether the other end of a connection lives: counts of what was sent and
//! received. Knows no clock; who draws conclusions is `registry::liveness`, and `http2` for the silence that ends a
//! connection.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a connection has sent and received so far, in whatever its transport counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// What had been sent when something was last received, for transports that lose nothing. There only a
    /// question asks for an answer; on the others each datagram does.
    pub(crate) sent_before: Option<u64>,
    /// A sign of life was asked for and has not come. For transports that lose nothing.
    pub(crate) is_asked: bool,
    pub(crate) round_trip: Duration,
}

/// Bytes that the connections to one place have carried so far.
#[derive(Default)]
pub(crate) struct Volume {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Volume {
    pub(crate) fn sends(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn receives(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Those sent, and those received.
    pub(crate) fn read(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

/// Between two looks at a connection that has nothing to do.
pub(crate) const POLL: Duration = Duration::from_millis(250);
/// Longer than a thread that is only busy stays away, shorter than any host's idle limit.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(2);
