//! The two halves of a request's stream over either transport, each with an end that no path forgets:
//! what is neither finished nor read to its end is cancelled when it is dropped. wire.md section 0,
//! finding 3: over QUIC the host is told with STOP_SENDING and RESET_STREAM both; over HTTP/2 there is
//! one RST_STREAM for both halves.

use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use adit_protocol::stream::{Answer, Connect};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use quinn::{RecvStream, SendStream, VarInt};

use super::Failure;
use crate::tunnel::http2;
use crate::tunnel::link::{Channel, Lost, WriteError};

/// The head of a request, ready for either transport.
pub(super) struct Head {
    connect: Connect,
    /// No body follows.
    is_whole: bool,
    encoded: Option<Bytes>,
}

impl Head {
    pub(super) fn new(connect: Connect, is_whole: bool) -> Self {
        Self { connect, is_whole, encoded: None }
    }

    /// Sends the head, and the end of the stream too if no body follows.
    pub(super) async fn send(&mut self, channel: Channel) -> Result<(Upstream, Downstream), Failure> {
        match channel {
            Channel::Quic(send, recv) => {
                let head = match &self.encoded {
                    Some(head) => head.clone(),
                    None => self.encoded.insert(self.connect.encode().map_err(Failure::Head)?).clone(),
                };
                let mut up = Upstream::Quic(QuicUp { stream: send, is_finished: false });
                let down = Downstream::Quic(Box::new(QuicDown::new(recv)));
                up.write(head).await.map_err(Failure::Write)?;
                if self.is_whole {
                    up.finish();
                }
                Ok((up, down))
            }
            Channel::Http2(channel) => {
                let sent = channel.send(&self.connect, self.is_whole);
                let (up, down) = sent.map_err(|lost| Failure::Write(lost.into()))?;
                Ok((Upstream::Http2(up), Downstream::Http2(down)))
            }
        }
    }
}

/// Towards the host. Dropping it cancels, unless [`Upstream::finish`] was called.
pub(super) enum Upstream {
    Quic(QuicUp),
    Http2(http2::Sending),
}

impl Upstream {
    /// Hands `bytes` over without copying them; waits for the host's flow control.
    pub(super) async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        match self {
            Self::Quic(up) => up.stream.write_chunk(bytes).await.map_err(|error| match error {
                quinn::WriteError::Stopped(_) => WriteError::Unwanted,
                quinn::WriteError::ConnectionLost(_)
                | quinn::WriteError::ClosedStream
                | quinn::WriteError::ZeroRttRejected => Lost { reason: error.to_string() }.into(),
            }),
            Self::Http2(up) => up.write(bytes).await,
        }
    }

    /// The body is whole.
    pub(super) fn finish(&mut self) {
        match self {
            Self::Quic(up) => {
                // An error means that the host wants no more, which is no error here.
                let _ = up.stream.finish();
                up.is_finished = true;
            }
            Self::Http2(up) => up.finish(),
        }
    }
}

pub(super) struct QuicUp {
    stream: SendStream,
    is_finished: bool,
}

impl Drop for QuicUp {
    fn drop(&mut self) {
        // quinn would end the stream as if the body were whole.
        if !self.is_finished {
            let _ = self.stream.reset(CANCELLED);
        }
    }
}

/// From the host. Dropping it before its end was seen cancels.
pub(super) enum Downstream {
    Quic(Box<QuicDown>),
    Http2(http2::Receiving),
}

impl Downstream {
    /// Reads the head of the answer.
    pub(super) async fn answer(&mut self) -> Result<Answer, Failure> {
        match self {
            Self::Quic(down) => down.answer().await,
            Self::Http2(down) => down.answer().await.map_err(Failure::NoAnswer),
        }
    }

    /// The next bytes as they came, `None` at the end. May be dropped midway.
    pub(super) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_read(cx)).await
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match self {
            Self::Quic(down) => down.poll_read(cx),
            Self::Http2(down) => down.poll_read(cx),
        }
    }
}

pub(super) struct QuicDown {
    stream: RecvStream,
    /// Bytes that came with the head of the answer.
    first: Bytes,
    chunks: [Bytes; CHUNKS],
    /// `chunks[next..filled]` are still to be taken.
    next: usize,
    filled: usize,
    is_ended: bool,
}

impl QuicDown {
    fn new(stream: RecvStream) -> Self {
        let chunks = std::array::from_fn(|_| Bytes::new());
        Self { stream, first: Bytes::new(), chunks, next: 0, filled: 0, is_ended: false }
    }

    async fn answer(&mut self) -> Result<Answer, Failure> {
        let mut buffered = BytesMut::new();
        loop {
            let chunk = std::future::poll_fn(|cx| self.poll_read(cx)).await;
            buffered.extend_from_slice(&chunk.map_err(Failure::Read)?.ok_or(Failure::Ended)?);
            // The decoder refuses a head that is longer than the protocol allows.
            if let Some(answer) = Answer::decode(&mut buffered).map_err(Failure::Decode)? {
                // What came with it of the body.
                self.first = buffered.freeze();
                return Ok(answer);
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
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
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
        let chunk = std::mem::take(&mut self.chunks[self.next]);
        self.next += 1;
        Poll::Ready(Ok(Some(chunk)))
    }

    /// Whether the host has ended the stream and nothing of it is left, without waiting.
    fn is_over(&mut self) -> bool {
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

impl Drop for QuicDown {
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
