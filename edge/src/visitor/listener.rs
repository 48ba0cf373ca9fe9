//! Accepts visitors on one address for one shard, cleartext or TLS, and keeps their number within
//! limits: where there is room for no more, one of those goes who only hold a connection. Knows sockets; does
//! not know HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_net::admission::{Admission, Guest};
use adit_net::{accept, proxy_protocol};
use adit_protocol::extensions::TlsVersion;
use rustls::server::{Acceptor, ClientHello};
use rustls::{ProtocolVersion, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connection;
use super::guide::Arrival;
use super::identified::Identified;
use super::preface::{self, Protocol};
use super::service::{Handler, Service};
use super::socket::Socket;
use crate::certificates::challenges::{self, ACME_TLS};
use crate::limits::in_flight::{Activity, InFlight};
use crate::limits::pace::Share;
use crate::limits::per_address::{AddressLimits, Source};
use crate::listen;
use crate::metrics::{self, Door, Handshake};
use crate::shutdown::Shutdown;

/// Who takes connections over TLS that are no visitors', on an address for both.
pub(crate) trait Hosts: Send + Sync {
    /// Whether whoever begins like this is one of them.
    fn are_meant(&self, hello: &ClientHello<'_>) -> bool;

    /// What they are shown.
    fn tls(&self) -> Arc<ServerConfig>;

    /// `place` is what the connection has among visitors, until it ends.
    fn take(&self, stream: TlsStream<Socket>, address: SocketAddr, place: InFlight);
}

/// One public address on one shard.
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) hosts: Option<Arc<dyn Hosts>>,
    pub(crate) service: Arc<Service>,
    /// Shared by the listeners of a shard, see [`Listener::room`].
    pub(crate) room: Arc<Admission>,
    /// Shared by all listeners of the edge.
    pub(crate) sources: Arc<AddressLimits>,
}

impl Listener {
    /// For the connections of all visitors of one shard.
    pub(crate) fn room() -> Arc<Admission> {
        Admission::shared(MOST_CONNECTIONS)
    }

    /// Accepts visitors until `stop` says that there are enough; each becomes a task of `connections`.
    pub(crate) async fn run(self, connections: TaskTracker, stop: Shutdown) {
        loop {
            tokio::select! {
                () = stop.visitors.wait() => break,
                accepted = self.accept() => self.take(accepted, &connections, &stop),
            }
        }
        // Closing would reset whoever the system has let in already. New ones it holds back from here on:
        // they will try again and find nobody, which is no connection lost.
        listen::close_door(&self.socket);
        let waiting = async {
            while let Ok(accepted) = timeout(EMPTY, self.accept()).await {
                self.take(accepted, &connections, &stop);
            }
        };
        let _ = timeout(EMPTYING, waiting).await;
    }

    fn take(&self, (stream, address): (TcpStream, SocketAddr), connections: &TaskTracker, stop: &Shutdown) {
        let peer = address.ip().to_canonical();
        let newcomer = |place| Newcomer {
            stream,
            place,
            tls: self.tls.clone(),
            hosts: self.hosts.clone(),
            service: self.service.clone(),
            stop: stop.clone(),
        };
        let sources = self.sources.clone();
        let proxies = &self.service.guide.proxies;
        if proxies.announce && proxies.trusts(peer) {
            let place = self.room.admit(peer);
            place.vouch();
            connections.spawn(newcomer(place).announced(peer, sources));
        } else if let Some(source) = admit(&self.service, door(self.tls.as_ref()), &sources, peer) {
            let place = self.room.admit(peer);
            connections.spawn(newcomer(place).serve(SocketAddr::new(peer, address.port()), source));
        }
    }

    async fn accept(&self) -> (TcpStream, SocketAddr) {
        accept::next(&self.socket, "visitors", Some(&self.room)).await
    }
}

/// A connection of which nothing was read.
struct Newcomer {
    stream: TcpStream,
    place: Guest,
    tls: Option<TlsAcceptor>,
    hosts: Option<Arc<dyn Hosts>>,
    service: Arc<Service>,
    stop: Shutdown,
}

impl Newcomer {
    fn admit(&self, sources: &Arc<AddressLimits>, visitor: IpAddr) -> Option<Source> {
        admit(&self.service, self.door(), sources, visitor)
    }

    fn door(&self) -> Door {
        door(self.tls.as_ref())
    }

    /// The connection of a proxy that says first whose it is.
    async fn announced(mut self, proxy: IpAddr, sources: Arc<AddressLimits>) {
        let reading = begun(proxy_protocol::read(&mut self.stream), &self.stop);
        let Some(Ok(said)) = self.place.unless_dismissed(reading).await else {
            return debug!(%proxy, "a trusted proxy did not say whose its connection is");
        };
        // Of what a proxy asks for itself the port says nothing of a visitor.
        let (visitor, port) =
            said.map_or((proxy, 0), |visitor| (visitor.ip().to_canonical(), visitor.port()));
        if let Some(source) = self.admit(&sources, visitor) {
            self.place.speak_for(visitor);
            self.serve(SocketAddr::new(visitor, port), source).await;
        }
    }

    async fn serve(self, address: SocketAddr, source: Source) {
        let _open = self.service.counters.open(self.service.shard, self.door());
        let Self { stream, place, tls, hosts, service, stop } = self;
        let (visitor, port) = (address.ip(), address.port());
        if source.is_unlimited() {
            place.vouch();
        }
        listen::keep_little_unsent(&stream);
        let share = Share::new(&service.account, service.shard, visitor);
        let activity = Activity::new(place, source, &share);
        let share = share.within(activity.group());
        let mut handler = Handler {
            service,
            activity: activity.clone(),
            visitor,
            share,
            is_secure: tls.is_some(),
            arrival: Arrival { port: Some(port).filter(|port| *port > 0), tls: None },
            identified: None,
        };
        let stream = Socket::new(stream, activity.clone());
        match tls {
            Some(tls) => {
                let shaking = shake(stream, &tls, hosts.as_ref(), &handler.service);
                let shaking = activity.unless_dismissed(begun(shaking, &stop));
                let shaken = shaking.await.unwrap_or(Err(Handshake::Late));
                let outcome = shaken.as_ref().map_or_else(|outcome| *outcome, |_| Handshake::Done);
                let Service { counters, shard, .. } = &*handler.service;
                counters.handshake(*shard, metrics::Listener::Https, outcome);
                let Ok((stream, role)) = shaken else { return };
                match role {
                    Role::Visitor => {}
                    Role::Identified(host) => {
                        let chain = stream.get_ref().1.peer_certificates();
                        handler.identified = Some(Arc::new(Identified::new(host, chain)));
                    }
                    Role::Host(hosts) => {
                        return hosts.take(stream, address, activity.begin());
                    }
                }
                handler.arrival.tls = version(stream.get_ref().1.protocol_version());
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Protocol::Http2,
                    // It has seen what it came for.
                    Some(ACME_TLS) => return,
                    _ => Protocol::Http1,
                };
                connection::serve(stream, protocol, handler, &activity, &stop).await;
            }
            None => {
                let looking = activity.unless_dismissed(begun(preface::detect(stream), &stop));
                let Some(Ok((protocol, stream))) = looking.await else { return };
                connection::serve(stream, protocol, handler, &activity, &stop).await;
            }
        }
    }
}

fn version(version: Option<ProtocolVersion>) -> Option<TlsVersion> {
    // These are all that it is ever agreed on.
    let version = version?;
    let known =
        [(ProtocolVersion::TLSv1_2, TlsVersion::Tls12), (ProtocolVersion::TLSv1_3, TlsVersion::Tls13)];
    known.into_iter().find(|(known, _)| *known == version).map(|(_, version)| version)
}

/// As what somebody has come.
enum Role {
    Visitor,
    /// For this host, which wants a certificate.
    Identified(String),
    Host(Arc<dyn Hosts>),
}

/// Shakes hands as a visitor's server, or as that of hosts if it is one of them who has come.
async fn shake(
    stream: Socket,
    tls: &TlsAcceptor,
    hosts: Option<&Arc<dyn Hosts>>,
    service: &Service,
) -> io::Result<(TlsStream<Socket>, Role)> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = start.client_hello();
    if let Some(hosts) = hosts.filter(|hosts| hosts.are_meant(&hello)) {
        return Ok((start.into_stream(hosts.tls()).await?, Role::Host(hosts.clone())));
    }
    if let Some(host) = challenges::looked_for(&hello) {
        service.challenges.await_over_tls(&host).await;
    } else if let Some((host, identifying)) = identifying(&hello, service) {
        return Ok((start.into_stream(identifying).await?, Role::Identified(host)));
    }
    Ok((start.into_stream(tls.config().clone()).await?, Role::Visitor))
}

/// The host that somebody asks for and what asks for its certificate, if that host wants any: found as requests find it.
fn identifying(hello: &ClientHello<'_>, service: &Service) -> Option<(String, Arc<ServerConfig>)> {
    let host = adit_address::host(hello.server_name()?).ok()?;
    let wanted = service.secure.find(&host)?.certificate?;
    Some((host.into_owned(), service.identifying.get(wanted.verifier)?.clone()))
}

fn door(tls: Option<&TlsAcceptor>) -> Door {
    if tls.is_some() { Door::Https } else { Door::Http }
}

/// Without a word: whatever is said costs more than it is worth.
fn admit(service: &Service, door: Door, sources: &Arc<AddressLimits>, visitor: IpAddr) -> Option<Source> {
    let source = sources.admit(visitor);
    if source.is_none() {
        debug!(%visitor, "has enough connections");
        service.counters.turned_away(service.shard, door);
    }
    source
}

/// What a connection begins with, unless it fails, or takes longer than it may.
async fn begun<T>(beginning: impl Future<Output = io::Result<T>>, stop: &Shutdown) -> Result<T, Handshake> {
    tokio::select! {
        begun = timeout(HANDSHAKE, beginning) => {
            begun.map_err(|_| Handshake::Late)?.map_err(|_| Handshake::Failed)
        }
        () = async { stop.visitors.wait().await; sleep(HASTE).await } => Err(Handshake::Late),
    }
}

/// On one shard. Half of it is safe for connections with requests.
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
    use crate::certificates::Certificates;
    use crate::certificates::place::Use;
    use crate::forward::Patience;
    use crate::forward::ray::Rays;
    use crate::limits::per_address::Limits;
    use crate::settings::host_name::HostNames;
    use crate::tls::visitors::visitor_tls;
    use crate::tls::{DevelopmentCa, TlsPolicy};
    use crate::visitor::{Guide, HostTable, Table};

    fn service(tasks: &TaskTracker, stop: &Shutdown) -> Arc<Service> {
        Arc::new(Service {
            guide: Arc::new(Guide {
                loops: None,
                names: Arc::new(HostTable::new(Table {
                    names: HostNames::new([]),
                    domain: None,
                    tunnels: Arc::default(),
                })),
                proxies: Arc::default(),
                geography: Arc::default(),
            }),
            challenges: Arc::default(),
            secure: Arc::default(),
            identifying: Arc::new([]),
            rays: Arc::new(Rays::new("test")),
            shard: 0,
            patience: Patience { answer: HANDSHAKE, upload: HANDSHAKE },
            half_closed: Duration::ZERO,
            stop: stop.clone(),
            tasks: tasks.clone(),
            account: Account::new(adit_pace::Limits::default(), 1),
            counters: metrics::Counters::new(1),
            tracer: None,
        })
    }

    fn sources() -> Arc<AddressLimits> {
        AddressLimits::new(Limits { connections: 0, requests: 0, unlimited: Vec::new() })
    }

    #[tokio::test]
    async fn whoever_waits_when_a_listener_closes_is_let_in_and_answered() {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (tasks, stop) = (TaskTracker::new(), Shutdown::default());
        let service = service(&tasks, &stop);
        let mut visitors = Vec::new();
        for _ in 0..20 {
            visitors.push(TcpStream::connect(address).await.unwrap());
        }
        stop.draining.fire();
        stop.visitors.fire();
        let listener =
            Listener { socket, tls: None, hosts: None, service, room: Listener::room(), sources: sources() };
        listener.run(tasks, stop).await;
        assert!(TcpStream::connect(address).await.is_err());
        for mut visitor in visitors {
            visitor.write_all(b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            visitor.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{answer}");
        }
    }

    /// Every address that begins with 127 is this machine.
    #[cfg(target_os = "linux")]
    async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        socket.connect(to).await.unwrap()
    }

    #[cfg(target_os = "linux")]
    async fn ask(visitor: &mut TcpStream) -> bool {
        let request = b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n";
        let mut answer = [0; 4096];
        let asked = async {
            visitor.write_all(request).await.ok()?;
            let count = visitor.read(&mut answer).await.ok()?;
            answer[..count].starts_with(b"HTTP/1.1 404").then_some(())
        };
        timeout(HANDSHAKE / 2, asked).await.is_ok_and(|asked| asked.is_some())
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn who_only_holds_connections_makes_room_for_visitors_of_other_addresses() {
        const MANY: [u8; 4] = [127, 0, 0, 1];
        const FEW: [u8; 4] = [127, 0, 0, 2];
        let (tasks, stop, sources, room) =
            (TaskTracker::new(), Shutdown::default(), sources(), Admission::shared(8));
        let folder = tempfile::tempdir().unwrap();
        let ca = DevelopmentCa::open(folder.path()).unwrap();
        let identity = ca.issue(vec!["nobody.example".to_owned()]).unwrap();
        let tls = TlsAcceptor::from(Arc::new(
            visitor_tls(Certificates::default().add_made(Use::Visitors, identity), TlsPolicy::default())
                .unwrap(),
        ));
        let mut addresses = Vec::new();
        for tls in [None, Some(tls)] {
            let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push((socket.local_addr().unwrap(), tls.is_some()));
            let (service, room) = (service(&tasks, &stop), room.clone());
            let listener = Listener { socket, tls, hosts: None, service, room, sources: sources.clone() };
            tasks.spawn(listener.run(tasks.clone(), stop.clone()));
        }
        let mut idle = Vec::new();
        let half_head = b"GET / HTTP/1.1\r\nHost: nobody.example\r\n";
        let half_hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
        let mut stays = None;
        for _ in 0..2 {
            for (address, is_tls) in &addresses {
                for head in [&b""[..], if *is_tls { half_hello } else { half_head }] {
                    for _ in 0..20 {
                        let mut socket = connect(MANY, *address).await;
                        // It may have had to go already.
                        let _ = socket.write_all(head).await;
                        idle.push(socket);
                    }
                    let mut visitor = connect(FEW, addresses[0].0).await;
                    assert!(ask(&mut visitor).await, "a visitor was kept waiting");
                    if let Some(earlier) = &mut stays {
                        assert!(ask(earlier).await, "one of few had to go");
                    }
                    stays = Some(visitor);
                }
            }
        }
        let is_open = |socket: &&TcpStream| matches!(socket.try_read(&mut [0; 64]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        let leaving = async {
            while idle.iter().filter(is_open).count() > 8 {
                tokio::task::yield_now().await;
            }
        };
        timeout(HANDSHAKE / 2, leaving).await.expect("who has to go goes");
        stop.visitors.fire();
    }
}
