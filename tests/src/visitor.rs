//! Who asks: HTTP/1.1 and HTTP/2, in clear and over TLS, and raw bytes. Does not know what answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Request, Response, Uri, request};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::{certificate, document, within};

/// What a visitor speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Http1,
    /// In clear, with prior knowledge.
    Http2,
    Tls1,
    Tls2,
}

impl Speaks {
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Tls1, Self::Tls2];

    pub fn is_secure(self) -> bool {
        matches!(self, Self::Tls1 | Self::Tls2)
    }

    fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Tls2)
    }
}

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Somebody who knows one address.
#[derive(Clone)]
pub struct Visitor {
    address: SocketAddr,
    speaks: Speaks,
    /// Who may sign the certificate behind that address.
    ca: Option<PathBuf>,
}

/// An open connection. Dropping it is leaving: it closes at once, whatever is under way.
pub struct Connection {
    sender: Sender,
    speaks: Speaks,
    _driver: AbortOnDropHandle<()>,
}

#[derive(Clone)]
enum Sender {
    Http1(Arc<tokio::sync::Mutex<http1::SendRequest<Body>>>),
    Http2(http2::SendRequest<Body>),
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Visitor {
    pub fn new(address: SocketAddr, speaks: Speaks, ca: Option<&Path>) -> Self {
        Self { address, speaks, ca: ca.map(Path::to_owned) }
    }

    /// One request on a connection of its own.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let connection = self.connect().await;
        connection.ask(request).await
    }

    pub async fn connect(&self) -> Connection {
        within("connecting", self.open()).await
    }

    async fn open(&self) -> Connection {
        let tcp = self.dial().await;
        if !self.speaks.is_secure() {
            return Connection::over(self.speaks, tcp).await;
        }
        let tls = TlsConnector::from(Arc::new(self.tls()))
            .connect(ServerName::try_from(document::HOST).expect("a host name"), tcp)
            .await
            .expect("TLS with the edge");
        let agreed = tls.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
        assert_eq!(agreed.as_deref(), Some(self.alpn()), "the protocol that TLS agreed on");
        Connection::over(self.speaks, tls).await
    }

    /// A TCP connection on which nothing was said.
    pub async fn dial(&self) -> TcpStream {
        let tcp = within("dialling", TcpStream::connect(self.address)).await;
        tcp.unwrap_or_else(|error| panic!("dialling {}: {error}", self.address))
    }

    /// Sends these bytes as they are and hands back everything that comes until the other side
    /// closes.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut tcp = self.dial().await;
        // The other side may have had enough before it got all of it.
        let _ = tcp.write_all(bytes).await;
        let mut answer = Vec::new();
        // A reset is an end too.
        let _ = within("the end of a raw exchange", tcp.read_to_end(&mut answer)).await;
        answer
    }

    fn alpn(&self) -> &'static [u8] {
        if self.speaks.is_http2() { b"h2" } else { b"http/1.1" }
    }

    fn tls(&self) -> rustls::ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = self.ca.as_ref().expect("a secure visitor knows a CA");
        for certificate in CertificateDer::pem_file_iter(ca).expect("the CA can be read") {
            roots.add(certificate.expect("a certificate")).expect("a root");
        }
        let mut config = rustls::ClientConfig::builder_with_provider(certificate::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has ciphers")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![self.alpn().to_vec()];
        config
    }
}

impl Connection {
    async fn over(speaks: Speaks, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let stream = TokioIo::new(stream);
        if speaks.is_http2() {
            let (sender, driver) =
                http2::handshake(TokioExecutor::new(), stream).await.expect("the start of HTTP/2");
            let driver = AbortOnDropHandle::new(tokio::spawn(async move {
                let _ = driver.await;
            }));
            Self { sender: Sender::Http2(sender), speaks, _driver: driver }
        } else {
            let (sender, driver) = http1::handshake(stream).await.expect("the start of HTTP/1.1");
            let driver = AbortOnDropHandle::new(tokio::spawn(async move {
                let _ = driver.with_upgrades().await;
            }));
            Self { sender: Sender::Http1(Arc::new(tokio::sync::Mutex::new(sender))), speaks, _driver: driver }
        }
    }

    /// The head of the answer, with the body still to come; or the error of a broken exchange.
    pub async fn try_send(&self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let request = self.address(request);
        let answer = async {
            match &self.sender {
                Sender::Http1(sender) => {
                    let mut sender = sender.lock().await;
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    let mut sender = sender.clone();
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        };
        within("the head of an answer", answer).await
    }

    pub async fn send(&self, request: Request<Body>) -> Response<Incoming> {
        self.try_send(request).await.expect("an answer")
    }

    /// The whole answer, which must be whole.
    pub async fn ask(&self, request: Request<Body>) -> Answer {
        Answer::collect(self.send(request).await).await
    }

    /// HTTP/1.1 wants a path and a Host header, HTTP/2 an absolute address with the true scheme.
    fn address(&self, mut request: Request<Body>) -> Request<Body> {
        let uri = request.uri().clone();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = uri.authority().expect("requests of tests name their host");
        if self.speaks.is_http2() {
            let scheme = if self.speaks.is_secure() { "https" } else { "http" };
            *request.uri_mut() = format!("{scheme}://{authority}{path}").parse().expect("an address");
        } else {
            if !request.headers().contains_key(HOST) {
                let host = authority.as_str().parse().expect("an authority is a header value");
                request.headers_mut().insert(HOST, host);
            }
            *request.uri_mut() = Uri::try_from(path).expect("a path");
        }
        request
    }
}

impl Answer {
    pub async fn collect(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = within("the body of an answer", body.collect()).await.expect("a whole body").to_bytes();
        Self { status: head.status.as_u16(), headers: head.headers, body }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// The only value of this header; empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next().map_or("", |value| value.to_str().expect("a readable header"));
        assert!(values.next().is_none(), "{name} is there more than once: {:?}", self.headers);
        value
    }
}

/// A request to the host name that every edge here serves.
pub fn to(method: &str, path: &str) -> request::Builder {
    Request::builder().method(method).uri(format!("http://{}{path}", document::HOST))
}

pub fn get(path: &str) -> Request<Body> {
    bare(to("GET", path))
}

/// A request without a body.
pub fn bare(builder: request::Builder) -> Request<Body> {
    builder.body(Empty::new().map_err(never).boxed_unsync()).expect("a request")
}

/// A request with this text as its body.
pub fn with_text(builder: request::Builder, text: &str) -> Request<Body> {
    builder
        .body(Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(never).boxed_unsync())
        .expect("a request")
}

/// A request with a body that streams.
pub fn with_body<B>(builder: request::Builder, body: B) -> Request<Body>
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    builder.body(body.map_err(Into::into).boxed_unsync()).expect("a request")
}

fn never(never: Infallible) -> BoxError {
    match never {}
}
