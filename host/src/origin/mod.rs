//! The local services that requests go to.
//!
//! An [`Origin`] is built once per generation and knows how to reach one service. Connections live
//! in a [`Pool`] that belongs to a shard and outlives generations. This module does not know who
//! asked, which plugins ran, or what status a failure becomes.

mod body;
mod connect;
mod hello;
mod http;
mod pool;
mod tls;

use std::convert::Infallible;

use ::http::{Response, StatusCode, request};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};

pub use body::{Body, BoxError};
pub use pool::Pool;

use crate::config::plan::{OriginPlan, Service};

/// What a rule sends its requests to.
#[derive(Debug)]
pub enum Origin {
    Http(Box<http::HttpOrigin>),
    /// A fixed status with an empty body.
    Status(StatusCode),
    /// The built-in page that shows what arrived.
    HelloWorld,
}

/// Why an origin gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum OriginError {
    #[error("connecting to {target}")]
    Connect { target: String, source: std::io::Error },
    #[error("no connection to {target} within {seconds} s")]
    ConnectTimeout { target: String, seconds: u64 },
    #[error("TLS handshake with {target}")]
    Tls { target: String, source: std::io::Error },
    #[error("exchange with {target}")]
    Exchange { target: String, source: hyper::Error },
    #[error("no answer from {target} within {seconds} s")]
    ResponseTimeout { target: String, seconds: u64 },
}

impl OriginError {
    /// Whether the origin was too slow rather than unreachable or broken.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::ConnectTimeout { .. } | Self::ResponseTimeout { .. })
    }
}

impl Origin {
    /// Prepares the way to a service; opens no connection.
    pub fn new(service: &Service, plan: &OriginPlan) -> anyhow::Result<Self> {
        Ok(match service {
            Service::Status(status) => Self::Status(*status),
            Service::HelloWorld => Self::HelloWorld,
            // The last of them is none, and `new` says so.
            Service::Http { .. } | Service::Https { .. } | Service::Unix { .. } | Service::Component(_) => {
                Self::Http(Box::new(http::HttpOrigin::new(service, plan)?))
            }
        })
    }

    /// Sends one request and waits for the head of the answer. May be dropped midway: the exchange
    /// is then cancelled and its connection closed.
    pub async fn send(
        &self,
        pool: &Pool,
        head: request::Parts,
        body: Body,
    ) -> Result<Response<Body>, OriginError> {
        match self {
            Self::Http(origin) => origin.send(pool, head, body).await,
            Self::Status(status) => Ok(status_only(*status)),
            Self::HelloWorld => Ok(hello::respond(&head)),
        }
    }

    /// Opens a connection of its own for an `Upgrade: websocket` request. When the origin accepts
    /// (101), the body of the answer is what the origin sends, and `body` is what it receives.
    pub async fn upgrade(&self, head: request::Parts, body: Body) -> Result<Response<Body>, OriginError> {
        match self {
            Self::Http(origin) => origin.upgrade(head, body).await,
            Self::Status(status) => Ok(status_only(*status)),
            Self::HelloWorld => Ok(status_only(StatusCode::UPGRADE_REQUIRED)),
        }
    }
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

fn impossible(never: Infallible) -> BoxError {
    match never {}
}
