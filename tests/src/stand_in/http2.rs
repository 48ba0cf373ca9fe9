//! The stand-in over HTTP/2: it lets a host dial, is the client on that connection, and hands the way to ask
//! to the test. It wraps nothing and knows no word of ours.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;

use adit_protocol::schema::tunnelrpc_capnp::registration_server;
use bytes::{Buf, Bytes};
use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use crate::certificate::Certificate;
use crate::within;

/// A running stand-in. It stops when dropped, without a word to its connections.
pub struct StandInHttp2 {
    pub address: SocketAddr,
    pub ca_pem: String,
    registered: mpsc::UnboundedReceiver<SendRequest<Bytes>>,
    _stop: DropGuard,
}

impl StandInHttp2 {
    pub fn start() -> Self {
        let certificate = Certificate::new(&["quic.cftunnel.com", "h2.cftunnel.com", "probe.cftunnel.com"]);
        let tls = TlsAcceptor::from(Arc::new(certificate.server(&[])));
        let stop = CancellationToken::new();
        let (tell, registered) = mpsc::unbounded_channel();
        let (bound, address) = std::sync::mpsc::channel();
        let stopped = stop.clone();
        thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            runtime.expect("a runtime").block_on(stopped.run_until_cancelled(async move {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
                let _ = bound.send(listener.local_addr().expect("an address"));
                while let Ok((tcp, _)) = listener.accept().await {
                    let (tls, tell) = (tls.clone(), tell.clone());
                    tokio::task::spawn_local(async move {
                        let Ok(stream) = tls.accept(tcp).await else { return };
                        let Ok((requests, connection)) = h2::client::handshake(stream).await else { return };
                        let control = tokio::task::spawn_local(control(requests, tell));
                        let _ = connection.await;
                        control.abort();
                    });
                }
            }));
        });
        let address = address.recv().expect("the stand-in listens");
        Self { address, ca_pem: certificate.ca_pem, registered, _stop: stop.drop_guard() }
    }

    /// The way to ask the next host that registers.
    pub async fn registered(&mut self) -> SendRequest<Bytes> {
        within("a registration", self.registered.recv()).await.expect("the stand-in runs")
    }
}

/// Opens the control stream of one connection and serves it.
async fn control(mut requests: SendRequest<Bytes>, tell: mpsc::UnboundedSender<SendRequest<Bytes>>) {
    let request = Request::get("https://h2.cftunnel.com/")
        .header("cf-cloudflared-proxy-connection-upgrade", "control-stream")
        .body(())
        .expect("a request");
    let Ok((response, up)) = requests.send_request(request, false) else { return };
    let Ok(response) = response.await else { return };
    let down = Down { body: response.into_body(), rest: Bytes::new() };
    let server = Server { requests, tell };
    let client: registration_server::Client = capnp_rpc::new_client(server);
    let network =
        twoparty::VatNetwork::new(down.compat(), Up(up).compat_write(), Side::Server, ReaderOptions::new());
    let _ = RpcSystem::new(Box::new(network), Some(client.client)).await;
}

struct Server {
    requests: SendRequest<Bytes>,
    tell: mpsc::UnboundedSender<SendRequest<Bytes>>,
}

impl registration_server::Server for Server {
    async fn register_connection(
        self: Rc<Self>,
        _: registration_server::RegisterConnectionParams,
        mut results: registration_server::RegisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        let mut details = results.get().init_result().init_result().init_connection_details();
        details.set_uuid(Uuid::new_v4().as_bytes());
        details.set_location_name("LAB02");
        let _ = self.tell.send(self.requests.clone());
        Ok(())
    }

    async fn unregister_connection(
        self: Rc<Self>,
        _: registration_server::UnregisterConnectionParams,
        _: registration_server::UnregisterConnectionResults,
    ) -> Result<(), capnp::Error> {
        Ok(())
    }

    async fn update_local_configuration(
        self: Rc<Self>,
        _: registration_server::UpdateLocalConfigurationParams,
        _: registration_server::UpdateLocalConfigurationResults,
    ) -> Result<(), capnp::Error> {
        Ok(())
    }
}

/// What the host says on the control stream.
struct Down {
    body: RecvStream,
    rest: Bytes,
}

impl AsyncRead for Down {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while !self.rest.has_remaining() {
            let Some(data) = ready!(self.body.poll_data(cx)) else { return Poll::Ready(Ok(())) };
            let data = data.map_err(std::io::Error::other)?;
            let _ = self.body.flow_control().release_capacity(data.len());
            self.rest = data;
        }
        let length = self.rest.len().min(into.remaining());
        into.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

/// What it is told. Calls are much smaller than any window.
struct Up(SendStream<Bytes>);

impl AsyncWrite for Up {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.0.send_data(Bytes::copy_from_slice(bytes), false).map_err(std::io::Error::other)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let _ = self.0.send_data(Bytes::new(), true);
        Poll::Ready(Ok(()))
    }
}
