//! Connections of connectors over TCP: accepts them, shakes hands and closes them in order. Knows TLS; what happens
//! between a connection's start and its end is in `session`, HTTP/2 in `transport`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::accept;
use adit_net::admission::Guest;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::metrics::{Handshake, Listener};
use crate::tls::PROBE_NAME;
use crate::transport::connection;
use crate::transport::http2::{self, Link};
use crate::tunnel::session::{FAREWELL, HANDSHAKE, REGISTRATION, Session};

/// One server's TCP listener on one shard.
pub(crate) struct Acceptor(pub(crate) Arc<Session>);

impl Acceptor {
    /// Accepts connections until the edge drains, and closes all of them in the end.
    pub(crate) async fn run(self, listener: TcpListener, tls: TlsAcceptor) {
        let (connections, stop) = (TaskTracker::new(), self.0.stop.clone());
        loop {
            let strangers = &self.0.strangers.tcp;
            tokio::select! {
                () = stop.draining.wait() => break,
                (tcp, address) = accept::next(&listener, "connectors", Some(strangers)) => {
                    let (one, stranger) = (Self(self.0.clone()), strangers.admit(address.ip()));
                    connections.spawn(one.accept(tcp, address, tls.clone(), stranger));
                }
            }
        }
        // Whoever dials from now on finds another edge sooner than by being let in and sent away.
        drop(listener);
        stop.connections.wait().await;
        connections.close();
        let _ = timeout(FAREWELL, connections.wait()).await;
    }

    async fn accept(self, tcp: TcpStream, address: SocketAddr, tls: TlsAcceptor, stranger: Guest) {
        let handshake = stranger.unless_dismissed(timeout(HANDSHAKE, tls.accept(tcp))).await;
        let mut io = match handshake {
            Some(Ok(Ok(io))) => {
                self.0.shaken(Listener::Http2, Handshake::Done);
                io
            }
            Some(Ok(Err(error))) => {
                self.0.shaken(Listener::Http2, Handshake::Failed);
                return debug!(%address, server = self.0.server.name, %error, "handshake not completed");
            }
            Some(Err(_)) => return self.0.shaken(Listener::Http2, Handshake::Late),
            None => return,
        };
        stranger.step();
        if io.get_ref().1.server_name() == Some(PROBE_NAME) {
            // Connectors try before they start whether an edge can be reached (wire.md section 7).
            let _ = stranger.unless_dismissed(timeout(REGISTRATION, io.read_u8())).await;
            return;
        }
        let (link, driver) = match http2::begin(io, address, self.0.window).await {
            Ok(begun) => begun,
            Err(error) => {
                return debug!(%address, server = self.0.server.name, %error, "handshake not completed");
            }
        };
        tokio::select! {
            () = self.serve(&link, stranger) => {}
            () = self.0.stop.connections.wait() => {}
        }
        link.close();
        let _ = timeout(CLOSING, driver).await;
    }

    async fn serve(&self, link: &Link, stranger: Guest) {
        let control_stream = match link.control_stream() {
            Ok(control_stream) => control_stream,
            Err(error) => return debug!(address = %link.remote_address(), %error, "no control stream"),
        };
        let closed = async { link.closed().await.to_owned() };
        self.0.serve(connection::Transport::Http2(link.clone()), control_stream, stranger, closed).await;
    }
}

/// How long a goodbye may take that has to wait for somebody else's handle of a stream.
const CLOSING: Duration = Duration::from_millis(500);
