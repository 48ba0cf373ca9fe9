//! HTTP requests that plugins make to elsewhere: only to granted destinations, to addresses that
//! were looked at, within limits. Does not know who asks or why; `policy` decides, this acts.
//!
//! A connection serves one request. Names are resolved once for each, and the addresses that were
//! judged are the ones that are connected to.

mod policy;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};

use adit_net::outbound::{Client, Target};
use adit_rules::grants::Grants;

pub use adit_net::outbound::{Exchange, OutboundError};

/// Longest that one request may take with its redirects, and most redirects.
pub const LONGEST: Duration = Duration::from_secs(10);
pub const MOST_REDIRECTS: u8 = 5;
/// Largest body of an answer that is gathered, bytes.
pub const LARGEST_ANSWER: usize = 1024 * 1024;
/// Requests of one plugin at once.
const MOST_AT_ONCE: usize = 64;

/// What one plugin may reach.
pub struct Outbound {
    grants: Grants,
    client: Client,
    /// Answers in place of the network.
    script: Option<Script>,
}

/// Answers requests of a plugin that is tested.
pub type Script = Arc<dyn Fn(&Request<Bytes>) -> Result<Response<Bytes>, OutboundError> + Send + Sync>;

impl Outbound {
    /// Reads the system's roots; does no other I/O.
    pub fn new(grants: &Grants) -> anyhow::Result<Self> {
        let client = Client::new(MOST_AT_ONCE)?;
        Ok(Self { grants: grants.clone(), client, script: None })
    }

    /// One with the same grants that asks `script` and never the network.
    pub fn scripted(other: &Self, script: Script) -> Self {
        let Self { grants, client, script: _ } = other;
        Self { grants: grants.clone(), client: client.clone(), script: Some(script) }
    }

    /// Sends a request and gathers the whole answer. Follows up to `redirects` redirects, each
    /// checked like a first request; credentials stay with the host that they were meant for. The
    /// request's URI is absolute. May be dropped midway.
    pub async fn send(
        &self,
        request: Request<Bytes>,
        redirects: u8,
        timeout: Duration,
    ) -> Result<Response<Bytes>, OutboundError> {
        let whole = self.follow(request, redirects.min(MOST_REDIRECTS));
        tokio::time::timeout(timeout.min(LONGEST), whole).await.unwrap_or(Err(OutboundError::Timeout))
    }

    async fn follow(
        &self,
        request: Request<Bytes>,
        mut redirects: u8,
    ) -> Result<Response<Bytes>, OutboundError> {
        let (mut head, mut body) = request.into_parts();
        carry_on(&mut head.headers);
        loop {
            let mut request = Request::new(Full::new(body.clone()));
            (*request.method_mut(), *request.uri_mut()) = (head.method.clone(), head.uri.clone());
            *request.headers_mut() = head.headers.clone();
            let (response, connection) = match &self.script {
                Some(script) => {
                    policy::check(&Target::of(request.uri())?, &self.grants)?;
                    let mut asked = Request::new(body.clone());
                    (*asked.method_mut(), *asked.uri_mut()) = (head.method.clone(), head.uri.clone());
                    *asked.headers_mut() = head.headers.clone();
                    (
                        script(&asked)?.map(|body| Full::new(body).map_err(|never| match never {}).boxed()),
                        None,
                    )
                }
                None => {
                    let Exchange { response, connection } = self.exchange(request, LONGEST).await?;
                    (response.map(BodyExt::boxed), Some(connection))
                }
            };
            let next = (redirects > 0).then(|| policy::redirect(&head, &response)).flatten();
            if let Some(next) = next {
                redirects -= 1;
                (head, body) = (next.head, if next.keeps_body { body } else { Bytes::new() });
                continue;
            }
            let (answer, incoming) = response.into_parts();
            let gathered = Limited::new(incoming, LARGEST_ANSWER).collect().await;
            drop(connection);
            let gathered = gathered.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    OutboundError::TooLarge
                } else {
                    OutboundError::Failed(format!("the answer broke off: {error}"))
                }
            })?;
            return Ok(Response::from_parts(answer, gathered.to_bytes()));
        }
    }

    /// Sends one request whose URI is absolute and waits for the head of the answer; the body
    /// streams. Follows nothing. `patience` bounds the connection and the wait for the head, each.
    pub async fn exchange<B>(
        &self,
        mut request: Request<B>,
        patience: Duration,
    ) -> Result<Exchange, OutboundError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let target = Target::of(request.uri())?;
        policy::check(&target, &self.grants)?;
        if self.script.is_some() {
            return Err(OutboundError::Failed("a test answers http-client only".to_owned()));
        }
        carry_on(request.headers_mut());
        let may = |address| policy::may_connect(&target, address, &self.grants);
        self.client.exchange(&target, request, may, patience).await
    }
}

tokio::task_local! {
    /// The context of the trace that goes on here.
    static TRACE: HeaderValue;
}

/// What plugins ask for meanwhile belongs to a trace.
pub async fn tracing_on<F: Future>(context: HeaderValue, work: F) -> F::Output {
    TRACE.scope(context, work).await
}

/// The trace that goes on here, if one does.
pub(crate) fn trace() -> Option<HeaderValue> {
    TRACE.try_with(HeaderValue::clone).ok()
}

/// Says so to whoever is asked, if the guest does not say something else.
fn carry_on(headers: &mut HeaderMap) {
    if let Some(context) = trace()
        && !headers.contains_key(TRACEPARENT)
    {
        headers.insert(TRACEPARENT, context);
    }
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Whether a guest may choose this method.
pub fn is_sendable(method: &Method) -> bool {
    !matches!(*method, Method::CONNECT | Method::TRACE)
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("http", &self.grants.http).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
