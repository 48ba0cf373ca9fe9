//! HTTP requests that others have us make: to addresses that were judged and are the ones connected to, with TLS by
//! the roots of the system, within limits. Follows nothing. Does not know who asks or why.
//!
//! A connection serves one request. Names are resolved once for each.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// What opens connections, a number of them at a time.
#[derive(Clone)]
pub struct Client {
    tls: Arc<ClientConfig>,
    room: Arc<Semaphore>,
    at_once: usize,
}

/// Who is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub tls: bool,
    /// Lower case; an IPv6 address has no brackets.
    pub host: String,
    pub port: u16,
}

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// Not allowed. Nothing was sent.
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

/// The answer to [`Client::exchange`]: drop it to close the connection.
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

impl Target {
    /// # Errors
    /// The URL is no absolute one of HTTP, or has a user name.
    pub fn of(uri: &Uri) -> Result<Self, OutboundError> {
        let wrong = |what: &str| OutboundError::Invalid(what.to_owned());
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("its URL begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("its URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("its URL has a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        if host.is_empty() {
            return Err(wrong("its URL has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port })
    }
}

impl Client {
    /// Reads the system's roots; does no other I/O.
    ///
    /// # Errors
    /// The TLS library knows no version of TLS.
    pub fn new(at_once: usize) -> Result<Self, rustls::Error> {
        Self::with_roots(at_once, adit_trust::of_system())
    }

    /// The same, which believes these authorities and no others. Does no I/O.
    ///
    /// # Errors
    /// One of them is no authority's certificate.
    pub fn believing(
        at_once: usize,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority)?;
        }
        Self::with_roots(at_once, Arc::new(roots))
    }

    fn with_roots(at_once: usize, roots: Arc<RootCertStore>) -> Result<Self, rustls::Error> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = adit_trust::by_roots(roots, &provider);
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls), room: Arc::new(Semaphore::new(at_once)), at_once })
    }

    /// Sends one request to its target and waits for the head of the answer; the body streams. Only addresses that
    /// `may` be connected to are. `patience` bounds the connection and the wait for the head, each. May be dropped
    /// midway.
    ///
    /// # Errors
    /// See [`OutboundError`].
    pub async fn exchange<B>(
        &self,
        target: &Target,
        mut request: Request<B>,
        may: impl Fn(IpAddr) -> bool,
        patience: Duration,
    ) -> Result<Exchange, OutboundError>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let room = self.room.clone().try_acquire_owned();
        let room =
            room.map_err(|_| OutboundError::Failed(format!("more than {} requests at once", self.at_once)))?;
        let within = |connecting| tokio::time::timeout(patience, connecting);
        let stream = within(self.connect(target, may)).await.unwrap_or(Err(OutboundError::Timeout))?;

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

    async fn connect(
        &self,
        target: &Target,
        may: impl Fn(IpAddr) -> bool,
    ) -> Result<Pin<Box<dyn Stream>>, OutboundError> {
        let addresses = addresses(target, may).await?;
        let mut last = OutboundError::Failed(format!("{} has no address", target.host));
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return self.secure(target, stream).await,
                Err(error) => last = OutboundError::Failed(format!("connecting to {}: {error}", target.host)),
            }
        }
        Err(last)
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

/// The addresses of a target that may be connected to.
async fn addresses(target: &Target, may: impl Fn(IpAddr) -> bool) -> Result<Vec<SocketAddr>, OutboundError> {
    let mut addresses: Vec<SocketAddr> = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, target.port)],
        Err(_) => {
            let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
            let found = found
                .map_err(|error| OutboundError::Failed(format!("looking up {}: {error}", target.host)))?;
            found.take(MOST_ADDRESSES).collect()
        }
    };
    let are_some = !addresses.is_empty();
    addresses.retain(|address| may(address.ip()));
    if are_some && addresses.is_empty() {
        return Err(OutboundError::Denied(format!(
            "{} has only addresses in private networks that are not granted",
            target.host
        )));
    }
    Ok(addresses)
}

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;
/// Most header lines of an answer, and most bytes of its head.
const MOST_HEADERS: usize = 128;
const LARGEST_HEAD: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_a_host_and_no_user() {
        let target = |url: &str| Target::of(&url.parse().unwrap());
        let expected = Target { tls: true, host: "api.example.com".to_owned(), port: 443 };
        assert_eq!(target("https://API.example.com./x"), Ok(expected));
        assert_eq!(target("http://[FD00::1]:81").unwrap().host, "fd00::1");
        for wrong in ["ftp://a/", "/path", "https://a@b/"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
