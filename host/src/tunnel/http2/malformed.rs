//! What becomes of a request that is no request, such as one whose body is shorter than it says. The library
//! resets its stream with PROTOCOL_ERROR, for which some peers give up the whole connection; here that frame
//! becomes an answer with 400. Knows frames on their way out; does not know requests.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Replaces such frames in what is written.
pub(super) struct Answering<T> {
    io: T,
    frames: Frames,
    /// Streams on which an answer has begun: a second one cannot follow it.
    answered: BTreeSet<u32>,
    /// An answer in the place of a frame.
    said: Bytes,
}

/// A place within a row of frames (RFC 9113 4.1).
#[derive(Clone, Copy, Default)]
struct Frames {
    head: [u8; HEAD],
    /// So much of a head is there.
    have: usize,
    /// So much of the payload is to come.
    left: usize,
}

/// The head of a frame.
struct Frame {
    length: usize,
    kind: u8,
    flags: u8,
    stream: u32,
}

impl<T> Answering<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, frames: Frames::default(), answered: BTreeSet::new(), said: Bytes::new() }
    }

    /// How much may pass before a frame that is to be replaced, and of which stream that one is.
    fn look(&self, slices: &[io::IoSlice<'_>]) -> (usize, Option<u32>) {
        let (mut frames, mut passed) = (self.frames, 0);
        for slice in slices {
            let mut rest = &slice[..];
            while !rest.is_empty() {
                if frames.is_between()
                    && let Some(stream) = malformed(rest)
                    && !self.answered.contains(&stream)
                {
                    return (passed, Some(stream));
                }
                let before = rest.len();
                frames.next(&mut rest);
                passed += before - rest.len();
            }
        }
        (passed, None)
    }

    /// So many bytes were written.
    fn advance(&mut self, slices: &[io::IoSlice<'_>], mut written: usize) {
        for slice in slices {
            let mut rest = &slice[..written.min(slice.len())];
            written -= rest.len();
            while !rest.is_empty() {
                let Some(frame) = self.frames.next(&mut rest) else { continue };
                let is_end = frame.kind == RST_STREAM || frame.flags & END_STREAM != 0;
                match frame.kind {
                    HEADERS if !is_end => {
                        self.answered.insert(frame.stream);
                        // Of what the edge cancels nothing is seen here.
                        if self.answered.len() > MOST_ANSWERED {
                            self.answered.pop_first();
                        }
                    }
                    HEADERS | DATA | RST_STREAM if is_end => drop(self.answered.remove(&frame.stream)),
                    _ => {}
                }
            }
        }
    }
}

impl Frames {
    fn is_between(&self) -> bool {
        self.have == 0 && self.left == 0
    }

    /// Takes the rest of a payload, or of a head, which it gives back when it is whole.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Frame> {
        if self.left > 0 {
            let taken = self.left.min(bytes.len());
            self.left -= taken;
            bytes.advance(taken);
            return None;
        }
        let taken = (HEAD - self.have).min(bytes.len());
        bytes.copy_to_slice(&mut self.head[self.have..self.have + taken]);
        self.have += taken;
        if self.have < HEAD {
            return None;
        }
        let frame = Frame::read(&self.head);
        (self.have, self.left) = (0, frame.length);
        Some(frame)
    }
}

impl Frame {
    fn read(head: &[u8; HEAD]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes([d & 0x7f, e, f, g]) }
    }
}

/// The stream that a frame at the beginning of these bytes resets for being malformed. Small frames lie in one
/// piece.
fn malformed(bytes: &[u8]) -> Option<u32> {
    let (head, payload) = bytes.split_first_chunk::<HEAD>()?;
    let frame = Frame::read(head);
    let is_reset = frame.kind == RST_STREAM && frame.length == CODE;
    (is_reset && payload.get(..CODE)? == PROTOCOL_ERROR).then_some(frame.stream)
}

/// The head of an answer with 400 that is all of it, and a reset without an error, so that the rest of the
/// request does not come (RFC 9113 8.1).
fn answer(stream: u32) -> Bytes {
    // 12 of the static table is `:status: 400` (RFC 7541 A).
    let mut block = vec![0x80 | 12];
    for (name, value) in [
        (&b"cf-cloudflared-response-meta"[..], &br#"{"src":"cloudflared"}"#[..]),
        (b"cf-cloudflared-response-headers", b""),
    ] {
        // Literal, never kept (RFC 7541 6.2.2); both are shorter than what one byte can say.
        block.extend_from_slice(&[0, name.len() as u8]);
        block.extend_from_slice(name);
        block.push(value.len() as u8);
        block.extend_from_slice(value);
    }
    let mut said = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    said.extend_from_slice(&frame(RST_STREAM, 0, stream, &[0; CODE]));
    said.into()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

impl<T: AsyncRead + Unpin> AsyncRead for Answering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<T: AsyncWrite + Unpin> Answering<T> {
    fn poll_said(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.said.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.said))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.said.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Answering<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_said(cx))?;
        let written = match this.look(slices) {
            (_, None) => ready!(Pin::new(&mut this.io).poll_write_vectored(cx, slices))?,
            (0, Some(stream)) => {
                this.said = answer(stream);
                // Whatever does not go now goes before the next bytes.
                let _ = this.poll_said(cx)?;
                return Poll::Ready(Ok(HEAD + CODE));
            }
            // What stands before it first, as far as one piece of it goes.
            (passed, Some(_)) => {
                let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
                ready!(Pin::new(&mut this.io).poll_write(cx, &first[..passed.min(first.len())]))?
            }
        };
        this.advance(slices, written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_said(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_said(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes of a frame's head, and of the code in a reset.
const HEAD: usize = 9;
const CODE: usize = 4;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PROTOCOL_ERROR: [u8; CODE] = [0, 0, 0, 1];
/// More than can be under way.
const MOST_ANSWERED: usize = 8192;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What arrives of these bytes, written in pieces of `size`.
    async fn written(bytes: &[u8], size: usize) -> Vec<u8> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut io = Answering::new(ours);
        for mut piece in bytes.chunks(size) {
            io.write_all_buf(&mut piece).await.unwrap();
        }
        io.shutdown().await.unwrap();
        let mut arrived = Vec::new();
        theirs.read_to_end(&mut arrived).await.unwrap();
        arrived
    }

    #[tokio::test]
    async fn only_a_reset_for_a_malformed_request_becomes_an_answer() {
        let reset = |stream, code: u8| frame(RST_STREAM, 0, stream, &[0, 0, 0, code]);
        let rows = [
            // A setting, data that looks like such a frame, an answer under way that turns out malformed, one
            // that is over, and others.
            (vec![frame(4, 0, 0, &[0; 6]), frame(DATA, 0, 1, &reset(1, 1))], None),
            (vec![frame(HEADERS, END_HEADERS, 3, b"h"), reset(3, 1)], None),
            (vec![reset(5, 2)], None),
            (
                vec![frame(HEADERS, END_HEADERS, 7, b"h"), frame(DATA, END_STREAM, 7, b"d"), reset(7, 1)],
                Some(7),
            ),
            (vec![frame(4, 0, 0, &[]), reset(9, 1)], Some(9)),
        ];
        for (frames, replaced) in rows {
            let bytes = frames.concat();
            let wanted = match replaced {
                None => bytes.clone(),
                Some(stream) => [&bytes[..bytes.len() - HEAD - CODE], &answer(stream)].concat(),
            };
            assert_eq!(written(&bytes, bytes.len()).await, wanted, "{frames:?}");
        }
    }

    #[tokio::test]
    async fn what_passes_survives_every_way_of_being_cut() {
        let frames =
            [frame(HEADERS, END_HEADERS, 1, b"head"), frame(DATA, END_STREAM, 1, &[7; 300])].concat();
        for size in 1..frames.len() {
            assert_eq!(written(&frames, size).await, frames, "{size}");
        }
    }
}
