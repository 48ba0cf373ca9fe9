//! One high-availability slot: performs what [`super::state`] decides, for as long as the host runs.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_protocol::rpc::{ClientInfo, ConnectionOptions, Registration, TunnelAuth};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, debug, info, info_span, warn};

use super::connection::{Connection, Dialer, Line};
use super::control::{Control, RegisterError, Session};
use super::discovery::Addresses;
use super::state::{Action, Event, Jitter, Patience, Protocol, Refusal, State, Transport};
use super::status::{SERVING, Status};
use super::{FEATURES, Identity};
use crate::proxy::Proxy;

/// The edge's word for "this slot of this connector is registered with me already" (wire.md, 3.6).
const DUPLICATE: &str = "EDUPCONN";
/// The most failed attempts that a registration can report.
const REPORTED_ATTEMPTS: u32 = 255;

/// What all slots of a process share.
pub struct Shared {
    pub identity: Arc<Identity>,
    pub addresses: Addresses,
    pub dialer: Dialer,
    pub protocol: Protocol,
    pub control: Control,
    pub status: Status,
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
    line: Line,
    held: Held,
    failures: u32,
    /// Connections that were replaced and finish what they have.
    retiring: JoinSet<()>,
}

/// What a slot has open.
enum Held {
    Nothing,
    Dialled(Connection, SocketAddr),
    Registered(Registered),
}

struct Registered {
    connection: Connection,
    session: Session,
    edge: SocketAddr,
    /// The edge was told what this host serves.
    has_reported: Cell<bool>,
}

impl Slot {
    pub fn new(index: usize, shared: Arc<Shared>, proxy: Rc<Proxy>) -> Self {
        let line = shared.dialer.line();
        Self { index, shared, proxy, line, held: Held::Nothing, failures: 0, retiring: JoinSet::new() }
    }

    /// Runs until `stop` and the drain that follows it, or until the edge refuses this host for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Fatal> {
        let span = info_span!("slot", slot = self.index);
        self.advance(stop).instrument(span).await
    }

    async fn advance(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        let requests = TaskTracker::new();
        let (mut state, mut action) = State::start(self.shared.protocol);
        let mut last_refusal = None;
        loop {
            self.show(state);
            let event = match action {
                Action::Dial { transport, patience } => {
                    stoppable(&stop, self.dial(transport, patience)).await
                }
                Action::Register => {
                    let (event, refusal) = match stop.run_until_cancelled(self.register()).await {
                        Some(outcome) => outcome,
                        None => (Event::Stop, None),
                    };
                    last_refusal = refusal.or(last_refusal);
                    event
                }
                Action::Serve { probe } => stoppable(&stop, self.serve(&requests, probe)).await,
                Action::Wait { time, rotate } => {
                    self.close().await;
                    if rotate {
                        self.shared.addresses.rotate(self.index);
                    }
                    stoppable(&stop, async {
                        sleep(time).await;
                        Event::Waited
                    })
                    .await
                }
                Action::Drain => self.drain(&requests).await,
                Action::End { fatal } => {
                    self.close().await;
                    self.line.idle().await;
                    return match last_refusal {
                        Some(source) if fatal => Err(Fatal { slot: self.index, source }),
                        _ => Ok(()),
                    };
                }
                Action::Nothing => return Ok(()),
            };
            (state, action) = state.on(event, self.shared.served.load(Ordering::Relaxed));
        }
    }

    async fn dial(&mut self, transport: Transport, patience: Patience) -> Event {
        let edge = match self.shared.addresses.pick(self.index).await {
            Ok(edge) => edge,
            Err(error) => return self.dial_failed(transport, None, &error.into()),
        };
        self.shared.status.update(self.index, |status| status.edge = Some(edge));
        match self.line.dial(transport, patience, edge).await {
            Ok(connection) => {
                self.held = Held::Dialled(connection, edge);
                Event::Dialled
            }
            Err(error) => self.dial_failed(transport, Some(edge), &error),
        }
    }

    fn dial_failed(
        &mut self,
        transport: Transport,
        edge: Option<SocketAddr>,
        error: &anyhow::Error,
    ) -> Event {
        self.failures = self.failures.saturating_add(1);
        self.shared.status.update(self.index, |status| status.last_error = Some(format!("{error:#}")));
        warn!(?edge, protocol = transport.name(), error = format!("{error:#}"), "dialling the edge failed");
        Event::DialFailed { jitter: jitter() }
    }

    async fn register(&mut self) -> (Event, Option<RegisterError>) {
        let (connection, edge) = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Dialled(connection, edge) => (connection, edge),
            Held::Nothing | Held::Registered(_) => return (Event::Lost { jitter: jitter() }, None),
        };
        match self.ask(&connection, edge, false).await {
            Ok(session) => {
                self.hold(connection, session, edge);
                (Event::Registered { jitter: jitter() }, None)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                warn!(%edge, protocol = connection.transport().name(), %error, "registration failed");
                self.shared.status.update(self.index, |status| status.last_error = Some(error.to_string()));
                connection.close().await;
                let event = match &error {
                    RegisterError::Refused(refused) => Event::Refused {
                        refusal: Refusal {
                            permanent: !refused.should_retry && refused.cause != DUPLICATE,
                            duplicate: refused.cause == DUPLICATE,
                            retry_after: refused.retry_after,
                        },
                        jitter: jitter(),
                    },
                    RegisterError::TimedOut | RegisterError::Stream(_) => Event::Lost { jitter: jitter() },
                };
                (event, Some(error))
            }
        }
    }

    /// Registers this slot on a connection. With `replace` it takes the place of the one that serves.
    async fn ask(
        &self,
        connection: &Connection,
        edge: SocketAddr,
        replace: bool,
    ) -> Result<Session, RegisterError> {
        let registration = self.registration(connection, edge, replace);
        let stream =
            connection.control_stream().await.map_err(|error| RegisterError::Stream(format!("{error:#}")))?;
        self.shared.control.register(stream, registration).await
    }

    /// Makes a registered connection the one that this slot holds.
    fn hold(&mut self, connection: Connection, session: Session, edge: SocketAddr) {
        self.shared.served.store(true, Ordering::Relaxed);
        self.failures = 0;
        let location = session.details.location_name.clone();
        let protocol = connection.transport().name();
        // Before the word is out: whoever reads it may ask for the status at once.
        self.shared.status.update(self.index, |status| {
            status.state = SERVING;
            status.location = Some(location.clone());
            status.protocol = Some(protocol);
            status.last_error = None;
        });
        info!(slot = self.index, %edge, location, connection = %session.details.uuid, protocol, "registered");
        self.held =
            Held::Registered(Registered { connection, session, edge, has_reported: Cell::new(false) });
    }

    fn registration(&self, connection: &Connection, edge: SocketAddr, replace: bool) -> Registration {
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
                    features: FEATURES.iter().map(|&feature| feature.to_owned()).collect(),
                    version: identity.version.clone(),
                    arch: identity.arch.clone(),
                },
                origin_local_ip: Some(connection.origin_ip(edge)),
                replace_existing: replace,
                compression_quality: 0,
                num_previous_attempts: u8::try_from(self.failures.min(REPORTED_ATTEMPTS)).unwrap_or(u8::MAX),
            },
        }
    }

    async fn serve(&mut self, requests: &TaskTracker, probe: Option<Duration>) -> Event {
        let Held::Registered(held) = &self.held else { return Event::Lost { jitter: jitter() } };
        let report = async {
            if self.index == 0
                && !held.session.details.tunnel_is_remotely_managed
                && !held.has_reported.replace(true)
                && let Err(error) = held.session.report_configuration(self.shared.reported.clone()).await
            {
                warn!(error = format!("{error:#}"), "the edge did not take the report of the configuration");
            }
        };
        let (moved, edge) = tokio::select! {
            // The edge closes what was replaced: that is no loss.
            biased;
            moved = self.probe(held.edge, probe) => (moved, held.edge),
            (reason, ()) = async { tokio::join!(held.connection.serve(&self.proxy, requests), report) } => {
                warn!(error = reason, protocol = held.connection.transport().name(), "connection lost");
                self.shared.status.update(self.index, |status| status.last_error = Some(reason));
                return Event::Lost { jitter: jitter() };
            }
        };
        let Some((connection, session)) = moved else { return Event::Probed { jitter: jitter() } };
        let replaced = std::mem::replace(&mut self.held, Held::Nothing);
        self.hold(connection, session, edge);
        self.retire(replaced, requests.clone());
        Event::Moved
    }

    /// Looks for QUIC beside the connection that serves, and registers there if it is found.
    async fn probe(&self, edge: SocketAddr, after: Option<Duration>) -> Option<(Connection, Session)> {
        let Some(after) = after else { return std::future::pending().await };
        sleep(after).await;
        let connection = match self.line.dial(Transport::Quic, Patience::Short, edge).await {
            Ok(connection) => connection,
            Err(error) => {
                debug!(%edge, error = format!("{error:#}"), "still no QUIC");
                return None;
            }
        };
        match self.ask(&connection, edge, true).await {
            Ok(session) => Some((connection, session)),
            Err(error) => {
                warn!(%edge, %error, "QUIC is back, but the edge does not take it in place of HTTP/2");
                connection.close().await;
                None
            }
        }
    }

    /// Lets a connection that was replaced finish: the edge sends it nothing new, and closes it when
    /// what it has is done.
    fn retire(&mut self, replaced: Held, requests: TaskTracker) {
        let Held::Registered(Registered { connection, session, .. }) = replaced else { return };
        while self.retiring.try_join_next().is_some() {}
        let (proxy, grace) = (self.proxy.clone(), self.shared.identity.grace);
        let finish = async move {
            drop(session);
            let _ = timeout(grace, connection.serve(&proxy, &requests)).await;
            connection.close().await;
        };
        self.retiring.spawn_local(finish.in_current_span());
    }

    /// Unregister first, so that the edge sends nothing new; then let what runs finish. What the
    /// edge opens in between is still served.
    async fn drain(&mut self, requests: &TaskTracker) -> Event {
        let Held::Registered(Registered { connection, session, .. }) = &self.held else {
            return Event::Drained;
        };
        let grace = self.shared.identity.grace;
        let finish = async {
            if let Err(error) = session.unregister(grace).await {
                warn!(error = format!("{error:#}"), "unregistering failed");
            }
            requests.close();
            requests.wait().await;
        };
        tokio::select! {
            _ = connection.serve(&self.proxy, requests) => {}
            finished = timeout(grace, finish) => if finished.is_err() {
                warn!(open = requests.len(), "requests were cut off at the end of the grace period");
            },
        }
        info!("unregistered");
        Event::Drained
    }

    async fn close(&mut self) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => {}
            Held::Dialled(connection, _) | Held::Registered(Registered { connection, .. }) => {
                connection.close().await;
            }
        }
    }

    fn show(&self, state: State) {
        let name = match state {
            State::Dialing { .. } => "dialing",
            State::Registering { .. } => "registering",
            State::Serving { .. } => SERVING,
            State::Waiting { .. } => "waiting",
            State::Draining => "draining",
            State::Ended => "ended",
        };
        self.shared.status.update(self.index, |status| {
            status.state = name;
            if name != SERVING {
                status.location = None;
                status.protocol = None;
            }
        });
    }
}

async fn stoppable(stop: &CancellationToken, work: impl Future<Output = Event>) -> Event {
    stop.run_until_cancelled(work).await.unwrap_or(Event::Stop)
}

fn jitter() -> Jitter {
    Jitter(fastrand::f64())
}
