//! What a slot does next: a pure table from state and event to state and action.
//!
//! ```text
//!             ┌────────────── Waited ───────────────┐
//!             ▼                                     │
//!  start ─▶ Dialing ── DialFailed (rotate) ──▶ Waiting
//!             │                                  ▲  ▲
//!          Dialled                               │  │
//!             ▼                                  │  │
//!        Registering ── Refused, Lost ───────────┘  │
//!             │     └── Refused for good, none ever served ──▶ Ended (fatal)
//!         Registered                                │
//!             ▼                                     │
//!          Serving ─────────── Lost ────────────────┘
//!             │
//!            Stop ──▶ Draining ── Drained, Lost ──▶ Ended
//!
//!  Stop in any other state ──▶ Ended
//! ```

use std::time::Duration;

/// The first wait is at most this long.
const FIRST_WAIT: Duration = Duration::from_millis(800);
/// No wait is longer, unless the edge asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The longest wait that an edge may ask for.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `failures` in a row so far.
    Dialing {
        failures: u32,
    },
    Registering {
        failures: u32,
    },
    Serving,
    Waiting {
        failures: u32,
    },
    Draining,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Dialled,
    /// No connection came about; another address may be better.
    DialFailed {
        jitter: Jitter,
    },
    Registered,
    Refused {
        refusal: Refusal,
        jitter: Jitter,
    },
    /// The connection is gone, or the edge did not answer.
    Lost {
        jitter: Jitter,
    },
    Waited,
    Stop,
    Drained,
}

/// What an edge said when it refused a registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Asking again is of no use.
    pub permanent: bool,
    /// This slot is registered there already: another address is the cure.
    pub duplicate: bool,
    /// Not to come back sooner; zero if the edge does not mind.
    pub retry_after: Duration,
}

/// A uniform random number in [0, 1), drawn by the caller so that the table stays pure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Jitter(pub f64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Dial,
    Register,
    Serve,
    /// Close what is open, wait, then report [`Event::Waited`]; with `rotate`, give the address back.
    Wait {
        time: Duration,
        rotate: bool,
    },
    /// Unregister, finish the requests, report [`Event::Drained`].
    Drain,
    End {
        fatal: bool,
    },
    Nothing,
}

impl State {
    pub fn start() -> (Self, Action) {
        (Self::Dialing { failures: 0 }, Action::Dial)
    }

    /// `served` tells whether any slot of this process ever served.
    pub fn on(self, event: Event, served: bool) -> (Self, Action) {
        use Event as E;
        match (self, event) {
            (Self::Dialing { failures }, E::Dialled) => (Self::Registering { failures }, Action::Register),
            (Self::Dialing { failures }, E::DialFailed { jitter } | E::Lost { jitter }) => {
                wait(failures, jitter, Duration::ZERO, true)
            }
            (Self::Registering { .. }, E::Registered) => (Self::Serving, Action::Serve),
            (Self::Registering { .. }, E::Refused { refusal, .. }) if refusal.permanent && !served => {
                (Self::Ended, Action::End { fatal: true })
            }
            (Self::Registering { failures }, E::Refused { refusal, jitter }) => {
                let least = refusal.retry_after.min(LONGEST_ASKED_WAIT);
                wait(failures, jitter, least, refusal.duplicate)
            }
            (Self::Registering { failures }, E::Lost { jitter } | E::DialFailed { jitter }) => {
                wait(failures, jitter, Duration::ZERO, true)
            }
            // The server may be gone for long, so another address is tried where one is free.
            (Self::Serving, E::Lost { jitter }) => wait(0, jitter, Duration::ZERO, true),
            (Self::Serving, E::Stop) => (Self::Draining, Action::Drain),
            (Self::Waiting { failures }, E::Waited) => (Self::Dialing { failures }, Action::Dial),
            (Self::Draining, E::Drained | E::Lost { .. }) => (Self::Ended, Action::End { fatal: false }),
            (
                Self::Dialing { .. } | Self::Registering { .. } | Self::Waiting { .. } | Self::Ended,
                E::Stop,
            ) => (Self::Ended, Action::End { fatal: false }),
            // What is left came too late or out of order and changes nothing.
            (
                state,
                E::Dialled
                | E::DialFailed { .. }
                | E::Registered
                | E::Refused { .. }
                | E::Lost { .. }
                | E::Waited
                | E::Stop
                | E::Drained,
            ) => (state, Action::Nothing),
        }
    }
}

/// A random time up to a bound that doubles with every failure: half of the bound is certain, so
/// that no failure becomes a hot loop.
fn wait(failures: u32, jitter: Jitter, least: Duration, rotate: bool) -> (State, Action) {
    let bound = FIRST_WAIT.saturating_mul(1 << failures.min(8)).min(LONGEST_WAIT);
    let time = bound.mul_f64(0.5 + 0.5 * jitter.0.clamp(0.0, 1.0)).max(least);
    (State::Waiting { failures: failures.saturating_add(1) }, Action::Wait { time, rotate })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Jitter = Jitter(0.5);

    fn refusal(permanent: bool) -> Refusal {
        Refusal { permanent, duplicate: false, retry_after: Duration::ZERO }
    }

    #[test]
    fn a_slot_that_meets_no_trouble_dials_registers_serves_and_drains() {
        let (state, action) = State::start();
        assert_eq!(action, Action::Dial);
        let (state, action) = state.on(Event::Dialled, false);
        assert_eq!(action, Action::Register);
        let (state, action) = state.on(Event::Registered, false);
        assert_eq!(action, Action::Serve);
        let (state, action) = state.on(Event::Stop, true);
        assert_eq!((state, action), (State::Draining, Action::Drain));
        assert_eq!(state.on(Event::Drained, true), (State::Ended, Action::End { fatal: false }));
    }

    #[test]
    fn the_first_retry_comes_within_a_second_and_no_wait_exceeds_fifteen() {
        let mut state = State::Serving;
        for round in 0..40 {
            let event = if round == 0 {
                Event::Lost { jitter: Jitter(0.999) }
            } else {
                Event::DialFailed { jitter: Jitter(0.999) }
            };
            let (waiting, action) = state.on(event, true);
            let Action::Wait { time, rotate } = action else { panic!("{action:?}") };
            assert!(rotate);
            assert!(time <= LONGEST_WAIT);
            assert!(time >= FIRST_WAIT / 2);
            if round == 0 {
                assert!(time < Duration::from_secs(1));
            }
            (state, _) = waiting.on(Event::Waited, true);
        }
    }

    #[test]
    fn a_success_forgets_the_failures_before_it() {
        let (state, _) = State::Registering { failures: 9 }.on(Event::Registered, true);
        let (_, action) = state.on(Event::Lost { jitter: HALF }, true);
        assert_eq!(action, Action::Wait { time: FIRST_WAIT.mul_f64(0.75), rotate: true });
    }

    #[test]
    fn a_permanent_refusal_ends_the_process_only_if_nothing_ever_served() {
        let event = Event::Refused { refusal: refusal(true), jitter: HALF };
        let registering = State::Registering { failures: 0 };
        assert_eq!(registering.on(event, false).1, Action::End { fatal: true });
        assert!(matches!(registering.on(event, true).1, Action::Wait { .. }));
    }

    #[test]
    fn the_edge_may_ask_for_a_longer_wait_and_a_duplicate_moves_on() {
        let asked = Refusal { permanent: false, duplicate: true, retry_after: Duration::from_secs(40) };
        let event = Event::Refused { refusal: asked, jitter: HALF };
        let (_, action) = State::Registering { failures: 0 }.on(event, false);
        assert_eq!(action, Action::Wait { time: Duration::from_secs(40), rotate: true });
    }

    #[test]
    fn a_stop_ends_every_state_at_once_except_one_that_serves() {
        for state in [
            State::Dialing { failures: 1 },
            State::Registering { failures: 0 },
            State::Waiting { failures: 3 },
        ] {
            assert_eq!(state.on(Event::Stop, true), (State::Ended, Action::End { fatal: false }));
        }
    }
}
