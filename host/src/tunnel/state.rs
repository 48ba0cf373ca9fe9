//! What a slot does next: a pure table from state, event and moment to state and action.
//!
//! A slot does two things at once: something serves, and something is tried, beside it or because nothing
//! serves.
//!
//! ```text
//!  what serves                       what is tried
//!
//!  nothing ─── Registered ──▶ one    start ─▶ Dialing ── Dialled ──▶ Registering ── Registered ──▶ Resting
//!     ▲                        │               ▲ │ ▲                  │     │  (what served before finishes)
//!     └───────── Lost ─────────┘               │ │ │      Refused, Cut│     └ Refused for good, none ever
//!                                        Waited│ │ │                  │       served ──▶ Ended (fatal)
//!  Stop ─▶ Draining ─▶ Ended                   │ │ └──── Resting      │
//!  (at once if nothing serves)                 │ │         ▲  ▲       │
//!                               Waiting ───────┘ │         │  │       │
//!                                  ▲  ▲          │         │  │       │
//!                                  │  └──────────┼─────────┼──┼───────┤ nothing serves well
//!                                  └ DialFailed ─┴─────────┘  └───────┘ something does
//! ```
//!
//! **Why a dial.** [`Goal::Connect`]: nothing serves. Beside what serves: `Rescue`, because nothing is heard
//! of it any more; `Leave`, because its edge server goes away; `Return`, because a better address is free;
//! `Upgrade`, because it is HTTP/2 and QUIC may work by now. The first three are trouble and are tried again
//! with a growing, jittered pause; the other two are looks, and between them the slot rests.
//!
//! **When the old one goes.** A new connection is registered first, and what served before then finishes
//! (make before break). If it is lost earlier, whatever is being tried takes its place.
//!
//! **Fallback.** With `protocol = "auto"` each dial tries both transports, the one that served last with a
//! head start. If only HTTP/2 comes about, UDP is the trouble, and the slot looks for QUIC now and then.
//!
//! **Pace.** However events fall, [`Budget`] bounds how often a slot dials.

mod action;
mod event;
pub mod pace;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

pub use action::{Action, DialPlan, Goal, Verdict};
pub use event::{Event, Refusal, Tick};
pub use pace::Jitter;
use pace::{Budget, doubled};

/// A redial that may come at once comes within this.
const QUICK: Duration = Duration::from_millis(200);
/// The first other wait is at most this long.
const FIRST_WAIT: Duration = Duration::from_millis(800);
/// No wait is longer, unless the edge asks for it; `--retries` makes it shorter.
const LONGEST_WAIT: Duration = Duration::from_secs(15);
/// The longest wait that an edge may ask for.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);
/// A slot that waits hears within this that another one found an edge.
const SOON: Duration = Duration::from_millis(600);
/// So many failures in a row may be those of a server that restarts: the waits between them do not grow.
const RESTART: u32 = 4;
/// A connection that lasted less counts as one more failure.
const STEADY: Duration = Duration::from_millis(250);
/// Looks for a better address are at most so far apart, at first and later.
const FIRST_LOOK: Duration = Duration::from_millis(2500);
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// The first look for QUIC comes at most so long after HTTP/2 began to serve.
const FIRST_PROBE: Duration = Duration::from_secs(15);
/// Looks are never further apart, so that QUIC is back within a minute after UDP is. One costs a few
/// packets.
const LONGEST_PROBE: Duration = Duration::from_secs(50);
/// Registrations in a row that were cut over a transport before the other one is tried first.
const CUT_BEFORE_DOUBT: u32 = 2;

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

/// Where a slot is. [`Live`] holds the details.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum State {
    Live(Live),
    Draining,
    Ended,
}

/// A slot that nobody stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Live {
    protocol: Protocol,
    /// Tried first: what worked last.
    preferred: Transport,
    serving: Option<Serving>,
    reach: Reach,
    /// Attempts in a row that came to nothing.
    failures: u32,
    /// Connections in a row that did not last.
    lapses: u32,
    budget: Budget,
    /// No wait is longer, unless the edge asks for it.
    longest_wait: Duration,
}

/// A registered connection.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Serving {
    since: Instant,
    is_suspect: bool,
    must_leave: bool,
    /// Looks for a better address that found none, and when the next may come.
    looks: u32,
    next_look: Instant,
    /// The same for QUIC; `None` where it is not looked for.
    probes: u32,
    next_probe: Option<Instant>,
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Reach {
    /// Nothing, because what serves is good enough.
    Resting,
    /// Nothing until a timer.
    Waiting {
        until: Instant,
        /// The edge asked not to come sooner.
        not_before: Instant,
        /// Another slot's luck has shortened this already.
        is_encouraged: bool,
    },
    Dialing {
        goal: Goal,
    },
    Registering {
        goal: Goal,
        transport: Transport,
    },
}

impl State {
    pub fn start(protocol: Protocol, at: Tick) -> (Self, Action) {
        let preferred = match protocol {
            Protocol::Auto | Protocol::Quic => Transport::Quic,
            Protocol::Http2 => Transport::Http2,
        };
        let budget = Budget::new(at.now);
        let live = Live {
            protocol,
            preferred,
            serving: None,
            reach: Reach::Resting,
            failures: 0,
            lapses: 0,
            budget,
            longest_wait: LONGEST_WAIT,
        };
        live.dial(Goal::Connect, at)
    }

    /// With no longer waits than after so many failures, as the reference doubles them; or none that are longer
    /// than ours.
    pub fn doubling(mut self, retries: Option<u32>) -> Self {
        if let (Self::Live(live), Some(retries)) = (&mut self, retries) {
            let seconds = 1_u64.checked_shl(retries).unwrap_or(u64::MAX);
            live.longest_wait = LONGEST_WAIT.min(Duration::from_secs(seconds));
        }
        self
    }

    pub fn on(self, event: Event, at: Tick) -> (Self, Action) {
        match (self, event) {
            (Self::Live(live), Event::Stop) if live.serving.is_some() => (Self::Draining, Action::Drain),
            (Self::Live(_), Event::Stop) => (Self::Ended, Action::End { fatal: false }),
            (Self::Live(live), event) => live.on(event, at),
            (Self::Draining, Event::Drained | Event::Lost { .. }) => {
                (Self::Ended, Action::End { fatal: false })
            }
            // Whatever else happens comes too late.
            (state @ (Self::Draining | Self::Ended), _) => (state, Action::Continue),
        }
    }

    /// Whether something serves that will not for long.
    pub fn is_in_trouble(&self) -> bool {
        matches!(self, Self::Live(Live { serving: Some(serving), .. }) if serving.is_in_trouble())
    }

    /// As it stands in the status.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Live(Live { serving: Some(_), .. }) => super::status::SERVING,
            Self::Live(Live { reach: Reach::Dialing { .. } | Reach::Resting, .. }) => "dialing",
            Self::Live(Live { reach: Reach::Registering { .. }, .. }) => "registering",
            Self::Live(Live { reach: Reach::Waiting { .. }, .. }) => "waiting",
            Self::Draining => "draining",
            Self::Ended => "ended",
        }
    }
}

impl Live {
    fn on(mut self, event: Event, at: Tick) -> (State, Action) {
        use Event as E;
        use Reach as R;
        match (self.reach, event) {
            (R::Dialing { goal }, E::Dialled { transport }) => {
                self.preferred = transport;
                self.reach = R::Registering { goal, transport };
                (State::Live(self), Action::Register)
            }
            (R::Dialing { goal }, E::DialFailed { refused }) => {
                self.failed(goal, Verdict::Unreachable, refused, Duration::ZERO, at)
            }
            (R::Dialing { goal }, E::NoAddress) => {
                self.failed(goal, Verdict::Free, false, Duration::ZERO, at)
            }
            (R::Registering { transport, .. }, E::Registered) => self.adopt(transport, at),
            (R::Registering { .. }, E::Refused(refusal)) if refusal.permanent && !at.served => {
                (State::Ended, Action::End { fatal: true })
            }
            (R::Registering { goal, .. }, E::Refused(refusal)) => {
                let least = refusal.retry_after.min(LONGEST_ASKED_WAIT);
                self.failed(goal, Verdict::Unfit, false, least, at)
            }
            (R::Registering { goal, transport }, E::Cut) => {
                if self.protocol == Protocol::Auto && self.failures >= CUT_BEFORE_DOUBT {
                    // Connections come about, but nothing gets through.
                    self.preferred = transport.other();
                }
                self.failed(goal, Verdict::Unfit, false, Duration::ZERO, at)
            }
            (R::Waiting { .. } | R::Resting, E::Waited) => self.proceed(at),
            (R::Waiting { until, not_before, is_encouraged: false }, E::EdgeFound) => {
                let sooner = (at.now + at.jitter.spread(SOON)).max(not_before);
                if sooner >= until {
                    return (State::Live(self), Action::Continue);
                }
                self.reach = R::Waiting { until: sooner, not_before, is_encouraged: true };
                let time = sooner.saturating_duration_since(at.now);
                (State::Live(self), Action::Wait { time, verdict: Verdict::Keep })
            }
            (reach, E::Suspect | E::ToldToLeave) => {
                let Some(serving) = &mut self.serving else { return (State::Live(self), Action::Continue) };
                if event == E::Suspect {
                    serving.is_suspect = true;
                } else {
                    serving.must_leave = true;
                }
                match reach {
                    R::Resting | R::Dialing { goal: Goal::Upgrade } => self.proceed(at),
                    // Whatever is tried helps here too.
                    R::Dialing { .. } | R::Registering { .. } | R::Waiting { .. } => {
                        (State::Live(self), Action::Continue)
                    }
                }
            }
            (reach, E::Recovered) => {
                if let Some(serving) = &mut self.serving {
                    serving.is_suspect = false;
                }
                let is_well = self.serving.is_some_and(|serving| !serving.is_in_trouble());
                match reach {
                    R::Dialing { goal: Goal::Rescue } if is_well => self.rest(Verdict::Free, at),
                    // Registered it is as good as the old one, and a timer shall run out.
                    R::Dialing { .. } | R::Registering { .. } | R::Waiting { .. } | R::Resting => {
                        (State::Live(self), Action::Continue)
                    }
                }
            }
            (R::Resting, E::Misplaced) => match self.serving {
                Some(serving) if serving.next_look <= at.now => self.dial(Goal::Return, at),
                Some(_) | None => (State::Live(self), Action::Continue),
            },
            (_, E::Lost { reset }) => self.lost(reset, at),
            // What is left came too late or out of order and changes nothing.
            (
                R::Resting | R::Waiting { .. } | R::Dialing { .. } | R::Registering { .. },
                E::Dialled { .. }
                | E::DialFailed { .. }
                | E::NoAddress
                | E::Registered
                | E::Refused(_)
                | E::Cut
                | E::Waited
                | E::EdgeFound
                | E::Misplaced
                | E::Stop
                | E::Drained,
            ) => (State::Live(self), Action::Continue),
        }
    }

    fn adopt(mut self, transport: Transport, at: Tick) -> (State, Action) {
        let has_fallen_back = self.protocol == Protocol::Auto && transport == Transport::Http2;
        let rest = has_fallen_back.then(|| at.jitter.spread(FIRST_PROBE));
        if self.serving.is_some_and(|replaced| at.now.saturating_duration_since(replaced.since) >= STEADY) {
            self.lapses = 0;
        }
        self.serving = Some(Serving {
            since: at.now,
            is_suspect: false,
            must_leave: false,
            looks: 0,
            next_look: at.now,
            probes: 0,
            next_probe: rest.map(|rest| at.now + rest),
        });
        self.failures = 0;
        self.reach = Reach::Resting;
        (State::Live(self), Action::Promote { rest })
    }

    /// What was tried for this goal came to nothing; it is not tried again before `least`.
    fn failed(
        mut self,
        goal: Goal,
        verdict: Verdict,
        refused: bool,
        least: Duration,
        at: Tick,
    ) -> (State, Action) {
        if let Some(serving) = &mut self.serving {
            match goal {
                Goal::Return => {
                    let pause = at.jitter.spread(doubled(FIRST_LOOK, serving.looks, LONGEST_LOOK));
                    serving.looks = serving.looks.saturating_add(1);
                    serving.next_look = at.now + pause.max(least);
                }
                Goal::Upgrade => {
                    serving.probes = serving.probes.saturating_add(1);
                    let pause = at.jitter.spread(doubled(FIRST_PROBE, serving.probes, LONGEST_PROBE));
                    serving.next_probe = Some(at.now + pause.max(least));
                }
                Goal::Connect | Goal::Rescue | Goal::Leave => {}
            }
            if !serving.is_in_trouble() {
                return self.rest(verdict, at);
            }
        }
        let time = self.pause(refused, at);
        self.failures = self.failures.saturating_add(1);
        self.wait(time, least, verdict, at)
    }

    /// How long to wait after what just failed.
    fn pause(&self, may_be_quick: bool, at: Tick) -> Duration {
        let failures = self.failures.saturating_sub(RESTART);
        let failures = failures.saturating_add(self.lapses.saturating_sub(RESTART));
        if may_be_quick && self.failures == 0 && failures == 0 {
            return at.jitter.spread(QUICK);
        }
        at.jitter.spread(doubled(FIRST_WAIT, failures, self.longest_wait))
    }

    fn wait(mut self, time: Duration, least: Duration, verdict: Verdict, at: Tick) -> (State, Action) {
        let time = time.max(least);
        self.reach =
            Reach::Waiting { until: at.now + time, not_before: at.now + least, is_encouraged: false };
        (State::Live(self), Action::Wait { time, verdict })
    }

    fn rest(mut self, verdict: Verdict, at: Tick) -> (State, Action) {
        self.reach = Reach::Resting;
        let next = self.serving.and_then(|serving| serving.next_probe);
        let time = next.map(|next| next.saturating_duration_since(at.now));
        (State::Live(self), Action::Rest { time, verdict })
    }

    /// Does what is needed most.
    fn proceed(self, at: Tick) -> (State, Action) {
        match self.serving {
            None => self.dial(Goal::Connect, at),
            Some(Serving { is_suspect: true, .. }) => self.dial(Goal::Rescue, at),
            Some(Serving { must_leave: true, .. }) => self.dial(Goal::Leave, at),
            Some(Serving { next_probe: Some(next), .. }) if next <= at.now => self.dial(Goal::Upgrade, at),
            Some(_) => self.rest(Verdict::Free, at),
        }
    }

    /// Dials, or waits until that is allowed.
    fn dial(mut self, goal: Goal, at: Tick) -> (State, Action) {
        if let Err(until) = self.budget.spend(at.now) {
            let time = until.saturating_duration_since(at.now);
            match (&mut self.serving, goal) {
                (Some(serving), Goal::Return) => serving.next_look = until,
                (Some(serving), Goal::Upgrade) => serving.next_probe = Some(until),
                _ => return self.wait(time, time, Verdict::Free, at),
            }
            return self.rest(Verdict::Free, at);
        }
        self.reach = Reach::Dialing { goal };
        let way = match goal {
            Goal::Upgrade => DialPlan { first: Transport::Quic, both: false, is_urgent: false },
            Goal::Connect | Goal::Rescue | Goal::Leave | Goal::Return => DialPlan {
                first: self.preferred,
                both: self.protocol == Protocol::Auto,
                is_urgent: goal == Goal::Rescue,
            },
        };
        (State::Live(self), Action::Dial { goal, way })
    }

    fn lost(mut self, reset: bool, at: Tick) -> (State, Action) {
        let Some(serving) = self.serving.take() else { return (State::Live(self), Action::Continue) };
        let has_lasted = at.now.saturating_duration_since(serving.since) >= STEADY;
        self.lapses = if has_lasted { 0 } else { self.lapses.saturating_add(1) };
        if has_lasted && (reset || !serving.is_suspect) {
            self.failures = 0;
        }
        let verdict = if reset { Verdict::Keep } else { Verdict::Unreachable };
        match self.reach {
            Reach::Resting | Reach::Dialing { goal: Goal::Upgrade } => {
                let time = self.pause(true, at);
                self.wait(time, Duration::ZERO, verdict, at)
            }
            // The edge server is back: what failed before says nothing about it.
            Reach::Waiting { not_before, .. } if reset && has_lasted => {
                let least = not_before.saturating_duration_since(at.now);
                let time = self.pause(true, at);
                self.wait(time, least, verdict, at)
            }
            Reach::Waiting { .. } => (State::Live(self), Action::ReportLoss { verdict }),
            Reach::Dialing { .. } => {
                self.reach = Reach::Dialing { goal: Goal::Connect };
                (State::Live(self), Action::ReportLoss { verdict })
            }
            Reach::Registering { transport, .. } => {
                self.reach = Reach::Registering { goal: Goal::Connect, transport };
                (State::Live(self), Action::ReportLoss { verdict })
            }
        }
    }
}

impl Serving {
    fn is_in_trouble(&self) -> bool {
        self.is_suspect || self.must_leave
    }
}

impl Transport {
    pub fn other(self) -> Self {
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
