//! Connections of connectors over QUIC: accepts them, keeps strangers within limits and closes them
//! in order. Knows quinn and the steps of a connection's life; does not know RPC, requests or who may
//! register.

use std::fmt;
use std::net::UdpSocket;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::FusedFuture;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{
    Connection, ConnectionError, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig,
    VarInt,
};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::control::Control;
use super::registrar::{Registrar, Stage};
use crate::certificates::{CONNECTOR_ALPN, PROBE_NAME};
use crate::registry::{Live, Registry, Tunnel};
use crate::settings;

/// One server's endpoint on one shard.
pub(crate) struct Acceptor {
    pub(crate) server: Arc<settings::Server>,
    pub(crate) shard: usize,
    pub(crate) registry: Arc<Registry>,
    pub(crate) control: Control,
    pub(crate) strangers: Arc<Strangers>,
}

/// Counts the connections that have not registered yet, over all servers and shards.
#[derive(Default)]
pub(crate) struct Strangers(AtomicUsize);

struct Stranger(Arc<Strangers>);

/// What QUIC does and offers: TLS and transport parameters (wire.md section 2).
pub(crate) fn server_config(tls: rustls::ServerConfig) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport()));
    config.max_incoming(MOST_STRANGERS).incoming_buffer_size_total(INCOMING_BUFFER);
    Ok(config)
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE.try_into().expect("seconds fit into a QUIC time-out")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_OF_HOST))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER));
    transport
}

/// Opens the endpoint of one shard on an address that is already bound. Needs a runtime around it.
pub(crate) fn endpoint(socket: UdpSocket, config: ServerConfig) -> std::io::Result<quinn::Endpoint> {
    quinn::Endpoint::new(EndpointConfig::default(), Some(config), socket, Arc::new(TokioRuntime))
}

impl Acceptor {
    /// Accepts connections until `close`, then closes all of them with code 0.
    pub(crate) async fn run(self: Arc<Self>, endpoint: quinn::Endpoint, close: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let incoming = tokio::select! {
                () = close.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let Some(stranger) = self.strangers.admit() else {
                debug!(server = self.server.name, "refused a connection: too many are not registered yet");
                incoming.refuse();
                continue;
            };
            if !incoming.remote_address_validated() && self.strangers.count() > STRANGERS_WITHOUT_PROOF {
                // Many at once may be forged addresses: each has to prove that it can be reached.
                let _ = incoming.retry();
                continue;
            }
            connections.spawn(self.clone().accept(incoming, stranger, close.clone()));
        }
        endpoint.close(CODE, b"");
        connections.close();
        let _ = timeout(FAREWELL, async { tokio::join!(connections.wait(), endpoint.wait_idle()) }).await;
    }

    async fn accept(self: Arc<Self>, incoming: Incoming, stranger: Stranger, close: CancellationToken) {
        let address = incoming.remote_address();
        let handshake = async {
            match incoming.accept() {
                Ok(connecting) => connecting.await,
                Err(error) => Err(error),
            }
        };
        let connection = match timeout(HANDSHAKE, handshake).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                debug!(%address, server = self.server.name, %error, "handshake not completed");
                return;
            }
            Err(_) => return,
        };
        tokio::select! {
            () = self.serve(&connection, stranger) => {}
            () = close.cancelled() => {}
        }
        connection.close(CODE, b"");
    }

    /// One connection from its handshake to the moment at which it may be closed.
    async fn serve(&self, connection: &Connection, stranger: Stranger) {
        if !speaks_our_protocol(connection) {
            return;
        }
        if is_probe(connection) {
            let _ = timeout(REGISTRATION, connection.closed()).await;
            return;
        }
        let Ok(Ok(control_stream)) = timeout(REGISTRATION, connection.accept_bi()).await else {
            debug!(address = %connection.remote_address(), server = self.server.name, "no control stream");
            return;
        };
        let registrar = Arc::new(Registrar::new(
            self.registry.clone(),
            connection.clone(),
            self.server.clone(),
            self.shard,
        ));
        let mut stage = registrar.watch();
        let mut control = pin!(self.control.serve(control_stream, registrar).fuse());
        let mut closed = pin!(closed(connection));

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
        };
        drop(stranger);
        match stage {
            Stage::Waiting => {
                debug!(address = %connection.remote_address(), server = self.server.name, "not registered in time");
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
                tokio::select! {
                    biased;
                    error = &mut closed => return log_loss(&tunnel, &live, &error),
                    () = live.left() => {}
                    () = &mut control => {
                        // Without its control stream a host can no longer say that it leaves.
                        log_loss(&tunnel, &live, &"the host ended its control stream");
                        live.leave();
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
    live: &Live,
    mut control: Pin<&mut impl FusedFuture<Output = ()>>,
    closed: Pin<&mut impl Future<Output = ConnectionError>>,
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

/// Takes the connection out of the registry however its task ends.
struct Registered {
    tunnel: Arc<Tunnel>,
    live: Arc<Live>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.live.leave();
        self.tunnel.remove(&self.live);
    }
}

/// Waits for the end of the connection and turns away whatever else the host opens meanwhile: only
/// the control stream and, where UDP is carried, RPC streams come from a host.
async fn closed(connection: &Connection) -> ConnectionError {
    loop {
        match connection.accept_bi().await {
            Ok((mut send, mut recv)) => {
                let _ = send.reset(CODE);
                let _ = recv.stop(CODE);
            }
            Err(error) => return error,
        }
    }
}

fn log_loss(tunnel: &Tunnel, live: &Live, reason: &dyn fmt::Display) {
    info!(
        tunnel = tunnel.name,
        connector = %live.connector,
        index = live.index,
        server = live.server.name,
        %reason,
        "connection lost"
    );
}

fn handshake_data(connection: &Connection) -> Option<Box<HandshakeData>> {
    connection.handshake_data()?.downcast().ok()
}

/// A client that offers no ALPN at all is let through by TLS, but speaks something else.
fn speaks_our_protocol(connection: &Connection) -> bool {
    handshake_data(connection).is_some_and(|data| data.protocol.as_deref() == Some(CONNECTOR_ALPN))
}

/// Connectors try before they start whether an edge can be reached (wire.md section 7).
fn is_probe(connection: &Connection) -> bool {
    handshake_data(connection).is_some_and(|data| data.server_name.as_deref() == Some(PROBE_NAME))
}

impl Strangers {
    fn admit(self: &Arc<Self>) -> Option<Stranger> {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        let stranger = Stranger(self.clone());
        (before < MOST_STRANGERS).then_some(stranger)
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Application code and stream code of every end that we make (wire.md section 2).
const CODE: VarInt = VarInt::from_u32(0);
/// What the reference connector offers; the smaller of both offers counts.
const IDLE: Duration = Duration::from_secs(5);
/// Never due with a connector that pings each second; for one that does not.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From the handshake to the control stream, and from there to the registration.
const REGISTRATION: Duration = Duration::from_secs(10);
const REFUSED_LINGER: Duration = Duration::from_secs(1);
const UNREGISTERED_LINGER: Duration = Duration::from_secs(1);
/// The longest grace period that the reference connector accepts.
const LONGEST_DRAIN: Duration = Duration::from_secs(3 * 60);
/// How long the last packets may take when the edge stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// Connections that have not registered, over all servers of this process.
const MOST_STRANGERS: usize = 1024;
/// Above this many, an address must prove itself by a Retry packet.
const STRANGERS_WITHOUT_PROOF: usize = 256;
/// First packets of connections that were not looked at yet, for all of them.
const INCOMING_BUFFER: u64 = 8 << 20;
/// Each one costs a map entry per connection at the start: one control stream and a few to refuse.
const STREAMS_OF_HOST: u32 = 4;
/// What one slow visitor can make us hold of a download.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all visitors of one connection.
const CONNECTION_WINDOW: u32 = 64 << 20;
/// Upload bytes that the host has not acknowledged.
const SEND_WINDOW: u64 = 8 << 20;
/// Nobody reads datagrams; offering them keeps the peer from treating this edge as a lesser one.
const DATAGRAM_BUFFER: usize = 64 << 10;
