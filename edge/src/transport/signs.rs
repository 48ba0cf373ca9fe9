//! What can be told from outside of whether the other end of a connection lives: counts of what was sent and
//! received. Knows no clock; who draws conclusions is `registry::liveness`, and `http2` for the silence that ends a
//! connection.

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

/// Between two looks at a connection that has nothing to do.
pub(crate) const POLL: Duration = Duration::from_millis(250);
/// Longer than a thread that is only busy stays away, shorter than any host's idle limit.
pub(crate) const STANDSTILL: Duration = Duration::from_secs(2);
