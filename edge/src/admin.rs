//! The admin listener: whether the edge is alive and ready, who is connected, and the configurations
//! that replicas are given. It holds no state. Knows the registry; does not know shards or requests.

mod config;

use std::convert::Infallible;
use std::net;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::registry::{Live, Registry};
use crate::settings;
use crate::tunnel::control::Control;

#[derive(Clone)]
pub(crate) struct Admin {
    registry: Arc<Registry>,
    control: Control,
    servers: Arc<[Arc<settings::Server>]>,
    /// Cancelled when the edge begins to drain.
    draining: CancellationToken,
}

impl Admin {
    pub(crate) fn new(
        registry: Arc<Registry>,
        control: Control,
        servers: Vec<Arc<settings::Server>>,
        draining: CancellationToken,
    ) -> Self {
        Self { registry, control, servers: servers.into(), draining }
    }

    /// Answers until `stop`.
    pub(crate) async fn serve(self, socket: net::TcpListener, stop: CancellationToken) -> anyhow::Result<()> {
        let socket = TcpListener::from_std(socket).context("listening for administrators")?;
        let permits = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = async {
                    let permit = permits.clone().acquire_owned().await;
                    (socket.accept().await, permit)
                } => accepted,
            };
            match accepted {
                (Ok((stream, _)), permit) => {
                    let admin = self.clone();
                    connections.spawn(async move {
                        admin.converse(stream).await;
                        drop(permit);
                    });
                }
                (Err(error), _) => {
                    warn!(%error, "cannot accept administrators");
                    sleep(AFTER_ERROR).await;
                }
            }
        }
        connections.close();
        // The last answer may be on its way; a connection that only waits is no reason to wait.
        let _ = timeout(FAREWELL, connections.wait()).await;
        Ok(())
    }

    async fn converse(self, stream: TcpStream) {
        let service = hyper::service::service_fn(|request: Request<Incoming>| {
            let admin = self.clone();
            async move {
                if config::tunnel_of(request.uri().path()).is_some() {
                    return Ok::<_, Infallible>(config::answer(&admin, request).await);
                }
                Ok(admin.answer(&request))
            }
        });
        let mut http1 = http1::Builder::new();
        http1.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(MOST_HEADERS).keep_alive(false);
        if let Err(error) = http1.serve_connection(TokioIo::new(stream), service).await {
            debug!(%error, "administrator's connection broke off");
        }
    }

    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/healthcheck" => text(StatusCode::OK, "OK\n"),
            "/ready" => {
                let ready = self.ready();
                let status =
                    if ready.status == 200 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
                json(status, &ready)
            }
            "/status" => json(StatusCode::OK, &self.status()),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthcheck, /ready, /status and /tunnels/TUNNEL/config\n",
            ),
        }
    }

    /// Ready means: visitors are accepted. A tunnel without connections is the business of its hosts.
    fn ready(&self) -> Ready {
        let connections = self.registry.tunnels().map(|(_, tunnel)| tunnel.connections());
        let connections = connections.map(|all| all.iter().filter(|live| live.is_serving()).count()).sum();
        Ready { status: if self.draining.is_cancelled() { 503 } else { 200 }, connections }
    }

    fn status(&self) -> Status {
        let servers = self.servers.iter().map(|server| ServerStatus {
            region: server.region.clone(),
            name: server.name.clone(),
            address: server.listen.to_string(),
        });
        let tunnels = self.registry.tunnels().map(|(id, tunnel)| TunnelStatus {
            name: tunnel.name.clone(),
            id: id.to_string(),
            connections: tunnel.connections().iter().map(|live| ConnectionStatus::of(live)).collect(),
        });
        let mut tunnels: Vec<_> = tunnels.collect();
        tunnels.sort_by(|one, other| one.name.cmp(&other.name));
        Status { draining: self.draining.is_cancelled(), servers: servers.collect(), tunnels }
    }
}

#[derive(Serialize)]
struct Ready {
    status: u16,
    connections: usize,
}

#[derive(Serialize)]
struct Status {
    draining: bool,
    servers: Vec<ServerStatus>,
    tunnels: Vec<TunnelStatus>,
}

#[derive(Serialize)]
struct ServerStatus {
    region: String,
    name: String,
    address: String,
}

#[derive(Serialize)]
struct TunnelStatus {
    name: String,
    id: String,
    connections: Vec<ConnectionStatus>,
}

#[derive(Serialize)]
struct ConnectionStatus {
    id: String,
    connector: String,
    index: u8,
    server: String,
    region: String,
    address: String,
    /// `quic` or `http2`.
    protocol: &'static str,
    version: String,
    arch: String,
    /// Requests under way.
    requests: usize,
    leaving: bool,
    /// What the host said about its own configuration, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationStatus>,
}

#[derive(Serialize)]
struct ConfigurationStatus {
    bytes: usize,
    digest: String,
}

impl ConnectionStatus {
    fn of(live: &Live) -> Self {
        Self {
            id: live.id.to_string(),
            connector: live.connector.to_string(),
            index: live.index,
            server: live.server.name.clone(),
            region: live.server.region.clone(),
            address: live.address.to_string(),
            protocol: live.link.protocol(),
            version: live.version.clone(),
            arch: live.arch.clone(),
            requests: live.requests(),
            leaving: live.is_leaving(),
            configuration: live
                .report()
                .map(|report| ConfigurationStatus { bytes: report.bytes, digest: report.digest }),
        }
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(value).expect("texts and numbers have a JSON form");
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

const MOST_CONNECTIONS: usize = 64;
const MOST_HEADERS: usize = 64;
const HEAD: Duration = Duration::from_secs(10);
const AFTER_ERROR: Duration = Duration::from_millis(100);
const FAREWELL: Duration = Duration::from_secs(1);
