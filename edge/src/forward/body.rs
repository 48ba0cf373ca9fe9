//! The body that a visitor gets: a page of the edge, or the bytes of an origin as they come. Knows
//! when a body is whole and makes sure that one that is not never looks as if it were.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use adit_protocol::own::Piece;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::stream::{Downstream, broken};
use super::upload::{Brake, UploadEnd};
use crate::activity::Busy;
use crate::headers;
use crate::registry::Slot;

/// Body of every answer to a visitor. Dropping it before its end cancels the request at the origin.
pub(crate) struct Body {
    content: Content,
    /// Keeps the visitor's connection from looking idle.
    _busy: Option<Busy>,
}

enum Content {
    Empty,
    Text(Bytes),
    Origin(Box<OriginBody>),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self { content: Content::Empty, _busy: None }
    }

    pub(crate) fn text(text: Bytes) -> Self {
        Self { content: Content::Text(text), _busy: None }
    }

    pub(super) fn origin(body: OriginBody) -> Self {
        Self { content: Content::Origin(Box::new(body)), _busy: None }
    }

    pub(crate) fn keeping(mut self, busy: Busy) -> Self {
        self._busy = Some(busy);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Text(text) if text.is_empty() => Poll::Ready(None),
            Content::Text(text) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(text))))),
            Content::Origin(body) => body.poll_piece(cx).map(|piece| Some(piece.transpose()?.map(frame))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Text(text) => text.is_empty(),
            Content::Origin(body) => body.left == Some(0) && !body.has_trailers,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Origin(body) => body.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

fn frame(piece: Piece) -> Frame<Bytes> {
    match piece {
        Piece::Data(bytes) => Frame::data(bytes),
        Piece::Trailers(mut trailers) => {
            headers::trailers_for_visitor(&mut trailers);
            Frame::trailers(trailers)
        }
    }
}

/// The bytes of an origin.
pub(super) struct OriginBody {
    pub(super) down: Downstream,
    /// What is still missing of the announced length, if one was announced.
    pub(super) left: Option<u64>,
    /// Trailers may follow.
    pub(super) has_trailers: bool,
    pub(super) upload: Option<Rest>,
    /// The connection is not closed before this body is over.
    pub(super) _slot: Slot,
}

/// An upload that goes on beside the answer.
pub(super) struct Rest {
    pub(super) end: JoinHandle<UploadEnd>,
    pub(super) brake: oneshot::Sender<Brake>,
}

impl OriginBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        self.poll_upload(cx)?;
        let chunk = match ready!(self.down.poll_piece(cx)).map_err(broken)? {
            Some(Piece::Data(chunk)) => chunk,
            end @ (Some(Piece::Trailers(_)) | None) => {
                return Poll::Ready(match self.left {
                    // Without this the body would look whole to whoever does not count.
                    Some(left) if left > 0 => {
                        Err(broken(format!("the origin's body ended {left} bytes early")))
                    }
                    Some(_) | None => {
                        self.release();
                        Ok(end)
                    }
                });
            }
        };
        if let Some(left) = &mut self.left {
            match left.checked_sub(chunk.len() as u64) {
                Some(rest) => *left = rest,
                None => return Poll::Ready(Err(broken("the origin's body is longer than it said"))),
            }
            // Whoever counts does not ask again for the end.
            if *left == 0 && !self.has_trailers {
                self.release();
            }
        }
        Poll::Ready(Ok(Some(Piece::Data(chunk))))
    }

    /// A visitor that fails in the middle of its own body will not get a whole answer.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Some(upload) = &mut self.upload else { return Ok(()) };
        let Poll::Ready(end) = Pin::new(&mut upload.end).poll(cx) else { return Ok(()) };
        self.upload = None;
        match end {
            Ok(UploadEnd::VisitorFailed) => Err(broken("the visitor's body broke off")),
            Ok(
                UploadEnd::Finished
                | UploadEnd::NotWanted
                | UploadEnd::Refused
                | UploadEnd::Lost
                | UploadEnd::Stalled,
            )
            | Err(_) => Ok(()),
        }
    }

    fn release(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.release();
        }
    }
}

impl Rest {
    /// The answer is whole: what is left of the upload is of no use to the origin.
    pub(super) fn release(self) {
        let _ = self.brake.send(Brake::AnswerIsWhole);
    }
}
