//! Accepts visitors on one address for one shard, cleartext or TLS, and keeps their number within
//! limits. Knows sockets; does not know HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::connection;
use super::preface::{self, Protocol};
use super::service::{Handler, Service};
use super::sources::Sources;
use crate::activity::Activity;
use crate::sockets;
use crate::stop::Stop;

/// A visitor with its place among all.
type Accepted = (TcpStream, SocketAddr, OwnedSemaphorePermit);

/// One public address on one shard.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) service: Arc<Service>,
    /// Shared by the listeners of a shard, see [`Listener::permits`].
    pub(crate) permits: Arc<Semaphore>,
    /// Shared by all listeners of the edge.
    pub(crate) sources: Arc<Sources>,
}

impl Listener {
    /// How many visitors' connections one shard holds; further ones wait in the system's queue.
    pub(crate) fn permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MOST_CONNECTIONS))
    }

    /// Accepts visitors until `stop` says that there are enough; each becomes a task of `connections`.
    pub(crate) async fn run(self, connections: TaskTracker, stop: Stop) {
        loop {
            tokio::select! {
                () = stop.visitors.wait() => break,
                accepted = self.accept() => self.take(accepted, &connections, &stop).await,
            }
        }
        // Closing would reset whoever the system has let in already. New ones it holds back from here on:
        // they will try again and find nobody, which is no connection lost.
        sockets::close_door(&self.socket);
        let waiting = async {
            while let Ok(accepted) = timeout(EMPTY, self.accept()).await {
                self.take(accepted, &connections, &stop).await;
            }
        };
        let _ = timeout(EMPTYING, waiting).await;
    }

    async fn take(&self, accepted: io::Result<Accepted>, connections: &TaskTracker, stop: &Stop) {
        match accepted {
            Ok((stream, address, permit)) => {
                // Without a word: whatever is said costs more than it is worth.
                let Some(source) = self.sources.admit(address.ip()) else {
                    return debug!(visitor = %address.ip(), "has enough connections");
                };
                let tls = self.tls.clone();
                let handler = Handler {
                    service: self.service.clone(),
                    activity: Activity::new(permit, source),
                    visitor: address.ip(),
                    is_secure: tls.is_some(),
                };
                connections.spawn(serve(stream, tls, handler, stop.clone()));
            }
            Err(error) if sockets::is_about_one_peer(&error) => {
                debug!(%error, "visitor left before it was accepted")
            }
            Err(error) => {
                warn!(%error, "cannot accept visitors");
                sleep(AFTER_ERROR).await;
            }
        }
    }

    async fn accept(&self) -> io::Result<Accepted> {
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let (stream, address) = self.socket.accept().await?;
        // Small answers must not wait for an acknowledgement.
        stream.set_nodelay(true)?;
        Ok((stream, address, permit))
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, handler: Handler, stop: Stop) {
    let activity = handler.activity.clone();
    match tls {
        Some(tls) => {
            let Some(stream) = begun(tls.accept(stream), &stop).await else { return };
            let protocol = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Protocol::Http2,
                _ => Protocol::Http1,
            };
            connection::serve(TokioIo::new(stream), protocol, handler, &activity, &stop).await;
        }
        None => {
            let Some((protocol, stream)) = begun(preface::detect(stream), &stop).await else { return };
            connection::serve(TokioIo::new(stream), protocol, handler, &activity, &stop).await;
        }
    }
}

/// What a connection begins with, unless it fails, or takes longer than it may.
async fn begun<T>(beginning: impl Future<Output = io::Result<T>>, stop: &Stop) -> Option<T> {
    tokio::select! {
        begun = timeout(HANDSHAKE, beginning) => begun.ok()?.ok(),
        () = async { stop.visitors.wait().await; sleep(HASTE).await } => None,
    }
}

const MOST_CONNECTIONS: usize = 10_000;
/// For the TLS handshake, or the first bytes of a cleartext connection.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The same when the edge stops.
const HASTE: Duration = Duration::from_secs(1);
/// The system has nobody left who waits.
const EMPTY: Duration = Duration::from_millis(20);
/// However many still come.
const EMPTYING: Duration = Duration::from_secs(1);
/// Mostly there is no file descriptor left, and a while later there is.
const AFTER_ERROR: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::ray::Rays;
    use crate::visitor::{Directory, HostNames, Limits, Table};

    #[tokio::test]
    async fn whoever_waits_when_a_listener_closes_is_let_in_and_answered() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), Stop::default());
        let service = Arc::new(Service {
            names: Arc::new(Directory::new(Table {
                names: HostNames::new([]),
                domain: None,
                tunnels: Arc::default(),
            })),
            rays: Arc::new(Rays::new("test")),
            shard: 0,
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        let mut visitors = Vec::new();
        for _ in 0..20 {
            visitors.push(TcpStream::connect(address).await.unwrap());
        }
        stop.draining.come();
        stop.visitors.come();
        let limits = Limits { connections: 0, requests: 0, unlimited: Vec::new() };
        let sources = Sources::new(limits);
        let listener = Listener { socket, tls: None, service, permits: Listener::permits(), sources };
        listener.run(tasks, stop).await;
        assert!(TcpStream::connect(address).await.is_err());
        for mut visitor in visitors {
            visitor.write_all(b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            visitor.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
        }
    }
}
