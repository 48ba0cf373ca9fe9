//! As little of a connector as the edge takes for one: it registers, and then only keeps alive.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use adit_protocol::rpc::{ClientInfo, ConnectionOptions, Registration, RegistrationAnswer, TunnelAuth};
use adit_protocol::schema::tunnelrpc_capnp::registration_server;
use anyhow::{Context, Result, bail};
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{EndpointConfig, TokioRuntime};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use socket2::SockRef;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

/// Where connections begin: one UDP socket for many.
pub(crate) struct Endpoint(quinn::Endpoint);

/// A registered connection.
pub(crate) struct Connector {
    pub(crate) connection: quinn::Connection,
    _control: registration_server::Client,
    _rpc: AbortOnDropHandle<()>,
}

impl Endpoint {
    /// `ca` is what the edge's certificate is signed by, as PEM.
    pub(crate) fn new(ca: &Path) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"argotunnel".to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(256u32.into())
            .max_idle_timeout(Some(Duration::from_secs(30).try_into()?))
            .keep_alive_interval(Some(Duration::from_secs(5)));
        config.transport_config(Arc::new(transport));
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        // The first answers to hundreds of connections come at once; a host has this much for one.
        SockRef::from(&socket).set_recv_buffer_size(RECEIVED)?;
        let mut endpoint =
            quinn::Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(TokioRuntime))?;
        endpoint.set_default_client_config(config);
        Ok(Self(endpoint))
    }

    /// Connects and registers; needs a [`tokio::task::LocalSet`] around it.
    pub(crate) async fn connect(
        &self,
        server: SocketAddr,
        credentials: &Credentials,
        client: Uuid,
        index: u8,
    ) -> Result<Connector> {
        let connection = self.0.connect(server, "quic.cftunnel.com")?.await?;
        let (send, recv) = connection.open_bi().await?;
        let network =
            twoparty::VatNetwork::new(recv.compat(), send.compat_write(), Side::Client, Default::default());
        let mut rpc = RpcSystem::new(Box::new(network), None);
        let control: registration_server::Client = rpc.bootstrap(Side::Server);
        let rpc = AbortOnDropHandle::new(tokio::task::spawn_local(async move {
            let _ = rpc.await;
        }));
        let mut request = control.register_connection_request();
        registration(credentials, client, index).write(request.get());
        let answer = request.send().promise.await?;
        match RegistrationAnswer::read(answer.get()?.get_result()?).context("the answer")? {
            RegistrationAnswer::Registered(_) => Ok(Connector { connection, _control: control, _rpc: rpc }),
            RegistrationAnswer::Refused(error) => bail!("refused: {error:?}"),
        }
    }
}

fn registration(credentials: &Credentials, client: Uuid, index: u8) -> Registration {
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
                version: "bench".to_owned(),
                arch: "linux_amd64".to_owned(),
            },
            origin_local_ip: None,
            replace_existing: false,
            compression_quality: 0,
            num_previous_attempts: 0,
        },
    }
}

/// Bytes that wait at one socket.
const RECEIVED: usize = 4 * 1024 * 1024;
