//! Connections of connectors over TCP: accepts them, shakes hands and closes them in order. Knows TLS; what happens
//! between a connection's start and its end is in `session`, HTTP/2 in `transport`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::accept;
use adit_net::admission::Guest;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::metrics::{Handshake, Listener};
use crate::tls::PROBE_NAME;
use crate::transport::connection;
use crate::transport::http2::{self, Link};
use crate::tunnel::session::{FAREWELL, HANDSHAKE, REGISTRATION, Session};

/// One server's TCP listener on one shard.
#[derive(Clone)]
pub(crate) struct Acceptor {
    session: Arc<Session>,
    connections: TaskTracker,
}

impl Acceptor {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        Self { session, connections: TaskTracker::new() }
    }

    /// Takes a connection that came in at an address of others, its handshake done. `place` is what it has there until
    /// it ends.
    pub(crate) fn take<T>(&self, io: TlsStream<T>, address: SocketAddr, place: impl Send + 'static)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        if self.session.stop.draining.is_fired() {
            return;
        }
        let (one, stranger) = (self.clone(), self.session.strangers.tcp.admit(address.ip()));
        self.connections.spawn(async move {
            one.shaken(io, address, stranger).await;
            drop(place);
        });
    }

    /// Accepts connections until the edge drains, and closes all of them in the end.
    pub(crate) async fn run(self, listener: TcpListener, tls: TlsAcceptor) {
        let (connections, stop) = (self.connections.clone(), self.session.stop.clone());
        loop {
            let strangers = &self.session.strangers.tcp;
            tokio::select! {
                () = stop.draining.wait() => break,
                (tcp, address) = accept::next(&listener, "connectors", Some(strangers)) => {
                    let (one, stranger) = (self.clone(), strangers.admit(address.ip()));
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
        let io = match handshake {
            Some(Ok(Ok(io))) => {
                self.session.shaken(Listener::Http2, Handshake::Done);
                io
            }
            Some(Ok(Err(error))) => {
                self.session.shaken(Listener::Http2, Handshake::Failed);
                return debug!(%address, server = self.session.server.name, %error, "handshake not completed");
            }
            Some(Err(_)) => return self.session.shaken(Listener::Http2, Handshake::Late),
            None => return,
        };
        self.shaken(io, address, stranger).await;
    }

    async fn shaken<T>(&self, mut io: TlsStream<T>, address: SocketAddr, stranger: Guest)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        stranger.step();
        if io.get_ref().1.server_name() == Some(PROBE_NAME) {
            // Connectors try before they start whether an edge can be reached (wire.md section 7).
            let _ = stranger.unless_dismissed(timeout(REGISTRATION, io.read_u8())).await;
            return;
        }
        let (link, driver) = match http2::begin(io, address, self.session.window).await {
            Ok(begun) => begun,
            Err(error) => {
                return debug!(%address, server = self.session.server.name, %error, "handshake not completed");
            }
        };
        tokio::select! {
            () = self.serve(&link, stranger) => {}
            () = self.session.stop.connections.wait() => {}
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
        self.session
            .serve(connection::Transport::Http2(link.clone()), control_stream, stranger, closed)
            .await;
    }
}

/// How long a goodbye may take that has to wait for somebody else's handle of a stream.
const CLOSING: Duration = Duration::from_millis(500);
