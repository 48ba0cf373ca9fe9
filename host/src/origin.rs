//! The local services that requests go to.
//!
//! An [`Origin`] is built once per generation and knows how to reach one service. Connections live
//! in a [`Pool`] that belongs to a shard and outlives generations. This module does not know who
//! asked, which plugins ran, or what status a failure becomes.

mod answer;
mod body;
mod connect;
mod dial;
mod hello;
mod http;
mod http2;
mod measure;
mod metered;
mod pool;
mod replay;
mod tcp;
#[cfg(test)]
mod tests;
mod tls;

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use ::http::{HeaderValue, Response, StatusCode, request};
use adit_protocol::extensions::Instead;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};

pub use body::{Body, BoxError, Unread};
pub use pool::{Pool, Reached};
pub use tcp::{CircuitEnd, CircuitTotals, Circuits, Room, Trace};
pub(crate) use tls::client_config;

use crate::config::plan::{IpRule, OriginPlan, Service};

/// Largest head of an answer, bytes; what the edge accepts is no larger.
const LARGEST_HEAD: u32 = 256 * 1024;

/// What a rule sends its requests to.
#[derive(Debug)]
pub enum Origin {
    Http(Box<http::HttpOrigin>),
    /// A service of bytes.
    Tcp(Box<tcp::TcpOrigin>),
    /// A fixed status with an empty body.
    Status(StatusCode),
    /// The built-in page that shows what arrived.
    HelloWorld,
}

/// Why an origin gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OriginError {
    #[error("connecting to {target}")]
    Connect { target: String, source: Arc<std::io::Error> },
    #[error("no connection to {target} within {seconds} s")]
    ConnectTimeout { target: String, seconds: u64 },
    #[error("TLS handshake with {target}{}", advice(source))]
    Tls { target: String, source: Arc<std::io::Error> },
    #[error("{target} does not speak HTTP/2, though http2 = true says so")]
    NotHttp2 { target: String },
    #[error("{target} closed the connection")]
    Closed { target: String },
    #[error("exchange with {target}")]
    Exchange { target: String, source: Arc<hyper::Error> },
    #[error("no answer from {target} within {seconds} s")]
    ResponseTimeout { target: String, seconds: u64 },
    #[error(
        "{target} takes no chunks, and more than {limit} bytes have come without a word of how many they are"
    )]
    Unmeasured { target: String, limit: usize },
    #[error("{target} takes no chunks, and after {} s the body has not ended", limit.as_secs())]
    Trickling { target: String, limit: Duration },
    #[error("{target} answers in the transfer coding {coding:?}, which was not asked for")]
    Coding { target: String, coding: String },
    #[error("the request names no destination for the bastion")]
    NoDestination,
    #[error("no rule of ip-rules allows a circuit to {target}")]
    NotAllowed { target: String },
    #[error("there are {most} circuits already, and no place for one more to {target}")]
    Full { target: String, most: usize },
    #[error("the request broke off")]
    Request { source: Arc<dyn std::error::Error + Send + Sync> },
}

/// What may be wrong with a server, for whoever reads the log.
fn advice(error: &std::io::Error) -> String {
    adit_trust::advice(error).map_or_else(String::new, |advice| format!(" ({advice})"))
}

impl OriginError {
    /// Whether the origin was too slow with its answer.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ResponseTimeout { .. })
    }

    /// Whether there was no connection on which a byte of the request could have been sent.
    pub fn is_unsent(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::ConnectTimeout { .. }
            | Self::Tls { .. }
            | Self::NotHttp2 { .. }
            | Self::Full { .. } => true,
            // Another host would say the same of these last three.
            Self::NoDestination
            | Self::NotAllowed { .. }
            | Self::Closed { .. }
            | Self::Coding { .. }
            | Self::Exchange { .. }
            | Self::ResponseTimeout { .. }
            | Self::Unmeasured { .. }
            | Self::Trickling { .. }
            | Self::Request { .. } => false,
        }
    }

    /// Whether the request ended too early: whoever asked has left.
    pub fn is_abandoned(&self) -> bool {
        matches!(self, Self::Request { .. })
    }

    /// Whether there is nothing wrong but what the request asks for.
    pub fn is_asked_wrongly(&self) -> bool {
        matches!(self, Self::NoDestination)
    }

    /// Whether what it asks for is not allowed.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::NotAllowed { .. })
    }

    /// Whether there are too many circuits for one more.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether the visitor must say how long a body is that is so long, or takes so long.
    pub fn wants_length(&self) -> bool {
        matches!(self, Self::Unmeasured { .. } | Self::Trickling { .. })
    }
}

impl Origin {
    /// Prepares the way to a service; opens no connection. `ca` is what the plan's `ca_file` holds.
    pub fn new(service: &Service, plan: &OriginPlan, ca: Option<&[u8]>) -> anyhow::Result<Self> {
        Ok(match service {
            Service::Status(status) => Self::Status(*status),
            Service::HelloWorld => {
                hello::begin();
                Self::HelloWorld
            }
            Service::Tcp { scheme, authority } => {
                Self::Tcp(Box::new(tcp::TcpOrigin::to(scheme, authority, plan)))
            }
            Service::Bastion => Self::Tcp(Box::new(tcp::TcpOrigin::bastion(plan))),
            Service::Socks => Self::Tcp(Box::new(tcp::TcpOrigin::socks(plan))),
            // The last of them is none, and `new` says so.
            Service::Http { .. } | Service::Https { .. } | Service::Unix { .. } | Service::Component(_) => {
                Self::Http(Box::new(http::HttpOrigin::new(service, plan, ca)?))
            }
        })
    }

    /// What leads to addresses that an edge asks for, as far as these rules allow it.
    pub fn asked(ip_rules: &[IpRule]) -> Self {
        Self::Tcp(Box::new(tcp::TcpOrigin::asked(ip_rules)))
    }

    /// As it stands in a document.
    pub fn name(&self) -> Cow<'_, str> {
        match self {
            Self::Http(origin) => origin.name().into(),
            Self::Tcp(origin) => origin.name().into(),
            Self::Status(status) => format!("http_status:{}", status.as_u16()).into(),
            Self::HelloWorld => "hello_world".into(),
        }
    }

    /// The address of a service of bytes, if it is written as one.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Self::Tcp(origin) => origin.address(),
            Self::Http(_) | Self::Status(_) | Self::HelloWorld => None,
        }
    }

    /// As it stands in a document, and where a request with these headers would lead to besides.
    pub fn explained(&self, headers: &::http::HeaderMap) -> String {
        match self {
            Self::Tcp(origin) => origin.explained(headers),
            Self::Http(_) | Self::Status(_) | Self::HelloWorld => self.name().into_owned(),
        }
    }

    /// Opens a circuit for a stream that carries bytes as they are.
    /// `to` is where the edge wants it to lead.
    pub async fn carry(
        &self,
        room: Room<'_>,
        to: std::net::SocketAddr,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        match self {
            Self::Tcp(origin) => origin.carry(room, to, body).await,
            Self::Http(_) | Self::Status(_) | Self::HelloWorld => {
                Err(OriginError::NotAllowed { target: self.name().into_owned() })
            }
        }
    }

    /// The head of a request as this origin is sent it.
    pub fn addressed(&self, head: request::Parts) -> request::Parts {
        match self {
            Self::Http(origin) => origin.address_head(head),
            Self::Tcp(_) | Self::Status(_) | Self::HelloWorld => head,
        }
    }

    /// The same for two origins that are reached in the same way.
    pub fn key(&self) -> Cow<'_, str> {
        match self {
            Self::Http(origin) => origin.key().into(),
            Self::Tcp(_) | Self::Status(_) | Self::HelloWorld => self.name(),
        }
    }

    /// Opens a connection as a request would, and closes it without a word. May be dropped midway.
    pub async fn probe(&self) -> Result<(), OriginError> {
        match self {
            Self::Http(origin) => origin.probe().await,
            Self::Tcp(origin) => origin.probe().await,
            Self::Status(_) | Self::HelloWorld => Ok(()),
        }
    }

    /// Makes sure that there is a connection for a request with this host, before anything of its body is taken: as
    /// long as none of it is, another host may be asked.
    pub async fn reach(
        &self,
        pool: &Pool,
        host: Option<&::http::HeaderValue>,
    ) -> Result<Reached, OriginError> {
        match self {
            Self::Http(origin) => origin.reach(pool, host).await,
            Self::Tcp(_) | Self::Status(_) | Self::HelloWorld => Ok(Reached::default()),
        }
    }

    /// Sends one request and waits for the head of the answer. May be dropped midway: the exchange
    /// is then cancelled and its connection closed.
    pub async fn send(
        &self,
        pool: &Pool,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        self.send_on(Reached::default(), pool, head, body).await
    }

    /// The same on the connection that was made for it, if there is one.
    pub async fn send_on(
        &self,
        reached: Reached,
        pool: &Pool,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        match self {
            Self::Http(origin) => origin.send(reached, pool, head, body).await,
            // Bytes have to go both ways.
            Self::Tcp(_) => Ok(by_rule(StatusCode::UPGRADE_REQUIRED)),
            Self::Status(status) => Ok(by_rule(*status)),
            Self::HelloWorld => Ok(hello::respond(&head)),
        }
    }

    /// Opens a connection of its own for an `Upgrade: websocket` request. When the origin accepts
    /// (101), the body of the answer is what the origin sends, and `body` is what it receives. A circuit takes
    /// its place in `room`.
    pub async fn upgrade(
        &self,
        room: Room<'_>,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        match self {
            Self::Http(origin) => origin.upgrade(head, body).await,
            Self::Tcp(origin) => origin.accept(room, &head, body).await,
            Self::Status(status) => Ok(by_rule(*status)),
            Self::HelloWorld => Ok(match head.uri.path() {
                "/ws" => hello::echo(&head, body),
                _ => status_only(StatusCode::UPGRADE_REQUIRED),
            }),
        }
    }
}

/// The answer of a rule: no service has anything to do with it.
fn by_rule(status: StatusCode) -> Response<Body> {
    let mut response = status_only(status);
    response.extensions_mut().insert(Instead::Host);
    response
}

fn status_only(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response.headers_mut().insert(::http::header::CONTENT_LENGTH, ::http::HeaderValue::from_static("0"));
    response
}

/// A body without bytes.
pub fn empty() -> Body {
    Box::pin(Empty::new().map_err(impossible))
}

/// A body that is all there.
pub fn full(bytes: Bytes) -> Body {
    Box::pin(Full::new(bytes).map_err(impossible))
}

/// Takes a WebSocket whose head has this key: `body` is what is said behind it.
pub fn switched(key: &HeaderValue, body: Body) -> Option<Response<Body>> {
    let accept = tcp::accepting(key)?;
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Some(response)
}

fn impossible(never: Infallible) -> BoxError {
    match never {}
}
