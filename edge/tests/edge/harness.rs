//! Starts an edge on port 0 with one tunnel, and speaks to it as a visitor.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use adit_edge::{Edge, Settings};
use adit_protocol::credentials::{Credentials, TunnelSecret};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::connector::Connector;

const NO_HOLD: &str = "hold = \"0s\"";
/// Whoever has left is missed soon.
const HALF_CLOSED: &str = "half-closed-timeout = \"1s\"";
pub(crate) const HOST: &str = "demo.localhost";

/// A running edge. Dropping it stops it.
pub(crate) struct Fixture {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) probes: Option<SocketAddr>,
    pub(crate) api: Option<SocketAddr>,
    pub(crate) dns: Option<SocketAddr>,
    pub(crate) servers: Vec<SocketAddr>,
    pub(crate) ca: PathBuf,
    pub(crate) credentials: Credentials,
    pub(crate) stop: CancellationToken,
    pub(crate) running: JoinHandle<anyhow::Result<()>>,
    pub(crate) folder: Arc<TempDir>,
}

pub(crate) fn credentials() -> Credentials {
    Credentials {
        account_tag: "0123456789abcdef".to_owned(),
        tunnel_secret: TunnelSecret::new(&[7; 32]).unwrap(),
        tunnel_id: Uuid::from_u128(0xad17),
        endpoint: None,
    }
}

/// An edge that holds no requests: without a connection there is an error at once.
pub(crate) fn start() -> Fixture {
    start_with("")
}

/// The same with more in its document: first keys of the tunnel, then whole sections.
pub(crate) fn start_with(more: &str) -> Fixture {
    start_as(Arc::new(tempfile::tempdir().unwrap()), NO_HOLD, more)
}

/// An edge that holds requests of a tunnel that has lost its connections for so long.
pub(crate) fn start_holding(hold: &str) -> Fixture {
    start_as(Arc::new(tempfile::tempdir().unwrap()), &format!("hold = \"{hold}\""), "")
}

/// An edge with such keys about visitors.
pub(crate) fn start_for_visitors(keys: &str) -> Fixture {
    start_as(Arc::new(tempfile::tempdir().unwrap()), &format!("{NO_HOLD}\n{keys}"), "")
}

/// An edge in a folder of its own, with more in its document.
pub(crate) fn start_in(folder: Arc<TempDir>, more: &str) -> Fixture {
    start_as(folder, NO_HOLD, more)
}

/// The same with such keys about visitors.
pub(crate) fn start_told(folder: Arc<TempDir>, keys: &str, more: &str) -> Fixture {
    let hold = if keys.contains("hold") { "" } else { NO_HOLD };
    start_as(folder, &format!("{hold}\n{keys}"), more)
}

/// An edge in the folder of another one, with such keys about visitors.
pub(crate) fn start_again(folder: Arc<TempDir>, keys: &str) -> Fixture {
    start_as(folder, &format!("{NO_HOLD}\n{keys}"), "")
}

/// An edge with such keys about administrators, and a file `admin-token` in its folder.
pub(crate) fn start_for_administrators(keys: &str) -> Fixture {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("admin-token"), "0123456789abcdef0123456789abcdef\n").unwrap();
    start_on(folder, keys, NO_HOLD, "")
}

fn start_as(folder: Arc<TempDir>, visitors: &str, more: &str) -> Fixture {
    start_on(folder, "listen = \"127.0.0.1:0\"", visitors, more)
}

fn start_on(folder: Arc<TempDir>, admin: &str, visitors: &str, more: &str) -> Fixture {
    let credentials = credentials();
    let half_closed = if visitors.contains("half-closed-timeout") { "" } else { HALF_CLOSED };
    fs::write(folder.path().join("demo.json"), credentials.to_json()).unwrap();
    let document = r#"
        [admin]
        ADMIN
        [visitors]
        http = "127.0.0.1:0"
        https = "127.0.0.1:0"
        VISITORS
        [[server]]
        region = "west"
        listen = "127.0.0.1:0"
        [[server]]
        region = "east"
        listen = "127.0.0.1:0"
        [[tunnel]]
        name = "demo"
        credentials-file = "demo.json"
        hostnames = ["demo.localhost", "*.demo.localhost"]
    "#;
    let path = folder.path().join("edge.toml");
    let visitors = format!("{visitors}\n{half_closed}");
    fs::write(&path, format!("{}{more}\n", document.replace("ADMIN", admin).replace("VISITORS", &visitors)))
        .unwrap();
    let edge = Edge::build(Settings::load(&path).unwrap_or_else(|error| panic!("{error}"))).unwrap();
    let stop = CancellationToken::new();
    Fixture {
        http: edge.visitors_http().unwrap(),
        https: edge.visitors_https().unwrap(),
        admin: edge.admin().unwrap(),
        probes: edge.probes(),
        api: edge.api(),
        dns: edge.dns(),
        servers: edge.servers().iter().map(|server| server.address).collect(),
        ca: edge.ca_path().unwrap().to_owned(),
        credentials,
        running: tokio::spawn(edge.run(stop.clone())),
        stop,
        folder,
    }
}

/// An edge with one connection.
pub(crate) async fn one() -> (Fixture, Connector) {
    let edge = start();
    let connector = Connector::registered(&edge, 0, Uuid::new_v4(), 0).await;
    (edge, connector)
}

/// tokio's, for a test: what hangs fails, and says so.
pub(crate) struct LocalSet(tokio::task::LocalSet);

impl LocalSet {
    pub(crate) fn new() -> Self {
        Self(tokio::task::LocalSet::new())
    }

    pub(crate) async fn run_until<F: Future>(&self, test: F) -> F::Output {
        let limit = Duration::from_secs(180);
        match tokio::time::timeout(limit, self.0.run_until(test)).await {
            Ok(output) => output,
            Err(_) => panic!("a step of this test was still awaited after {limit:?}"),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

pub(crate) type AnyBody = BoxBody<Bytes, std::convert::Infallible>;

pub(crate) fn empty() -> AnyBody {
    Empty::new().boxed()
}

pub(crate) fn full(text: impl Into<Bytes>) -> AnyBody {
    Full::new(text.into()).boxed()
}

pub(crate) fn get(path: &str) -> Request<AnyBody> {
    Request::get(path).header("host", HOST).body(empty()).unwrap()
}

/// A response read to its end.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

pub(crate) async fn read(response: Response<Incoming>) -> Page {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    Page { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
}

impl Fixture {
    /// One request over cleartext HTTP/1.1.
    pub(crate) async fn send(&self, request: Request<AnyBody>) -> Response<Incoming> {
        http1(self.http, request).await
    }

    pub(crate) async fn page(&self, request: Request<AnyBody>) -> Page {
        read(self.send(request).await).await
    }

    pub(crate) async fn admin(&self, path: &str) -> (StatusCode, serde_json::Value) {
        self.ask_admin(get(path)).await
    }

    /// As an administrator's tools ask, which name this machine and nobody else.
    pub(crate) async fn ask_admin(&self, mut request: Request<AnyBody>) -> (StatusCode, serde_json::Value) {
        request.headers_mut().insert("host", http::HeaderValue::from_static("localhost"));
        let page = read(http1(self.admin, request).await).await;
        (page.status, serde_json::from_str(&page.text).unwrap_or_default())
    }

    /// One request over TLS, in the protocol that ALPN chooses.
    pub(crate) async fn send_tls(&self, alpn: &[&str], request: Request<AnyBody>) -> Response<Incoming> {
        let stream = TcpStream::connect(self.https).await.unwrap();
        self.send_tls_over(stream, alpn, request).await
    }

    /// The same behind something that is said before TLS begins.
    pub(crate) async fn send_tls_after(&self, said: &[u8], request: Request<AnyBody>) -> Response<Incoming> {
        let mut stream = TcpStream::connect(self.https).await.unwrap();
        stream.write_all(said).await.unwrap();
        self.send_tls_over(stream, &["http/1.1"], request).await
    }

    async fn send_tls_over(
        &self,
        stream: TcpStream,
        alpn: &[&str],
        request: Request<AnyBody>,
    ) -> Response<Incoming> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(HOST).unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            http2(TokioIo::new(stream), request).await
        } else {
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        }
    }

    /// One request over cleartext HTTP/2 with prior knowledge.
    pub(crate) async fn send_h2c(&self, request: Request<AnyBody>) -> Response<Incoming> {
        http2(TokioIo::new(TcpStream::connect(self.http).await.unwrap()), request).await
    }
}

pub(crate) async fn http1(address: SocketAddr, request: Request<AnyBody>) -> Response<Incoming> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http1::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

/// A visitor that asks one request after the other on a connection of its own.
pub(crate) struct Visitor {
    edge: SocketAddr,
    sender: http1::SendRequest<AnyBody>,
}

impl Visitor {
    pub(crate) async fn connect(edge: SocketAddr) -> Self {
        let stream = TokioIo::new(TcpStream::connect(edge).await.unwrap());
        let (sender, connection) = http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { edge, sender }
    }

    pub(crate) async fn ask(&mut self, request: Request<AnyBody>) -> Page {
        if self.sender.ready().await.is_err() {
            *self = Self::connect(self.edge).await;
        }
        read(self.sender.send_request(request).await.unwrap()).await
    }
}

async fn http2(
    stream: impl hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
    request: Request<AnyBody>,
) -> Response<Incoming> {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

/// Sends bytes and reads what comes back until the edge closes, whatever it is.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}
