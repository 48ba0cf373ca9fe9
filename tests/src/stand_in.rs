//! An edge that was made only from the description of the wire, to see that a host speaks it and not
//! merely what our own edge understands. Takes every registration, opens streams with bytes that the
//! test gives, serves no visitor.
//!
//! The generated schema is used for Cap'n Proto's own work of finding pointers; what is reported of
//! a registration are the raw sections, for the test to compare with the tables.

mod http2;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread;

use adit_protocol::schema::quic_metadata_protocol_capnp::connect_response;
use adit_protocol::schema::tunnelrpc_capnp::registration_server;
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Endpoint, ReadToEndError, RecvStream, SendStream};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::certificate::Certificate;
use crate::within;

pub use http2::StandInHttp2;

/// A running stand-in. It stops when dropped, without a word to its connections.
pub struct StandIn {
    pub address: SocketAddr,
    pub ca_pem: String,
    events: mpsc::UnboundedReceiver<Event>,
    _stop: DropGuard,
}

/// What hosts did, in order.
pub enum Event {
    Registered(Box<Registered>),
    /// What a host says about its own configuration.
    LocalConfiguration(Vec<u8>),
    Unregistered,
}

/// One connection and the call that registered it.
pub struct Registered {
    pub connection: quinn::Connection,
    /// The names of the TLS handshake: protocol and server.
    pub protocol: Vec<u8>,
    pub server_name: String,
    pub call: Call,
    /// Everything that the host has sent on the control stream so far.
    control: Arc<Mutex<Vec<u8>>>,
}

/// The parameters of `registerConnection` as they lie in the message: data sections as they are,
/// what pointers lead to as bytes.
#[derive(Debug, Clone)]
pub struct Call {
    pub data: Vec<u8>,
    pub account_tag: Vec<u8>,
    pub secret: Vec<u8>,
    pub tunnel_id: Vec<u8>,
    pub options_data: Vec<u8>,
    pub origin_local_ip: Vec<u8>,
    pub client_data: Vec<u8>,
    pub client_id: Vec<u8>,
    pub features: Vec<String>,
    pub version: String,
    pub arch: String,
}

/// What came back on a data stream.
#[derive(Debug)]
pub struct Reply {
    pub signature: [u8; 6],
    pub version: [u8; 2],
    pub error: String,
    pub metadata: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl StandIn {
    pub fn start() -> Self {
        let certificate = Certificate::new(&["quic.cftunnel.com", "h2.cftunnel.com", "probe.cftunnel.com"]);
        let tls = QuicServerConfig::try_from(certificate.server(&[b"argotunnel"])).expect("TLS 1.3");
        let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
        let stop = CancellationToken::new();
        let (tell, events) = mpsc::unbounded_channel();
        let (bound, address) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            runtime.expect("a runtime").block_on(stopped.run_until_cancelled(async move {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let endpoint = Endpoint::server(config, any).expect("a free port");
                let _ = bound.send(endpoint.local_addr().expect("an address"));
                while let Some(incoming) = endpoint.accept().await {
                    let tell = tell.clone();
                    tokio::task::spawn_local(async move {
                        if let Ok(connection) = incoming.await {
                            control(connection, tell).await;
                        }
                    });
                }
            }));
        });
        let address = address.recv().expect("the stand-in listens");
        Self { address, ca_pem: certificate.ca_pem, events, _stop: stop.drop_guard() }
    }

    pub async fn next(&mut self) -> Event {
        within("a call of the host", self.events.recv()).await.expect("the stand-in runs")
    }

    pub async fn registered(&mut self) -> Registered {
        match self.next().await {
            Event::Registered(registered) => *registered,
            Event::LocalConfiguration(_) | Event::Unregistered => panic!("a registration comes first"),
        }
    }
}

impl Registered {
    pub fn control_bytes(&self) -> Vec<u8> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens a stream with these bytes in one write, leaving our direction open.
    pub async fn open(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) =
            within("a stream", self.connection.open_bi()).await.expect("the host takes streams");
        send.write_all(bytes).await.expect("the host reads");
        (send, recv)
    }

    /// One request: head and body, end of our direction, and the whole reply.
    pub async fn ask(&self, head: &[u8], body: &[u8]) -> Result<Reply, ReadToEndError> {
        let (mut send, mut recv) = self.open(head).await;
        if !body.is_empty() {
            // The host may have answered without wanting it.
            let _ = send.write_all(body).await;
        }
        let _ = send.finish();
        within("a reply", recv.read_to_end(MOST_REPLY)).await.map(|bytes| Reply::read(&bytes))
    }
}

impl Reply {
    pub fn read(bytes: &[u8]) -> Self {
        let (signature, rest) = bytes.split_first_chunk().expect("a signature");
        let (version, mut rest) = rest.split_first_chunk().expect("a version");
        let message = capnp::serialize::read_message_from_flat_slice(&mut rest, ReaderOptions::new())
            .expect("a message");
        let response = message.get_root::<connect_response::Reader<'_>>().expect("a ConnectResponse");
        let text = |text: capnp::Result<capnp::text::Reader<'_>>| {
            text.and_then(|text| Ok(text.to_string()?)).expect("UTF-8")
        };
        let metadata = response.get_metadata().expect("a list");
        let metadata = metadata.iter().map(|entry| (text(entry.get_key()), text(entry.get_val()))).collect();
        let error = text(response.get_error());
        drop(message);
        Self { signature: *signature, version: *version, error, metadata, body: rest.to_vec() }
    }

    /// All values of one key.
    pub fn values(&self, key: &str) -> Vec<&str> {
        let found = self.metadata.iter().filter(|(known, _)| known.eq_ignore_ascii_case(key));
        found.map(|(_, value)| value.as_str()).collect()
    }
}

/// Serves the control stream of one connection.
async fn control(connection: quinn::Connection, tell: mpsc::UnboundedSender<Event>) {
    let Ok((send, recv)) = connection.accept_bi().await else { return };
    let control = Arc::new(Mutex::new(Vec::new()));
    let read = Tee { stream: recv, copy: control.clone() };
    let server = Server { connection, control, tell };
    let client: registration_server::Client = capnp_rpc::new_client(server);
    let network =
        twoparty::VatNetwork::new(read.compat(), send.compat_write(), Side::Server, ReaderOptions::new());
    let _ = RpcSystem::new(Box::new(network), Some(client.client)).await;
}

struct Server {
    connection: quinn::Connection,
    control: Arc<Mutex<Vec<u8>>>,
    tell: mpsc::UnboundedSender<Event>,
}

impl registration_server::Server for Server {
    async fn register_connection(
        self: Rc<Self>,
        params: registration_server::RegisterConnectionParams,
        mut results: registration_server::RegisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        let call = Call::read(params.get()?)?;
        let mut details = results.get().init_result().init_result().init_connection_details();
        details.set_uuid(Uuid::new_v4().as_bytes());
        details.set_location_name("LAB01");
        let handshake =
            self.connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        let handshake = handshake.expect("the handshake is over");
        let _ = self.tell.send(Event::Registered(Box::new(Registered {
            connection: self.connection.clone(),
            protocol: handshake.protocol.unwrap_or_default(),
            server_name: handshake.server_name.unwrap_or_default(),
            call,
            control: self.control.clone(),
        })));
        Ok(())
    }

    async fn unregister_connection(
        self: Rc<Self>,
        _: registration_server::UnregisterConnectionParams,
        _: registration_server::UnregisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        let _ = self.tell.send(Event::Unregistered);
        Ok(())
    }

    async fn update_local_configuration(
        self: Rc<Self>,
        params: registration_server::UpdateLocalConfigurationParams,
        _: registration_server::UpdateLocalConfigurationResults,
    ) -> Result<(), capnp::Error> {
        let _ = self.tell.send(Event::LocalConfiguration(params.get()?.get_config()?.to_vec()));
        Ok(())
    }
}

impl Call {
    fn read(params: registration_server::register_connection_params::Reader<'_>) -> capnp::Result<Self> {
        use capnp::raw::get_struct_data_section as data;
        let (auth, options) = (params.get_auth()?, params.get_options()?);
        let client = options.get_client()?;
        let features = client.get_features()?;
        Ok(Self {
            data: data(params).to_vec(),
            account_tag: auth.get_account_tag()?.as_bytes().to_vec(),
            secret: auth.get_tunnel_secret()?.to_vec(),
            tunnel_id: params.get_tunnel_id()?.to_vec(),
            options_data: data(options).to_vec(),
            origin_local_ip: options.get_origin_local_ip()?.to_vec(),
            client_data: data(client).to_vec(),
            client_id: client.get_client_id()?.to_vec(),
            features: features
                .iter()
                .map(|feature| Ok(feature?.to_string()?))
                .collect::<capnp::Result<_>>()?,
            version: client.get_version()?.to_string()?,
            arch: client.get_arch()?.to_string()?,
        })
    }
}

/// Reads, and keeps a copy.
struct Tee {
    stream: RecvStream,
    copy: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tee {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let outcome = AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buffer);
        self.copy
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend_from_slice(&buffer.filled()[before..]);
        outcome
    }
}

const MOST_REPLY: usize = 1024 * 1024;
