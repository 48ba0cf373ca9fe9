//! HTTP requests that plugins make to elsewhere: only to granted destinations, to addresses that
//! were looked at, within limits. Does not know who asks or why; `policy` decides, this acts.
//!
//! A connection serves one request. Names are resolved once for each, and the addresses that were
//! judged are the ones that are connected to.

mod policy;

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use adit_rules::grants::Grants;
use policy::Target;

/// Longest that one request may take with its redirects, and most redirects.
pub const LONGEST: Duration = Duration::from_secs(10);
pub const MOST_REDIRECTS: u8 = 5;
/// Largest body of an answer that is gathered, bytes.
pub const LARGEST_ANSWER: usize = 1024 * 1024;
/// Requests of one plugin at once.
const MOST_AT_ONCE: usize = 64;
/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;
/// Most header lines of an answer, and most bytes of its head.
const MOST_HEADERS: usize = 128;
const LARGEST_HEAD: usize = 64 * 1024;

/// What one plugin may reach.
pub struct Outbound {
    grants: Grants,
    tls: Arc<ClientConfig>,
    room: Arc<Semaphore>,
    /// Answers in place of the network.
    script: Option<Script>,
}

/// Answers requests of a plugin that is tested.
pub type Script = Arc<dyn Fn(&Request<Bytes>) -> Result<Response<Bytes>, OutboundError> + Send + Sync>;

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Not granted. Nothing was sent.
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Invalid(String),
    #[error("time limit")]
    Timeout,
    #[error("the answer is too large")]
    TooLarge,
    #[error("{0}")]
    Failed(String),
}

/// The answer to [`Outbound::exchange`]: drop it to close the connection.
pub struct Exchange {
    pub response: Response<Incoming>,
    pub connection: Connection,
}

/// Drives the connection of an exchange for as long as its body is read.
pub struct Connection {
    _driver: AbortOnDropHandle<()>,
    _room: OwnedSemaphorePermit,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Outbound {
    /// Reads the system's roots; does no other I/O.
    pub fn new(grants: &Grants) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = adit_trust::by_roots(adit_trust::of_system(), &provider);
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let room = Arc::new(Semaphore::new(MOST_AT_ONCE));
        Ok(Self { grants: grants.clone(), tls: Arc::new(tls), room, script: None })
    }

    /// One with the same grants that asks `script` and never the network.
    pub fn scripted(other: &Self, script: Script) -> Self {
        let Self { grants, tls, room, script: _ } = other;
        Self { grants: grants.clone(), tls: tls.clone(), room: room.clone(), script: Some(script) }
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
        loop {
            let mut request = Request::new(Full::new(body.clone()));
            (*request.method_mut(), *request.uri_mut()) = (head.method.clone(), head.uri.clone());
            *request.headers_mut() = head.headers.clone();
            let (response, connection) = match &self.script {
                Some(script) => {
                    Target::of(request.uri())?.check(&self.grants)?;
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
        target.check(&self.grants)?;
        if self.script.is_some() {
            return Err(OutboundError::Failed("a test answers http-client only".to_owned()));
        }
        let room = self.room.clone().try_acquire_owned();
        let room =
            room.map_err(|_| OutboundError::Failed(format!("more than {MOST_AT_ONCE} requests at once")))?;
        let within = |connecting| tokio::time::timeout(patience, connecting);
        let stream = within(self.connect(&target)).await.unwrap_or(Err(OutboundError::Timeout))?;

        let host = HeaderValue::from_str(request.uri().authority().map_or("", |host| host.as_str()));
        let host = host.map_err(|_| OutboundError::Invalid("its host is not a header value".to_owned()))?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);

        let broken = |error: hyper::Error| {
            if error.is_parse_too_large() {
                OutboundError::TooLarge
            } else {
                OutboundError::Failed(error.to_string())
            }
        };
        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MOST_HEADERS)
            .max_buf_size(LARGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            // What goes wrong is also seen by whoever waits for the head or reads the body.
            let _ = connection.await;
        }));
        let answer = tokio::time::timeout(patience, sender.send_request(request)).await;
        let response = answer.map_err(|_| OutboundError::Timeout)?.map_err(broken)?;
        Ok(Exchange { response, connection: Connection { _driver: driver, _room: room } })
    }

    async fn connect(&self, target: &Target) -> Result<Pin<Box<dyn Stream>>, OutboundError> {
        let addresses = self.addresses(target).await?;
        let mut last = OutboundError::Failed(format!("{} has no address", target.host));
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.secure(target, stream).await,
                Err(error) => last = OutboundError::Failed(format!("connecting to {}: {error}", target.host)),
            }
        }
        Err(last)
    }

    /// The addresses of a target that may be connected to.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, OutboundError> {
        if let Ok(address) = target.host.parse::<IpAddr>() {
            // The grant names it, so that it may be private.
            return Ok(vec![SocketAddr::new(address, target.port)]);
        }
        let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
        let found =
            found.map_err(|error| OutboundError::Failed(format!("looking up {}: {error}", target.host)))?;
        let mut addresses: Vec<SocketAddr> = found.take(MOST_ADDRESSES).collect();
        addresses.retain(|address| policy::may_connect(address.ip(), &self.grants));
        if addresses.is_empty() {
            return Err(OutboundError::Denied(format!(
                "{} has only addresses in private networks that are not granted",
                target.host
            )));
        }
        Ok(addresses)
    }

    async fn secure(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<Pin<Box<dyn Stream>>, OutboundError> {
        // One small request and its answer: nothing to gain from waiting for more to send.
        let _ = stream.set_nodelay(true);
        if !target.tls {
            return Ok(Box::pin(stream));
        }
        let name = ServerName::try_from(target.host.clone())
            .map_err(|_| OutboundError::Invalid(format!("{} cannot be a TLS server name", target.host)))?;
        let secured = TlsConnector::from(self.tls.clone()).connect(name, stream).await;
        let secured =
            secured.map_err(|error| OutboundError::Failed(format!("TLS with {}: {error}", target.host)))?;
        Ok(Box::pin(secured))
    }
}

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
