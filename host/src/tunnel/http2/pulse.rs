//! A stream of bytes that remembers when it last brought something, and what was asked since. Knows the
//! clock; does not know what the bytes mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::tunnel::suspicion::Traffic;

pub(super) struct MeteredIo<T> {
    io: T,
    beat: Activity,
}

/// When the other side was last heard, and what it was asked.
#[derive(Clone)]
pub(super) struct Activity {
    began: Instant,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Milliseconds from `began` to what was heard last.
    last: AtomicU64,
    heard: AtomicU64,
    asked: AtomicU64,
    /// Microseconds.
    round_trip: AtomicU64,
}

impl<T> MeteredIo<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, beat: Activity { began: Instant::now(), counts: Arc::default() } }
    }

    pub(super) fn beat(&self) -> Activity {
        self.beat.clone()
    }
}

impl Activity {
    /// How long nothing was heard.
    pub(super) fn quiet(&self) -> Duration {
        let last = Duration::from_millis(self.counts.last.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(last)
    }

    /// The other side was asked for a sign of life, or is late with one.
    pub(super) fn ask(&self) {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
    }

    /// It took so long to answer.
    pub(super) fn answered(&self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.counts.round_trip.store(micros, Ordering::Relaxed);
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            asked: self.counts.asked.load(Ordering::Relaxed),
            heard: self.counts.heard.load(Ordering::Relaxed),
            round_trip: Duration::from_micros(self.counts.round_trip.load(Ordering::Relaxed)),
        }
    }

    fn hear(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.counts.last.store(now, Ordering::Relaxed);
        self.counts.heard.fetch_add(1, Ordering::Relaxed);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for MeteredIo<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, into);
        if into.filled().len() > before {
            self.beat.hear();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MeteredIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn only_what_arrives_is_a_sign_of_life() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut pulse = MeteredIo::new(ours);
        let long = Duration::from_secs(3600);
        pulse.beat.began = Instant::now() - long;
        let beat = pulse.beat();
        pulse.write_all(b"?").await.unwrap();
        assert!(beat.quiet() >= long);
        theirs.write_all(b"!").await.unwrap();
        pulse.read_u8().await.unwrap();
        assert!(beat.quiet() < long);
    }
}
