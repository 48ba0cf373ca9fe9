//! What a slot does next: a pure table from state and event to state and action.
//!
//! ```text
//!             ┌────────────── Waited ───────────────┐
//!             ▼                                     │
//!  start ─▶ Dialing ── DialFailed (rotate) ──▶ Waiting
//!           ▲ │  │ └─ the other transport, once ─┐ ▲ ▲
//!           └─│──│───────────────────────────────┘ │ │
//!          Dialled                                 │ │
//!             ▼                                    │ │
//!        Registering ── Refused, Lost ─────────────┘ │
//!             │     └── Refused for good, none ever served ──▶ Ended (fatal)
//!         Registered                                 │
//!             ▼                                      │
//!          Serving ─────────── Lost ─────────────────┘
//!          │  ▲ └── over HTTP/2: looks for QUIC now and then ──┐
//!          │  └───── Moved (over QUIC now), Probed (not yet) ──┘
//!         Stop ──▶ Draining ── Drained, Lost ──▶ Ended
//!
//!  Stop in any other state ──▶ Ended
//! ```
//!
//! **Fallback.** With `protocol = "auto"` a dial that fails is followed at once by one over the other
//! transport to the same address. If that one comes about, UDP is the trouble and the slot serves over
//! HTTP/2; if it fails too, the server is, and the slot waits and moves on. Whatever transport served last
//! is tried first the next time. A slot that serves over HTTP/2 looks for QUIC beside it, and moves only
//! when it is registered there.

use std::time::Duration;

/// The first wait is at most this long.
const FIRST_WAIT: Duration = Duration::from_millis(800);
/// No wait is longer, unless the edge asks for it.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The longest wait that an edge may ask for.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);
/// The first look for QUIC comes at most so long after HTTP/2 began to serve.
const FIRST_PROBE: Duration = Duration::from_secs(15);
/// Looks are never further apart, so that QUIC is back within a minute after UDP is. One costs a few
/// packets.
const LONGEST_PROBE: Duration = Duration::from_secs(50);
/// Registrations in a row that were lost over a transport before the other one gets its turn.
const LOST_BEFORE_DOUBT: u32 = 2;

/// What a document may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// QUIC where it works, else HTTP/2.
    Auto,
    Quic,
    Http2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Quic,
    Http2,
}

/// How long a dial may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// There is another way.
    Short,
    Long,
}

/// Which transport a slot uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    protocol: Protocol,
    transport: Transport,
    /// The other transport has just failed at the same address.
    is_last: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// `failures` in a row so far.
    Dialing {
        failures: u32,
        way: Way,
    },
    Registering {
        failures: u32,
        way: Way,
    },
    /// Over HTTP/2: how many looks for QUIC found nothing.
    Serving {
        way: Way,
        probes: u32,
    },
    Waiting {
        failures: u32,
        way: Way,
    },
    Draining,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Dialled,
    /// No connection came about; another transport or address may be better.
    DialFailed {
        jitter: Jitter,
    },
    Registered {
        jitter: Jitter,
    },
    Refused {
        refusal: Refusal,
        jitter: Jitter,
    },
    /// The connection is gone, or the edge did not answer.
    Lost {
        jitter: Jitter,
    },
    /// A look for QUIC found nothing, the connection serves as before.
    Probed {
        jitter: Jitter,
    },
    /// A look for QUIC ended with a connection that is registered and serves.
    Moved,
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
    /// Dial the address that the slot holds, or a free one.
    Dial {
        transport: Transport,
        patience: Patience,
    },
    Register,
    /// Serve; after `probe`, look for QUIC beside it.
    Serve {
        probe: Option<Duration>,
    },
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
    pub fn start(protocol: Protocol) -> (Self, Action) {
        dial(0, Way::first(protocol))
    }

    /// `served` tells whether any slot of this process ever served.
    pub fn on(self, event: Event, served: bool) -> (Self, Action) {
        use Event as E;
        match (self, event) {
            (Self::Dialing { failures, way }, E::Dialled) => {
                (Self::Registering { failures, way: way.found() }, Action::Register)
            }
            (Self::Dialing { failures, way }, E::DialFailed { jitter } | E::Lost { jitter }) => {
                match way.other() {
                    Some(other) => dial(failures, other),
                    None => wait(failures, way.again(), jitter, Duration::ZERO, true),
                }
            }
            (Self::Registering { way, .. }, E::Registered { jitter }) => serve(way, 0, jitter),
            (Self::Registering { .. }, E::Refused { refusal, .. }) if refusal.permanent && !served => {
                (Self::Ended, Action::End { fatal: true })
            }
            (Self::Registering { failures, way }, E::Refused { refusal, jitter }) => {
                let least = refusal.retry_after.min(LONGEST_ASKED_WAIT);
                wait(failures, way, jitter, least, refusal.duplicate)
            }
            (Self::Registering { failures, way }, E::Lost { jitter } | E::DialFailed { jitter }) => {
                let way = if failures >= LOST_BEFORE_DOUBT { way.doubted() } else { way };
                wait(failures, way, jitter, Duration::ZERO, true)
            }
            // The server may be gone for long, so another address is tried where one is free.
            (Self::Serving { way, .. }, E::Lost { jitter }) => wait(0, way, jitter, Duration::ZERO, true),
            (Self::Serving { way, probes }, E::Probed { jitter }) => {
                serve(way, probes.saturating_add(1), jitter)
            }
            (Self::Serving { way, .. }, E::Moved) => {
                let way = Way { transport: Transport::Quic, ..way };
                (Self::Serving { way, probes: 0 }, Action::Serve { probe: None })
            }
            (Self::Serving { .. }, E::Stop) => (Self::Draining, Action::Drain),
            (Self::Waiting { failures, way }, E::Waited) => dial(failures, way),
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
                | E::Registered { .. }
                | E::Refused { .. }
                | E::Lost { .. }
                | E::Probed { .. }
                | E::Moved
                | E::Waited
                | E::Stop
                | E::Drained,
            ) => (state, Action::Nothing),
        }
    }
}

impl Way {
    fn first(protocol: Protocol) -> Self {
        let transport = match protocol {
            Protocol::Auto | Protocol::Quic => Transport::Quic,
            Protocol::Http2 => Transport::Http2,
        };
        Self { protocol, transport, is_last: false }
    }

    /// The way that is left at the same address, if there is one.
    fn other(self) -> Option<Self> {
        (self.protocol == Protocol::Auto && !self.is_last).then(|| Self {
            transport: self.transport.other(),
            is_last: true,
            ..self
        })
    }

    /// This transport has just worked.
    fn found(self) -> Self {
        Self { is_last: false, ..self }
    }

    /// Nothing has worked: begin again where this round began.
    fn again(self) -> Self {
        let transport = if self.is_last { self.transport.other() } else { self.transport };
        Self { transport, is_last: false, ..self }
    }

    /// Connections come about, but nothing gets through.
    fn doubted(self) -> Self {
        self.other().map_or(self, Self::found)
    }
}

impl Transport {
    fn other(self) -> Self {
        match self {
            Self::Quic => Self::Http2,
            Self::Http2 => Self::Quic,
        }
    }

    /// As it stands in logs and in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Http2 => "http2",
        }
    }
}

fn dial(failures: u32, way: Way) -> (State, Action) {
    let patience = if way.protocol == Protocol::Auto { Patience::Short } else { Patience::Long };
    (State::Dialing { failures, way }, Action::Dial { transport: way.transport, patience })
}

/// Over HTTP/2 for want of QUIC, the next look comes after a random time up to a bound that doubles.
fn serve(way: Way, probes: u32, jitter: Jitter) -> (State, Action) {
    let has_fallen_back = way.protocol == Protocol::Auto && way.transport == Transport::Http2;
    let probe = has_fallen_back.then(|| jitter.spread(doubled(FIRST_PROBE, probes, LONGEST_PROBE)));
    (State::Serving { way, probes }, Action::Serve { probe })
}

/// A random time up to a bound that doubles with every failure.
fn wait(failures: u32, way: Way, jitter: Jitter, least: Duration, rotate: bool) -> (State, Action) {
    let time = jitter.spread(doubled(FIRST_WAIT, failures, LONGEST_WAIT)).max(least);
    (State::Waiting { failures: failures.saturating_add(1), way }, Action::Wait { time, rotate })
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(8)).min(longest)
}

impl Jitter {
    /// Half of the bound is certain, so that nothing becomes a hot loop.
    fn spread(self, bound: Duration) -> Duration {
        bound.mul_f64(0.5 + 0.5 * self.0.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF: Jitter = Jitter(0.5);
    const LATE: Jitter = Jitter(0.999);
    const FAILED: Event = Event::DialFailed { jitter: HALF };
    const LOST: Event = Event::Lost { jitter: HALF };
    const REGISTERED: Event = Event::Registered { jitter: HALF };

    fn refusal(permanent: bool) -> Refusal {
        Refusal { permanent, duplicate: false, retry_after: Duration::ZERO }
    }

    fn way(protocol: Protocol, transport: Transport) -> Way {
        Way { protocol, transport, is_last: false }
    }

    fn quic() -> Way {
        way(Protocol::Auto, Transport::Quic)
    }

    fn fallen_back() -> Way {
        way(Protocol::Auto, Transport::Http2)
    }

    /// The actions that follow from these events, one after the other.
    fn run(start: (State, Action), events: &[Event]) -> (State, Vec<Action>) {
        let mut actions = vec![start.1];
        let mut state = start.0;
        for event in events {
            let (next, action) = state.on(*event, true);
            state = next;
            actions.push(action);
        }
        (state, actions)
    }

    fn dial(transport: Transport, patience: Patience) -> Action {
        Action::Dial { transport, patience }
    }

    #[test]
    fn a_slot_that_meets_no_trouble_dials_registers_serves_and_drains() {
        for (protocol, transport, patience) in [
            (Protocol::Auto, Transport::Quic, Patience::Short),
            (Protocol::Quic, Transport::Quic, Patience::Long),
            (Protocol::Http2, Transport::Http2, Patience::Long),
        ] {
            let events = [Event::Dialled, REGISTERED, Event::Stop, Event::Drained];
            let (state, actions) = run(State::start(protocol), &events);
            let serve = Action::Serve { probe: None };
            let end = Action::End { fatal: false };
            assert_eq!(actions, [dial(transport, patience), Action::Register, serve, Action::Drain, end]);
            assert_eq!(state, State::Ended);
        }
    }

    #[test]
    fn a_slot_without_udp_falls_back_at_once_and_looks_for_quic_later() {
        let (state, actions) = run(State::start(Protocol::Auto), &[FAILED, Event::Dialled, REGISTERED]);
        assert_eq!(actions[1], dial(Transport::Http2, Patience::Short));
        assert_eq!(actions[3], Action::Serve { probe: Some(FIRST_PROBE.mul_f64(0.75)) });
        assert_eq!(state, State::Serving { way: fallen_back(), probes: 0 });
    }

    #[test]
    fn when_neither_transport_works_the_slot_waits_and_begins_where_it_began() {
        for (first, second) in [(Transport::Quic, Transport::Http2), (Transport::Http2, Transport::Quic)] {
            let way = way(Protocol::Auto, first);
            let (state, actions) =
                run((State::Waiting { failures: 3, way }, Action::Nothing), &[Event::Waited, FAILED, FAILED]);
            assert_eq!(actions[1..3], [dial(first, Patience::Short), dial(second, Patience::Short)]);
            assert!(matches!(actions[3], Action::Wait { rotate: true, .. }));
            assert_eq!(state, State::Waiting { failures: 4, way });
        }
    }

    #[test]
    fn a_protocol_that_was_asked_for_is_never_left() {
        for (protocol, transport) in [(Protocol::Quic, Transport::Quic), (Protocol::Http2, Transport::Http2)]
        {
            let mut state = State::start(protocol).0;
            for event in [FAILED, Event::Waited, Event::Dialled, LOST, Event::Waited, Event::Dialled, LOST]
                .into_iter()
                .cycle()
                .take(70)
            {
                let (next, action) = state.on(event, true);
                state = next;
                if let Action::Dial { transport: dialled, .. } = action {
                    assert_eq!(dialled, transport);
                }
            }
        }
    }

    #[test]
    fn a_slot_that_served_over_http2_dials_http2_first_when_it_is_lost() {
        let serving = State::Serving { way: fallen_back(), probes: 4 };
        let (_, actions) = run((serving, Action::Nothing), &[LOST, Event::Waited]);
        assert_eq!(actions[2], dial(Transport::Http2, Patience::Short));
    }

    #[test]
    fn registrations_that_are_lost_again_and_again_change_the_transport() {
        for (failures, transport) in [(0, Transport::Quic), (1, Transport::Quic), (2, Transport::Http2)] {
            let registering = State::Registering { failures, way: quic() };
            let (_, actions) = run((registering, Action::Nothing), &[LOST, Event::Waited]);
            assert_eq!(actions[2], dial(transport, Patience::Short), "{failures}");
        }
    }

    #[test]
    fn looks_for_quic_grow_rarer_but_quic_is_back_within_a_minute() {
        let mut state = State::Serving { way: fallen_back(), probes: 0 };
        let mut last = Duration::ZERO;
        for _ in 0..300 {
            let (next, action) = state.on(Event::Probed { jitter: LATE }, true);
            let Action::Serve { probe: Some(time) } = action else { panic!("{action:?}") };
            assert!(time >= last && time <= LONGEST_PROBE);
            (state, last) = (next, time);
        }
        assert!(last > Duration::from_secs(45));
        let (state, action) = state.on(Event::Moved, true);
        assert_eq!(action, Action::Serve { probe: None });
        assert_eq!(state, State::Serving { way: quic(), probes: 0 });
    }

    #[test]
    fn the_first_retry_comes_within_a_second_and_no_wait_exceeds_fifteen() {
        let mut state = State::Serving { way: way(Protocol::Quic, Transport::Quic), probes: 0 };
        for round in 0..40 {
            let event =
                if round == 0 { Event::Lost { jitter: LATE } } else { Event::DialFailed { jitter: LATE } };
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
        let (state, _) = State::Registering { failures: 9, way: quic() }.on(REGISTERED, true);
        let (_, action) = state.on(LOST, true);
        assert_eq!(action, Action::Wait { time: FIRST_WAIT.mul_f64(0.75), rotate: true });
    }

    #[test]
    fn a_permanent_refusal_ends_the_process_only_if_nothing_ever_served() {
        let event = Event::Refused { refusal: refusal(true), jitter: HALF };
        let registering = State::Registering { failures: 0, way: quic() };
        assert_eq!(registering.on(event, false).1, Action::End { fatal: true });
        assert!(matches!(registering.on(event, true).1, Action::Wait { .. }));
    }

    #[test]
    fn the_edge_may_ask_for_a_longer_wait_and_a_duplicate_moves_on() {
        let asked = Refusal { permanent: false, duplicate: true, retry_after: Duration::from_secs(40) };
        let event = Event::Refused { refusal: asked, jitter: HALF };
        let (_, action) = State::Registering { failures: 0, way: quic() }.on(event, false);
        assert_eq!(action, Action::Wait { time: Duration::from_secs(40), rotate: true });
    }

    #[test]
    fn a_stop_ends_every_state_at_once_except_one_that_serves() {
        for state in [
            State::Dialing { failures: 1, way: quic() },
            State::Registering { failures: 0, way: quic() },
            State::Waiting { failures: 3, way: quic() },
        ] {
            assert_eq!(state.on(Event::Stop, true), (State::Ended, Action::End { fatal: false }));
        }
    }
}
