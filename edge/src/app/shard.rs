//! A shard: one thread with its own runtime, visitor listeners and listeners for connectors. What arrives on a
//! shard stays on it, as long as the tunnel has a connection there; shards share only the registry.
//! The system deals packets to shards by the addresses of both ends, so a connector whose address
//! changes ends up at a stranger and has to connect anew.
//! Knows how its parts start and stop; does not know what they do.

use std::net::{self, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_pace::Account;
use adit_traces::Tracer;
use anyhow::Context;
use rustls::server::ClientHello;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tracing::info;

use crate::app::watchdog::Watchdog;
use crate::certificates::challenges::Challenges;
use crate::forward::Patience;
use crate::forward::ray::Rays;
use crate::limits::in_flight::InFlight;
use crate::limits::per_address::AddressLimits;
use crate::metrics::Counters;
use crate::peers::{Door, Peers};
use crate::registry::Registry;
use crate::settings;
use crate::shutdown::Shutdown;
use crate::tls::{CONNECTOR_NAMES, Seed};
use crate::tunnel::control::Control;
use crate::tunnel::session::{Session, Unregistered};
use crate::tunnel::{accept_http2, accept_quic};
use crate::visitor::{Guide, Hosts, Listener, Secure, Service, Socket};

/// How many shards this process has: a core each, where several sockets can share an address.
pub(crate) fn count() -> usize {
    if !cfg!(target_os = "linux") {
        return 1;
    }
    std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_SHARDS))
}

/// What one shard owns from the start: its sockets, bound.
pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) http: Option<net::TcpListener>,
    pub(crate) https: Option<(net::TcpListener, Arc<rustls::ServerConfig>)>,
    pub(crate) servers: Vec<Server>,
    /// Where other nodes of the fleet come in.
    pub(crate) nodes: Option<net::TcpListener>,
    /// Everything that is there for visitors: their connections, and what outlives the answers.
    pub(crate) visitors: TaskTracker,
}

/// One server with the sockets of one shard.
pub(crate) struct Server {
    pub(crate) settings: Arc<settings::Server>,
    pub(crate) udp: net::UdpSocket,
    pub(crate) tcp: net::TcpListener,
}

/// What all shards share.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) guide: Arc<Guide>,
    pub(crate) rays: Arc<Rays>,
    pub(crate) control: Control,
    pub(crate) strangers: Unregistered,
    pub(crate) sources: Arc<AddressLimits>,
    pub(crate) challenges: Arc<Challenges>,
    pub(crate) secure: Arc<Secure>,
    pub(crate) identifying: Arc<[Arc<rustls::ServerConfig>]>,
    pub(crate) patience: Patience,
    pub(crate) half_closed: Duration,
    pub(crate) quic: quinn::ServerConfig,
    /// What the endpoints draw their keys from.
    pub(crate) seed: Seed,
    pub(crate) http2: Arc<rustls::ServerConfig>,
    pub(crate) stop: Shutdown,
    pub(crate) watchdog: Watchdog,
    /// What peers do not take.
    pub(crate) account: Arc<Account>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) tracer: Option<Tracer>,
    /// The other nodes of the fleet.
    pub(crate) peers: Option<Arc<Peers>>,
}

/// What a shard tells whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardPhase {
    /// It serves.
    Started,
    /// It lets no more visitors in.
    Closed,
    /// Its last visitor is gone. Connections stay, because visitors of other shards may use them.
    VisitorsGone,
}

impl Shard {
    /// Serves until [`Shutdown`] says otherwise. Ends early only with an error.
    pub(crate) async fn run(
        self,
        shared: Arc<Shared>,
        milestones: mpsc::Sender<ShardPhase>,
    ) -> anyhow::Result<()> {
        let (visitors, stop) = (self.visitors, &shared.stop);
        let mut services = JoinSet::new();
        let service = Arc::new(Service {
            guide: shared.guide.clone(),
            challenges: shared.challenges.clone(),
            secure: shared.secure.clone(),
            identifying: shared.identifying.clone(),
            rays: shared.rays.clone(),
            shard: self.index,
            patience: shared.patience,
            half_closed: shared.half_closed,
            stop: stop.clone(),
            tasks: visitors.clone(),
            account: shared.account.clone(),
            counters: shared.counters.clone(),
            tracer: shared.tracer.clone(),
        });
        let mut acceptors = JoinSet::new();
        let mut hosts: Option<Arc<dyn Hosts>> = None;
        for Server { settings, udp, tcp } in self.servers {
            let (name, is_at_visitors) = (&settings.name, settings.is_at_visitors);
            let endpoint = accept_quic::endpoint(udp, shared.quic.clone(), &shared.seed, name, self.index)
                .with_context(|| format!("opening the QUIC endpoint of {}", settings.name))?;
            let listener = TcpListener::from_std(tcp)
                .with_context(|| format!("opening the TCP listener of {}", settings.name))?;
            let reception = Arc::new(Session {
                server: settings,
                shard: self.index,
                registry: shared.registry.clone(),
                control: shared.control.clone(),
                strangers: shared.strangers.clone(),
                counters: shared.counters.clone(),
                stop: stop.clone(),
                window: shared.account.limits().connection_window(),
            });
            acceptors.spawn(accept_quic::Acceptor(reception.clone()).run(endpoint));
            let door = accept_http2::Acceptor::new(reception);
            if is_at_visitors {
                hosts = Some(Arc::new(HostsAmongVisitors { door: door.clone(), tls: shared.http2.clone() }));
            }
            acceptors.spawn(door.run(listener, TlsAcceptor::from(shared.http2.clone())));
        }
        if let (Some(peers), Some(socket)) = (&shared.peers, self.nodes) {
            let listener = TcpListener::from_std(socket).context("listening for other nodes")?;
            let door = Door {
                peers: peers.clone(),
                shard: self.index,
                patience: shared.patience,
                tasks: visitors.clone(),
                account: shared.account.clone(),
                tracer: shared.tracer.clone(),
            };
            acceptors.spawn(door.run(listener));
            acceptors.spawn(peers.clone().connect(self.index));
        }
        let room = Listener::room();
        let http = self.http.map(|socket| (socket, None));
        let https = self.https.map(|(socket, tls)| (socket, Some(TlsAcceptor::from(tls))));
        for (socket, tls) in http.into_iter().chain(https) {
            let socket = TcpListener::from_std(socket).context("listening for visitors")?;
            let (room, sources) = (room.clone(), shared.sources.clone());
            let hosts = hosts.clone().filter(|_| tls.is_some());
            let listener = Listener { socket, tls, hosts, service: service.clone(), room, sources };
            services.spawn(listener.run(visitors.clone(), stop.clone()));
        }
        let _lives = AbortOnDropHandle::new(tokio::spawn(shared.watchdog.clone().answer_for(self.index)));
        let _ = milestones.send(ShardPhase::Started).await;

        tokio::select! {
            () = stop.visitors.wait() => {}
            Some(ended) = services.join_next() => {
                ended.context("a visitor listener ended")?;
                anyhow::ensure!(stop.visitors.is_fired(), "a visitor listener ended");
            }
            Some(ended) = acceptors.join_next() => {
                ended.context("a listener for connectors ended")?;
                anyhow::bail!("a listener for connectors ended");
            }
        }
        while services.join_next().await.is_some() {}
        let _ = milestones.send(ShardPhase::Closed).await;

        visitors.close();
        tokio::select! {
            () = visitors.wait() => {}
            () = stop.cut.wait() => {
                info!(shard = self.index, visitors = visitors.len(), "visitors cut: the grace period is over");
                // Those who can be told are; the others end with their connections.
                let _ = timeout(FAREWELL, visitors.wait()).await;
            }
        }
        let _ = milestones.send(ShardPhase::VisitorsGone).await;

        stop.connections.wait().await;
        while acceptors.join_next().await.is_some() {}
        Ok(())
    }
}

/// Hosts that come in over TLS where visitors do.
struct HostsAmongVisitors {
    door: accept_http2::Acceptor,
    tls: Arc<rustls::ServerConfig>,
}

impl Hosts for HostsAmongVisitors {
    fn are_meant(&self, hello: &ClientHello<'_>) -> bool {
        // wire.md section 6: they offer no protocol.
        hello.alpn().is_none() && hello.server_name().is_some_and(|name| CONNECTOR_NAMES.contains(&name))
    }

    fn tls(&self) -> Arc<rustls::ServerConfig> {
        self.tls.clone()
    }

    fn take(&self, stream: TlsStream<Socket>, address: SocketAddr, place: InFlight) {
        self.door.take(stream, address, place);
    }
}

/// How long visitors may take to go when they are cut.
const FAREWELL: Duration = Duration::from_millis(500);
/// More than this many threads per address bring nothing that was measured.
const MOST_SHARDS: usize = 8;
