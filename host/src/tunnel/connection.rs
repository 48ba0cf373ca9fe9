//! A connection to an edge server over either transport, and how one is dialled. Knows the transports;
//! decides nothing.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::state::{Patience, Transport};
use super::{control, http2, quic};
use crate::proxy::Proxy;

/// How long the handshake over QUIC may take where HTTP/2 stands by.
const SHORT: Duration = Duration::from_secs(3);
/// And where there is nothing else.
const LONG: Duration = Duration::from_secs(5);
/// How long the last packets of a slot may take.
const FAREWELL: Duration = Duration::from_millis(500);

/// How this host reaches edges: one per process.
#[derive(Clone)]
pub struct Dialer {
    quic: quic::Dialer,
    http2: http2::Dialer,
}

/// The dialler of one slot. Keeps the slot's UDP port.
pub struct Line {
    dialer: Dialer,
    /// Whether it is for IPv4, and the socket.
    endpoint: RefCell<Option<(bool, quic::Endpoint)>>,
}

/// An open connection to an edge server.
pub enum Connection {
    Quic(quic::Connection),
    Http2(http2::Connection),
}

impl Dialer {
    /// `tls` must know which roots to trust. Connections come from `source`, if there is one: an address of
    /// this machine, and of the family of every edge that is dialled.
    pub fn new(tls: rustls::ClientConfig, source: Option<IpAddr>) -> anyhow::Result<Self> {
        if let Some(source) = source {
            UdpSocket::bind((source, 0))
                .with_context(|| format!("binding to {source}, the edge-bind-address"))?;
        }
        Ok(Self { quic: quic::Dialer::new(tls.clone(), source)?, http2: http2::Dialer::new(tls, source) })
    }

    pub fn line(&self) -> Line {
        Line { dialer: self.clone(), endpoint: RefCell::new(None) }
    }
}

impl Line {
    /// May be dropped midway.
    pub async fn dial(
        &self,
        transport: Transport,
        patience: Patience,
        edge: SocketAddr,
    ) -> anyhow::Result<Connection> {
        match transport {
            Transport::Quic => {
                let endpoint = self.endpoint(edge).context("UDP socket")?;
                let limit = match patience {
                    Patience::Short => SHORT,
                    Patience::Long => LONG,
                };
                Ok(Connection::Quic(quic::Connection::dial(&endpoint, edge, limit).await?))
            }
            Transport::Http2 => Ok(Connection::Http2(self.dialer.http2.dial(edge).await?)),
        }
    }

    fn endpoint(&self, edge: SocketAddr) -> std::io::Result<quic::Endpoint> {
        let mut kept = self.endpoint.borrow_mut();
        // The same source port again, as long as the address family allows it.
        if let Some((v4, endpoint)) = &*kept
            && *v4 == edge.is_ipv4()
        {
            return Ok(endpoint.clone());
        }
        let endpoint = self.dialer.quic.endpoint(edge)?;
        *kept = Some((edge.is_ipv4(), endpoint.clone()));
        Ok(endpoint)
    }

    /// Waits until everything that was closed has said so.
    pub async fn idle(&self) {
        let endpoint = self.endpoint.borrow().as_ref().map(|(_, endpoint)| endpoint.clone());
        if let Some(endpoint) = endpoint {
            // Without this the close may never leave the socket.
            let _ = timeout(FAREWELL, endpoint.wait_idle()).await;
        }
    }
}

impl Connection {
    pub fn transport(&self) -> Transport {
        match self {
            Self::Quic(_) => Transport::Quic,
            Self::Http2(_) => Transport::Http2,
        }
    }

    /// What is told to the edge as this end's address: over QUIC the reference client sends the edge's own
    /// (wire.md, finding 12).
    pub fn origin_ip(&self, edge: SocketAddr) -> IpAddr {
        match self {
            Self::Quic(_) => edge.ip(),
            Self::Http2(connection) => connection.local_ip(),
        }
    }

    /// To be called once.
    pub async fn control_stream(&self) -> anyhow::Result<control::Stream> {
        match self {
            Self::Quic(connection) => connection.control_stream().await,
            Self::Http2(connection) => connection.control_stream().await,
        }
    }

    /// Hands every request that the edge sends to the proxy, until the connection ends, and says why it
    /// did. Requests run in `requests`, which outlives this call so that they can finish. May be dropped
    /// and called again.
    pub async fn serve(&self, proxy: &Rc<Proxy>, requests: &TaskTracker) -> String {
        match self {
            Self::Quic(connection) => connection.serve(proxy, requests).await.to_string(),
            Self::Http2(connection) => connection.serve(proxy, requests).await,
        }
    }

    /// Closes; requests that are still under way are cut.
    pub async fn close(&self) {
        match self {
            Self::Quic(connection) => connection.close(),
            Self::Http2(connection) => connection.close().await,
        }
    }
}
