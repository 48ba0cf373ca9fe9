//! The service behind a host. Some paths answer by themselves; a path that a test watches does what
//! the test says, and tells it what happens.
//!
//! | path | answer |
//! |---|---|
//! | `/echo…` | the request's head as JSON, with the text of its body |
//! | `/sink…` | the digest of the request's body, as JSON |
//! | `/bytes/N` | a [`Bulk`] of N bytes |
//! | `/chunks/N` | the same without a length |
//! | `/status/N` | status N |
//! | `/secure…` | `secure` to whoever has come over TLS; others are sent there |
//! | `/websocket…` | sends every message back |
//! | `/events` | server-sent events, numbered, until the visitor leaves |
//! | `/load/N/T` | after T ms a [`Bulk`] of N bytes, with the request's mark and the digest of its body |

mod events;
mod marked;
mod raw;
mod watched;
mod websocket;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use marked::{DIGEST, INTERNAL, LEAKED, MARK};
pub use raw::{RawOrigin, nobody};
pub use watched::{Upload, Watched};

use crate::bulk::{Bulk, Digest};
use crate::certificate::Certificate;
use watched::Script;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Error>;

/// A running origin, on a thread of its own so that it belongs to no test's runtime.
pub struct Origin {
    address: Option<SocketAddr>,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<HashMap<String, Script>>,
    connections: Mutex<usize>,
    arrivals: Mutex<HashMap<String, usize>>,
}

impl Origin {
    /// Listens on a free TCP port of loopback.
    pub fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST.into())
    }

    /// The same on another address of this machine.
    pub fn start_on(address: IpAddr) -> Self {
        Self::listen(address, None)
    }

    /// The same behind TLS.
    pub fn start_secure(certificate: &Certificate) -> Self {
        Self::listen(
            Ipv4Addr::LOCALHOST.into(),
            Some(TlsAcceptor::from(Arc::new(certificate.server(&[b"http/1.1"])))),
        )
    }

    /// Listens on a Unix socket.
    pub fn start_unix(path: &Path) -> Self {
        Self::listen_unix(path, None)
    }

    /// The same behind TLS.
    pub fn start_unix_secure(path: &Path, certificate: &Certificate) -> Self {
        Self::listen_unix(path, Some(TlsAcceptor::from(Arc::new(certificate.server(&[b"http/1.1"])))))
    }

    fn listen_unix(path: &Path, tls: Option<TlsAcceptor>) -> Self {
        let listener = std::os::unix::net::UnixListener::bind(path).expect("a Unix socket");
        listener.set_nonblocking(true).expect("a socket that does not block");
        Self::run(None, async move |shared| {
            let listener = UnixListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(welcome(stream, tls.clone(), shared.clone()));
            }
        })
    }

    fn listen(address: IpAddr, tls: Option<TlsAcceptor>) -> Self {
        let listener = std::net::TcpListener::bind((address, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a socket that does not block");
        let address = listener.local_addr().expect("an address");
        Self::run(Some(address), async move |shared| {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                tokio::spawn(welcome(stream, tls.clone(), shared.clone()));
            }
        })
    }

    fn run(address: Option<SocketAddr>, accept: impl AsyncFnOnce(Arc<Shared>) + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let stop = CancellationToken::new();
        let (given, stopped) = (shared.clone(), stop.clone());
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(stopped.run_until_cancelled(accept(given)));
        });
        Self { address, shared, _stop: stop.drop_guard() }
    }

    pub fn address(&self) -> SocketAddr {
        self.address.expect("this origin has a TCP address")
    }

    /// As a rule's service.
    pub fn service(&self) -> String {
        format!("http://{}", self.address())
    }

    /// From here on the next request for this path is the test's.
    pub fn watch(&self, path: &str) -> Watched {
        let (watched, script) = watched::pair();
        lock(&self.shared.watched).insert(path.to_owned(), script);
        watched
    }

    /// The marks of requests for `/load/…` with a method that is not idempotent which arrived more than
    /// once: whoever asked will have bought twice.
    pub fn repeated(&self) -> Vec<String> {
        let arrivals = lock(&self.shared.arrivals);
        arrivals.iter().filter(|(_, count)| **count > 1).map(|(mark, _)| mark.clone()).collect()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        *lock(&self.shared.connections)
    }
}

async fn welcome(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
) {
    let Some(tls) = tls else { return serve(stream, shared).await };
    let Ok(stream) = tls.accept(stream).await else { return };
    serve(stream, shared).await;
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    *lock(&shared.connections) += 1;
    let service = service_fn(move |request| answer(request, shared.clone()));
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let script = lock(&shared.watched).remove(&path);
    if let Some(script) = script {
        return script.play(request).await;
    }
    let number = || path.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    match path.split('/').nth(1).unwrap_or_default() {
        "echo" => echo(request).await,
        "sink" => sink(request).await,
        "bytes" => Ok(Response::new(Bulk::new(number()).map_err(Into::into).boxed_unsync())),
        "chunks" => Ok(Response::new(Bulk::without_length(number()).map_err(Into::into).boxed_unsync())),
        "status" => Ok(Response::builder().status(number() as u16).body(empty())?),
        "secure" => Ok(secure(&request)?),
        "websocket" => websocket::accept(request),
        "events" => Ok(events::answer()),
        "load" => marked::answer(request, &shared.arrivals).await,
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(text(format!("no {path} here\n")))?),
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let headers: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let page = json!({
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    let response = Response::builder().header("content-type", "application/json").header("x-origin", "echo");
    Ok(response.body(text(page.to_string()))?)
}

/// As frameworks do that are told to be reached over TLS alone.
fn secure(request: &Request<Incoming>) -> Result<Response<Body>, Error> {
    let said = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    if said("x-forwarded-proto") == Some("https") {
        return Ok(Response::new(text("secure".to_owned())));
    }
    let there = format!("https://{}{}", said("host").unwrap_or_default(), request.uri());
    Ok(Response::builder().status(StatusCode::MOVED_PERMANENTLY).header("location", there).body(empty())?)
}

async fn sink(request: Request<Incoming>) -> Result<Response<Body>, Error> {
    let length = request
        .headers()
        .get("content-length")
        .map(|length| String::from_utf8_lossy(length.as_bytes()).into_owned());
    let mut body = request.into_body();
    let mut digest = Digest::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            digest.add(&data);
        }
    }
    let page = json!({ "bytes": digest.bytes, "hash": digest.hash, "content-length": length });
    Ok(Response::new(text(page.to_string())))
}

fn text(text: String) -> Body {
    Full::from(text).map_err(|never| match never {}).boxed_unsync()
}

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
