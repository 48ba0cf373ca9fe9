//! The request as it comes on its stream: its head, and what of its body follows.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_protocol::extensions::{FrameReader, Piece};
use adit_protocol::stream::Opening;
use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame};
use quinn::RecvStream;

use crate::origin::BoxError;

pub(super) async fn read_head(mut recv: RecvStream) -> anyhow::Result<(Opening, StreamBody)> {
    let mut buffered = BytesMut::new();
    loop {
        if let Some(opening) = Opening::decode(&mut buffered)? {
            return Ok((opening, StreamBody { first: buffered.freeze(), recv }));
        }
        let chunk =
            recv.read_chunk(CHUNK, true).await?.context("the stream ended inside the head of a request")?;
        buffered.extend_from_slice(&chunk.bytes);
    }
}

/// The body of a request: what came with its head, then what follows.
pub(super) struct StreamBody {
    first: Bytes,
    recv: RecvStream,
}

impl HttpBody for StreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        // Holds no state of its own between polls.
        let chunk = ready!(std::pin::pin!(self.recv.read_chunk(CHUNK, true)).poll(cx));
        Poll::Ready(match chunk {
            Ok(Some(chunk)) => Some(Ok(Frame::data(chunk.bytes))),
            Ok(None) => None,
            Err(error) => Some(Err(error.into())),
        })
    }
}

/// The same where it is framed (`adit_protocol::extensions`): data, and trailers behind it.
pub(super) struct FramedBody {
    body: StreamBody,
    /// What has arrived and is not read yet.
    rest: Bytes,
    frames: FrameReader,
}

impl FramedBody {
    pub(super) fn new(body: StreamBody) -> Self {
        Self { body, rest: Bytes::new(), frames: FrameReader::default() }
    }
}

impl HttpBody for FramedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            match this.frames.next(&mut this.rest) {
                Ok(Some(Piece::Data(data))) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(Some(Piece::Trailers(trailers))) => {
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error.into()))),
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(frame) => this.rest = frame?.into_data().unwrap_or_default(),
                None if this.frames.is_whole() => return Poll::Ready(None),
                None => return Poll::Ready(Some(Err("the body ended within a frame".into()))),
            }
        }
    }
}

/// Largest piece of a body handed over at once, bytes.
const CHUNK: usize = 64 * 1024;
