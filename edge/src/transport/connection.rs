//! An open connection to a host, whichever transport it came by. Knows how a stream for a request is
//! had; does not know what is sent on it.

use std::net::SocketAddr;
use std::sync::Arc;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2;
use super::peer::PeerWay;
use super::signs::Traffic;

/// What one slow visitor can make us hold of a download, in bytes. What all of them can is no matter of the
/// connection, but of the account (`adit-pace`).
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;

#[derive(Clone)]
pub(crate) enum Transport {
    Quic(quinn::Connection),
    Http2(http2::Link),
    /// By way of another node.
    Peer(Arc<PeerWay>),
}

/// Room for one request on a connection. Nothing was sent yet.
pub(crate) enum StreamPermit {
    Quic(quinn::SendStream, quinn::RecvStream),
    Http2(http2::Channel),
}

/// The two directions of a stream that carries RPC, before a byte of it was read.
pub(crate) struct ControlStream {
    pub(crate) read: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) write: Box<dyn AsyncWrite + Send + Unpin>,
}

/// The connection is gone, or takes no new requests.
#[derive(Debug, Error)]
#[error("{reason}")]
pub(crate) struct Lost {
    pub(crate) reason: String,
}

/// Why a host takes no more of a request.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// It has its answer, or has given up on one; its own direction says which.
    #[error("the host wants no more")]
    Unwanted,
    /// It turns the request away and has processed nothing of it.
    #[error("the host takes no new requests")]
    Refused,
    #[error("{0}")]
    Lost(#[from] Lost),
}

impl Transport {
    /// Waits until the host's limit of streams leaves room, for a request that came in on `shard`. May be dropped
    /// midway.
    pub(crate) async fn channel(&self, shard: usize) -> Result<StreamPermit, Lost> {
        match self {
            Self::Quic(connection) => match connection.open_bi().await {
                Ok((send, recv)) => Ok(StreamPermit::Quic(send, recv)),
                Err(error) => Err(Lost { reason: error.to_string() }),
            },
            Self::Http2(link) => link.channel().await.map(StreamPermit::Http2),
            Self::Peer(way) => way.channel(shard).await,
        }
    }

    pub(crate) fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(connection) => connection.remote_address(),
            Self::Http2(link) => link.remote_address(),
            // The host's is known there.
            Self::Peer(_) => SocketAddr::from(([0; 4], 0)),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Quic(connection) => connection.close_reason().is_some(),
            Self::Http2(link) => link.is_closed(),
            Self::Peer(way) => way.peer.is_closed(),
        }
    }

    /// Waits until the connection takes no new requests although it is not closed.
    pub(crate) async fn spent(&self) {
        match self {
            Self::Quic(_) | Self::Peer(_) => std::future::pending().await,
            Self::Http2(link) => link.spent().await,
        }
    }

    /// What was sent and heard so far: datagrams over QUIC, reads and writes over HTTP/2.
    pub(crate) fn signs(&self) -> Traffic {
        match self {
            Self::Quic(connection) => {
                let stats = connection.stats();
                let (sent, received) = (stats.udp_tx.datagrams, stats.udp_rx.datagrams);
                Traffic { sent, received, sent_before: None, is_asked: false, round_trip: stats.path.rtt }
            }
            Self::Http2(link) => link.signs(),
            Self::Peer(way) => way.peer.signs(),
        }
    }

    /// The transport's name as it stands in logs and in the status.
    pub(crate) fn protocol(&self) -> &'static str {
        match self {
            Self::Quic(_) => "quic",
            Self::Http2(_) => "http2",
            Self::Peer(_) => "peer",
        }
    }

    /// How far the host is, in nodes and regions: 0 if it is connected here.
    pub(crate) fn distance(&self) -> u8 {
        match self {
            Self::Quic(_) | Self::Http2(_) => 0,
            Self::Peer(way) => way.peer.distance(),
        }
    }

    /// Whether a node in between says nothing, or says that it hears nothing of the host.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Quic(_) | Self::Http2(_) => false,
            Self::Peer(way) => way.is_silent(),
        }
    }
}
