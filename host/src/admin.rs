//! The admin API: life, readiness, status, reload. Translates what others know; holds no state
//! and decides nothing.

mod config;
mod diag;
mod explain;
mod inspector;
mod metrics;
mod ui;

pub use diag::configuration;

use std::sync::Arc;
use std::time::Duration;

use adit_engine::Number;
use adit_inspector::Keeper;
use adit_net::admission::{Admission, Guest};
use adit_net::clients::{self, Clients};
use adit_net::guard::{Asks, Guard};
use adit_pages::Door;
use adit_traces::Tracer;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::health::Health;
use crate::management::Tail;
use crate::origin::Circuits;
use crate::proxy::{Current, Replays, Tags};
use crate::revision::Reload;

const ADMINISTRATORS: Clients =
    Clients { whose: "administrators", most: 64, farewell: Duration::from_secs(1) };

/// What the admin API shows.
pub struct Admin {
    pub health: Health,
    pub current: Arc<Current>,
    pub reload: Reload,
    /// Made by [`configuration`].
    pub configuration: Value,
    /// The host name of a quick tunnel.
    pub quick_tunnel: Option<String>,
    /// What origins are told of this host.
    pub tags: Tags,
    pub circuits: Circuits,
    pub rooms: Rooms,
    pub inspector: Arc<Keeper>,
    pub door: Arc<Door>,
    /// Where traces are on.
    pub tracer: Option<Tracer>,
    pub tail: Arc<Tail>,
    pub replays: Replays,
    /// Where it listens.
    pub port: u16,
}

/// Who is at the listeners.
pub struct Rooms {
    pub admin: Arc<Admission>,
    pub probes: Arc<Admission>,
}

impl Default for Rooms {
    fn default() -> Self {
        Self { admin: ADMINISTRATORS.room(), probes: ADMINISTRATORS.room() }
    }
}

impl Admin {
    /// Serves on one listener until dropped, by the rule of `guard`; its clients are in `room`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, room: Arc<Admission>, guard: Guard) {
        let guard = Arc::new(guard);
        // What is under way when the host ends is cut: the admin API ends last.
        let stop = CancellationToken::new();
        let converse = |stream, _, guest: Guest| {
            let (admin, guard, stop) = (self.clone(), guard.clone(), stop.clone());
            async move {
                let answer = |request| admin.guarded(request, &guard, &guest);
                clients::converse(stream, &guest, &stop, answer).await;
            }
        };
        ADMINISTRATORS.serve(listener, &room, stop.clone(), converse).await;
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
        match guard.judge(&request, asks(request.uri().path())) {
            Ok(()) => self.answer(request, guest).await,
            Err(refusal) => refusal.answer(),
        }
    }

    async fn answer(&self, request: Request<Incoming>, guest: &Guest) -> Response<Full<Bytes>> {
        if config::is_about(&request) {
            return config::answer(self, request, guest).await;
        }
        if (request.method(), request.uri().path()) == (&Method::POST, "/explain") {
            return explain::answer(self, request, guest).await;
        }
        if request.uri().path() == "/inspector" {
            return inspector::answer(self, request, guest).await;
        }
        let _busy = guest.busy();
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = problem(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are served here, POST /reload and PUT /config",
            );
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthcheck" => text(StatusCode::OK, "OK\n"),
            "/livez" => {
                let life = self.health.life().await;
                judged(life.alive, &json!(life))
            }
            "/ready" => self.ready(),
            "/readyz" => {
                let readiness = self.health.readiness().await;
                judged(readiness.ready, &json!(readiness))
            }
            "/status" => self.status(),
            "/quicktunnel" => {
                json(StatusCode::OK, &json!({ "hostname": self.quick_tunnel.as_deref().unwrap_or_default() }))
            }
            "/metrics" => {
                let mut response = text(StatusCode::OK, &metrics::page(self));
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, HeaderValue::from_static(adit_metrics::CONTENT_TYPE));
                response
            }
            path => match diag::page(self, path) {
                Some(page) => json(StatusCode::OK, &page),
                None => problem(
                    StatusCode::NOT_FOUND,
                    "served here: /livez /readyz /status /metrics /ready /healthcheck /diag/tunnel /diag/system /diag/configuration /quicktunnel /config /config/document /config/history /inspector /ui/, POST /reload, POST /explain and PUT /config",
                ),
            },
        }
    }

    /// As the reference means it: at least one connection serves, and no stop was asked for. Besides, there is
    /// something to serve.
    fn ready(&self) -> Response<Full<Bytes>> {
        let shared = &self.health.shared;
        // As there, none counts from the moment on that a stop was asked for.
        let is_stopping = self.health.stop.is_cancelled();
        let connected = if is_stopping { 0 } else { self.health.connections().0 };
        let is_ready = connected > 0 && !self.health.is_unconfigured();
        let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let page = json!({
            "status": status.as_u16(),
            "readyConnections": connected,
            "connectorId": shared.identity.connector,
            "connections": shared.status.slots(),
        });
        json(status, &page)
    }

    fn status(&self) -> Response<Full<Bytes>> {
        let (generation, shared) = (self.current.load(), &self.health.shared);
        let plugins: Vec<Value> = generation
            .plugins()
            .map(|plugin| {
                let counts = plugin.counters();
                json!({
                    "name": plugin.name(),
                    "calls": counts.calls,
                    "faults": counts.faults,
                    "traps": counts.traps,
                    "timeouts": counts.timeouts,
                    "busy": counts.busy,
                    "invalid": counts.invalid,
                    "resting": counts.resting,
                    "away": counts.away,
                    "denied": counts.denied,
                    "instantiations": counts.instantiations,
                    "metrics": plugin.metrics().into_iter().map(|(name, number)| match number {
                        Number::Counter(sum) => (name, json!(sum)),
                        Number::Gauge(value) => (name, json!(value)),
                    }).collect::<serde_json::Map<_, _>>(),
                })
            })
            .collect();
        let (retired_generations, _) = self.reload.retired_generations().known();
        let retired: Vec<Value> = retired_generations
            .iter()
            .map(|lifetime| (lifetime.number, lifetime.requests().1))
            .filter(|(_, open)| *open > 0)
            .map(|(generation, open)| json!({ "generation": generation, "open": open }))
            .collect();
        let page = json!({
            "tunnelId": shared.identity.credentials.tunnel_id,
            "connectorId": shared.identity.connector,
            "version": shared.identity.version,
            "generation": generation.number,
            "retired": retired,
            "degraded": self.reload.history().degraded(),
            "connections": shared.status.slots(),
            "plugins": plugins,
        });
        json(StatusCode::OK, &page)
    }
}

/// What a path is, for the guard.
fn asks(path: &str) -> Asks {
    match path {
        "/livez" | "/readyz" | "/ready" | "/healthcheck" => Asks::Probe,
        "/metrics" => Asks::Metrics,
        "/inspector" => Asks::Captures,
        _ => Asks::Rest,
    }
}

/// Why a request is not done.
fn problem(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, &json!({ "error": why }))
}

/// A page whose status says the same as its content.
fn judged(is_good: bool, page: &Value) -> Response<Full<Bytes>> {
    json(if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, page)
}

fn json(status: StatusCode, page: &Value) -> Response<Full<Bytes>> {
    let mut response = text(status, &format!("{page}\n"));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, page: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(page.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
