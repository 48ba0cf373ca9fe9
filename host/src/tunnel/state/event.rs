//! What may happen to a slot, and when.

use std::time::{Duration, Instant};

#[cfg(doc)]
use super::Action;
use super::{Jitter, Transport};

/// What happened. The first group concerns what is tried, the second what serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Dialled {
        transport: Transport,
    },
    /// No connection came about. `refused`: at once, as from a machine where nobody listens now.
    DialFailed {
        refused: bool,
    },
    /// There is no address for this goal.
    NoAddress,
    Registered,
    Refused(Refusal),
    /// The connection went, or the edge said nothing, before it was registered.
    Cut,
    /// The time of [`Action::Wait`] or [`Action::Rest`] is over.
    Waited,
    /// Another slot has just been registered somewhere.
    EdgeFound,

    /// Nothing is heard of what serves although it was asked.
    Suspect,
    /// It was heard after all.
    Recovered,
    /// The edge server that serves is about to go away.
    ToldToLeave,
    /// A better address than the one that serves is free.
    Misplaced,
    /// `reset`: its edge server lives, but has forgotten the connection, as after a restart.
    Lost {
        reset: bool,
    },

    Stop,
    Drained,
}

/// What an edge said when it refused a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Asking again is of no use.
    pub permanent: bool,
    /// Not to come back sooner; zero if the edge does not mind.
    pub retry_after: Duration,
}

/// When an event happened, and what else the table must know that is not in the state.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    pub now: Instant,
    pub jitter: Jitter,
    /// Whether any slot of this process ever served.
    pub served: bool,
}
