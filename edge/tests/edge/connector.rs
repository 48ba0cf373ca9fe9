//! A connector in a hundred lines: QUIC, the control stream, and streams handed to the test.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use adit_protocol::credentials::Credentials;
use adit_protocol::extensions;
use adit_protocol::rpc::{
    ClientInfo, ConnectionDetails, ConnectionError, ConnectionOptions, Registration, RegistrationAnswer,
    TunnelAuth,
};
use adit_protocol::schema::tunnelrpc_capnp::registration_server;
use adit_protocol::stream::{Answer, Connect, Opening};
use bytes::{Bytes, BytesMut};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use http::Response;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{RecvStream, SendStream, VarInt};
use rustls::crypto::SupportedKxGroup;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use uuid::Uuid;

/// What a connector does differently from the reference, for a test.
pub(crate) struct Habits {
    pub(crate) server_name: &'static str,
    pub(crate) alpn: &'static str,
    pub(crate) groups: Vec<&'static dyn SupportedKxGroup>,
    pub(crate) streams: u32,
    pub(crate) features: Vec<&'static str>,
}

impl Habits {
    /// A connector of ours.
    pub(crate) fn own() -> Self {
        let own = [extensions::FEATURE_TRAILERS, extensions::FEATURE_VISITOR];
        Self { features: [&["serialized_headers"][..], &own].concat(), ..Self::default() }
    }
}

impl Default for Habits {
    fn default() -> Self {
        let groups = vec![kx_group::X25519MLKEM768, kx_group::SECP256R1];
        Self { server_name: "quic.cftunnel.com", alpn: "argotunnel", groups, streams: 256, features: vec![] }
    }
}

pub(crate) struct Connector {
    pub(crate) connection: quinn::Connection,
    control: registration_server::Client,
    features: Vec<&'static str>,
    endpoint: quinn::Endpoint,
}

/// A stream that the edge has opened, its head read.
pub(crate) struct Opened {
    pub(crate) connect: Connect,
    pub(crate) body: BytesMut,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

pub(crate) async fn dial(
    ca: &Path,
    server: SocketAddr,
    habits: Habits,
) -> Result<(quinn::Endpoint, quinn::Connection), quinn::ConnectionError> {
    let name = habits.server_name;
    let endpoint = client(ca, habits);
    let connection = endpoint.connect(server, name).unwrap().await?;
    Ok((endpoint, connection))
}

/// An end that can dial.
pub(crate) fn client(ca: &Path, habits: Habits) -> quinn::Endpoint {
    let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    endpoint.set_default_client_config(client_config(ca, habits));
    endpoint
}

pub(crate) fn client_config(ca: &Path, habits: Habits) -> quinn::ClientConfig {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider =
        rustls::crypto::CryptoProvider { kx_groups: habits.groups, ..aws_lc_rs::default_provider() };
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![habits.alpn.as_bytes().to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = quinn::TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(habits.streams))
        .keep_alive_interval(Some(std::time::Duration::from_secs(1)));
    config.transport_config(Arc::new(transport));
    config
}

impl Connector {
    /// Connects and opens the control stream. Needs a [`tokio::task::LocalSet`] around it.
    pub(crate) async fn connect(ca: &Path, server: SocketAddr, habits: Habits) -> Self {
        let features = habits.features.clone();
        let (endpoint, connection) = dial(ca, server, habits).await.unwrap();
        let (send, recv) = connection.open_bi().await.unwrap();
        let network =
            twoparty::VatNetwork::new(recv.compat(), send.compat_write(), Side::Client, Default::default());
        let mut rpc = RpcSystem::new(Box::new(network), None);
        let control = rpc.bootstrap(Side::Server);
        tokio::task::spawn_local(async move {
            let _ = rpc.await;
        });
        Self { connection, control, features, endpoint }
    }

    /// As the edge sees it.
    pub(crate) fn local_address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.endpoint.local_addr().unwrap().port()).into()
    }

    pub(crate) async fn register(&self, registration: &Registration) -> RegistrationAnswer {
        let mut request = self.control.register_connection_request();
        registration.write(request.get());
        let answer = request.send().promise.await.unwrap();
        RegistrationAnswer::read(answer.get().unwrap().get_result().unwrap()).unwrap()
    }

    /// Connects and registers slot `index` of the connector `client`.
    pub(crate) async fn registered(
        fixture: &crate::harness::Fixture,
        server: usize,
        client: Uuid,
        index: u8,
    ) -> Self {
        Self::registered_as(fixture, fixture.servers[server], Habits::default(), client, index).await
    }

    /// The same with habits of its own, at an address that leads to a server of the edge.
    pub(crate) async fn registered_as(
        fixture: &crate::harness::Fixture,
        server: SocketAddr,
        habits: Habits,
        client: Uuid,
        index: u8,
    ) -> Self {
        let connector = Self::connect(&fixture.ca, server, habits).await;
        connector.expect_registration(fixture, client, index).await;
        connector
    }

    pub(crate) async fn expect_registration(
        &self,
        fixture: &crate::harness::Fixture,
        client: Uuid,
        index: u8,
    ) -> ConnectionDetails {
        let mut registration = registration(&fixture.credentials, client, index);
        registration.options.client.features.extend(self.features.iter().map(|word| (*word).to_owned()));
        match self.register(&registration).await {
            RegistrationAnswer::Registered(details) => details,
            RegistrationAnswer::Refused(error) => panic!("refused: {error:?}"),
        }
    }

    pub(crate) async fn expect_refusal(&self, registration: &Registration) -> ConnectionError {
        match self.register(registration).await {
            RegistrationAnswer::Refused(error) => error,
            RegistrationAnswer::Registered(details) => panic!("registered: {details:?}"),
        }
    }

    pub(crate) async fn unregister(&self) -> Result<(), capnp::Error> {
        self.control.unregister_connection_request().send().promise.await.map(|_| ())
    }

    pub(crate) async fn report(&self, config: &[u8]) -> Result<(), capnp::Error> {
        let mut request = self.control.update_local_configuration_request();
        request.get().set_config(config);
        request.send().promise.await.map(|_| ())
    }

    /// The next request of the edge.
    pub(crate) async fn accept(&self) -> Opened {
        let (send, recv) = self.connection.accept_bi().await.unwrap();
        Opened::read_head(send, recv).await
    }

    /// Waits for the end and gives its application code.
    pub(crate) async fn closed(&self) -> Option<u64> {
        if let quinn::ConnectionError::ApplicationClosed(close) = self.connection.closed().await {
            return Some(close.error_code.into_inner());
        }
        None
    }
}

impl Opened {
    pub(crate) async fn read_head(send: SendStream, mut recv: RecvStream) -> Self {
        let mut body = BytesMut::new();
        loop {
            match Opening::decode(&mut body).unwrap() {
                Some(Opening::Data(connect)) => return Self { connect, body, send, recv },
                Some(Opening::Rpc) => panic!("the edge opened an RPC stream"),
                None => {
                    let chunk = recv.read_chunk(usize::MAX, true).await.unwrap().expect("the head is whole");
                    body.extend_from_slice(&chunk.bytes);
                }
            }
        }
    }

    pub(crate) fn request(&self) -> &http::Request<()> {
        match &self.connect {
            Connect::Http(request) | Connect::WebSocket(request) => request,
            Connect::Tcp { .. } => panic!("the edge opened a TCP stream"),
        }
    }

    pub(crate) async fn head(&mut self, response: http::response::Builder) {
        let head = Answer::Http(response.body(()).unwrap()).encode().unwrap();
        self.send.write_chunk(head).await.unwrap();
    }

    /// The whole request body.
    pub(crate) async fn read(&mut self) -> Bytes {
        self.body.extend_from_slice(&self.recv.read_to_end(64 << 20).await.unwrap());
        self.body.split().freeze()
    }

    /// Answers with a whole body.
    pub(crate) async fn answer(mut self, response: http::response::Builder, body: &[u8]) {
        self.head(response).await;
        self.send.write_all(body).await.unwrap();
        self.send.finish().unwrap();
        let _ = self.send.stopped().await;
    }

    pub(crate) async fn ok(self, body: &[u8]) {
        self.answer(Response::builder(), body).await;
    }

    /// What a host does that is leaving (extensions.rs): nothing of the request was processed.
    pub(crate) fn turn_away(mut self) {
        self.send.reset(extensions::REFUSED.into()).unwrap();
        let _ = self.recv.stop(extensions::REFUSED.into());
    }

    /// Breaks off without a word.
    pub(crate) fn break_off(mut self) {
        self.send.reset(0u32.into()).unwrap();
        let _ = self.recv.stop(0u32.into());
    }

    pub(crate) async fn refuse(mut self, reason: &str) {
        let answer = Answer::Refused { reason: reason.to_owned(), flow_rate_limited: false };
        self.send.write_chunk(answer.encode().unwrap()).await.unwrap();
        self.send.finish().unwrap();
        let _ = self.send.stopped().await;
    }
}

pub(crate) fn registration(credentials: &Credentials, client: Uuid, index: u8) -> Registration {
    Registration {
        auth: TunnelAuth {
            account_tag: credentials.account_tag.clone(),
            tunnel_secret: credentials.tunnel_secret.clone(),
        },
        tunnel_id: credentials.tunnel_id,
        conn_index: index,
        options: ConnectionOptions {
            client: ClientInfo {
                client_id: client,
                features: vec!["serialized_headers".to_owned()],
                version: "test".to_owned(),
                arch: "linux_amd64".to_owned(),
            },
            origin_local_ip: None,
            replace_existing: false,
            compression_quality: 0,
            num_previous_attempts: 0,
        },
    }
}
