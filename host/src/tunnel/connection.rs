//! A connection to an edge server over either transport, and how one is dialled. Knows the transports;
//! decides nothing.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;

use super::handler::Handler;
use super::state::{DialPlan, Transport};
use super::status::QuicPath;
use super::suspicion::{Ended, Traffic};
use super::{control, http2, quic};

/// How long a dial may take, over whatever transports: so much a dead address costs.
const DIAL_LIMIT: Duration = Duration::from_secs(3);
/// How long the first transport is waited for before the other one is tried beside it.
const HEAD_START: Duration = Duration::from_secs(1);
/// The same where it is urgent.
const SHORT_START: Duration = Duration::from_millis(400);
/// How long the last packets of a slot may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// How often a connection over which nothing comes asks whether the edge lives: that of slot 0, and how much
/// more for each further one. They differ so that slots do not all ask, and learn, at the same time.
const KEEP_ALIVE: Duration = Duration::from_millis(400);
const KEEP_ALIVE_STEP: Duration = Duration::from_millis(70);

/// How this host reaches edges: one per process.
#[derive(Clone)]
pub struct Dialer {
    quic: quic::Dialer,
    http2: http2::Dialer,
}

/// The dialler of one slot. Keeps the slot's UDP port.
pub struct SlotDialer {
    dialer: Dialer,
    keep_alive: Duration,
    /// Whether it is for IPv4, and the socket.
    endpoint: RefCell<Option<(bool, quic::Endpoint)>>,
}

/// An open connection to an edge server.
pub enum Connection {
    Quic(quic::Connection),
    Http2(Box<http2::Connection>),
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[error("{source:#}")]
pub struct DialError {
    /// At once, by a machine where nobody listens on this port now.
    pub is_refused: bool,
    source: anyhow::Error,
}

impl Dialer {
    /// `tls` must know which roots to trust. Connections come from `source`, if there is one: an address of
    /// this machine, and of the family of every edge that is dialled. An edge may send `window` bytes on one
    /// connection before they are read.
    pub fn new(tls: rustls::ClientConfig, source: Option<IpAddr>, window: u32) -> anyhow::Result<Self> {
        if let Some(source) = source {
            UdpSocket::bind((source, 0))
                .with_context(|| format!("binding to {source}, the edge-bind-address"))?;
        }
        let quic = quic::Dialer::new(tls.clone(), source, window)?;
        Ok(Self { quic, http2: http2::Dialer::new(tls, source, window) })
    }

    /// Done when the machine of this edge says that nobody listens there. Over TCP that is known anyway.
    pub async fn refusal(&self, transport: Transport, edge: SocketAddr) {
        match transport {
            Transport::Quic => self.quic.refusal(edge).await,
            Transport::Http2 => std::future::pending().await,
        }
    }

    /// For one slot.
    pub fn line(&self, slot: usize) -> SlotDialer {
        let slot = u32::try_from(slot).unwrap_or(0);
        let keep_alive = KEEP_ALIVE + KEEP_ALIVE_STEP * slot;
        SlotDialer { dialer: self.clone(), keep_alive, endpoint: RefCell::new(None) }
    }
}

impl SlotDialer {
    /// Whichever transport of the way comes about. May be dropped midway.
    pub async fn dial(&self, way: DialPlan, edge: SocketAddr) -> Result<Connection, DialError> {
        let dialling =
            async { if way.both { self.race(way, edge).await } else { self.over(way.first, edge).await } };
        match timeout(DIAL_LIMIT, dialling).await {
            Ok(outcome) => outcome,
            Err(_) => Err(DialError::new(anyhow::anyhow!("no answer within {} s", DIAL_LIMIT.as_secs()))),
        }
    }

    /// The other transport is tried when the first has failed, or is slow.
    async fn race(&self, way: DialPlan, edge: SocketAddr) -> Result<Connection, DialError> {
        let start = if way.is_urgent { SHORT_START } else { HEAD_START };
        let mut one = pin!(self.over(way.first, edge));
        let failed = tokio::select! {
            outcome = &mut one => match outcome {
                Ok(connection) => return Ok(connection),
                Err(error) => Some(error),
            },
            () = sleep(start) => None,
        };
        let mut other = pin!(self.over(way.first.other(), edge));
        let failed = match failed {
            Some(failed) => failed,
            None => tokio::select! {
                outcome = &mut one => match outcome {
                    Ok(connection) => return Ok(connection),
                    Err(error) => error,
                },
                outcome = &mut other => return match outcome {
                    Ok(connection) => Ok(connection),
                    Err(error) => one.await.map_err(|first| first.and(error)),
                },
            },
        };
        other.await.map_err(|error| failed.and(error))
    }

    async fn over(&self, transport: Transport, edge: SocketAddr) -> Result<Connection, DialError> {
        match transport {
            Transport::Quic => {
                let endpoint = self.endpoint(edge).context("UDP socket").map_err(DialError::new)?;
                tokio::select! {
                    outcome = quic::Connection::dial(&endpoint, edge) => {
                        outcome.map(Connection::Quic).map_err(DialError::new)
                    }
                    () = self.dialer.quic.refusal(edge) => Err(DialError {
                        is_refused: true,
                        source: anyhow::anyhow!("QUIC: nobody listens on this port"),
                    }),
                }
            }
            Transport::Http2 => match self.dialer.http2.dial(edge, self.keep_alive).await {
                Ok(connection) => Ok(Connection::Http2(Box::new(connection))),
                Err(error) => Err(DialError::new(error.context("HTTP/2"))),
            },
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
        let endpoint = self.dialer.quic.endpoint(edge, self.keep_alive)?;
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

impl DialError {
    fn new(source: anyhow::Error) -> Self {
        let is_refused = source
            .chain()
            .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
            .any(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        Self { is_refused, source }
    }

    /// What both transports said.
    fn and(self, other: Self) -> Self {
        let source = anyhow::anyhow!("{:#}; {:#}", self.source, other.source);
        Self { is_refused: self.is_refused && other.is_refused, source }
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

    /// Hands every request that the edge sends to the handler, until the connection ends, and says why it
    /// did. Requests run in `requests`, which outlives this call so that they can finish. May be dropped
    /// and called again.
    pub async fn serve(&self, handler: &Rc<Handler>, requests: &TaskTracker) -> Ended {
        match self {
            Self::Quic(connection) => connection.serve(handler, requests).await,
            Self::Http2(connection) => connection.serve(handler, requests).await,
        }
    }

    /// How it is, where the transport tells.
    pub fn path(&self) -> Option<QuicPath> {
        match self {
            Self::Quic(connection) => Some(connection.path()),
            Self::Http2(_) => None,
        }
    }

    pub fn traffic(&self) -> Traffic {
        match self {
            Self::Quic(connection) => connection.traffic(),
            Self::Http2(connection) => connection.traffic(),
        }
    }

    /// Tells the edge, where the transport has a word for it, that nothing new is served here.
    pub fn leave(&self) {
        match self {
            // A handler that refuses is all there is.
            Self::Quic(_) => {}
            Self::Http2(connection) => connection.leave(),
        }
    }

    /// Closes; requests that are still under way are cut, at once where `is_cut` says that there are some.
    pub async fn close(&self, is_cut: bool) {
        match self {
            Self::Quic(connection) => connection.close(),
            Self::Http2(connection) => connection.close(is_cut).await,
        }
    }
}
