//! The control API: tunnels, their routes and configurations, in the form that the reference CLI speaks
//! (product.md A3). Reads the snapshot and the registry, changes the store; nothing that serves visitors
//! waits for it.
//!
//! A request goes through these in order, each in a file of its own: `call` (what is asked), a limit on the
//! body, `identity` (who asks, and may they), `limits` (not too often), and only then is the body read.
//! `envelope` makes every answer.

mod alerting;
mod balancing;
mod call;
mod configurations;
pub(crate) mod connectors;
mod envelope;
pub(crate) mod housekeeping;
pub(crate) mod identity;
mod limits;
mod management;
mod nodes;
mod paging;
mod query;
mod quick;
mod records;
mod routes;
pub(crate) mod share;
mod tunnels;
mod zones;

use std::net::{self, IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_net::admission::{Admission, Guest};
use adit_net::clients::{self, Clients};
use anyhow::Context;
use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::alerts::sender::Sender;
use crate::forward::ray::Rays;
use crate::metrics::{Counters, Handshake, Listener};
use crate::nodes::admit::Admitting;
use crate::peers::Peers;
use crate::registry::Registry;
use crate::state::publish::StaticTunnels;
use crate::state::{ChangeError, State};
use crate::steering::Balancers;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};
use balancing::preview::Previews;
use call::{Call, NoCall};
use envelope::{Answer, Problem};
use identity::{Identity, Permit};
use limits::Buckets;
use query::Query;
use share::Share;

/// What the API works on, and how often it may be asked.
pub(crate) struct Api {
    state: State,
    registry: Arc<Registry>,
    fixed: Arc<StaticTunnels>,
    balancers: Arc<Balancers>,
    quick_domain: Option<String>,
    share: Share,
    sender: Arc<Sender>,
    rays: Arc<Rays>,
    previews: Previews,
    by_token: Buckets<String>,
    by_stranger: Buckets<IpAddr>,
    quick_by_visitor: Buckets<IpAddr>,
    /// Of webhooks, by account.
    trials: Buckets<String>,
    counters: Arc<Counters>,
    admitting: Option<Admitting>,
    peers: Option<Arc<Peers>>,
    /// Places of those who watch hosts.
    watchers: Arc<Semaphore>,
}

/// What an API is told about its accounts and their names.
pub(crate) struct Rules {
    pub(crate) quick_domain: Option<String>,
    pub(crate) share: Share,
    pub(crate) sender: Arc<Sender>,
    /// Of what it asks hosts.
    pub(crate) rays: Arc<Rays>,
    /// Of a fleet.
    pub(crate) admitting: Option<Admitting>,
    /// Of a node of one.
    pub(crate) peers: Option<Arc<Peers>>,
}

impl Api {
    pub(crate) fn new(
        state: State,
        registry: Arc<Registry>,
        fixed: Arc<StaticTunnels>,
        balancers: Arc<Balancers>,
        rules: Rules,
        counters: Arc<Counters>,
    ) -> Self {
        let Rules { quick_domain, share, sender, rays, admitting, peers } = rules;
        let by_token = Buckets::new(CALLS, CALLS_PER_SECOND);
        let by_stranger = Buckets::new(STRANGERS_CALLS, STRANGERS_CALLS_PER_SECOND);
        let quick_by_visitor = Buckets::new(QUICK_TUNNELS, QUICK_TUNNELS_PER_SECOND);
        Self {
            state,
            registry,
            fixed,
            balancers,
            quick_domain,
            share,
            sender,
            rays,
            previews: Previews::default(),
            by_token,
            by_stranger,
            quick_by_visitor,
            trials: Buckets::new(TRIALS, TRIALS_PER_SECOND),
            counters,
            admitting,
            peers,
            watchers: Arc::new(Semaphore::new(management::MOST_WATCHERS)),
        }
    }

    /// Where its clients are.
    pub(crate) fn room() -> Arc<Admission> {
        CLIENTS.room()
    }

    /// Answers until `stop`.
    pub(crate) async fn serve(
        self: Arc<Self>,
        socket: net::TcpListener,
        room: &Arc<Admission>,
        tls: Option<TlsAcceptor>,
        stop: CancellationToken,
    ) -> anyhow::Result<()> {
        let socket = TcpListener::from_std(socket).context("listening for clients of the control API")?;
        let converse = |stream, address: SocketAddr, guest| {
            self.clone().converse(stream, tls.clone(), address.ip(), guest, stop.clone())
        };
        CLIENTS.serve(socket, room, stop.clone(), converse).await;
        Ok(())
    }

    async fn converse(
        self: Arc<Self>,
        stream: TcpStream,
        tls: Option<TlsAcceptor>,
        peer: IpAddr,
        guest: Guest,
        stop: CancellationToken,
    ) {
        let answer = |request: Request<Incoming>| {
            let (api, guest, stop) = (&self, &guest, &stop);
            async move {
                // Boxed, because hardly any call waits for a host.
                if management::is_path(request.uri().path()) {
                    return Box::pin(api.ask_host(request, peer, guest, stop)).await;
                }
                api.answer(request, peer, guest).await
            }
        };
        let Some(tls) = tls else {
            return clients::converse(stream, &guest, &stop, answer).await;
        };
        match guest.unless_dismissed(timeout(clients::HEAD, tls.accept(stream))).await {
            Some(Ok(Ok(stream))) => {
                self.shaken(Handshake::Done);
                guest.step();
                clients::converse(stream, &guest, &stop, answer).await;
            }
            Some(Ok(Err(error))) => {
                self.shaken(Handshake::Failed);
                debug!(%error, "TLS with a client of the control API failed");
            }
            Some(Err(_)) => {
                self.shaken(Handshake::Late);
                debug!("TLS with a client of the control API took too long");
            }
            None => debug!("a client of the control API has made room for another one"),
        }
    }

    fn shaken(&self, outcome: Handshake) {
        self.counters.handshake(0, Listener::Api, outcome);
    }

    async fn answer<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: Request<B>,
        peer: IpAddr,
        guest: &Guest,
    ) -> Response<Full<Bytes>> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let outcome = self.handle(request, peer, guest).await;
        let answer = outcome.unwrap_or_else(|problem| {
            debug!(%method, path, ?problem, "a call of the control API failed");
            problem.answer()
        });
        self.counters.api(answer.status().as_u16());
        debug!(%method, path, status = answer.status().as_u16(), "control API");
        answer
    }

    async fn handle<B: Body<Data = Bytes> + Unpin>(
        &self,
        request: Request<B>,
        peer: IpAddr,
        guest: &Guest,
    ) -> Result<Answer, Problem> {
        let (head, body) = request.into_parts();
        let call = Call::parse(&head.method, head.uri.path()).map_err(|no_call| match no_call {
            NoCall::Path => Problem::NoSuchPath,
            NoCall::Method(allowed) => Problem::Method(allowed),
        })?;
        let limit = call.body_limit();
        let announced =
            head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if announced.is_some_and(|length| length > limit as u64) {
            return Err(Problem::TooLong { limit });
        }
        let now = Instant::now();
        // For everybody; all others need a token.
        if call == Call::OpenApi {
            return Ok(envelope::document(OPENAPI));
        }
        if call == Call::CreateQuickTunnel {
            self.quick_by_visitor.take(peer, now).map_err(too_many)?;
            let _busy = guest.busy();
            return self.create_quick_tunnel(peer).await;
        }
        if call == Call::JoinFleet {
            self.by_stranger.take(peer, now).map_err(too_many)?;
            let body = timeout(BODY, read(body, limit)).await.map_err(|_| Problem::Slow)??;
            let _busy = guest.busy();
            return self.join_fleet(parse(&body)?).await;
        }
        // Whoever holds a token that was revoked meanwhile must not read on here, so nobody does.
        if self.state.silent_for() > STALE {
            return Err(Problem::Stale);
        }
        // A token that a command on this machine has just made is good, and one that it has ended is not.
        self.state.catch_up().await;
        let identity = self.state.read(|snapshot| Identity::of(&head.headers, snapshot, Timestamp::now()));
        let identity = match identity {
            Ok(identity) => identity,
            Err(problem) => {
                self.by_stranger.take(peer, now).map_err(too_many)?;
                return Err(problem);
            }
        };
        self.by_token.take(identity.id().to_owned(), now).map_err(too_many)?;
        guest.vouch();
        let permit = identity.permit(call)?;
        let query = Query::parse(head.uri.query().unwrap_or_default())?;
        let body =
            timeout(BODY, read(body, permit.call().body_limit())).await.map_err(|_| Problem::Slow)??;
        let _busy = guest.busy();
        self.perform(permit, &query, &body).await
    }

    async fn perform(&self, permit: Permit, query: &Query, body: &[u8]) -> Result<Answer, Problem> {
        let (call, who) = permit.into_parts();
        match call {
            Call::OpenApi | Call::CreateQuickTunnel | Call::JoinFleet => Err(Problem::NoSuchPath),
            Call::VerifyToken { .. } => Ok(verify(&who)),
            Call::ListAccounts => self.list_accounts(&who, query),
            Call::LookAtAccount { .. } => self.look_at_account(&who),
            Call::ListTunnels { account } => self.list_tunnels(&who, &account, query).await,
            Call::CreateTunnel { account } => self.create_tunnel(&who, account, parse(body)?).await,
            Call::Tunnel { account, tunnel, ask } => {
                self.tunnel(&who, &account, tunnel, ask, query, body).await
            }
            Call::ListZones => self.list_zones(&who, query),
            Call::LookAtZone { zone } => self.look_at_zone(&who, &zone),
            Call::Records { zone, ask } => self.records(&who, &zone, ask, query, body).await,
            Call::Balancing { ask, .. } => self.balancing(&who, None, ask, query, body).await,
            Call::Alerting { ask, .. } => self.alerting(&who, ask, query, body).await,
            Call::Balancers { zone, ask } => self.balancing(&who, Some(&zone), ask, query, body).await,
            Call::ListRoutes { zone } => self.list_routes(&who, &zone, query),
            Call::PutRoute { zone, tunnel } => self.put_route(&who, &zone, tunnel, parse(body)?).await,
            Call::DeleteRoute { zone, hostname } => self.delete_route(&who, &zone, &hostname).await,
            Call::Later { what, .. } => Err(Problem::Later(what)),
            Call::LaterInZone { zone, what } => self.later_in_zone(&who, &zone, what),
        }
    }

    /// Changes the state; `conflict` is what the caller hears if somebody was faster.
    async fn change(
        &self,
        transaction: Transaction,
        conflict: impl FnOnce(String) -> Problem,
    ) -> Result<(), Problem> {
        self.state.change(transaction).await.map_err(|error| match error {
            ChangeError::Conflict { key } => conflict(key),
            ChangeError::Store(_) | ChangeError::Behind => {
                warn!(%error, "the control API cannot change the state");
                Problem::Unavailable
            }
        })
    }
}

fn verify(who: &Identity) -> Answer {
    let expires_on = who.token().expires_at;
    envelope::success(serde_json::json!({ "id": who.id(), "status": "active", "expires_on": expires_on }))
}

fn note(who: &Identity, action: &'static str, subject: impl ToString) -> AuditEntry {
    let note = AuditEntry { actor: who.actor(), action, subject: subject.to_string() };
    info!(actor = note.actor, action, subject = note.subject, "state changes");
    note
}

fn too_many(wait: Duration) -> Problem {
    Problem::TooMany { seconds: wait.as_secs().max(1) }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        // The texts for these quote what they found, which may be a secret.
        let reason = match error.to_string() {
            reason if !error.is_data() || reason.starts_with("missing field") => reason,
            _ => format!("wrong kind of value at line {} column {}", error.line(), error.column()),
        };
        Problem::Invalid(format!("the body is not the JSON that is wanted here: {reason}"))
    })
}

async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B, limit: usize) -> Result<Bytes, Problem> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let broken = |_| Problem::Invalid("the body broke off".to_owned());
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        if whole.len() + data.len() > limit {
            return Err(Problem::TooLong { limit });
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// What the API promises, for machines.
const OPENAPI: &str = include_str!("api/openapi.json");

const CLIENTS: Clients =
    Clients { whose: "clients of the control API", most: 256, farewell: Duration::from_secs(2) };
/// How old what is known of tokens may be, where the store is somewhere else and is not heard.
const STALE: Duration = Duration::from_secs(30);
const BODY: Duration = Duration::from_secs(10);
/// What one token may call at once, and what comes back per second.
const CALLS: u32 = 1_200;
const CALLS_PER_SECOND: f64 = 100.0;
/// The same for calls without a good token, by address.
const STRANGERS_CALLS: u32 = 60;
const STRANGERS_CALLS_PER_SECOND: f64 = 1.0;
const QUICK_TUNNELS: u32 = 20;
const QUICK_TUNNELS_PER_SECOND: f64 = 0.1;
/// Test messages to webhooks that an account makes or changes.
const TRIALS: u32 = 20;
const TRIALS_PER_SECOND: f64 = 0.1;
