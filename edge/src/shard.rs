//! A shard: one thread with its own runtime, visitor listeners and listeners for connectors. What arrives on a
//! shard stays on it, as long as the tunnel has a connection there; shards share only the registry.
//! The system deals packets to shards by the addresses of both ends, so a connector whose address
//! changes ends up at a stranger and has to connect anew.
//! Knows how its parts start and stop; does not know what they do.

use std::net;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::ray::Rays;
use crate::registry::Registry;
use crate::settings;
use crate::tunnel::control::Control;
use crate::tunnel::http2;
use crate::tunnel::quic;
use crate::tunnel::reception::{Reception, Strangers};
use crate::visitor::{Directory, Listener, Service};

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
    pub(crate) names: Arc<Directory>,
    pub(crate) rays: Arc<Rays>,
    pub(crate) control: Control,
    pub(crate) strangers: Arc<Strangers>,
    pub(crate) quic: quinn::ServerConfig,
    pub(crate) http2: Arc<rustls::ServerConfig>,
    pub(crate) stop: Stop,
}

/// The two moments of a stop, see [`Shard::run`].
#[derive(Clone, Default)]
pub(crate) struct Stop {
    /// No more visitors; finish those that are there.
    pub(crate) visitors: CancellationToken,
    /// No visitor of any shard is left: close the connections.
    pub(crate) connections: CancellationToken,
}

/// What a shard tells whoever started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Milestone {
    /// It serves.
    Started,
    /// Its last visitor is gone. Connections stay, because visitors of other shards may use them.
    VisitorsGone,
}

impl Shard {
    /// Serves until [`Stop`] says otherwise. Ends early only with an error.
    pub(crate) async fn run(
        self,
        shared: Arc<Shared>,
        milestones: mpsc::Sender<Milestone>,
    ) -> anyhow::Result<()> {
        let visitors = TaskTracker::new();
        let mut services = JoinSet::new();
        let service = Arc::new(Service {
            names: shared.names.clone(),
            rays: shared.rays.clone(),
            shard: self.index,
            tasks: visitors.clone(),
        });
        let permits = Listener::permits();
        let http = self.http.map(|socket| (socket, None));
        let https = self.https.map(|(socket, tls)| (socket, Some(TlsAcceptor::from(tls))));
        for (socket, tls) in http.into_iter().chain(https) {
            let socket = TcpListener::from_std(socket).context("listening for visitors")?;
            let listener = Listener { socket, tls, service: service.clone(), permits: permits.clone() };
            services.spawn(listener.run(visitors.clone(), shared.stop.visitors.clone()));
        }
        let mut acceptors = JoinSet::new();
        for Server { settings, udp, tcp } in self.servers {
            let endpoint = quic::endpoint(udp, shared.quic.clone())
                .with_context(|| format!("opening the QUIC endpoint of {}", settings.name))?;
            let listener = TcpListener::from_std(tcp)
                .with_context(|| format!("opening the TCP listener of {}", settings.name))?;
            let reception = Arc::new(Reception {
                server: settings,
                shard: self.index,
                registry: shared.registry.clone(),
                control: shared.control.clone(),
                strangers: shared.strangers.clone(),
            });
            let close = &shared.stop.connections;
            acceptors.spawn(quic::Acceptor(reception.clone()).run(endpoint, close.clone()));
            let tls = TlsAcceptor::from(shared.http2.clone());
            acceptors.spawn(http2::Acceptor(reception).run(listener, tls, close.clone()));
        }
        let _ = milestones.send(Milestone::Started).await;

        tokio::select! {
            () = shared.stop.visitors.cancelled() => {}
            Some(ended) = services.join_next() => {
                ended.context("a visitor listener ended")?;
                anyhow::ensure!(shared.stop.visitors.is_cancelled(), "a visitor listener ended");
            }
            Some(ended) = acceptors.join_next() => {
                ended.context("a listener for connectors ended")?;
                anyhow::bail!("a listener for connectors ended");
            }
        }
        visitors.close();
        if timeout(GRACE, visitors.wait()).await.is_err() {
            info!(shard = self.index, visitors = visitors.len(), "visitors cut: the grace period is over");
        }
        let _ = milestones.send(Milestone::VisitorsGone).await;

        shared.stop.connections.cancelled().await;
        while acceptors.join_next().await.is_some() {}
        Ok(())
    }
}

/// How long requests may take to finish when the edge stops.
const GRACE: Duration = Duration::from_secs(10);
/// More than this many threads per address bring nothing that was measured.
const MOST_SHARDS: usize = 8;
