//! The way of a question to a host: which of its connections takes it, and bytes both ways behind a handshake. Knows
//! streams; does not know who asks, nor what the answer means.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::management::FEATURE;
use adit_protocol::stream::{Answer, Connect};
use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use uuid::Uuid;

use crate::registry::{Connection, RequestGuard, Tunnel};
use crate::transport::connection::StreamPermit;
use crate::transport::exchange::{Reply, exchange};
use crate::transport::stream::{Downstream, Upstream};

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum NoAnswer {
    #[error("no host of this tunnel is connected")]
    NoConnection,
    #[error("no host of this id is connected")]
    NoConnector,
    #[error("no host of this tunnel can be asked about itself; they are too old, or of somebody else")]
    Unable,
    #[error("the host did not answer")]
    Failed(String),
}

/// A handshake that a host has answered with its own, and what follows it.
pub(crate) struct Switched {
    up: Upstream,
    down: Downstream,
    /// The connection is not closed under it.
    _guard: RequestGuard,
}

/// A connection of a host that can be asked: of this connector, if one is named.
pub(crate) fn choose(tunnel: &Arc<Tunnel>, connector: Option<Uuid>) -> Result<Arc<Connection>, NoAnswer> {
    let mut why = NoAnswer::NoConnection;
    for live in tunnel.choices(0, None).filter(|live| live.is_serving()) {
        if connector.is_some_and(|wanted| wanted != live.connector) {
            why = NoAnswer::NoConnector;
            continue;
        }
        // What another node's host can do is known there.
        if live.link.distance() > 0 || live.features.words.iter().any(|word| word == FEATURE) {
            return Ok(live);
        }
        why = NoAnswer::Unable;
    }
    Err(why)
}

/// Asks, and reads an answer that is no longer than a page.
pub(crate) async fn ask(live: &Connection, request: Request<()>) -> Result<Reply, NoAnswer> {
    let _guard = live.begin().ok_or(NoAnswer::NoConnection)?;
    let connect = Connect::Http(request);
    match timeout(PATIENCE, exchange(&live.link, &connect, LONGEST_PAGE)).await {
        Ok(Ok(reply)) if !reply.is_cut => Ok(reply),
        Ok(Ok(_)) => Err(NoAnswer::Failed(format!("more than {LONGEST_PAGE} bytes"))),
        Ok(Err(error)) => Err(NoAnswer::Failed(error.to_string())),
        Err(_) => Err(NoAnswer::Failed("too late".to_owned())),
    }
}

/// Asks for a WebSocket. What is no handshake is the answer of the host.
pub(crate) async fn switch(
    live: &Connection,
    request: Request<()>,
) -> Result<(Response<()>, Option<Switched>), NoAnswer> {
    let guard = live.begin().ok_or(NoAnswer::NoConnection)?;
    let asking = async {
        let failed = |error: &dyn std::fmt::Display| NoAnswer::Failed(error.to_string());
        let connect = Connect::WebSocket(request);
        let (up, mut down) = match live.link.channel(0).await.map_err(|lost| failed(&lost))? {
            StreamPermit::Quic(send, recv) => {
                let mut up = Upstream::quic(send);
                let head = connect.encode().map_err(|error| failed(&error))?;
                up.write(head).await.map_err(|error| failed(&error))?;
                (up, Downstream::quic(recv))
            }
            StreamPermit::Http2(channel) => {
                let (up, down) = channel.send(&connect, false).map_err(|lost| failed(&lost))?;
                (Upstream::Http2(up), Downstream::http2(down))
            }
        };
        match down.answer().await {
            Ok(Answer::Http(response)) => Ok((response, up, down)),
            Ok(Answer::Refused { reason, .. }) => Err(NoAnswer::Failed(reason)),
            Ok(Answer::Accepted) | Err(_) => Err(NoAnswer::Failed("it broke off".to_owned())),
        }
    };
    let answered = timeout(PATIENCE, asking).await;
    let (response, up, down) = answered.unwrap_or_else(|_| Err(NoAnswer::Failed("too late".to_owned())))?;
    let is_switched = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    Ok((response, is_switched.then_some(Switched { up, down, _guard: guard })))
}

impl Switched {
    /// Carries what both say until either is done. Nothing is read of the host that its watcher does not take. Dropped
    /// midway the host is told.
    pub(crate) async fn carry(self, watcher: impl AsyncRead + AsyncWrite) -> io::Result<()> {
        let Self { mut up, mut down, _guard } = self;
        let (mut from, mut to) = tokio::io::split(watcher);
        let upwards = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(READ);
                let mut room = bytes::BufMut::limit(&mut buffer, READ);
                if from.read_buf(&mut room).await? == 0 {
                    return Ok(());
                }
                up.write(buffer.split().freeze()).await.map_err(io::Error::other)?;
            }
        };
        let downwards = async {
            while let Some(chunk) = down.read().await? {
                write(&mut to, chunk).await?;
            }
            to.shutdown().await
        };
        tokio::select! {
            ended = upwards => ended,
            ended = downwards => ended,
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), mut chunk: Bytes) -> io::Result<()> {
    let writing = async {
        to.write_all_buf(&mut chunk).await?;
        to.flush().await
    };
    timeout(STALLED, writing).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// For an answer, or a handshake.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a watcher to take what was said; the host waits meanwhile, and leaves out what does not fit.
const STALLED: Duration = Duration::from_secs(60);
const LONGEST_PAGE: usize = 64 << 10;
/// Of what a watcher says, at once.
const READ: usize = 4096;
