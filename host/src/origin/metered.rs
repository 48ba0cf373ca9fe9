//! A stream that counts what passes, so that it is known afterwards whether an origin can have seen a request, and
//! that leaves nothing behind which the origin did not take.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Stream;

/// Bytes so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) read: u64,
    /// What the stream has taken, whether or not it left this machine.
    pub(super) written: u64,
}

pub(super) struct Metered {
    stream: Stream,
    traffic: Rc<Cell<Traffic>>,
    /// The origin has not taken what was to be written last.
    is_blocked: bool,
}

impl Metered {
    pub(super) fn new(stream: Stream) -> (Self, Rc<Cell<Traffic>>) {
        let traffic = Rc::new(Cell::default());
        (Self { stream, traffic: traffic.clone(), is_blocked: false }, traffic)
    }

    fn note(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.is_blocked = written.is_pending();
        let written = ready!(written)?;
        let traffic = self.traffic.get();
        self.traffic.set(Traffic { written: traffic.written + written as u64, ..traffic });
        Poll::Ready(Ok(written))
    }
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let traffic = self.traffic.get();
        let read = traffic.read + (buffer.filled().len() - before) as u64;
        self.traffic.set(Traffic { read, ..traffic });
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        if self.is_blocked {
            self.stream.forget();
        }
    }
}
