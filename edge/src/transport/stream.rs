//! The two halves of a request's stream over either transport, each with an end that no path forgets:
//! what is neither finished nor read to its end is cancelled when it is dropped. wire.md section 0,
//! finding 3: over QUIC the host is told with STOP_SENDING and RESET_STREAM both; over HTTP/2 there is
//! one RST_STREAM for both halves.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_net::give_way::give_way;
use adit_protocol::extensions::{self, FrameReader, Piece};
use adit_protocol::stream::{Answer, DecodeError};
use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::HeaderMap;
use http_body::{Body, Frame};
use quinn::{ReadError, RecvStream, SendStream, VarInt};
use thiserror::Error;
use tokio::time::timeout;

use crate::transport::connection::{Lost, WriteError};
use crate::transport::http2;
use crate::transport::peer::Outcome;

/// Towards the host. Dropping it cancels, unless it was finished.
pub(crate) enum Upstream {
    Quic(QuicUp),
    Http2(http2::Sending),
}

/// Why there is no head of an answer.
pub(crate) enum Unanswered {
    /// The host turns the request away and has processed nothing of it.
    TurnedAway,
    Read(ReadError),
    Http2(http2::NoAnswer),
    /// What became of the attempt of another node.
    AtNode(Outcome),
    /// The host ended the stream.
    Ended,
    Decode(DecodeError),
}

/// Trailers that are longer than the other side takes.
#[derive(Debug, Error)]
#[error("the body cannot be ended")]
pub(crate) struct NoEnd;

impl Upstream {
    pub(crate) fn quic(stream: SendStream) -> Self {
        Self::Quic(QuicUp {
            stream,
            pending: Default::default(),
            sent: 0,
            is_framed: false,
            is_finished: false,
        })
    }

    /// From here on, over QUIC, the body is framed.
    pub(crate) fn frame(&mut self) {
        if let Self::Quic(up) = self {
            up.is_framed = true;
        }
    }

    /// Takes a part of the body, to be sent by [`Upstream::flush`] when everything before it was.
    pub(crate) fn load(&mut self, bytes: Bytes) {
        match self {
            Self::Quic(up) => up.load(bytes),
            Self::Http2(up) => up.load(bytes),
        }
    }

    /// Hands over what was loaded without copying it; waits for the host's flow control. May be dropped
    /// midway and called again.
    pub(crate) async fn flush(&mut self) -> Result<(), WriteError> {
        match self {
            Self::Quic(up) => up.flush().await,
            Self::Http2(up) => up.flush().await,
        }
    }

    /// [Loads](Upstream::load) and [flushes](Upstream::flush).
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), WriteError> {
        self.load(bytes);
        self.flush().await
    }

    /// The body is whole.
    pub(crate) fn finish(&mut self) {
        match self {
            Self::Quic(up) => up.finish(),
            Self::Http2(up) => up.finish(None),
        }
    }

    /// The body is whole, and these are its trailers; where they cannot cross they are left out. To be
    /// called once, after a flush.
    pub(crate) async fn finish_with(&mut self, trailers: Option<HeaderMap>) -> Result<(), NoEnd> {
        let trailers = trailers.filter(|trailers| !trailers.is_empty());
        match self {
            Self::Quic(up) => {
                if let Some(trailers) = trailers.filter(|_| up.is_framed) {
                    up.pending[1] = extensions::encode_trailers(&trailers).map_err(|_| NoEnd)?;
                    // An error means that the host wants no more, which is no error here.
                    let _ = up.flush().await;
                }
                up.finish();
            }
            Self::Http2(up) => up.finish(trailers),
        }
        Ok(())
    }
}

pub(crate) struct QuicUp {
    stream: SendStream,
    /// What is to be sent next: the head of a frame, if there are frames, and bytes.
    pending: [Bytes; 2],
    /// Bytes so far.
    sent: u64,
    is_framed: bool,
    is_finished: bool,
}

impl QuicUp {
    fn load(&mut self, bytes: Bytes) {
        let head = if self.is_framed && !bytes.is_empty() {
            Bytes::copy_from_slice(&extensions::data_head(bytes.len()))
        } else {
            Bytes::new()
        };
        self.pending = [head, bytes];
    }

    async fn flush(&mut self) -> Result<(), WriteError> {
        while self.pending.iter().any(Buf::has_remaining) {
            let sent = give_way(self.sent, self.stream.write_chunks(&mut self.pending)).await;
            let sent = sent.map_err(|error| match error {
                quinn::WriteError::Stopped(code) if code == REFUSED => WriteError::Refused,
                quinn::WriteError::Stopped(_) => WriteError::Unwanted,
                quinn::WriteError::ConnectionLost(_)
                | quinn::WriteError::ClosedStream
                | quinn::WriteError::ZeroRttRejected => Lost { reason: error.to_string() }.into(),
            })?;
            self.sent += sent.bytes as u64;
        }
        Ok(())
    }

    fn finish(&mut self) {
        // An error means that the host wants no more, which is no error here.
        let _ = self.stream.finish();
        self.is_finished = true;
    }
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
pub(crate) enum Downstream {
    Quic(Box<QuicDown>),
    Http2(Http2Down),
}

impl Downstream {
    pub(crate) fn quic(stream: RecvStream) -> Self {
        Self::Quic(Box::new(QuicDown::new(stream)))
    }

    pub(crate) fn http2(stream: http2::Receiving) -> Self {
        Self::Http2(Http2Down { stream, takes_trailers: false })
    }

    /// Reads the head of the answer.
    pub(crate) async fn answer(&mut self) -> Result<Answer, Unanswered> {
        match self {
            Self::Quic(down) => down.answer().await,
            Self::Http2(down) => down.stream.answer().await.map_err(|reason| match reason {
                http2::NoAnswer::Refused => Unanswered::TurnedAway,
                http2::NoAnswer::AtNode(outcome) => Unanswered::AtNode(outcome),
                reason @ (http2::NoAnswer::Broken(_) | http2::NoAnswer::Malformed(_)) => {
                    Unanswered::Http2(reason)
                }
            }),
        }
    }

    /// From here on there may be trailers behind the body; over QUIC only if it `is_framed`. Says
    /// whether there may be.
    pub(crate) fn take_trailers(&mut self, is_framed: bool) -> bool {
        match self {
            Self::Quic(down) if is_framed => {
                down.frames = Some(FrameReader::default());
                true
            }
            Self::Quic(_) => false,
            Self::Http2(down) => {
                down.takes_trailers = true;
                true
            }
        }
    }

    /// Whether the host's direction is over and nothing of it is left. Waits for so long at most for what
    /// tells; without it, what has arrived decides. To be asked between the answer's head and its body.
    pub(crate) async fn is_over(&mut self, patience: Option<Duration>) -> bool {
        let over = std::future::poll_fn(|cx| match self {
            Self::Quic(down) => down.poll_is_over(cx),
            Self::Http2(down) => down.stream.poll_is_over(cx),
        });
        match patience {
            Some(patience) => timeout(patience, over).await.unwrap_or(false),
            None => over.now_or_never().unwrap_or(false),
        }
    }

    /// The next bytes as they came, `None` at the end. May be dropped midway.
    pub(crate) async fn read(&mut self) -> io::Result<Option<Bytes>> {
        let piece = std::future::poll_fn(|cx| self.poll_piece(cx)).await?;
        Ok(match piece {
            Some(Piece::Data(bytes)) => Some(bytes),
            Some(Piece::Trailers(_)) | None => None,
        })
    }

    /// The next part of the body, `None` at the end. Trailers are the last.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        match self {
            Self::Quic(down) => down.poll_piece(cx),
            Self::Http2(down) => down.poll_piece(cx),
        }
    }
}

impl Body for Downstream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = ready!(self.poll_piece(cx));
        Poll::Ready(piece.transpose().map(|piece| {
            piece.map(|piece| match piece {
                Piece::Data(bytes) => Frame::data(bytes),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            })
        }))
    }
}

pub(crate) struct Http2Down {
    stream: http2::Receiving,
    takes_trailers: bool,
}

impl Http2Down {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        if let Some(bytes) = ready!(self.stream.poll_read(cx))? {
            return Poll::Ready(Ok(Some(Piece::Data(bytes))));
        }
        if !self.takes_trailers {
            return Poll::Ready(Ok(None));
        }
        self.stream.poll_trailers(cx).map_ok(|trailers| trailers.map(Piece::Trailers))
    }
}

pub(crate) struct QuicDown {
    stream: RecvStream,
    /// Bytes that came with the head of the answer, or the rest of a chunk with several frames.
    first: Bytes,
    frames: Option<FrameReader>,
    chunks: [Bytes; CHUNKS],
    /// `chunks[next..filled]` are still to be taken.
    next: usize,
    filled: usize,
    is_ended: bool,
}

impl QuicDown {
    fn new(stream: RecvStream) -> Self {
        let chunks = std::array::from_fn(|_| Bytes::new());
        Self { stream, first: Bytes::new(), frames: None, chunks, next: 0, filled: 0, is_ended: false }
    }

    async fn answer(&mut self) -> Result<Answer, Unanswered> {
        let mut buffered = BytesMut::new();
        loop {
            let chunk = std::future::poll_fn(|cx| self.poll_chunk(cx)).await;
            let chunk = chunk.map_err(|error| {
                if error == ReadError::Reset(REFUSED) {
                    Unanswered::TurnedAway
                } else {
                    Unanswered::Read(error)
                }
            })?;
            buffered.extend_from_slice(&chunk.ok_or(Unanswered::Ended)?);
            // The decoder refuses a head that is longer than the protocol allows.
            if let Some(answer) = Answer::decode(&mut buffered).map_err(Unanswered::Decode)? {
                // What came with it of the body.
                self.first = buffered.freeze();
                return Ok(answer);
            }
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        loop {
            if let Some(frames) = &mut self.frames
                && let Some(piece) = frames.next(&mut self.first).map_err(broken)?
            {
                return Poll::Ready(Ok(Some(piece)));
            }
            let chunk = ready!(self.poll_chunk(cx))?;
            match (&self.frames, chunk) {
                (None, chunk) => return Poll::Ready(Ok(chunk.map(Piece::Data))),
                (Some(_), Some(chunk)) => self.first = chunk,
                (Some(frames), None) if frames.is_whole() => return Poll::Ready(Ok(None)),
                (Some(_), None) => return Poll::Ready(Err(broken("the origin's body ended within a frame"))),
            }
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, ReadError>> {
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
            match read? {
                Some(count) => self.filled = count,
                None => {
                    self.is_ended = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
        let chunk = std::mem::take(&mut self.chunks[self.next]);
        self.next += 1;
        Poll::Ready(Ok(Some(chunk)))
    }

    /// Whether the host has ended the stream and nothing of it is left. A broken one is not over.
    fn poll_is_over(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.first.has_remaining() || self.next < self.filled {
            return Poll::Ready(false);
        }
        if !self.is_ended {
            match ready!(pin!(self.stream.read_chunks(&mut self.chunks)).poll(cx)) {
                Ok(None) => self.is_ended = true,
                Ok(Some(count)) => (self.next, self.filled) = (0, count),
                Err(_) => {}
            }
        }
        Poll::Ready(self.is_ended)
    }
}

impl Drop for QuicDown {
    fn drop(&mut self) {
        let is_over = std::future::poll_fn(|cx| self.poll_is_over(cx)).now_or_never();
        if is_over != Some(true) {
            let _ = self.stream.stop(CANCELLED);
        }
    }
}

/// A broken stream as an I/O error, for those who only pass it on.
pub(crate) fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::other(error)
}

/// wire.md 4.3: any code, the reference uses 0.
const CANCELLED: VarInt = VarInt::from_u32(0);
/// What a host that is leaving says (extensions.rs).
const REFUSED: VarInt = VarInt::from_u32(extensions::REFUSED);
/// Packets' worth of body taken at once: about 20 KiB.
const CHUNKS: usize = 16;
