//! Accepts visitors on one address for one shard, cleartext or TLS, and keeps their number within
//! limits. Knows sockets; does not know HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_net::{accept, proxy_protocol};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connection;
use super::preface::{self, Protocol};
use super::service::{Handler, Service};
use super::socket::Socket;
use crate::limits::in_flight::Activity;
use crate::limits::pace::Share;
use crate::limits::per_address::{Source, Sources};
use crate::listen;
use crate::metrics::{self, Door, Handshake};
use crate::shutdown::Stop;

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
                Some(accepted) = self.accept() => self.take(accepted, &connections, &stop),
            }
        }
        // Closing would reset whoever the system has let in already. New ones it holds back from here on:
        // they will try again and find nobody, which is no connection lost.
        listen::close_door(&self.socket);
        let waiting = async {
            while let Ok(Some(accepted)) = timeout(EMPTY, self.accept()).await {
                self.take(accepted, &connections, &stop);
            }
        };
        let _ = timeout(EMPTYING, waiting).await;
    }

    fn take(&self, (stream, address, permit): Accepted, connections: &TaskTracker, stop: &Stop) {
        let peer = address.ip().to_canonical();
        let newcomer = Newcomer {
            stream,
            permit,
            tls: self.tls.clone(),
            service: self.service.clone(),
            stop: stop.clone(),
        };
        let sources = self.sources.clone();
        let proxies = &self.service.proxies;
        if proxies.announce && proxies.trusts(peer) {
            connections.spawn(newcomer.announced(peer, sources));
        } else if let Some(source) = newcomer.admit(&sources, peer) {
            connections.spawn(newcomer.serve(peer, source));
        }
    }

    async fn accept(&self) -> Option<Accepted> {
        let permit = self.permits.clone().acquire_owned().await.ok()?;
        let (stream, address) = accept::next(&self.socket, "visitors", None).await;
        Some((stream, address, permit))
    }
}

/// A connection of which nothing was read.
struct Newcomer {
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    tls: Option<TlsAcceptor>,
    service: Arc<Service>,
    stop: Stop,
}

impl Newcomer {
    /// Without a word: whatever is said costs more than it is worth.
    fn admit(&self, sources: &Arc<Sources>, visitor: IpAddr) -> Option<Source> {
        let source = sources.admit(visitor);
        if source.is_none() {
            debug!(%visitor, "has enough connections");
            self.service.counters.turned_away(self.service.shard, self.door());
        }
        source
    }

    fn door(&self) -> Door {
        if self.tls.is_some() { Door::Https } else { Door::Http }
    }

    /// The connection of a proxy that says first whose it is.
    async fn announced(mut self, proxy: IpAddr, sources: Arc<Sources>) {
        let said = begun(proxy_protocol::read(&mut self.stream), &self.stop).await;
        let Ok(said) = said else {
            return debug!(%proxy, "a trusted proxy did not say whose its connection is");
        };
        let visitor = said.map_or(proxy, |visitor| visitor.ip().to_canonical());
        if let Some(source) = self.admit(&sources, visitor) {
            self.serve(visitor, source).await;
        }
    }

    async fn serve(self, visitor: IpAddr, source: Source) {
        let _open = self.service.counters.open(self.service.shard, self.door());
        let Self { stream, permit, tls, service, stop } = self;
        listen::keep_little_unsent(&stream);
        let share = Share::new(&service.account, service.shard, visitor);
        let activity = Activity::new(permit, source, &share);
        let share = share.within(activity.group());
        let handler =
            Handler { service, activity: activity.clone(), visitor, share, is_secure: tls.is_some() };
        let stream = Socket::new(stream, activity.clone());
        match tls {
            Some(tls) => {
                let shaken = begun(tls.accept(stream), &stop).await;
                let outcome = shaken.as_ref().map_or_else(|outcome| *outcome, |_| Handshake::Done);
                let Service { counters, shard, .. } = &*handler.service;
                counters.handshake(*shard, metrics::Listener::Https, outcome);
                let Ok(stream) = shaken else { return };
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Protocol::Http2,
                    _ => Protocol::Http1,
                };
                connection::serve(stream, protocol, handler, &activity, &stop).await;
            }
            None => {
                let Ok((protocol, stream)) = begun(preface::detect(stream), &stop).await else { return };
                connection::serve(stream, protocol, handler, &activity, &stop).await;
            }
        }
    }
}

/// What a connection begins with, unless it fails, or takes longer than it may.
async fn begun<T>(beginning: impl Future<Output = io::Result<T>>, stop: &Stop) -> Result<T, Handshake> {
    tokio::select! {
        begun = timeout(HANDSHAKE, beginning) => {
            begun.map_err(|_| Handshake::Late)?.map_err(|_| Handshake::Failed)
        }
        () = async { stop.visitors.wait().await; sleep(HASTE).await } => Err(Handshake::Late),
    }
}

const MOST_CONNECTIONS: usize = 10_000;
/// For the TLS handshake, the first bytes of a cleartext connection, and what a proxy says before either.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// The same when the edge stops.
const HASTE: Duration = Duration::from_secs(1);
/// The system has nobody left who waits.
const EMPTY: Duration = Duration::from_millis(20);
/// However many still come.
const EMPTYING: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use adit_pace::Account;

    use super::*;
    use crate::forward::Patience;
    use crate::forward::ray::Rays;
    use crate::limits::per_address::Limits;
    use crate::settings::host_name::HostNames;
    use crate::visitor::{Directory, Table};

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
            proxies: Arc::default(),
            rays: Arc::new(Rays::new("test")),
            shard: 0,
            patience: Patience { answer: HANDSHAKE, upload: HANDSHAKE },
            half_closed: Duration::ZERO,
            stop: stop.clone(),
            tasks: tasks.clone(),
            account: Account::new(adit_pace::Limits::default(), 1),
            counters: metrics::Counters::new(1),
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
