//! One HTTP request to a registry and its whole answer, within a time and a size. Knows nothing of
//! registries.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// A connection, its TLS and the head of an answer, each.
const PATIENCE: Duration = Duration::from_secs(30);
/// A whole exchange: a component of the largest size over a slow line.
const LONGEST: Duration = Duration::from_secs(300);
const MOST_HEADERS: usize = 128;
const LARGEST_HEAD: usize = 64 * 1024;

/// Sends requests, each on a connection of its own.
#[derive(Clone)]
pub(crate) struct Transport {
    tls: Arc<ClientConfig>,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Transport {
    /// Reads the system's roots; does no other I/O.
    pub(crate) fn new() -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = adit_trust::by_roots(adit_trust::of_system(), &provider);
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self { tls: Arc::new(tls) })
    }

    /// The request's URI is absolute. Follows nothing. May be dropped midway.
    ///
    /// # Errors
    /// No answer, or one of more than `limit` bytes.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        limit: usize,
    ) -> anyhow::Result<Response<Bytes>> {
        let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let whole = tokio::time::timeout(LONGEST, self.exchange(request, limit));
        let answer = whole.await.unwrap_or_else(|_| Err(anyhow!("no whole answer within {LONGEST:?}")));
        answer.with_context(|| host)
    }

    async fn exchange(&self, mut request: Request<Bytes>, limit: usize) -> anyhow::Result<Response<Bytes>> {
        let connecting = tokio::time::timeout(PATIENCE, self.connect(request.uri()));
        let stream = connecting.await.map_err(|_| anyhow!("no connection within {PATIENCE:?}"))??;
        let host = request.uri().authority().map_or("", |host| host.as_str());
        let host = HeaderValue::from_str(host)?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);

        let (mut sender, connection) = http1::Builder::new()
            .max_headers(MOST_HEADERS)
            .max_buf_size(LARGEST_HEAD)
            .handshake(TokioIo::new(stream))
            .await?;
        // What goes wrong is also seen by whoever waits for the head or reads the body.
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        // Only what is uploaded is long.
        let patience = if request.body().len() > LARGEST_HEAD { LONGEST } else { PATIENCE };
        let answer = tokio::time::timeout(patience, sender.send_request(request.map(Full::new)));
        let (head, body) = answer.await.map_err(|_| anyhow!("no answer within {patience:?}"))??.into_parts();
        let body = Limited::new(body, limit).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                anyhow!("the answer has more than {limit} bytes")
            } else {
                anyhow!(error).context("the answer broke off")
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn connect(&self, uri: &Uri) -> anyhow::Result<Pin<Box<dyn Stream>>> {
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("its URL begins with neither https:// nor http://"),
        };
        let authority = uri.authority().context("its URL has no host")?;
        ensure!(!authority.as_str().contains('@'), "its URL has a user name");
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.context("connecting")?;
        stream.set_nodelay(true)?;
        if !tls {
            return Ok(Box::pin(stream));
        }
        let name = ServerName::try_from(host.to_owned()).context("the host cannot be a TLS server name")?;
        Ok(Box::pin(TlsConnector::from(self.tls.clone()).connect(name, stream).await.context("TLS")?))
    }
}
