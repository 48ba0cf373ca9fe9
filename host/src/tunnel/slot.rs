//! One high-availability slot: performs what [`super::state`] decides, for as long as the host runs.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use adit_protocol::rpc::{ClientInfo, ConnectionOptions, Registration, TunnelAuth};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, info, info_span, warn};

use super::control::{Control, RegisterError, Session};
use super::discovery::Addresses;
use super::quic::{Connection, Dialer, Endpoint};
use super::state::{Action, Event, Jitter, Refusal, State};
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
    endpoint: Option<(bool, Endpoint)>,
    held: Held,
    failures: u32,
}

/// What a slot has open.
enum Held {
    Nothing,
    Dialled(Connection, SocketAddr),
    Registered(Connection, Session),
}

impl Slot {
    pub fn new(index: usize, shared: Arc<Shared>, proxy: Rc<Proxy>) -> Self {
        Self { index, shared, proxy, endpoint: None, held: Held::Nothing, failures: 0 }
    }

    /// Runs until `stop` and the drain that follows it, or until the edge refuses this host for good.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Fatal> {
        let span = info_span!("slot", slot = self.index);
        self.advance(stop).instrument(span).await
    }

    async fn advance(mut self, stop: CancellationToken) -> Result<(), Fatal> {
        let requests = TaskTracker::new();
        let (mut state, mut action) = State::start();
        let mut last_refusal = None;
        loop {
            self.show(state);
            let event = match action {
                Action::Dial => stoppable(&stop, self.dial()).await,
                Action::Register => {
                    let (event, refusal) = match stop.run_until_cancelled(self.register()).await {
                        Some(outcome) => outcome,
                        None => (Event::Stop, None),
                    };
                    last_refusal = refusal.or(last_refusal);
                    event
                }
                Action::Serve => stoppable(&stop, self.serve(&requests)).await,
                Action::Wait { time, rotate } => {
                    self.close();
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
                    self.close();
                    if let Some((_, endpoint)) = &self.endpoint {
                        // Without this the close may never leave the socket.
                        let _ = timeout(Duration::from_millis(500), endpoint.wait_idle()).await;
                    }
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

    async fn dial(&mut self) -> Event {
        let edge = match self.shared.addresses.pick(self.index).await {
            Ok(edge) => edge,
            Err(error) => return self.dial_failed(None, &error.into()),
        };
        self.shared.status.update(self.index, |status| status.edge = Some(edge));
        let dialled = async {
            let endpoint = match &self.endpoint {
                // The same source port again, as long as the address family allows it.
                Some((v4, endpoint)) if *v4 == edge.is_ipv4() => endpoint.clone(),
                _ => {
                    let endpoint = self.shared.dialer.endpoint(edge)?;
                    self.endpoint = Some((edge.is_ipv4(), endpoint.clone()));
                    endpoint
                }
            };
            Connection::dial(&endpoint, edge).await
        };
        match dialled.await {
            Ok(connection) => {
                self.held = Held::Dialled(connection, edge);
                Event::Dialled
            }
            Err(error) => self.dial_failed(Some(edge), &error),
        }
    }

    fn dial_failed(&mut self, edge: Option<SocketAddr>, error: &anyhow::Error) -> Event {
        self.failures = self.failures.saturating_add(1);
        self.shared.status.update(self.index, |status| status.last_error = Some(format!("{error:#}")));
        warn!(?edge, error = format!("{error:#}"), "dialling the edge failed");
        Event::DialFailed { jitter: jitter() }
    }

    async fn register(&mut self) -> (Event, Option<RegisterError>) {
        let (connection, edge) = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Dialled(connection, edge) => (connection, edge),
            Held::Nothing | Held::Registered(..) => return (Event::Lost { jitter: jitter() }, None),
        };
        let registration = self.registration(edge);
        let registered = async {
            let stream = connection
                .control_stream()
                .await
                .map_err(|error| RegisterError::Stream(format!("{error:#}")))?;
            self.shared.control.register(stream, registration).await
        };
        match registered.await {
            Ok(session) => {
                self.shared.served.store(true, Ordering::Relaxed);
                self.failures = 0;
                let location = session.details.location_name.clone();
                // Before the word is out: whoever reads it may ask for the status at once.
                self.shared.status.update(self.index, |status| {
                    status.state = SERVING;
                    status.location = Some(location.clone());
                    status.protocol = Some("quic");
                    status.last_error = None;
                });
                info!(slot = self.index, %edge, location, connection = %session.details.uuid, protocol = "quic", "registered");
                self.held = Held::Registered(connection, session);
                (Event::Registered, None)
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                warn!(%edge, %error, "registration failed");
                self.shared.status.update(self.index, |status| status.last_error = Some(error.to_string()));
                connection.close();
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

    fn registration(&self, edge: SocketAddr) -> Registration {
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
                // The reference client sends the edge's own address here over QUIC (wire.md, finding 12).
                origin_local_ip: Some(edge.ip()),
                replace_existing: false,
                compression_quality: 0,
                num_previous_attempts: u8::try_from(self.failures.min(REPORTED_ATTEMPTS)).unwrap_or(u8::MAX),
            },
        }
    }

    async fn serve(&mut self, requests: &TaskTracker) -> Event {
        let Held::Registered(connection, session) = &self.held else {
            return Event::Lost { jitter: jitter() };
        };
        let report = async {
            if self.index == 0
                && !session.details.tunnel_is_remotely_managed
                && let Err(error) = session.report_configuration(self.shared.reported.clone()).await
            {
                warn!(error = format!("{error:#}"), "the edge did not take the report of the configuration");
            }
        };
        let (error, ()) = tokio::join!(connection.serve(&self.proxy, requests), report);
        warn!(%error, "connection lost");
        self.shared.status.update(self.index, |status| status.last_error = Some(error.to_string()));
        Event::Lost { jitter: jitter() }
    }

    /// Unregister first, so that the edge sends nothing new; then let what runs finish. What the
    /// edge opens in between is still served.
    async fn drain(&mut self, requests: &TaskTracker) -> Event {
        let Held::Registered(connection, session) = &self.held else { return Event::Drained };
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

    fn close(&mut self) {
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => {}
            Held::Dialled(connection, _) | Held::Registered(connection, _) => connection.close(),
        }
    }

    fn show(&self, state: State) {
        let name = match state {
            State::Dialing { .. } => "dialing",
            State::Registering { .. } => "registering",
            State::Serving => SERVING,
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
