//! Connections of connectors over QUIC: accepts them and closes them in order. Knows quinn; what
//! happens between the two is in `reception`.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::control;
use super::link::Link;
use super::reception::{FAREWELL, HANDSHAKE, MOST_STRANGERS, REGISTRATION, Reception, Stranger};
use crate::certificates::{CONNECTOR_ALPN, PROBE_NAME};

/// One server's endpoint on one shard.
pub(crate) struct Acceptor(pub(crate) Arc<Reception>);

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
    pub(crate) async fn run(self, endpoint: quinn::Endpoint, close: CancellationToken) {
        let connections = TaskTracker::new();
        loop {
            let incoming = tokio::select! {
                () = close.cancelled() => break,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            let Some(stranger) = self.0.admit() else {
                incoming.refuse();
                continue;
            };
            if !incoming.remote_address_validated() && self.0.strangers.count() > STRANGERS_WITHOUT_PROOF {
                // Many at once may be forged addresses: each has to prove that it can be reached.
                let _ = incoming.retry();
                continue;
            }
            connections.spawn(Self(self.0.clone()).accept(incoming, stranger, close.clone()));
        }
        endpoint.close(CODE, b"");
        connections.close();
        let _ = timeout(FAREWELL, async { tokio::join!(connections.wait(), endpoint.wait_idle()) }).await;
    }

    async fn accept(self, incoming: Incoming, stranger: Stranger, close: CancellationToken) {
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
                debug!(%address, server = self.0.server.name, %error, "handshake not completed");
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

    async fn serve(&self, connection: &Connection, stranger: Stranger) {
        if !speaks_our_protocol(connection) {
            return;
        }
        if is_probe(connection) {
            let _ = timeout(REGISTRATION, connection.closed()).await;
            return;
        }
        let Ok(Ok((send, recv))) = timeout(REGISTRATION, connection.accept_bi()).await else {
            debug!(address = %connection.remote_address(), server = self.0.server.name, "no control stream");
            return;
        };
        let control_stream = control::Stream { read: Box::new(recv), write: Box::new(send) };
        self.0.serve(Link::Quic(connection.clone()), control_stream, stranger, closed(connection)).await;
    }
}

/// Waits for the end of the connection and turns away whatever else the host opens meanwhile: only
/// the control stream and, where UDP is carried, RPC streams come from a host.
async fn closed(connection: &Connection) -> String {
    loop {
        match connection.accept_bi().await {
            Ok((mut send, mut recv)) => {
                let _ = send.reset(CODE);
                let _ = recv.stop(CODE);
            }
            Err(error) => return error.to_string(),
        }
    }
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

/// Application code and stream code of every end that we make (wire.md section 2).
const CODE: VarInt = VarInt::from_u32(0);
/// What the reference connector offers; the smaller of both offers counts.
const IDLE: Duration = Duration::from_secs(5);
/// Never due with a connector that pings each second; for one that does not.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
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
