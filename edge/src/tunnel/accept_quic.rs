//! Connections of connectors over QUIC: accepts them and closes them in order. Knows quinn; what
//! happens between the two is in `session`.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use adit_net::admission::Guest;
use aws_lc_rs::hmac;
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Connection, EndpointConfig, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::metrics::{Handshake, Listener};
use crate::tls::{CONNECTOR_ALPN, PROBE_NAME, Seed};
use crate::transport::connection::{self, ControlStream, Transport};
use crate::tunnel::session::{FAREWELL, HANDSHAKE, MOST_STRANGERS, REGISTRATION, Session};

/// One server's endpoint on one shard.
pub(crate) struct Acceptor(pub(crate) Arc<Session>);

/// What QUIC does and offers: TLS and transport parameters (wire.md section 2). `window` is what a host may
/// send on one connection before it is read ([`adit_pace::Limits::connection_window`]).
pub(crate) fn server_config(tls: rustls::ServerConfig, window: u32) -> anyhow::Result<ServerConfig> {
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(window)));
    config.max_incoming(MOST_STRANGERS).incoming_buffer_size_total(INCOMING_BUFFER);
    Ok(config)
}

fn transport(window: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IDLE.try_into().expect("seconds fit into a QUIC time-out")))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_OF_HOST))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(connection::STREAM_WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER));
    transport
}

/// Opens the endpoint of one shard on an address that is already bound. Needs a runtime around it.
///
/// What it draws from `seed` lets the endpoint that takes its place after a crash end the connections of its
/// predecessor: the next packet of each host is answered with a stateless reset (RFC 9000 10.3), which only
/// this server on this shard can make. Shared more widely, one shard would end connections that live on
/// another (RFC 9000 21.11).
pub(crate) fn endpoint(
    socket: UdpSocket,
    config: ServerConfig,
    seed: &Seed,
    server: &str,
    shard: usize,
) -> std::io::Result<quinn::Endpoint> {
    let shard = shard.to_be_bytes();
    let draw = |what: &[u8]| seed.draw(&[what, &shard, server.as_bytes()]);
    let mut endpoint =
        EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &draw(b"stateless reset"))));
    // Otherwise it would not take a connection id for one that its predecessor has given out.
    let [a, b, c, d, e, f, g, h, ..] = draw(b"connection ids");
    let ids = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    endpoint
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)))
        .min_reset_interval(RESETS);
    quinn::Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime))
}

impl Acceptor {
    /// Accepts connections until the edge drains, and closes all of them with code 0 in the end.
    pub(crate) async fn run(self, endpoint: quinn::Endpoint) {
        let (connections, stop) = (TaskTracker::new(), self.0.stop.clone());
        loop {
            let incoming = tokio::select! {
                () = stop.connections.wait() => break,
                incoming = endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { break };
            if stop.draining.is_fired() {
                // It finds another edge sooner than by being let in and sent away.
                incoming.refuse();
                continue;
            }
            let strangers = &self.0.strangers.quic;
            if !incoming.remote_address_validated() && strangers.waiting() > STRANGERS_WITHOUT_PROOF {
                // Many at once may be forged addresses: each has to prove that it can be reached.
                let _ = incoming.retry();
                continue;
            }
            let stranger = strangers.admit(incoming.remote_address().ip());
            connections.spawn(Self(self.0.clone()).accept(incoming, stranger));
        }
        endpoint.close(CODE, b"");
        connections.close();
        let _ = timeout(FAREWELL, async { tokio::join!(connections.wait(), endpoint.wait_idle()) }).await;
    }

    async fn accept(self, incoming: Incoming, stranger: Guest) {
        // Boxed, what a handshake needs is not held for as long as the connection lasts.
        let handshake = Box::pin(self.shake_hands(incoming));
        let Some(Some(connection)) = stranger.unless_dismissed(handshake).await else { return };
        stranger.step();
        tokio::select! {
            () = self.serve(&connection, stranger) => {}
            () = self.0.stop.connections.wait() => {}
        }
        connection.close(CODE, b"");
    }

    async fn shake_hands(&self, incoming: Incoming) -> Option<Connection> {
        let address = incoming.remote_address();
        let handshake = async { incoming.accept()?.await };
        let handshake = timeout(HANDSHAKE, handshake).await;
        self.0.shaken(
            Listener::Quic,
            match &handshake {
                Ok(Ok(_)) => Handshake::Done,
                Ok(Err(_)) => Handshake::Failed,
                Err(_) => Handshake::Late,
            },
        );
        handshake
            .ok()?
            .inspect_err(
                |error| debug!(%address, server = self.0.server.name, %error, "handshake not completed"),
            )
            .ok()
    }

    async fn serve(&self, connection: &Connection, stranger: Guest) {
        if !speaks_our_protocol(connection) {
            return;
        }
        if is_probe(connection) {
            let _ = stranger.unless_dismissed(timeout(REGISTRATION, connection.closed())).await;
            return;
        }
        let opened = stranger.unless_dismissed(timeout(REGISTRATION, connection.accept_bi())).await;
        let Some(Ok(Ok((send, recv)))) = opened else {
            debug!(address = %connection.remote_address(), server = self.0.server.name, "no control stream");
            return;
        };
        stranger.step();
        let control_stream = ControlStream { read: Box::new(recv), write: Box::new(send) };
        self.0.serve(Transport::Quic(connection.clone()), control_stream, stranger, closed(connection)).await;
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
/// Not due with a connector that pings each second or more often, as all that we know do: when it is, that
/// alone shows whether the host is still there, long before [`IDLE`] is over.
const KEEP_ALIVE: Duration = Duration::from_millis(1500);
/// The next connection of the predecessor is ended after this; there may be a hundred of them.
const RESETS: Duration = Duration::from_millis(1);
/// Above this many, an address must prove itself by a Retry packet.
const STRANGERS_WITHOUT_PROOF: usize = 256;
/// First packets of connections that were not looked at yet, for all of them.
const INCOMING_BUFFER: u64 = 8 << 20;
/// Each one costs a map entry per connection at the start: one control stream and a few to refuse.
const STREAMS_OF_HOST: u32 = 4;
/// Upload bytes that the host has not acknowledged. It acknowledges what it has received, read or not, so that
/// a stream which its window stops holds nothing of this.
const SEND_WINDOW: u64 = 8 << 20;
/// Nobody reads datagrams; offering them keeps the peer from treating this edge as a lesser one.
const DATAGRAM_BUFFER: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::thread;

    use quinn::crypto::rustls::QuicClientConfig;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::certificates::Certificates;
    use crate::certificates::place::Use;
    use crate::tls::{self, CONNECTOR_NAMES, DevelopmentCa};

    fn runtime() -> Runtime {
        Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    /// Accepts connections on `address` until the runtime ends, which is as abrupt as the end of a process.
    fn serve(ca: &DevelopmentCa, address: SocketAddr, shard: usize) -> (Runtime, SocketAddr) {
        let identity = ca.issue(CONNECTOR_NAMES.map(str::to_owned).into()).unwrap();
        let shown = Certificates::default().add_made(Use::Connectors, identity.clone());
        let config = server_config(tls::connector_tls(shown).unwrap(), 1 << 30).unwrap();
        let runtime = runtime();
        // Another test may have been given the port for a moment.
        let bind =
            |_| UdpSocket::bind(address).inspect_err(|_| thread::sleep(Duration::from_millis(10))).ok();
        let socket = (0..1000).find_map(bind).expect("the port is free again");
        let address = socket.local_addr().unwrap();
        let endpoint = {
            let _guard = runtime.enter();
            endpoint(socket, config, identity.seed(), "west-1", shard).unwrap()
        };
        runtime.spawn(async move {
            let mut connections = Vec::new();
            while let Some(incoming) = endpoint.accept().await {
                connections.push(incoming.await);
            }
        });
        (runtime, address)
    }

    fn client(ca: &DevelopmentCa) -> quinn::Endpoint {
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(ca.roots().unwrap())
        .with_no_client_auth();
        tls.alpn_protocols = vec![CONNECTOR_ALPN.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(Duration::from_millis(100)));
        config.transport_config(Arc::new(transport));
        let mut client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        client.set_default_client_config(config);
        client
    }

    /// What becomes of a connection whose endpoint is killed and comes again as `shard`.
    fn after_a_restart(shard: usize, patience: Duration) -> Option<quinn::ConnectionError> {
        let folder = tempfile::tempdir().unwrap();
        // Certificates are new at each start, the CA is not.
        let ca = DevelopmentCa::open(folder.path()).unwrap();
        let (first, address) = serve(&ca, "127.0.0.1:0".parse().unwrap(), 0);
        let visitor = runtime();
        visitor.block_on(async {
            let client = client(&ca);
            let connection = client.connect(address, CONNECTOR_NAMES[0]).unwrap().await.unwrap();
            tokio::task::spawn_blocking(move || drop(first)).await.unwrap();
            assert!(connection.close_reason().is_none(), "it was told");
            let ca = DevelopmentCa::open(folder.path()).unwrap();
            let second = tokio::task::spawn_blocking(move || serve(&ca, address, shard)).await.unwrap();
            let ended = timeout(patience, connection.closed()).await.ok();
            // A runtime cannot be dropped within another one.
            tokio::task::spawn_blocking(move || drop(second)).await.unwrap();
            ended
        })
    }

    #[test]
    fn an_edge_that_comes_back_ends_the_connections_of_its_predecessor_at_once() {
        // Much less than the idle limit.
        let ended = after_a_restart(0, IDLE / 2);
        assert_eq!(ended, Some(quinn::ConnectionError::Reset));
    }

    #[test]
    fn no_shard_ends_the_connections_of_another_one() {
        assert_eq!(after_a_restart(1, Duration::from_secs(1)), None);
    }
}
