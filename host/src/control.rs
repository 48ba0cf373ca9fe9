//! The admin API: life, readiness, status, reload. Translates what others know; holds no state
//! and decides nothing.

mod config;
mod diag;
mod explain;
mod guard;
mod metrics;
mod system;

pub use diag::configuration;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::debug;

use crate::health::Health;
use crate::plugin::Number;
use crate::proxy::Current;
use crate::reload::Reload;

/// Connections to the admin listener at once.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of a request.
const HEAD_LIMIT: Duration = Duration::from_secs(10);

/// What the admin API shows.
pub struct Admin {
    pub health: Health,
    pub current: Arc<Current>,
    pub reload: Reload,
    /// Made by [`configuration`].
    pub configuration: Value,
    /// The host name of a quick tunnel.
    pub quick_tunnel: Option<String>,
}

impl Admin {
    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener) {
        let admin = Arc::new(self);
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(room) = room.clone().acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    debug!(%error, "admin listener");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let admin = admin.clone();
            connections.spawn(async move {
                let service = service_fn(|request| {
                    let admin = admin.clone();
                    async move { Ok::<_, Infallible>(admin.answer(request).await) }
                });
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_LIMIT)
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
                drop(room);
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if config::is_about(&request) {
            return config::answer(self, request).await;
        }
        if (request.method(), request.uri().path()) == (&Method::POST, "/explain") {
            return explain::answer(self, request).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are served here, POST /reload and PUT /config\n",
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
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(metrics::CONTENT_TYPE));
                response
            }
            path => match diag::page(self, path) {
                Some(page) => json(StatusCode::OK, &page),
                None => text(
                    StatusCode::NOT_FOUND,
                    "served here: /livez /readyz /status /metrics /ready /healthcheck /diag/tunnel /diag/system /diag/configuration /quicktunnel /config /config/document /config/history, POST /reload, POST /explain and PUT /config\n",
                ),
            },
        }
    }

    /// As the reference means it: at least one connection serves, and no stop was asked for.
    fn ready(&self) -> Response<Full<Bytes>> {
        let shared = &self.health.shared;
        let (connected, _) = self.health.connections();
        let is_ready = connected > 0 && !self.health.stop.is_cancelled();
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
                    "denied": counts.denied,
                    "instantiations": counts.instantiations,
                    "metrics": plugin.metrics().into_iter().map(|(name, number)| match number {
                        Number::Counter(sum) => (name, json!(sum)),
                        Number::Gauge(value) => (name, json!(value)),
                    }).collect::<serde_json::Map<_, _>>(),
                })
            })
            .collect();
        let (tenures, _) = self.reload.tenures().known();
        let retired: Vec<Value> = tenures
            .iter()
            .map(|tenure| (tenure.number, tenure.requests().1))
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
