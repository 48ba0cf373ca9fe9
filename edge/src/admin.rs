//! The admin listener: whether the edge is alive and ready, who is connected, and what each replica is to
//! get, for programs and, in `ui`, for people. Translates; holds no state. Knows the registry; does not know shards or requests.

mod certificates;
mod config;
mod explain;
mod metrics;
mod nodes;
mod ui;
mod view;

use std::convert::Infallible;
use std::net;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use adit_balance::MOST_WEIGHT;
use adit_net::admission::{Admission, Guest};
use adit_net::clients::{self, Clients};
use adit_net::guard::{Asks, Guard};
use anyhow::Context;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use crate::balancer::weights::Weight;
use crate::nodes::OwnNode;
use crate::registry::warm_up::WarmUp;
use crate::registry::{Registry, Tunnel, UnknownReplica};
use crate::settings;
use crate::shutdown::Phase;
use crate::state::snapshot::Snapshot;
use crate::state::{ChangeError, State};
use crate::store::records::{ReplicaShare, key, to_json};
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Restored, StoreError, Transaction};
use crate::tunnel::control::Control;
use crate::visitor::Explainer;
pub(crate) use metrics::{Figures, Probed};
use nodes::Nodes;
pub(crate) use ui::Pages;
use view::{Ready, ReplicaView, Replicas, Status, TunnelView, Tunnels};

#[derive(Clone)]
pub(crate) struct Admin {
    registry: Arc<Registry>,
    control: Control,
    /// Of an edge with a control API.
    state: Option<State>,
    /// Of a node of a fleet.
    node: Option<Arc<OwnNode>>,
    servers: Arc<[Arc<settings::Server>]>,
    warm_up: Arc<WarmUp>,
    /// The edge has begun to drain.
    draining: Phase,
    figures: Arc<Figures>,
    explainer: Arc<Explainer>,
    pages: Arc<Pages>,
}

/// Where administrators come in.
pub(crate) struct Listener {
    pub(crate) socket: net::TcpListener,
    pub(crate) guard: Guard,
    pub(crate) room: Arc<Admission>,
}

impl Listener {
    pub(crate) fn new(socket: net::TcpListener, guard: Guard) -> Self {
        Self { socket, guard, room: ADMINISTRATORS.room() }
    }
}

impl Admin {
    pub(crate) fn new(
        registry: Arc<Registry>,
        control: Control,
        (state, node): (Option<State>, Option<Arc<OwnNode>>),
        servers: Vec<Arc<settings::Server>>,
        (warm_up, draining): (WarmUp, Phase),
        figures: Figures,
        (explainer, pages): (Explainer, Pages),
    ) -> Self {
        let (warm_up, figures) = (Arc::new(warm_up), Arc::new(figures));
        let (servers, explainer, pages) = (servers.into(), Arc::new(explainer), Arc::new(pages));
        Self { registry, control, state, node, servers, warm_up, draining, figures, explainer, pages }
    }

    /// Answers on every listener by its rule, until `stop`.
    pub(crate) async fn serve(self, listeners: Vec<Listener>, stop: CancellationToken) -> anyhow::Result<()> {
        let mut serving = JoinSet::new();
        for Listener { socket, guard, room } in listeners {
            let socket = TcpListener::from_std(socket).context("listening for administrators")?;
            serving.spawn(self.clone().listen(socket, room, Arc::new(guard), stop.clone()));
        }
        let keep = async {
            self.warm_up.keep(&self.draining).await;
            std::future::pending::<Infallible>().await
        };
        tokio::select! {
            () = async { while serving.join_next().await.is_some() {} } => Ok(()),
            never = keep => match never {},
        }
    }

    async fn listen(
        self,
        socket: TcpListener,
        room: Arc<Admission>,
        guard: Arc<Guard>,
        stop: CancellationToken,
    ) {
        let converse = |stream, _, guest: Guest| {
            let (admin, guard, stop) = (self.clone(), guard.clone(), stop.clone());
            async move {
                let answer = |request| admin.guarded(request, &guard, &guest);
                clients::converse(stream, &guest, &stop, answer).await;
            }
        };
        ADMINISTRATORS.serve(socket, &room, stop.clone(), converse).await;
    }

    async fn guarded(
        &self,
        request: Request<Incoming>,
        guard: &Guard,
        guest: &Guest,
    ) -> Response<Full<Bytes>> {
        if ui::is_about(request.uri().path()) {
            return ui::answer(self, request, guard, guest).await;
        }
        if let Err(refusal) = guard.judge(&request, asks(request.uri().path())) {
            return refusal.answer();
        }
        let path = request.uri().path();
        if config::tunnel_of(path).is_some() {
            config::answer(self, request, guest).await
        } else if path == "/explain" {
            explain::answer(self, request, guest).await
        } else {
            self.answer(request).await
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let path: Vec<&str> = parts.uri.path().trim_start_matches('/').split('/').collect();
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        let outcome = match path.as_slice() {
            ["healthcheck"] if is_read => return text(StatusCode::OK, "OK\n"),
            ["ready"] if is_read => {
                let ready = self.ready();
                let is_ready = ready.status == 200;
                return json(if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &ready);
            }
            ["metrics"] if is_read => {
                return answer(StatusCode::OK, adit_metrics::CONTENT_TYPE, metrics::page(self).await.into());
            }
            ["status"] if is_read => {
                Ok(shown(&Status::of(&self.registry, &self.servers, self.draining.is_fired())))
            }
            ["certificates"] if is_read => {
                Ok(shown(&certificates::Shown::of(&self.figures.certificates, self.state.as_ref())))
            }
            ["nodes"] if is_read => match &self.state {
                Some(state) if state.fleet().is_some() => Ok(shown(&Nodes::of(state, self.node.as_deref()))),
                Some(_) | None => Err(Refusal::NoFleet),
            },
            ["nodes", "peers"] if is_read => match &self.figures.peers {
                Some(peers) => Ok(shown(&serde_json::json!({ "peers": peers.view() }))),
                None => Err(Refusal::NoFleet),
            },
            ["state"] if parts.method == Method::POST => self.restore(body).await,
            ["state"] => Err(Refusal::Method("POST")),
            ["tunnels"] if is_read => Ok(shown(&Tunnels::of(&self.registry))),
            ["tunnels", tunnel, rest @ ..] => self.tunnel(tunnel, rest, &parts, body).await,
            ["certificates" | "healthcheck" | "ready" | "metrics" | "nodes" | "status" | "tunnels"] => {
                Err(Refusal::Method(READ))
            }
            _ => Err(Refusal::NoPath),
        };
        outcome.unwrap_or_else(|refusal| refusal.answer())
    }

    /// `/tunnels/TUNNEL` and what is below it. A tunnel is named by its id or its name.
    async fn tunnel(
        &self,
        wanted: &str,
        rest: &[&str],
        parts: &Parts,
        body: Incoming,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let tunnels = view::by_name(&self.registry);
        // An id before a name, because a tunnel can be named like the id of another one.
        let wanted_id = Uuid::parse_str(wanted).ok();
        let by_id = tunnels.iter().find(|(id, _)| Some(*id) == wanted_id);
        let found = by_id.or_else(|| tunnels.iter().find(|(_, tunnel)| *tunnel.name() == wanted));
        let Some((id, tunnel)) = found else {
            return Err(Refusal::NoTunnel {
                wanted: brief(wanted),
                known: listed(tunnels.iter().map(|(_, tunnel)| tunnel.name())),
            });
        };
        let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
        let (connector, action) = match rest {
            [] if is_read => return Ok(shown(&TunnelView::of(id, tunnel))),
            ["replicas"] if is_read => return Ok(shown(&Replicas::of(id, tunnel))),
            [] | ["replicas"] => return Err(Refusal::Method(READ)),
            ["replicas", connector] => (*connector, None),
            ["replicas", connector, action @ ("drain" | "undrain")] => (*connector, Some(*action)),
            _ => return Err(Refusal::NoPath),
        };
        let unknown = || {
            let mut known: Vec<Uuid> = tunnel.connections().iter().map(|live| live.connector).collect();
            known.sort_unstable();
            known.dedup();
            let (wanted, tunnel) = (brief(connector), tunnel.name().to_string());
            Refusal::NoReplica { wanted, tunnel, known: listed(known) }
        };
        let connector = Uuid::parse_str(connector).map_err(|_| unknown())?;
        let change: Change = match (action, &parts.method) {
            (None, _) if is_read => {
                if !tunnel.knows(&connector) {
                    return Err(unknown());
                }
                return Ok(shown(&ReplicaView::of(tunnel, connector)));
            }
            (None, &Method::PUT | &Method::PATCH) => {
                let wanted = Wanted::read(&read(body).await?)?;
                Box::new(move |share| wanted.apply(share))
            }
            (Some(action), &Method::POST) => {
                if !read(body).await?.is_empty() {
                    return Err(Refusal::Body(format!("{action} takes no body")));
                }
                let is_draining = action == "drain";
                Box::new(move |share| share.is_draining = is_draining)
            }
            (None, _) => return Err(Refusal::Method("GET, HEAD, PUT, PATCH")),
            (Some(_), _) => return Err(Refusal::Method("POST")),
        };
        match self.share(*id, tunnel, connector, change).await {
            Ok(Ok(_)) => Ok(shown(&ReplicaView::of(tunnel, connector))),
            Ok(Err(UnknownReplica)) => Err(unknown()),
            Err(error) => Err(Refusal::State(error)),
        }
    }

    /// Changes what a replica gets, so that it outlives this process.
    async fn share(
        &self,
        id: Uuid,
        tunnel: &Tunnel,
        connector: Uuid,
        change: Change,
    ) -> Result<Result<Weight, UnknownReplica>, StoreError> {
        let share = match &self.state {
            // An edge without a state has nowhere to write it down.
            None => tunnel.set_share(connector, |share| change(share)),
            Some(_) if !tunnel.knows(&connector) => Err(UnknownReplica),
            Some(state) => Self::keep(state, id, tunnel, connector, &change).await?,
        };
        if let Ok(Weight { weight, is_draining }) = share {
            info!(tunnel = %tunnel.name(), %connector, weight, is_draining, "replica changed");
        }
        Ok(share)
    }

    /// Changes what is written of a replica, whoever else changes it at the same moment: what was written meanwhile, here
    /// or at another edge, is changed, and not what was read before. What cannot be kept is not done, or it would be
    /// undone by the next start.
    async fn keep(
        state: &State,
        id: Uuid,
        tunnel: &Tunnel,
        connector: Uuid,
        change: &Change,
    ) -> Result<Result<Weight, UnknownReplica>, StoreError> {
        let key = key::replica(id, connector);
        let kept = |snapshot: &Snapshot| {
            let kept = snapshot.replicas.get(&(id, connector));
            let share = kept.map_or_else(Weight::default, |kept| Weight::from(kept.record));
            (kept.map(|kept| kept.revision), share)
        };
        for _ in 0..MOST_TURNS {
            let (known, mut share) = state.read(kept);
            change(&mut share);
            let subject = format!("{connector} of tunnel {id}");
            let note = AuditEntry { actor: "an administrator".to_owned(), action: "replica.change", subject };
            let transaction = match known {
                Some(revision) => Transaction::new(note).if_at(&key, revision),
                None => Transaction::new(note).if_absent(&key),
            };
            let transaction = if share == Weight::default() {
                transaction.remove(&key)
            } else {
                let kept = ReplicaShare { weight: share.weight, draining: share.is_draining };
                transaction.put(&key, to_json(&kept))
            };
            match state.change(transaction).await {
                // Read anew: somebody may have changed it again, and the last word counts.
                Ok(()) => {
                    return Ok(Ok(state.read(|snapshot| {
                        let share = kept(snapshot).1;
                        // One that is away and as usual again is known no longer by now.
                        let _ = tunnel.set_share(connector, |now| *now = share);
                        share
                    })));
                }
                // It is taken over when it is heard of.
                Err(ChangeError::Behind) => return Ok(Ok(share)),
                Err(ChangeError::Store(error)) => return Err(error),
                Err(ChangeError::Conflict { .. }) => state.catch_up().await,
            }
        }
        Err(StoreError::Stopped)
    }

    /// Writes the state anew to where it is kept, after its file was lost.
    async fn restore(&self, body: Incoming) -> Result<Response<Full<Bytes>>, Refusal> {
        if !read(body).await?.is_empty() {
            return Err(Refusal::NoBody("/state"));
        }
        let Some(state) = &self.state else { return Err(Refusal::NoState) };
        let was_written = match state.restore().await {
            Ok(restored) => restored == Restored::Written,
            Err(error) => return Err(Refusal::State(error)),
        };
        if was_written {
            info!("the state is written anew");
        }
        Ok(shown(&Written { written: was_written }))
    }

    /// Ready means: visitors are accepted, and the hosts are back that were there before a restart. Whether
    /// a tunnel has a connection otherwise is the business of its hosts.
    fn ready(&self) -> Ready {
        let tunnels = self.registry.tunnels();
        let connections = tunnels.values().map(|tunnel| tunnel.connections());
        let connections = connections.map(|all| all.iter().filter(|live| live.is_serving()).count()).sum();
        let waits_for = self.warm_up.waits_for();
        let is_ready = waits_for == 0 && !self.draining.is_fired();
        let silence = self.state.as_ref().map(State::silent_for).filter(|silence| *silence > SILENT);
        let store = silence.and_then(|silence| SystemTime::now().checked_sub(silence));
        let store = store.map(|since| format!("stale since {}", Timestamp::from(since)));
        Ready { status: if is_ready { 200 } else { 503 }, connections, waits_for, store }
    }
}

/// What is to become of a replica's share.
type Change = Box<dyn Fn(&mut Weight) + Send + Sync>;

/// What a path is, for the guard.
fn asks(path: &str) -> Asks {
    match path {
        "/healthcheck" | "/ready" => Asks::Probe,
        "/metrics" => Asks::Metrics,
        _ => Asks::Rest,
    }
}

/// The body of a request that changes something.
async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    match timeout(BODY, Limited::new(body, LONGEST_BODY).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::TooLong),
        Ok(Err(_)) | Err(_) => Err(Refusal::Body("the body broke off".to_owned())),
    }
}

/// What a replica is to be from now on; what is not said stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    weight: Option<u8>,
    draining: Option<bool>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        let wanted: Self = serde_json::from_slice(body).map_err(|error| Refusal::Body(error.to_string()))?;
        match wanted {
            Self { weight: None, draining: None } => Err(Refusal::Body("it changes nothing".to_owned())),
            Self { weight: Some(weight), .. } if weight > MOST_WEIGHT => {
                Err(Refusal::Body(format!("weight {weight} is out of range")))
            }
            Self { .. } => Ok(wanted),
        }
    }

    fn apply(&self, share: &mut Weight) {
        share.weight = self.weight.unwrap_or(share.weight);
        share.is_draining = self.draining.unwrap_or(share.is_draining);
    }
}

/// What became of the state.
#[derive(Serialize)]
struct Written {
    /// False if nothing was lost.
    written: bool,
}

/// Why a request is not done, and what would be.
#[derive(Debug, Error)]
enum Refusal {
    #[error(
        "there is nothing here; there are /healthcheck, /ready, /metrics, /status, /certificates, /nodes, /tunnels, /tunnels/ID, \
         /tunnels/ID/config, /tunnels/ID/replicas, /tunnels/ID/replicas/CONNECTOR, POST …/drain and …/undrain below it, \
         POST /explain and POST /state; pages for a browser are below /ui/"
    )]
    NoPath,
    #[error("there is no tunnel `{wanted}`; there are {known}")]
    NoTunnel { wanted: String, known: String },
    #[error("tunnel {tunnel} has no replica `{wanted}`; there are {known}")]
    NoReplica { wanted: String, tunnel: String, known: String },
    #[error("this edge has no control API, and so keeps no state")]
    NoState,
    #[error("this edge is in no fleet: its configuration has no [store]")]
    NoFleet,
    #[error("{0}")]
    State(StoreError),
    #[error("{0} takes no body")]
    NoBody(&'static str),
    #[error("method not allowed; try {0}")]
    Method(&'static str),
    #[error("{0}; send {{\"weight\": 0 to {MOST_WEIGHT}}}, {{\"draining\": true or false}} or both")]
    Body(String),
    #[error("the body is longer than {LONGEST_BODY} bytes")]
    TooLong,
}

impl Refusal {
    fn answer(&self) -> Response<Full<Bytes>> {
        let status = match self {
            Self::NoPath | Self::NoTunnel { .. } | Self::NoReplica { .. } | Self::NoState | Self::NoFleet => {
                StatusCode::NOT_FOUND
            }
            Self::State(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(_) | Self::NoBody(_) => StatusCode::BAD_REQUEST,
            Self::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
        };
        let mut response = problem(status, &self.to_string());
        if let Self::Method(allowed) = self {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
        }
        response
    }
}

fn problem(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": why }))
}

/// A list for a sentence.
fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let mut named: Vec<String> = all.by_ref().take(MOST_NAMED).map(|one| one.to_string()).collect();
    match (named.len(), all.count()) {
        (0, _) => "none".to_owned(),
        (_, 0) => named.join(", "),
        (_, more) => {
            named.push(format!("and {more} more"));
            named.join(", ")
        }
    }
}

/// Something that was asked for, short enough to be repeated.
fn brief(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

fn shown(value: &impl Serialize) -> Response<Full<Bytes>> {
    json(StatusCode::OK, value)
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let mut text = serde_json::to_vec(value).expect("texts and numbers have a JSON form");
    text.push(b'\n');
    answer(status, "application/json", text.into())
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const READ: &str = "GET, HEAD";
/// Bytes.
const LONGEST_BODY: usize = 4096;
const BODY: Duration = Duration::from_secs(10);
/// A store somewhere else that is not heard for so long is away.
const SILENT: Duration = Duration::from_secs(10);
/// In an answer that says what there is.
const MOST_NAMED: usize = 25;
const LONGEST_NAME: usize = 64;
/// How often a share is written while other calls change the same one.
const MOST_TURNS: usize = 32;
const ADMINISTRATORS: Clients =
    Clients { whose: "administrators", most: 64, farewell: Duration::from_secs(1) };
