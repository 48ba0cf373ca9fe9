//! The one place where failures become statuses.

use std::sync::Arc;

use adit_engine::{Failure, FailureKind, Reply};
use adit_protocol::extensions::Instead;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, request};
use tracing::{debug, warn};
use uuid::Uuid;

use crate::origin::{Body, OriginError, empty, full};

/// Where the edge puts the id of a request.
const RAY: HeaderName = HeaderName::from_static("cf-ray");
/// How soon a visitor may come back when a plugin is at its limit or rests, seconds.
const RETRY_SECONDS: u64 = 1;

/// What goes back to the edge.
pub enum Answer {
    Response(Response<Body>),
    /// No origin has answered; the edge shows its own page for it.
    Unreachable {
        reason: String,
        /// No byte of the request was sent to an origin, so that another host may be asked.
        not_here: bool,
    },
}

impl Answer {
    /// What the visitor gets to see, as far as this side decides it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Response(response) => response.status(),
            Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Why a request has no answer of its own.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("no ingress rule matches")]
    NoRule,
    #[error("the Host header is not a host name with a port or without")]
    OddHost,
    #[error(
        "the path is one of rule {rule} as rules read it, and may be one of rule {other} to the service; see paths in \
         docs/configuration.md"
    )]
    Unclear { rule: String, other: String },
    #[error("origin: {}", chain(.0))]
    Origin(#[from] OriginError),
    /// Of an origin, a component or a plugin: more would have to follow.
    #[error("status {0} is no answer")]
    NoAnswer(StatusCode),
    #[error("the answer has a transfer coding that is not undone here")]
    Coding,
    #[error("plugin {}: {:?}", .0.plugin, .0.kind)]
    Plugin(Failure),
    /// Of the plugin that is the service itself.
    #[error("service {}: {:?}", .0.plugin, .0.kind)]
    Service(Failure),
}

impl ProxyError {
    /// Whether it is nobody's but the visitor's, who has left.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Origin(error) if error.is_abandoned())
    }
}

impl From<Failure> for ProxyError {
    fn from(failure: Failure) -> Self {
        Self::Plugin(failure)
    }
}

/// What must be remembered of a request to answer it after its head has gone to the origin.
pub struct RequestContext {
    /// The id that the edge gave it, or one made here.
    pub id: Arc<str>,
    head_only: bool,
    json: bool,
}

impl RequestContext {
    pub fn of(head: &request::Parts) -> Self {
        let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        Self {
            id: text(RAY).map_or_else(|| Uuid::new_v4().simple().to_string().into(), Into::into),
            head_only: head.method == Method::HEAD,
            json: text(ACCEPT).is_some_and(|accept| accept.contains("application/json")),
        }
    }

    /// The answer for a request that failed. Logs why; the visitor learns only the id.
    pub fn refuse(&self, trouble: ProxyError) -> Answer {
        let status = match &trouble {
            ProxyError::NoRule => StatusCode::NOT_FOUND,
            ProxyError::OddHost | ProxyError::Unclear { .. } => StatusCode::BAD_REQUEST,
            ProxyError::Origin(error) if error.is_timeout() => StatusCode::GATEWAY_TIMEOUT,
            ProxyError::Origin(error) if error.wants_length() => StatusCode::LENGTH_REQUIRED,
            ProxyError::Origin(error) if error.is_asked_wrongly() => StatusCode::BAD_REQUEST,
            ProxyError::Origin(error) if error.is_forbidden() => StatusCode::FORBIDDEN,
            ProxyError::NoAnswer(_) | ProxyError::Coding => {
                let reason = trouble.to_string();
                warn!(id = &*self.id, reason, "origin gave no answer");
                return Answer::Unreachable { reason, not_here: false };
            }
            ProxyError::Origin(error) => {
                let (reason, not_here) = (trouble.to_string(), error.is_unsent());
                if trouble.is_cancelled() {
                    debug!(id = &*self.id, reason, "visitor left");
                } else {
                    warn!(id = &*self.id, reason, "origin gave no answer");
                }
                return Answer::Unreachable { reason, not_here };
            }
            ProxyError::Service(failure) if failure.kind == FailureKind::Timeout => {
                StatusCode::GATEWAY_TIMEOUT
            }
            ProxyError::Plugin(failure) | ProxyError::Service(failure)
                if matches!(
                    failure.kind,
                    FailureKind::Busy | FailureKind::Resting | FailureKind::Away(_)
                ) =>
            {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ProxyError::Plugin(_) | ProxyError::Service(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match &trouble {
            // The plugin module has logged it with the guest's backtrace.
            ProxyError::Plugin(_) | ProxyError::Service(_) => {
                debug!(id = &*self.id, %trouble, "request refused")
            }
            // Any visitor can have these written.
            ProxyError::OddHost | ProxyError::Unclear { .. } => {
                debug!(id = &*self.id, %trouble, "request refused");
            }
            ProxyError::Origin(error) if error.is_asked_wrongly() || error.is_forbidden() => {
                debug!(id = &*self.id, %trouble, "request refused");
            }
            ProxyError::NoRule | ProxyError::Origin(_) | ProxyError::NoAnswer(_) | ProxyError::Coding => {
                warn!(id = &*self.id, %trouble, "request refused")
            }
        }
        let mut response = self.page(status, &trouble);
        let is_late = status == StatusCode::GATEWAY_TIMEOUT;
        response.extensions_mut().insert(if is_late { Instead::Late } else { Instead::Host });
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
        Answer::Response(response)
    }

    /// A plugin's own answer.
    pub fn reply(&self, reply: Reply) -> Response<Body> {
        let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = self.full(status, reply.body);
        response.extensions_mut().insert(Instead::Host);
        for (name, value) in &reply.headers {
            if *name != CONTENT_LENGTH {
                response.headers_mut().append(name.clone(), value.clone());
            }
        }
        response
    }

    fn page(&self, status: StatusCode, trouble: &ProxyError) -> Response<Body> {
        let what = match trouble {
            ProxyError::NoRule => "nothing is served under this address",
            ProxyError::OddHost => {
                "the Host header of this request is not a host name with a port or without"
            }
            ProxyError::Unclear { .. } => {
                "servers read the path of this request in different ways, and what is served here depends on which; \
                 ask for it in its plain form"
            }
            ProxyError::Origin(error) if error.wants_length() => {
                "a body as long as this needs its Content-Length here"
            }
            ProxyError::Origin(error) if error.is_asked_wrongly() => {
                "this address leads wherever Cf-Access-Jump-Destination says, HOST:PORT, and the request does not say it"
            }
            ProxyError::Origin(error) if error.is_forbidden() => {
                "this address does not lead to where the request wants to go"
            }
            ProxyError::Service(failure) if failure.kind != FailureKind::Timeout => {
                "a plugin could not handle this request"
            }
            ProxyError::Origin(_) | ProxyError::Service(_) | ProxyError::NoAnswer(_) | ProxyError::Coding => {
                "the service behind this address took too long"
            }
            ProxyError::Plugin(_) => "a plugin could not handle this request",
        };
        let (kind, text) = if self.json {
            let page = serde_json::json!({ "status": status.as_u16(), "error": what, "error_id": &*self.id });
            ("application/json", format!("{page}\n"))
        } else {
            ("text/plain; charset=utf-8", format!("{} {what}\nerror id: {}\n", status.as_u16(), self.id))
        };
        let mut response = self.full(status, Bytes::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn full(&self, status: StatusCode, bytes: Bytes) -> Response<Body> {
        let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = bytes.len();
        let body = if bodiless || self.head_only { empty() } else { full(bytes) };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        if !bodiless {
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        response
    }
}

/// An error and everything that led to it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        next = cause.source();
    }
    line
}
