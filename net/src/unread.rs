//! What arrives on a connection over HTTP/2 and waits to be read, in as little memory as its bytes need.
//!
//! The library keeps each frame as it came. One byte in a frame of its own costs it some hundred, and for many
//! of them it ends the connection, with all that others have under way there: a peer could do both with a body
//! that its reader is slow to take. Here such frames are gathered into larger pieces before they are many. They
//! count as unread for the peer until they are read.
//!
//! Knows streams and frames; does not know what they mean.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frames::Frames;
use crate::unsent::Unsent;

/// The bodies that are being read on one connection, and what is not written of others yet.
#[derive(Debug, Clone, Default)]
pub struct Bodies {
    list: Arc<Mutex<List>>,
    unsent: Unsent,
}

#[derive(Debug, Default)]
struct List {
    held: Vec<Weak<Mutex<Held>>>,
    /// When so many are there, those that are gone are looked for.
    tidy_at: usize,
}

/// One of them. What is taken from it is room for the peer to send more.
#[derive(Debug)]
pub struct Body {
    held: Arc<Mutex<Held>>,
    unsent: Unsent,
}

#[derive(Debug)]
struct Held {
    stream: RecvStream,
    /// Taken from the library before the reader wanted it, in its order.
    pieces: VecDeque<Bytes>,
    /// Behind them.
    small: BytesMut,
    /// Behind all that was taken.
    failed: Option<h2::Error>,
    /// Waits for the stream.
    reader: Option<Waker>,
}

/// The bytes of a connection below the library, which has it gather what is small.
#[derive(Debug)]
pub struct Gathering<T> {
    io: T,
    bodies: Bodies,
    frames: Frames,
    /// Frames of little data since they were gathered.
    small: usize,
    written: Frames,
}

/// The same where bodies are in other hands: `tell` hears how many frames of little data have come, and says whether
/// the connection may go on.
#[derive(Debug)]
pub struct Counting<T, F> {
    io: T,
    frames: Frames,
    /// Frames of little data since readers had a turn.
    since: usize,
    tell: F,
}

impl Bodies {
    /// Looks after a body from here on.
    #[must_use]
    pub fn watch(&self, stream: RecvStream) -> Body {
        let held =
            Held { stream, pieces: VecDeque::new(), small: BytesMut::new(), failed: None, reader: None };
        let held = Arc::new(Mutex::new(held));
        let mut list = lock(&self.list);
        if list.held.len() >= list.tidy_at {
            list.held.retain(|held| held.strong_count() > 0);
            list.tidy_at = 2 * list.held.len() + FEW;
        }
        list.held.push(Arc::downgrade(&held));
        Body { held, unsent: self.unsent.clone() }
    }

    /// What was handed over for this connection and is not written yet.
    #[must_use]
    pub fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    fn gather(&self) {
        for held in lock(&self.list).held.iter().filter_map(Weak::upgrade) {
            lock(&held).gather();
        }
    }
}

impl Body {
    /// Those of its connection.
    #[must_use]
    pub fn unsent(&self) -> &Unsent {
        &self.unsent
    }

    /// The next bytes; `None` behind the last.
    pub fn poll_data(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let mut held = lock(&self.held);
        let data = match held.gathered() {
            Some(data) => data,
            None => {
                if let Some(error) = held.failed.take() {
                    return Poll::Ready(Some(Err(error)));
                }
                match held.stream.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => data,
                    Poll::Pending => {
                        held.reader = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                    ended => return ended,
                }
            }
        };
        held.reader = None;
        // Of a stream that has ended meanwhile there is no room to be given back.
        let _ = held.stream.flow_control().release_capacity(data.len());
        Poll::Ready(Some(Ok(data)))
    }

    /// Whether nothing follows, no trailers either.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        let held = lock(&self.held);
        held.pieces.is_empty()
            && held.small.is_empty()
            && held.failed.is_none()
            && held.stream.is_end_stream()
    }

    /// What follows the data, after its end was seen.
    pub fn poll_trailers(&self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, h2::Error>> {
        lock(&self.held).stream.poll_trailers(cx)
    }
}

impl Held {
    fn gathered(&mut self) -> Option<Bytes> {
        self.pieces.pop_front().or_else(|| (!self.small.is_empty()).then(|| self.small.split().freeze()))
    }

    /// Takes all that is there.
    fn gather(&mut self) {
        // The library knows one who waits, which is the last that asked.
        let reader = self.reader.clone();
        let mut cx = Context::from_waker(reader.as_ref().unwrap_or(Waker::noop()));
        while self.failed.is_none() {
            match self.stream.poll_data(&mut cx) {
                Poll::Ready(Some(Ok(data))) => self.keep(data),
                Poll::Ready(Some(Err(error))) => self.failed = Some(error),
                Poll::Ready(None) | Poll::Pending => return,
            }
        }
    }

    fn keep(&mut self, data: Bytes) {
        if data.len() >= SMALL || self.small.len() + data.len() > PIECE {
            self.pieces.extend((!self.small.is_empty()).then(|| self.small.split().freeze()));
        }
        if data.len() >= SMALL {
            self.pieces.push_back(data);
        } else {
            self.small.reserve(if self.small.is_empty() { PIECE } else { 0 });
            self.small.extend_from_slice(&data);
        }
    }
}

impl<T> Gathering<T> {
    /// Of one who has dialled HTTP/2, or of the one who was.
    pub fn new(io: T, bodies: Bodies, is_server: bool) -> Self {
        let (frames, written) = (Frames::new(is_server), Frames::new(!is_server));
        Self { io, bodies, frames, small: 0, written }
    }
}

impl<T, F: FnMut(usize) -> bool> Counting<T, F> {
    /// Of a server.
    pub fn new(io: T, tell: F) -> Self {
        Self { io, frames: Frames::new(true), since: 0, tell }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Gathering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.small >= MANY {
            this.small = 0;
            // The library holds no lock while it reads.
            this.bodies.gather();
            // Who is to read a body that has just begun gets to it now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, into);
        this.frames.look(&into.filled()[before..], |_| this.small += 1);
        read
    }
}

impl<T> Gathering<T> {
    /// So many bytes of these were written.
    fn wrote<'b>(&mut self, mut count: usize, parts: impl IntoIterator<Item = &'b [u8]>) {
        for part in parts {
            let passed = count.min(part.len());
            count -= passed;
            self.written.look(&part[..passed], |stream| self.bodies.unsent.written(stream));
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathering<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            self.wrote(count, [bytes]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(count)) = written {
            self.wrote(count, parts.iter().map(|part| &**part));
        }
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

impl<T: AsyncRead + Unpin, F: FnMut(usize) -> bool + Unpin> AsyncRead for Counting<T, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.since >= MANY {
            this.since = 0;
            // Who takes what has come gets to it now.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, into);
        let mut came = 0;
        this.frames.look(&into.filled()[before..], |_| came += 1);
        this.since += came;
        if came > 0 && !(this.tell)(came) {
            return Poll::Ready(Err(io::Error::other("too much small data is unread")));
        }
        read
    }
}

impl<T: AsyncWrite + Unpin, F: FnMut(usize) -> bool + Unpin> AsyncWrite for Counting<T, F> {
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

/// No code panics while it holds one of these locks.
fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Data of fewer bytes than this is little, and copied into larger pieces.
pub const SMALL: usize = 512;
/// What it is gathered to at most.
pub const PIECE: usize = 16 << 10;
/// Frames of little data that may arrive before they are gathered.
const MANY: usize = 4096;
const FEW: usize = 64;

#[cfg(test)]
mod tests;
