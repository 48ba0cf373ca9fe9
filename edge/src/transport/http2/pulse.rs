//! A stream of bytes that remembers when it last brought something, and how often it brought and took
//! something. Knows the clock; does not know what the bytes mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::transport::signs::{Traffic, Volume};

pub(crate) struct MeteredIo<T> {
    io: T,
    beat: IoActivity,
    /// Where its bytes are counted besides.
    volume: Option<Arc<Volume>>,
}

/// When the other side was last heard.
#[derive(Clone)]
pub(crate) struct IoActivity {
    began: Instant,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Milliseconds from `began` to the last read.
    last: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    /// How many writes there were at the last read.
    writes_before: AtomicU64,
    is_asked: AtomicBool,
}

impl<T> MeteredIo<T> {
    pub(crate) fn new(io: T, volume: Option<Arc<Volume>>) -> Self {
        Self { io, beat: IoActivity { began: Instant::now(), seen: Arc::default() }, volume }
    }

    pub(crate) fn beat(&self) -> IoActivity {
        self.beat.clone()
    }

    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        if written.is_ready() {
            self.beat.speak();
        }
        if let (Some(volume), Poll::Ready(Ok(bytes))) = (&self.volume, written) {
            volume.sends(*bytes);
        }
    }
}

impl IoActivity {
    /// How long nothing was heard.
    pub(crate) fn quiet(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.seen.last.load(Ordering::Relaxed)))
    }

    fn hear(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seen.last.store(now, Ordering::Relaxed);
        self.seen.writes_before.store(self.seen.writes.load(Ordering::Relaxed), Ordering::Relaxed);
        self.seen.is_asked.store(false, Ordering::Relaxed);
        self.seen.reads.fetch_add(1, Ordering::Relaxed);
    }

    /// Begins to count anew how long nothing was heard, because nobody was listening.
    pub(crate) fn excuse(&self) {
        let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.seen.last.store(now, Ordering::Relaxed);
    }

    /// A sign of life was asked for. Whatever is heard answers.
    pub(crate) fn ask(&self) {
        self.seen.is_asked.store(true, Ordering::Relaxed);
    }

    fn speak(&self) {
        self.seen.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// TCP says nothing of round trips.
    pub(crate) fn signs(&self) -> Traffic {
        let Seen { reads, writes, writes_before, is_asked, last: _ } = &*self.seen;
        Traffic {
            sent: writes.load(Ordering::Relaxed),
            received: reads.load(Ordering::Relaxed),
            sent_before: Some(writes_before.load(Ordering::Relaxed)),
            is_asked: is_asked.load(Ordering::Relaxed),
            round_trip: Duration::ZERO,
        }
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
            if let Some(volume) = &self.volume {
                volume.receives(into.filled().len() - before);
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for MeteredIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        self.wrote(&written);
        written
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
        let mut pulse = MeteredIo::new(ours, None);
        let long = Duration::from_secs(3600);
        pulse.beat.began = Instant::now() - long;
        let beat = pulse.beat();
        pulse.write_all(b"?").await.unwrap();
        assert!(beat.quiet() >= long);
        assert_eq!((beat.signs().sent, beat.signs().received), (1, 0));
        theirs.write_all(b"!").await.unwrap();
        pulse.read_u8().await.unwrap();
        assert!(beat.quiet() < long);
        assert_eq!((beat.signs().sent, beat.signs().received), (1, 1));
    }
}
