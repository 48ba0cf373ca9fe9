//! What a slot may have to do.

use std::time::Duration;

#[cfg(doc)]
use super::Event;
use super::Transport;

/// Over what an address is dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialPlan {
    pub first: Transport,
    /// Whether the other transport is tried too where the first brings nothing.
    pub both: bool,
    /// Whether to try it soon: what serves has just fallen silent, perhaps because of the transport.
    pub is_urgent: bool,
}

/// What a dial is for; it decides the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Nothing serves: the best address.
    Connect,
    /// What serves is not heard of any more: another address, the same only if there is no other.
    Rescue,
    /// The edge server that serves goes away: another address.
    Leave,
    /// A better address, if there is one.
    Return,
    /// QUIC at the same address.
    Upgrade,
}

/// What is thought of an address: of the one that was tried or, after [`Event::Lost`], of the one that served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing is wrong with it; others may have it.
    Free,
    /// The next dial goes there again.
    Keep,
    /// No connection came about, or it was lost.
    Unreachable,
    /// It takes connections, but not ours.
    Unfit,
}

/// What to do, until the next event. Whatever is tried and not mentioned is given up, except by
/// [`Continue`](Self::Continue) and [`ReportLoss`](Self::ReportLoss).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Choose an address for this goal and dial it.
    Dial {
        goal: Goal,
        way: DialPlan,
    },
    /// Register on the connection that was dialled.
    Register,
    /// What was registered serves from now on; what served before finishes. Report [`Event::Waited`] after
    /// `rest`.
    Promote {
        rest: Option<Duration>,
    },
    /// Report [`Event::Waited`] after this time.
    Wait {
        time: Duration,
        verdict: Verdict,
    },
    /// What serves is good enough; report [`Event::Waited`] after `time`.
    Rest {
        time: Option<Duration>,
        verdict: Verdict,
    },
    /// What served is gone; what is tried, or the timer, goes on. The verdict is on what served.
    ReportLoss {
        verdict: Verdict,
    },
    /// Go on.
    Continue,
    /// Unregister, finish the requests, report [`Event::Drained`].
    Drain,
    End {
        fatal: bool,
    },
}
