//! The life of a connection after its handshake, the same over QUIC and HTTP/2: it registers in time or
//! goes, serves, leaves, drains and may then be closed. Knows the steps of that life; does not know the
//! transports, RPC, requests, who may register or who of the strangers has to go.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use adit_net::admission::{Admission, Guest};
use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info};

use super::control::Control;
use super::notice;
use super::push;
use super::registrar::{Registrar, Stage};
use crate::metrics::{Counters, Handshake, Listener, Registration};
use crate::registry::liveness::{self, Health};
use crate::registry::{Connection, Registry, Tunnel};
use crate::settings;
use crate::shutdown::Shutdown;
use crate::transport::connection::{ControlStream, Transport};

/// Where the connections of one server on one shard are received.
pub(crate) struct Session {
    pub(crate) server: Arc<settings::Server>,
    pub(crate) shard: usize,
    pub(crate) registry: Arc<Registry>,
    pub(crate) control: Control,
    pub(crate) strangers: Unregistered,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: Shutdown,
    /// What a host may send on one connection before it is read.
    pub(crate) window: u32,
}

/// The connections that have not registered yet, over all servers and shards. Each transport has a room of
/// its own, so that none of them can take the other's.
#[derive(Clone)]
pub(crate) struct Unregistered {
    pub(crate) quic: Arc<Admission>,
    pub(crate) tcp: Arc<Admission>,
}

impl Default for Unregistered {
    fn default() -> Self {
        Self { quic: Admission::new(MOST_STRANGERS), tcp: Admission::new(MOST_STRANGERS) }
    }
}

impl Unregistered {
    /// How many had to go because others came, by transport.
    pub(crate) fn turned_away(&self) -> [(Listener, u64); 2] {
        [(Listener::Quic, self.quic.turned_away()), (Listener::Http2, self.tcp.turned_away())]
    }
}

impl Session {
    /// How the handshake of a connection ended, if it was not sent away meanwhile.
    pub(crate) fn shaken(&self, listener: Listener, outcome: Handshake) {
        self.counters.handshake(self.shard, listener, outcome);
    }

    /// One connection from its control stream to the moment at which it may be closed. `closed` is done
    /// with the reason when the connection is gone.
    pub(crate) async fn serve(
        &self,
        link: Transport,
        control_stream: ControlStream,
        stranger: Guest,
        closed: impl Future<Output = String>,
    ) {
        let address = link.remote_address();
        let (server, stop) = (self.server.clone(), self.stop.clone());
        let (transport, counters) = (link.protocol(), self.counters.clone());
        let registrar =
            Arc::new(Registrar::new(self.registry.clone(), link, server, self.shard, stop, counters));
        let mut stage = registrar.watch();
        let mut control = pin!(self.control.serve(control_stream, registrar).fuse());
        let mut closed = pin!(closed);

        let decided = async {
            let decided = stage.wait_for(|stage| !matches!(stage, Stage::Waiting)).await;
            decided.map_or(Stage::Waiting, |stage| stage.clone())
        };
        let stage = tokio::select! {
            // The decision first: a host may end its stream right behind it.
            biased;
            stage = timeout(REGISTRATION, decided) => stage.unwrap_or(Stage::Waiting),
            _ = &mut closed => return,
            () = &mut control => return,
            () = stranger.dismissed() => {
                return debug!(%address, server = self.server.name, "made room for another connection");
            }
        };
        if matches!(stage, Stage::Registered(..)) {
            // It may come back over the other transport.
            self.strangers.quic.know(address.ip());
            self.strangers.tcp.know(address.ip());
        }
        drop(stranger);
        match stage {
            Stage::Waiting => {
                self.counters.registration(self.shard, transport, Registration::Late);
                debug!(%address, server = self.server.name, "not registered in time");
            }
            Stage::Refused => {
                // wire.md 3.6: the answer must arrive before the end does.
                let _ = timeout(REFUSED_LINGER, async {
                    tokio::select! { () = &mut control => {} _ = &mut closed => {} }
                })
                .await;
            }
            Stage::Registered(tunnel, live) => {
                let _registered = Registered { tunnel: tunnel.clone(), live: live.clone() };
                let _monitor = AbortOnDropHandle::new(tokio::spawn(monitor(tunnel.clone(), live.clone())));
                let (fleet, newcomer, rpc) =
                    (self.registry.fleet.clone(), live.clone(), self.control.clone());
                let id = tunnel.id;
                // Ends with this connection. Boxed, because a task keeps its size until its handle goes.
                let _push = AbortOnDropHandle::new(tokio::spawn(Box::pin(async move {
                    push::to_newcomer(&fleet, &id, &newcomer, &rpc).await;
                })));
                tokio::select! {
                    biased;
                    reason = &mut closed => return log_loss(&tunnel, &live, &reason),
                    () = live.left() => {}
                    () = notice::attend(&live, &self.stop.hosts) => {}
                    () = live.link.spent() => tunnel.leave(&live),
                    () = &mut control => {
                        // Without its control stream a host can no longer say that it leaves.
                        log_loss(&tunnel, &live, &"the host ended its control stream");
                        tunnel.leave(&live);
                    }
                }
                drain(&live, control, closed).await;
            }
        }
    }
}

/// wire.md section 0, finding 9: the host waits for its whole grace period unless the edge closes
/// when its requests are done.
async fn drain(
    live: &Connection,
    mut control: Pin<&mut impl FusedFuture<Output = ()>>,
    closed: Pin<&mut impl Future<Output = String>>,
) {
    let done = async {
        live.drained().await;
        // The answer to unregisterConnection has to arrive; the host ends the stream after it.
        if !control.is_terminated() {
            let _ = timeout(UNREGISTERED_LINGER, control.as_mut()).await;
        }
    };
    tokio::select! {
        drained = timeout(LONGEST_DRAIN, done) => {
            if drained.is_err() {
                let requests = live.requests();
                info!(connector = %live.connector, index = live.index, requests, "requests cut: draining took too long");
            }
        }
        _ = closed => {}
    }
}

/// Follows whether the host is still heard, to the end of the connection.
async fn monitor(tunnel: Arc<Tunnel>, live: Arc<Connection>) {
    let tell = |was, is| {
        let is_suspect = is == Health::Suspect;
        if is == Health::Well {
            tunnel.heard();
        }
        if is == Health::Well || was == Health::Well {
            tunnel.turned();
        }
        if !is_suspect && was != Health::Suspect {
            debug!(connector = %live.connector, index = live.index, health = ?is, "a connection hesitates");
            return;
        }
        info!(
            tunnel = %tunnel.name(),
            connector = %live.connector,
            index = live.index,
            server = live.server.name,
            protocol = live.link.protocol(),
            is_suspect,
            "{}", if is_suspect { "nothing heard of a connection" } else { "a connection is heard again" }
        );
    };
    liveness::monitor(&live.liveness, || live.link.signs(), || live.total(), tell).await;
}

/// Takes the connection out of the registry however its task ends.
struct Registered {
    tunnel: Arc<Tunnel>,
    live: Arc<Connection>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.tunnel.remove(&self.live);
    }
}

fn log_loss(tunnel: &Tunnel, live: &Connection, reason: &dyn fmt::Display) {
    info!(
        tunnel = %tunnel.name(),
        connector = %live.connector,
        index = live.index,
        server = live.server.name,
        protocol = live.link.protocol(),
        %reason,
        "connection lost"
    );
}

/// For the handshake of a connection.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the handshake to the control stream, and from there to the registration.
pub(crate) const REGISTRATION: Duration = Duration::from_secs(10);
/// How long the last packets may take when a connection is closed.
pub(crate) const FAREWELL: Duration = Duration::from_secs(1);
/// Connections over one transport that have not registered, over all servers of this process.
pub(crate) const MOST_STRANGERS: usize = 1024;
const REFUSED_LINGER: Duration = Duration::from_secs(1);
const UNREGISTERED_LINGER: Duration = Duration::from_secs(1);
/// The longest grace period that the reference connector accepts.
const LONGEST_DRAIN: Duration = Duration::from_secs(3 * 60);
