//! The body that a visitor gets: a page of the edge, or the bytes of an origin as they come. Knows
//! when a body is whole and makes sure that one that is not never looks as if it were.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use adit_net::crumbs::Gathered;
use adit_pace::{Flow, Release};
use adit_protocol::extensions::Piece;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::upload::{Brake, UploadEnd};
use super::{ForwardContext, Traced};
use crate::forward::headers;
use crate::limits::in_flight::{Activity, InFlight};
use crate::registry::RequestGuard;
use crate::transport::connection::STREAM_WINDOW;
use crate::transport::stream::{Downstream, broken};

/// Body of every answer to a visitor. Dropping it before its end cancels the request at the origin.
pub(crate) struct Body {
    content: Content,
    /// Keeps the visitor's connection from looking idle.
    busy: Option<InFlight>,
    /// Its end is that of the trace.
    traced: Option<Box<Traced>>,
}

enum Content {
    Empty,
    Text(Bytes),
    Origin(Passing),
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self { content: Content::Empty, busy: None, traced: None }
    }

    pub(crate) fn text(text: Bytes) -> Self {
        Self { content: Content::Text(text), busy: None, traced: None }
    }

    /// The visitor's connection is the one of `busy`.
    pub(super) fn origin(body: OriginBody, busy: InFlight, place: &ForwardContext<'_>) -> Self {
        let content = Content::Origin(Passing::new(body, busy.activity().clone(), place));
        Self { content, busy: Some(busy), traced: None }
    }

    pub(crate) fn traced(mut self, traced: Option<Box<Traced>>) -> Self {
        self.traced = traced;
        self
    }

    pub(crate) fn keeping(mut self, busy: InFlight) -> Self {
        self.busy = Some(busy);
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
            Content::Origin(body) => body.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Text(text) => SizeHint::with_exact(text.len() as u64),
            Content::Origin(body) => body.left().map_or_else(SizeHint::default, SizeHint::with_exact),
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

/// The body of an origin in the hands of a visitor's connection. If the visitor takes too little of it, it is
/// let go of from outside, because its connection does not ask for it then.
struct Passing {
    held: Arc<Held>,
    flow: Flow,
    /// Bytes that were given to the visitor's connection.
    given: usize,
    /// It broke off, and the visitor's connection is not told yet.
    broken: Option<io::Error>,
}

struct Held {
    body: Mutex<Holding>,
    activity: Arc<Activity>,
}

// Nearly all are of the first kind.
#[allow(clippy::large_enum_variant)]
enum Holding {
    Open(OriginBody),
    /// The visitor is told when it asks.
    CutOff,
    Dropped,
}

impl Passing {
    fn new(body: OriginBody, activity: Arc<Activity>, place: &ForwardContext<'_>) -> Self {
        let bytes = holds(body.left);
        let held = Arc::new(Held { body: Mutex::new(Holding::Open(body)), activity });
        let release: Weak<Held> = Arc::downgrade(&held);
        let flow = place.share.begin(bytes, Some(release));
        Self { held, flow, given: 0, broken: None }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Err(error));
        }
        let mut body = self.held.lock();
        let Holding::Open(body) = &mut *body else {
            return Poll::Ready(Err(broken("the visitor took too little")));
        };
        self.flow.asked();
        let piece = ready!(body.poll_piece(cx));
        if !matches!(piece, Ok(Some(_))) {
            // All of it has gone the way of every body, or its end has.
            self.given = 0;
        }
        if let Ok(Some(Piece::Data(data))) = &piece {
            self.flow.hold(holds(body.left));
            self.flow.gave(data.len());
            self.given += data.len();
            self.held.activity.gave(data.len());
        }
        if let Err(error) = piece {
            // A connection that hears of it forgets what it has not sent, and that may be all: the head too. It sends
            // while it waits.
            self.broken = Some(error);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(piece)
    }

    fn is_over(&self) -> bool {
        matches!(&*self.held.lock(), Holding::Open(body) if body.left == Some(0) && !body.has_trailers)
    }

    fn left(&self) -> Option<u64> {
        match &*self.held.lock() {
            Holding::Open(body) => body.left,
            Holding::CutOff | Holding::Dropped => None,
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let last = std::mem::replace(&mut *self.held.lock(), Holding::Dropped);
        let is_broken_off = match last {
            Holding::CutOff => {
                self.held.activity.told();
                true
            }
            Holding::Open(body) => body.left != Some(0) && self.given > 0,
            Holding::Dropped => false,
        };
        if is_broken_off {
            self.held.activity.took_back(self.given);
        }
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, Holding> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Release for Held {
    fn release(&self) {
        let mut body = self.lock();
        if matches!(&*body, Holding::Open(_)) {
            let open = std::mem::replace(&mut *body, Holding::CutOff);
            self.activity.cut_off();
            drop(body);
            drop(open);
        }
    }
}

/// What this edge holds of a body at most while its visitor takes nothing.
fn holds(left: Option<u64>) -> u64 {
    OF_EACH + left.unwrap_or(u64::MAX).min(STREAM_WINDOW.into())
}

/// What belongs to an answer under way besides its bytes.
const OF_EACH: u64 = 16 << 10;

/// The bytes of an origin.
pub(super) struct OriginBody {
    pub(super) down: Gathered<Downstream>,
    /// What is still missing of the announced length, if one was announced.
    pub(super) left: Option<u64>,
    /// Trailers may follow.
    pub(super) has_trailers: bool,
    pub(super) upload: Option<Rest>,
    /// The connection is not closed before this body is over.
    pub(super) _slot: RequestGuard,
}

/// An upload that goes on beside the answer.
pub(super) struct Rest {
    pub(super) end: JoinHandle<UploadEnd>,
    pub(super) brake: oneshot::Sender<Brake>,
}

impl OriginBody {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Piece>>> {
        self.poll_upload(cx)?;
        // Whoever counts gets what was announced, whatever comes behind it.
        let most = self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let piece = ready!(self.down.poll_within(most, cx)).transpose().map_err(broken)?;
        let chunk = match piece.map(piece_of) {
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

fn piece_of(frame: Frame<Bytes>) -> Piece {
    match frame.into_data() {
        Ok(data) => Piece::Data(data),
        Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
    }
}

impl Rest {
    /// The answer is whole: what is left of the upload is of no use to the origin.
    pub(super) fn release(self) {
        let _ = self.brake.send(Brake::AnswerIsWhole);
    }
}
