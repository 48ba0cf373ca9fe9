//! One high-availability slot: performs what [`super::state`] decides, for as long as the host runs.

use std::future::pending;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_pace::Account;
use adit_protocol::rpc::{ClientInfo, ConnectionOptions, DUPLICATE_CONNECTION, Registration, TunnelAuth};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, info_span, warn};

use super::Identity;
use super::connection::{Connection, DialError, Dialer, SlotDialer};
use super::control::{Control, RegisterError, Session};
use super::discovery::{Addresses, Unresolved};
use super::reconnect::Reconnects;
use super::state::{Action, DialPlan, Event, Goal, Jitter, Protocol, Refusal, State, Tick};
use super::status::{SERVING, Status};
use crate::proxy::Proxy;
use crate::tunnel::registered::{ConnectionEvent, RegisteredConnection};

/// How a slot is shown that was asked to let go of its connection.
const RECONNECTING: &str = "reconnecting";
/// The most failed attempts that a registration can report.
const REPORTED_ATTEMPTS: u32 = 255;
/// How likely a look at a connection that is well is also one at its place, so that slots do not look all at
/// once.
const PLACE_LOOKED_AT: f64 = 0.5;

/// What all slots of a process share.
pub struct Shared {
    pub identity: Arc<Identity>,
    pub addresses: Addresses,
    pub dialer: Dialer,
    pub protocol: Protocol,
    /// How often waits between failures double at most, if that was said.
    pub retries: Option<u32>,
    pub control: Control,
    pub status: Status,
    /// What peers do not take.
    pub account: Arc<Account>,
    pub reconnects: Reconnects,
    /// Whether any slot was ever registered.
    pub served: AtomicBool,
    /// What is reported to the edge as the local configuration, JSON (wire.md, 9.4).
    pub reported: Vec<u8>,
}

/// Why the whole host must end.
#[derive(Debug, thiserror::Error)]
#[error("slot {slot}")]
pub struct Fatal {
    slot: usize,
    source: RegisterError,
}

/// One slot, on the thread of its shard.
pub struct Slot {
    index: usize,
    shared: Arc<Shared>,
    proxy: Rc<Proxy>,
    line: Rc<SlotDialer>,
    serving: Option<RegisteredConnection>,
    attempt: Option<Attempt>,
    /// What was dialled or registered, until the table says what for.
    tried: Option<Tried>,
    timer: Option<Instant>,
    /// Attempts that failed since the last registration.
    failures: u32,
    /// Whether an edge may still know an earlier connection of this slot.
    was_registered: bool,
    last_refusal: Option<RegisterError>,
    /// Connections that were replaced and finish what they have.
    retiring: JoinSet<()>,
}

/// A dial or a registration under way. Dropping it gives it up.
type Attempt = Pin<Box<dyn Future<Output = Outcome>>>;

enum Outcome {
    Dialled(Connection, SocketAddr),
    NotDialled { edge: SocketAddr, error: DialError },
    NoAddress,
    Unresolved(Unresolved),
    Registered(Connection, SocketAddr, Session),
    NotRegistered { edge: SocketAddr, protocol: &'static str, error: RegisterError },
}

enum Tried {
    Dialled(Connection, SocketAddr),
    Registered(Connection, SocketAddr, Session),
}

impl Slot {
    pub fn new(index: usize, shared: Arc<Shared>, proxy: Rc<Proxy>) -> Self {
        let line = Rc::new(shared.dialer.line(index));
        Self {
            index,
            shared,
            proxy,
            line,
            serving: None,
            attempt: None,
            tried: None,
            timer: None,
            failures: 0,
            was_registered: false,
            last_refusal: None,
            retiring: JoinSet::new(),
        }
    }

    /// Runs until `stop` and the drain that follows it, or until the edge refuses this host for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Fatal> {
        let span = info_span!("slot", slot = self.index);
        self.advance(stop).instrument(span).await
    }

    async fn advance(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        let mut found = self.shared.addresses.found();
        let (state, mut action) = State::start(self.shared.protocol, self.moment());
        let mut state = state.doubling(self.shared.retries);
        loop {
            self.show(&state);
            match action {
                Action::Dial { goal, way } => {
                    self.tried = None;
                    self.attempt = Some(self.dial(goal, way));
                    self.timer = None;
                }
                Action::Register => self.attempt = self.register(),
                Action::Promote { rest } => {
                    self.adopt();
                    self.timer = rest.map(|rest| Instant::now() + rest);
                }
                Action::Wait { time, .. } => {
                    self.give_up();
                    self.timer = Some(Instant::now() + time);
                }
                Action::Rest { time, .. } => {
                    self.give_up();
                    self.timer = time.map(|time| Instant::now() + time);
                }
                Action::ReportLoss { .. } | Action::Continue => {}
                Action::Drain => {
                    self.give_up();
                    self.drain().await;
                }
                Action::End { fatal } => {
                    self.give_up();
                    self.finish_retiring().await;
                    self.line.idle().await;
                    return match self.last_refusal {
                        Some(source) if fatal => Err(Fatal { slot: self.index, source }),
                        _ => Ok(()),
                    };
                }
            }
            let event =
                if action == Action::Drain { Event::Drained } else { self.next(&stop, &mut found).await };
            (state, action) = state.on(event, self.moment());
            self.shared.addresses.follow(self.index, event, &state, &action);
        }
    }

    fn moment(&self) -> Tick {
        Tick {
            now: Instant::now().into_std(),
            jitter: Jitter(fastrand::f64()),
            served: self.shared.served.load(Ordering::Relaxed),
        }
    }

    /// Waits for the next event.
    async fn next(&mut self, stop: &CancellationToken, found: &mut watch::Receiver<u64>) -> Event {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return Event::Stop,
                outcome = attempt(&mut self.attempt) => {
                    self.attempt = None;
                    return self.take(outcome);
                }
                sign = sign(&mut self.serving) => {
                    if let Some(event) = self.read(sign) {
                        return event;
                    }
                }
                delay = self.shared.reconnects.asked(), if self.serving.is_some() => {
                    return self.reconnect(delay, stop).await;
                }
                () = until(self.timer) => {
                    self.timer = None;
                    return Event::Waited;
                }
                Ok(()) = found.changed() => {
                    return Event::EdgeFound;
                }
            }
        }
    }

    /// Lets go of what serves, which finishes what it has, and is without a connection for `delay`.
    async fn reconnect(&mut self, delay: Duration, stop: &CancellationToken) -> Event {
        info!(?delay, "reconnecting, because it was asked for");
        if let Some(serving) = self.serving.take() {
            let grace = self.shared.identity.grace;
            self.retiring.spawn_local(serving.finish(grace).in_current_span());
        }
        self.shared.status.update(self.index, |status| {
            status.state = RECONNECTING;
            status.location = None;
            status.protocol = None;
        });
        match timeout(delay, stop.cancelled()).await {
            Ok(()) => Event::Stop,
            Err(_) => Event::Lost { reset: true },
        }
    }

    fn give_up(&mut self) {
        self.attempt = None;
        self.tried = None;
    }

    fn dial(&self, goal: Goal, way: DialPlan) -> Attempt {
        let (slot, shared, line) = (self.index, self.shared.clone(), self.line.clone());
        let serves = self.serving.is_some();
        let dial = async move {
            let edge = match shared.addresses.seek(slot, goal).await {
                Ok(Some(edge)) => edge,
                Ok(None) => return Outcome::NoAddress,
                Err(error) => return Outcome::Unresolved(error),
            };
            if !serves {
                shared.status.update(slot, |status| status.edge = Some(edge));
            }
            debug!(?goal, %edge, "dialling");
            match line.dial(way, edge).await {
                Ok(connection) => Outcome::Dialled(connection, edge),
                Err(error) => Outcome::NotDialled { edge, error },
            }
        };
        Box::pin(dial.in_current_span())
    }

    fn register(&mut self) -> Option<Attempt> {
        let Some(Tried::Dialled(connection, edge)) = self.tried.take() else { return None };
        let registration = self.registration(&connection, edge);
        let control = self.shared.control.clone();
        let register = async move {
            let registered = async {
                let stream = connection.control_stream().await;
                let stream = stream.map_err(|error| RegisterError::Stream(format!("{error:#}")))?;
                control.register(stream, registration).await
            };
            match registered.await {
                Ok(session) => Outcome::Registered(connection, edge, session),
                Err(error) => {
                    let protocol = connection.transport().name();
                    connection.close(false).await;
                    Outcome::NotRegistered { edge, protocol, error }
                }
            }
        };
        Some(Box::pin(register.in_current_span()))
    }

    fn registration(&self, connection: &Connection, edge: SocketAddr) -> Registration {
        let identity = &self.shared.identity;
        Registration {
            auth: TunnelAuth {
                account_tag: identity.credentials.account_tag.clone(),
                tunnel_secret: identity.credentials.tunnel_secret.clone(),
            },
            tunnel_id: identity.credentials.tunnel_id,
            conn_index: u8::try_from(self.index).unwrap_or(u8::MAX),
            options: ConnectionOptions {
                client: ClientInfo {
                    client_id: identity.connector,
                    features: identity.features().map(str::to_owned).collect(),
                    version: identity.version.clone(),
                    arch: identity.arch.clone(),
                },
                origin_local_ip: Some(connection.origin_ip(edge)),
                // The id of this process is its own, so what is known by it there is this slot's past.
                replace_existing: self.was_registered,
                compression_quality: 0,
                num_previous_attempts: u8::try_from(self.failures.min(REPORTED_ATTEMPTS)).unwrap_or(u8::MAX),
            },
        }
    }

    fn take(&mut self, outcome: Outcome) -> Event {
        match outcome {
            Outcome::Dialled(connection, edge) => {
                let transport = connection.transport();
                self.tried = Some(Tried::Dialled(connection, edge));
                Event::Dialled { transport }
            }
            Outcome::NotDialled { edge, error } => {
                let refused = error.is_refused;
                self.dial_failed(Some(edge), &error);
                Event::DialFailed { refused }
            }
            Outcome::Unresolved(error) => {
                self.dial_failed(None, &error);
                Event::DialFailed { refused: false }
            }
            Outcome::NoAddress => Event::NoAddress,
            Outcome::Registered(connection, edge, session) => {
                self.tried = Some(Tried::Registered(connection, edge, session));
                Event::Registered
            }
            Outcome::NotRegistered { edge, protocol, error } => {
                self.failures = self.failures.saturating_add(1);
                warn!(%edge, protocol, %error, "registration failed");
                self.fault(error.to_string());
                let counts = self.shared.status.counts();
                let count = match &error {
                    RegisterError::Refused(_) => &counts.refused,
                    RegisterError::TimedOut | RegisterError::Stream(_) => &counts.unanswered,
                };
                count.fetch_add(1, Ordering::Relaxed);
                let event = match &error {
                    RegisterError::Refused(refused) => {
                        let duplicate = refused.cause == DUPLICATE_CONNECTION;
                        // If it knows this slot, it is one that this process had there.
                        self.was_registered |= duplicate;
                        Event::Refused(Refusal {
                            permanent: !refused.should_retry && !duplicate,
                            retry_after: refused.retry_after,
                        })
                    }
                    RegisterError::TimedOut | RegisterError::Stream(_) => Event::Cut,
                };
                self.last_refusal = Some(error);
                event
            }
        }
    }

    fn dial_failed(&mut self, edge: Option<SocketAddr>, error: &dyn std::error::Error) {
        self.failures = self.failures.saturating_add(1);
        let edge = edge.map(tracing::field::display);
        let error = error.to_string();
        // Beside a connection that serves it is a look, and no trouble of its own.
        if self.serving.is_some() {
            debug!(edge, error, "dialling the edge failed");
        } else {
            warn!(edge, error, "dialling the edge failed");
            self.fault(error);
        }
    }

    fn fault(&self, error: String) {
        self.shared.status.update(self.index, |status| status.last_error = Some(error));
    }

    fn read(&mut self, sign: ConnectionEvent) -> Option<Event> {
        let Some(serving) = &self.serving else { return None };
        let edge = serving.edge;
        match sign {
            ConnectionEvent::Ended(ended) => {
                let protocol = serving.protocol();
                warn!(%edge, error = ended.reason, protocol, "connection lost");
                self.serving = None;
                self.fault(ended.reason);
                Some(Event::Lost { reset: ended.is_reset })
            }
            ConnectionEvent::Suspect => {
                info!(%edge, "the edge is not heard of");
                Some(Event::Suspect)
            }
            ConnectionEvent::Recovered => {
                info!(%edge, "the edge is heard again");
                Some(Event::Recovered)
            }
            ConnectionEvent::ToldToLeave => {
                info!(%edge, "the edge server goes away");
                Some(Event::ToldToLeave)
            }
            ConnectionEvent::Well => {
                let path = serving.path();
                self.shared.status.update(self.index, |status| status.path = path);
                let looks = fastrand::f64() < PLACE_LOOKED_AT;
                (looks && self.shared.addresses.is_misplaced(self.index)).then_some(Event::Misplaced)
            }
        }
    }

    /// Makes what was registered the connection that serves; what served before finishes beside it.
    fn adopt(&mut self) {
        let Some(Tried::Registered(connection, edge, session)) = self.tried.take() else { return };
        self.shared.served.store(true, Ordering::Relaxed);
        self.was_registered = true;
        self.failures = 0;
        let location = session.details.location_name.clone();
        let protocol = connection.transport().name();
        // Before the word is out: whoever reads it may ask for the status at once.
        self.shared.status.update(self.index, |status| {
            status.state = SERVING;
            status.edge = Some(edge);
            status.location = Some(location.clone());
            status.protocol = Some(protocol);
            status.last_error = None;
            status.probed = None;
            status.path = None;
        });
        let counts = self.shared.status.counts();
        counts.registered.fetch_add(1, Ordering::Relaxed);
        if protocol == "quic" {
            counts.quic.fetch_add(1, Ordering::Relaxed);
        }
        info!(slot = self.index, %edge, location, connection = %session.details.uuid, protocol, "registered");
        let serving =
            RegisteredConnection::begin(self.index, &self.shared, &self.proxy, (connection, session), edge);
        if let Some(replaced) = self.serving.replace(serving) {
            while self.retiring.try_join_next().is_some() {}
            let grace = self.shared.identity.grace;
            self.retiring.spawn_local(replaced.finish(grace).in_current_span());
        }
    }

    async fn drain(&mut self) {
        if let Some(serving) = self.serving.take() {
            let finish = serving.finish(self.shared.identity.grace);
            // Those that were replaced had begun earlier, and may take as long.
            tokio::join!(finish, finish_all(&mut self.retiring, self.shared.identity.grace));
            info!("unregistered");
        }
    }

    async fn finish_retiring(&mut self) {
        finish_all(&mut self.retiring, self.shared.identity.grace).await;
    }

    fn show(&self, state: &State) {
        let name = state.name();
        self.shared.status.update(self.index, |status| {
            status.state = name;
            if name != SERVING {
                status.location = None;
                status.protocol = None;
                status.probed = None;
                status.path = None;
            }
        });
    }
}

async fn finish_all(retiring: &mut JoinSet<()>, grace: Duration) {
    let _ = timeout(grace, async { while retiring.join_next().await.is_some() {} }).await;
}

async fn attempt(attempt: &mut Option<Attempt>) -> Outcome {
    match attempt {
        Some(attempt) => attempt.await,
        None => pending().await,
    }
}

async fn sign(serving: &mut Option<RegisteredConnection>) -> ConnectionEvent {
    match serving {
        Some(serving) => serving.sign().await,
        None => pending().await,
    }
}

async fn until(timer: Option<Instant>) {
    match timer {
        Some(timer) => sleep_until(timer).await,
        None => pending().await,
    }
}
