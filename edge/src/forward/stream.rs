//! The two halves of a request's stream, each with an end that no path forgets: what is neither
//! finished nor read to its end is cancelled when it is dropped. wire.md section 0, finding 3: the
//! host is told with STOP_SENDING and RESET_STREAM both.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};

/// Towards the host. Dropping it resets the stream, unless [`Upstream::finish`] was called: quinn
/// would end it as if the body were whole.
pub(super) struct Upstream {
    stream: SendStream,
    is_finished: bool,
}

impl Upstream {
    pub(super) fn new(stream: SendStream) -> Self {
        Self { stream, is_finished: false }
    }

    /// Hands `bytes` over without copying them; waits for the host's flow control.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.stream.write_chunk(bytes).await
    }

    /// The body is whole.
    pub(super) fn finish(&mut self) {
        // An error means that the host wants no more, which is no error here.
        let _ = self.stream.finish();
        self.is_finished = true;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.stream.reset(CANCELLED);
        }
    }
}

/// From the host. Dropping it before its end was seen stops the stream.
pub(super) struct Downstream {
    stream: RecvStream,
    /// Bytes that came with the head of the answer.
    first: Bytes,
    chunks: [Bytes; CHUNKS],
    /// `chunks[next..filled]` are still to be taken.
    next: usize,
    filled: usize,
    is_ended: bool,
}

impl Downstream {
    pub(super) fn new(stream: RecvStream) -> Self {
        let chunks = std::array::from_fn(|_| Bytes::new());
        Self { stream, first: Bytes::new(), chunks, next: 0, filled: 0, is_ended: false }
    }

    /// Gives back bytes that were read too far.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.first = bytes;
    }

    /// The next bytes as they came, `None` at the end. May be dropped midway.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, ReadError> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
        if self.first.has_remaining() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.first))));
        }
        if self.next == self.filled {
            if self.is_ended {
                return Poll::Ready(Ok(None));
            }
            // One lock of the connection for several packets' worth of body.
            let read = ready!(pin!(self.stream.read_chunks(&mut self.chunks)).poll(cx));
            (self.next, self.filled) = (0, 0);
            match read {
                Ok(Some(count)) => self.filled = count,
                Ok(None) => {
                    self.is_ended = true;
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let chunk = std::mem::take(&mut self.chunks[self.next]);
        self.next += 1;
        Poll::Ready(Ok(Some(chunk)))
    }

    /// Whether the host has ended the stream and nothing of it is left, without waiting.
    pub(super) fn is_over(&mut self) -> bool {
        let is_empty = !self.first.has_remaining() && self.next == self.filled;
        if is_empty && !self.is_ended {
            match self.stream.read_chunks(&mut self.chunks).now_or_never() {
                Some(Ok(None)) => self.is_ended = true,
                Some(Ok(Some(count))) => (self.next, self.filled) = (0, count),
                Some(Err(_)) | None => {}
            }
        }
        self.is_ended && !self.first.has_remaining() && self.next == self.filled
    }
}

impl Drop for Downstream {
    fn drop(&mut self) {
        if !self.is_over() {
            let _ = self.stream.stop(CANCELLED);
        }
    }
}

/// A broken stream as an I/O error, for those who only pass it on.
pub(super) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

/// wire.md 4.3: any code, the reference uses 0.
const CANCELLED: VarInt = VarInt::from_u32(0);
/// Packets' worth of body taken at once: about 20 KiB.
const CHUNKS: usize = 16;
