//! Bodies on this side of the wire. Shards are single-threaded, so a body need not be `Send`.

use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_protocol::extensions;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, ReadBuf};
use tokio_util::task::AbortOnDropHandle;

use super::http2::Exchange;
use super::pool::Lease;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A stream of chunks with back-pressure: nothing is read before it is asked for.
pub type Body = Pin<Box<dyn HttpBody<Data = Bytes, Error = BoxError>>>;

/// What of an answer may wait here at most before it is read, in bytes; an extension of its head where that is
/// not the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unread(pub u64);

impl Unread {
    pub fn of(extensions: &http::Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self(OVER_HTTP1))
    }
}

/// The read buffer of a connection over HTTP/1.1, and a piece that was taken out of it.
const OVER_HTTP1: u64 = 2 * super::LARGEST_HEAD as u64;

/// The body of an origin's answer, and the trailers behind it.
pub(super) struct Answer {
    incoming: Incoming,
    held: Option<Held>,
}

/// What an answer holds on to until its end. When it is dropped before, the connection closes, or over
/// HTTP/2 the stream, which is how the origin learns that the visitor left.
pub(super) enum Held {
    Lease(Lease),
    Exchange(Exchange),
}

impl Answer {
    pub(super) fn new(incoming: Incoming, held: Held) -> Self {
        let mut answer = Self { incoming, held: Some(held) };
        if answer.incoming.is_end_stream() {
            answer.release();
        }
        answer
    }

    fn release(&mut self) {
        match self.held.take() {
            Some(Held::Lease(lease)) => lease.give_back(),
            Some(Held::Exchange(exchange)) => exchange.finish(),
            None => {}
        }
    }
}

/// What must not stand behind a body (RFC 9110, 6.5.1), lest somebody takes it for a part of the head.
const NOT_IN_TRAILERS: [HeaderName; 14] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_RANGE,
    header::HOST,
    header::CONNECTION,
    header::UPGRADE,
    header::TE,
    header::TRAILER,
    header::SET_COOKIE,
    extensions::TRAILERS,
    extensions::NOTICE,
    extensions::NOT_HERE,
];

fn clean(trailers: &mut HeaderMap) {
    for name in &NOT_IN_TRAILERS {
        trailers.remove(name);
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        if frame.is_none() || (matches!(frame, Some(Ok(_))) && self.incoming.is_end_stream()) {
            self.release();
        }
        Poll::Ready(frame.map(|result| {
            let mut frame = result?;
            if let Some(trailers) = frame.trailers_mut() {
                clean(trailers);
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What an upgraded origin connection sends. Owns the task that feeds the other direction, so that
/// dropping this ends both.
pub(super) struct Upgraded<R> {
    reader: R,
    _feeding: AbortOnDropHandle<()>,
}

/// One read of an upgraded connection, bytes.
const CHUNK: usize = 16 * 1024;

impl<R> Upgraded<R> {
    pub(super) fn new(reader: R, feeding: AbortOnDropHandle<()>) -> Self {
        Self { reader, _feeding: feeding }
    }
}

impl<R: AsyncRead + Unpin> HttpBody for Upgraded<R> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        // On the stack, since most of these connections wait most of the time.
        let mut buffer = [MaybeUninit::uninit(); CHUNK];
        let mut buffer = ReadBuf::uninit(&mut buffer);
        if let Err(error) = ready!(Pin::new(&mut this.reader).poll_read(cx, &mut buffer)) {
            return Poll::Ready(Some(Err(error.into())));
        }
        if buffer.filled().is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(buffer.filled())))))
    }
}
