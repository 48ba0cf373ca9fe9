//! A request body of which the beginning is kept until it is known that the origin works on it: an origin
//! that closes a connection says which requests it has not looked at, and those may be sent once more.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, request};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tracing::debug;

use super::{Body, BoxError, empty};

/// Most bytes of one body that are kept.
const MOST_KEPT: usize = 64 * 1024;
/// Most pieces: a piece may be small and still hold on to a whole packet.
const MOST_PIECES: usize = 64;

/// A body before and while it is sent. Once this is dropped without [`finish`](Self::finish), whoever sends
/// the body is told that it is broken.
pub(super) struct Source {
    shared: Rc<RefCell<State>>,
    is_finished: bool,
}

/// One attempt at sending the body.
pub(super) struct Attempt {
    shared: Rc<RefCell<State>>,
    turn: u32,
}

struct State {
    body: Body,
    /// What was taken from `body`, and how much of it the current attempt has sent.
    kept: VecDeque<Piece>,
    sent: usize,
    kept_bytes: usize,
    /// Whether more is to be kept.
    is_keeping: bool,
    /// Whether something was sent that is not kept.
    is_lost: bool,
    has_ended: bool,
    /// Only this attempt may go on.
    turn: u32,
    waiting: Option<Waker>,
}

#[derive(Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Source {
    pub(super) fn new(body: Body) -> Self {
        let has_ended = body.is_end_stream();
        let state = State {
            body,
            kept: VecDeque::new(),
            sent: 0,
            kept_bytes: 0,
            is_keeping: true,
            is_lost: false,
            has_ended,
            turn: 0,
            waiting: None,
        };
        Self { shared: Rc::new(RefCell::new(state)), is_finished: false }
    }

    /// The body from its beginning, as long as all of it is still there. An earlier attempt ends.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        let mut state = self.shared.borrow_mut();
        if state.is_lost {
            return None;
        }
        state.cut();
        state.sent = 0;
        Some(Attempt { shared: self.shared.clone(), turn: state.turn })
    }

    /// The origin works on the request: nothing more is kept.
    pub(super) fn forget(&self) {
        let mut state = self.shared.borrow_mut();
        state.is_keeping = false;
        state.shed();
    }

    /// The answer is complete. What is left of the body may still be sent.
    pub(super) fn finish(mut self) {
        self.is_finished = true;
    }
}

/// A whole request that may be sent once more.
pub(super) struct Repeatable {
    head: request::Parts,
    /// `None` if it has no body.
    source: Option<Source>,
}

impl Repeatable {
    /// The request as it is sent first, and what it is made anew from.
    pub(super) fn of(request: Request<Body>) -> (Self, Request<Body>) {
        let (head, body) = request.into_parts();
        if body.is_end_stream() {
            let first = Request::from_parts(head.clone(), body);
            return (Self { head, source: None }, first);
        }
        let source = Source::new(body);
        let attempt: Body = match source.attempt() {
            Some(attempt) => Box::pin(attempt),
            None => empty(),
        };
        let first = Request::from_parts(head.clone(), attempt);
        (Self { head, source: Some(source) }, first)
    }

    /// Whether an origin may see it twice.
    pub(super) fn is_idempotent(&self) -> bool {
        self.head.method.is_idempotent()
    }

    /// The same once more, as long as all of its body is still there.
    pub(super) fn again(&self) -> Option<Request<Body>> {
        let body: Body = match &self.source {
            Some(source) => Box::pin(source.attempt()?),
            None => empty(),
        };
        Some(Request::from_parts(self.head.clone(), body))
    }

    /// It will not be sent again. What was begun goes on.
    pub(super) fn release(self) {
        if let Some(source) = self.source {
            source.forget();
            source.finish();
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if !self.is_finished {
            self.shared.borrow_mut().cut();
        }
    }
}

impl State {
    /// Ends the current attempt.
    fn cut(&mut self) {
        self.turn = self.turn.wrapping_add(1);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Lets go of what was sent and will not be sent again.
    fn shed(&mut self) {
        if !self.is_keeping && self.sent > 0 {
            self.kept.drain(..self.sent);
            self.sent = 0;
            self.is_lost = true;
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BoxError>>> {
        if let Some(piece) = self.kept.get(self.sent).cloned() {
            self.sent += 1;
            self.shed();
            return Poll::Ready(Some(Ok(piece)));
        }
        if self.has_ended {
            return Poll::Ready(None);
        }
        loop {
            let frame = match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.is_lost = true;
                    debug!(%error, "the body of a request broke off");
                    // Whoever asked has left: the stream is cancelled, and no mistake of this side.
                    let reset = h2::Reason::CANCEL.into();
                    return Poll::Ready(Some(Err(BrokenOff { error, reset }.into())));
                }
                None => {
                    self.has_ended = true;
                    return Poll::Ready(None);
                }
            };
            let piece = match frame.into_data() {
                Ok(data) => Piece::Data(data),
                Err(frame) => match frame.into_trailers() {
                    Ok(trailers) => Piece::Trailers(trailers),
                    Err(_) => continue,
                },
            };
            self.has_ended = self.body.is_end_stream();
            self.keep(&piece);
            return Poll::Ready(Some(Ok(piece)));
        }
    }

    fn keep(&mut self, piece: &Piece) {
        let length = match piece {
            Piece::Data(data) => data.len(),
            // Their size is bounded where they come from.
            Piece::Trailers(_) => 0,
        };
        let has_room = self.kept_bytes + length <= MOST_KEPT && self.kept.len() < MOST_PIECES;
        if self.is_keeping && has_room {
            self.kept.push_back(piece.clone());
            self.kept_bytes += length;
            self.sent += 1;
        } else {
            self.is_keeping = false;
            self.is_lost = true;
            self.shed();
        }
    }
}

/// A body that ended before its end: why, and what an origin over HTTP/2 is told.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
struct BrokenOff {
    error: BoxError,
    #[source]
    reset: h2::Error,
}

impl HttpBody for Attempt {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.shared.borrow_mut();
        if state.turn != self.turn {
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        }
        let piece = state.poll_piece(cx);
        if piece.is_pending() {
            state.waiting = Some(cx.waker().clone());
        }
        piece.map_ok(|piece| match piece {
            Piece::Data(data) => Frame::data(data),
            Piece::Trailers(trailers) => Frame::trailers(trailers),
        })
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.borrow();
        state.turn == self.turn && state.has_ended && state.sent == state.kept.len()
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.shared.borrow();
        if state.has_ended && state.sent == state.kept.len() {
            return SizeHint::with_exact(0);
        }
        let waiting: usize = state.kept.iter().skip(state.sent).map(Piece::length).sum();
        let (waiting, rest) = (waiting as u64, state.body.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(waiting));
        }
        hint.set_lower(rest.lower().saturating_add(waiting));
        hint
    }
}

impl Piece {
    fn length(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    fn source(pieces: &[&'static str]) -> Source {
        let frames: Vec<_> =
            pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
        Source::new(Box::pin(StreamBody::new(stream::iter(frames))))
    }

    fn take(attempt: &mut Attempt) -> Option<Bytes> {
        attempt.frame().now_or_never().unwrap().map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[test]
    fn a_body_can_be_sent_again_from_its_beginning() {
        let source = source(&["one", "two", "three"]);
        let mut first = source.attempt().unwrap();
        assert_eq!((take(&mut first).unwrap(), take(&mut first).unwrap()), ("one".into(), "two".into()));
        let mut second = source.attempt().unwrap();
        assert!(first.frame().now_or_never().unwrap().unwrap().is_err(), "the first attempt is over");
        for piece in ["one", "two", "three"] {
            assert_eq!(take(&mut second).unwrap(), piece);
        }
        assert_eq!(take(&mut second), None);
        let mut third = source.attempt().unwrap();
        assert_eq!(take(&mut third).unwrap(), "one");
    }

    #[test]
    fn what_is_kept_has_an_end() {
        static LONG: [u8; MOST_KEPT] = [b'x'; MOST_KEPT];
        let long = std::str::from_utf8(&LONG).unwrap();
        let source = source(&[long, "y", "z"]);
        let mut attempt = source.attempt().unwrap();
        take(&mut attempt).unwrap();
        assert!(source.attempt().is_some());
        let mut attempt = source.attempt().unwrap();
        take(&mut attempt).unwrap();
        assert_eq!(take(&mut attempt).unwrap(), "y");
        assert!(source.attempt().is_none());
        assert!(source.shared.borrow().kept.is_empty());
        assert_eq!(take(&mut attempt).unwrap(), "z");
        assert_eq!(take(&mut attempt), None);
    }

    #[test]
    fn once_the_origin_works_on_it_nothing_is_kept() {
        let source = source(&["one", "two"]);
        let mut first = source.attempt().unwrap();
        take(&mut first).unwrap();
        let mut second = source.attempt().unwrap();
        source.forget();
        assert_eq!(take(&mut second).unwrap(), "one");
        assert_eq!(take(&mut second).unwrap(), "two");
        assert!(source.shared.borrow().kept.is_empty());
        assert!(source.attempt().is_none());
        source.finish();
        assert_eq!(take(&mut second), None);
    }

    #[test]
    fn a_body_that_broke_off_cancels_its_stream() {
        let broken: Vec<Result<Frame<Bytes>, BoxError>> = vec![Err("the visitor left".into())];
        let source = Source::new(Box::pin(StreamBody::new(stream::iter(broken))));
        let error = source.attempt().unwrap().frame().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the visitor left");
        let reset = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
        assert_eq!(reset.unwrap().reason(), Some(h2::Reason::CANCEL));
        assert!(source.attempt().is_none());
    }

    #[test]
    fn whoever_sends_it_is_told_when_nobody_waits_for_the_answer_any_more() {
        let source = source(&["one"]);
        let mut attempt = source.attempt().unwrap();
        drop(source);
        let error = attempt.frame().now_or_never().unwrap().unwrap().unwrap_err();
        assert_eq!(error.downcast_ref::<h2::Error>().unwrap().reason(), Some(h2::Reason::CANCEL));
    }
}
