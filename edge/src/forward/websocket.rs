//! A WebSocket after its 101: raw bytes both ways until both directions are over. Knows half-close;
//! does not know frames.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_pace::Flow;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::ForwardContext;
use crate::limits::in_flight::InFlight;
use crate::registry::RequestGuard;
use crate::transport::connection::{STREAM_WINDOW, WriteError};
use crate::transport::stream::{Downstream, Upstream, broken};

/// Puts back the headers of this hop, which end at the edge (wire.md 4.3, websocket).
pub(super) fn announce(headers: &mut HeaderMap) {
    // What follows is not counted, whatever the origin says.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// What waits for the host, and what waits for the visitor.
pub(super) struct Flows {
    up: Flow,
    down: Flow,
}

impl Flows {
    /// `window` is what of the visitor's bytes may wait here besides those that are read.
    pub(super) fn new(place: &ForwardContext<'_>, window: u64) -> Self {
        let idle = |held| place.share.idle(held, None);
        Self { up: idle(READ_SIZE as u64 + window), down: idle(STREAM_WINDOW.into()) }
    }
}

/// Carries bytes until both directions have ended. Dropped midway it cancels the request.
pub(super) async fn carry(
    upgrade: OnUpgrade,
    up: Upstream,
    down: Downstream,
    slot: RequestGuard,
    busy: InFlight,
    flows: Flows,
) {
    let visitor = match upgrade.await {
        Ok(visitor) => visitor,
        Err(error) => return debug!(%error, "visitor left before its upgrade"),
    };
    let (from_visitor, to_visitor) = tokio::io::split(TokioIo::new(visitor));
    let moved = Moved::now();
    let carried = both(
        upwards(from_visitor, up, &flows.up, &moved),
        downwards(down, to_visitor, &flows.down, &moved),
        &moved,
    );
    tokio::select! {
        ended = carried => if let Err(error) = ended {
            debug!(%error, "websocket broke off");
        },
        _ = flows.up.cut() => debug!("websocket cut off: its host takes too little"),
        _ = flows.down.cut() => debug!("websocket cut off: its visitor takes too little"),
        () = busy.activity().dismissed() => debug!("a websocket made room for another visitor"),
    }
    drop((slot, busy));
}

/// When a byte last moved in either direction.
struct Moved {
    begun: Instant,
    /// Milliseconds after that.
    last: AtomicU64,
}

impl Moved {
    fn now() -> Self {
        Self { begun: Instant::now(), last: AtomicU64::new(0) }
    }

    fn moves(&self) {
        self.last.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// Done when nothing has moved for so long.
    async fn rests(&self, limit: Duration) {
        loop {
            let due = self.begun + Duration::from_millis(self.last.load(Ordering::Relaxed)) + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// Runs both directions to their end. When one has ended well the other may go on, as TCP allows it,
/// but not for ever without a byte: a visitor that is gone looks like one that has only ended its own direction.
/// When one fails, both are dropped.
async fn both(
    up: impl Future<Output = io::Result<()>>,
    down: impl Future<Output = io::Result<()>>,
    moved: &Moved,
) -> io::Result<()> {
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    tokio::select! {
        ended = &mut up => {
            ended?;
            rest(down, moved).await
        }
        ended = &mut down => {
            ended?;
            rest(up, moved).await
        }
    }
}

/// The direction that goes on.
async fn rest(ending: impl Future<Output = io::Result<()>>, moved: &Moved) -> io::Result<()> {
    moved.moves();
    tokio::select! {
        ended = ending => ended,
        () = moved.rests(HALF_CLOSED) => Err(io::ErrorKind::TimedOut.into()),
    }
}

async fn upwards(
    mut visitor: impl AsyncRead + Unpin,
    mut up: Upstream,
    flow: &Flow,
    moved: &Moved,
) -> io::Result<()> {
    loop {
        flow.asked();
        let data = poll_fn(|cx| read(Pin::new(&mut visitor), cx)).await?;
        if data.is_empty() {
            up.finish();
            return Ok(());
        }
        flow.gave(data.len());
        moved.moves();
        match up.write(data).await {
            Ok(()) => {}
            // The host has ended both directions at once, as the reference does.
            Err(WriteError::Unwanted) => return Ok(()),
            Err(error) => return Err(broken(error)),
        }
    }
}

/// What there is; nothing at the end. Holds no buffer while there is nothing, as most of the time.
fn read(visitor: Pin<&mut impl AsyncRead>, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
    let mut buffer = [MaybeUninit::uninit(); READ_SIZE];
    let mut buffer = ReadBuf::uninit(&mut buffer);
    ready!(visitor.poll_read(cx, &mut buffer))?;
    Poll::Ready(Ok(Bytes::copy_from_slice(buffer.filled())))
}

async fn downwards(
    mut down: Downstream,
    mut visitor: impl AsyncWrite + Unpin,
    flow: &Flow,
    moved: &Moved,
) -> io::Result<()> {
    while let Some(mut chunk) = down.read().await.map_err(broken)? {
        flow.gave(chunk.len());
        moved.moves();
        visitor.write_all_buf(&mut chunk).await?;
        visitor.flush().await?;
        flow.asked();
    }
    visitor.shutdown().await
}

const READ_SIZE: usize = 16 << 10;
/// How long one direction goes on without a byte after the other has ended.
const HALF_CLOSED: Duration = Duration::from_secs(60);
