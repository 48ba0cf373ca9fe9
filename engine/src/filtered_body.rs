//! A body on its way through a plugin that sees it pass: a piece is taken from where the body comes from when whoever
//! comes next wants one, and nothing is held but what the plugin made of the last.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::bodies::BodyRoom;
use crate::body_stream::{BodyEnd, BodyFailure, BodyFilter};
use crate::decode::Decoder;
use crate::failure::{Failure, FailureKind};

/// Longest piece that a plugin is shown, bytes. Longer ones are cut.
const PIECE: usize = 64 * 1024;
/// Steps of a compressed body that become nothing, one behind the other.
const IDLE_STEPS: u32 = 4;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body, with the plugin that sees it.
pub struct FilteredBody<B> {
    inner: Option<B>,
    stage: Stage,
    /// What was read and not shown yet, its coding undone.
    unseen: Bytes,
    /// What undoes it, and the piece as it came, which goes on once all of it was shown where it is only read.
    decoder: Option<Decoder>,
    coded: Bytes,
    /// What goes on, in this order.
    given: VecDeque<Bytes>,
    /// The end has come, with these trailers.
    end: Option<HeaderMap>,
    trailers: Option<HeaderMap>,
    /// How much of the body is still to be shown, where that is known.
    left: Option<u64>,
    changes: bool,
    /// The last piece of it has been shown, so that what it was made of waits for the end.
    is_last: bool,
    room: BodyRoom,
    failure: BodyFailure,
}

enum Next {
    /// Show a piece of what is there.
    Piece,
    /// All of this was shown: it goes on as it came.
    Coded(Bytes),
    End(HeaderMap),
}

/// Of the plugin, on its way.
type Call<T> = Pin<Box<dyn Future<Output = Result<T, Failure>>>>;

enum Stage {
    Between(Box<BodyFilter>),
    Piece(Call<(BodyFilter, Bytes)>),
    End(Call<BodyEnd>),
    Ended,
}

impl<B> FilteredBody<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    pub fn new(inner: B, filter: BodyFilter) -> Self {
        Self {
            // Where the head says how long it is, whoever sends it on ends with the last byte.
            left: inner.size_hint().exact().or(filter.length()),
            inner: Some(inner),
            unseen: Bytes::new(),
            decoder: filter.decoder(),
            coded: Bytes::new(),
            given: VecDeque::new(),
            end: None,
            trailers: None,
            changes: filter.changes(),
            is_last: false,
            room: filter.room(),
            failure: filter.failure(),
            stage: Stage::Between(Box::new(filter)),
        }
    }

    /// Nothing more follows; the instance is dropped with the call that it was in.
    fn fail(&mut self, failure: Failure) -> BoxError {
        self.stop();
        failure.into()
    }

    fn stop(&mut self) {
        self.stage = Stage::Ended;
        self.inner = None;
        self.given.clear();
        self.unseen = Bytes::new();
        self.coded = Bytes::new();
    }

    /// Takes what has come of the body.
    fn take(&mut self, bytes: Bytes) {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(bytes.len() as u64);
            // What is rewritten has no length that would say where it ends.
            self.is_last = *left == 0 && !self.changes;
        }
        match &mut self.decoder {
            None => self.unseen = bytes,
            Some(decoder) => {
                if !self.changes {
                    self.coded = bytes.clone();
                }
                decoder.push(bytes);
            }
        }
    }

    /// What is to be done next; what is to be shown lies in `unseen` then.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Next, BoxError>> {
        let mut idle = 0;
        loop {
            if !self.unseen.is_empty() {
                return Poll::Ready(Ok(Next::Piece));
            }
            if let Some(decoder) = &mut self.decoder {
                if let Some(bytes) = decoder.step()? {
                    // What becomes nothing is work all the same: others have their turns meanwhile.
                    idle += u32::from(bytes.is_empty());
                    if idle > IDLE_STEPS {
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    self.unseen = bytes;
                    continue;
                }
                if !self.coded.is_empty() {
                    return Poll::Ready(Ok(Next::Coded(std::mem::take(&mut self.coded))));
                }
            }
            if let Some(trailers) = self.end.take() {
                return Poll::Ready(Ok(Next::End(trailers)));
            }
            let frame = match &mut self.inner {
                Some(inner) => ready!(Pin::new(inner).poll_frame(context)).transpose()?,
                None => None,
            };
            let trailers = match frame.map(Frame::into_data) {
                Some(Ok(bytes)) => {
                    if !bytes.is_empty() {
                        self.take(bytes);
                    }
                    continue;
                }
                Some(Err(frame)) => frame.into_trailers().unwrap_or_default(),
                None => HeaderMap::new(),
            };
            if let Some(decoder) = &mut self.decoder {
                self.unseen = decoder.finish()?;
            }
            self.inner = None;
            self.end = Some(trailers);
        }
    }

    fn give(&mut self, bytes: Bytes) -> bool {
        let fits = self.room.grow(bytes.len());
        if !bytes.is_empty() {
            self.given.push_back(bytes);
        }
        fits
    }
}

impl<B> Body for FilteredBody<B>
where
    B: Body<Data = Bytes, Error = BoxError> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        loop {
            let has_ended = matches!(this.stage, Stage::Ended);
            if (!this.is_last || has_ended)
                && let Some(bytes) = this.given.pop_front()
            {
                this.room.shrink(bytes.len());
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match &mut this.stage {
                Stage::Ended => return Poll::Ready(this.trailers.take().map(|it| Ok(Frame::trailers(it)))),
                Stage::Piece(call) => match ready!(call.as_mut().poll(context)) {
                    Ok((filter, bytes)) => {
                        // Of one whose coding was undone what came goes on, not what was shown.
                        let is_shown = this.decoder.is_some() && !this.changes;
                        let fits = is_shown || this.give(bytes);
                        if !fits {
                            return Poll::Ready(Some(Err(this.fail(filter.no_room()))));
                        }
                        this.stage = Stage::Between(Box::new(filter));
                    }
                    Err(failure) => return Poll::Ready(Some(Err(this.fail(failure)))),
                },
                Stage::End(call) => match ready!(call.as_mut().poll(context)) {
                    Ok(BodyEnd { rest, trailers }) => {
                        // Little, and the last: nobody is refused for it.
                        this.give(rest);
                        this.trailers = (!trailers.is_empty()).then_some(trailers);
                        this.stage = Stage::Ended;
                    }
                    Err(failure) => return Poll::Ready(Some(Err(this.fail(failure)))),
                },
                Stage::Between(filter) => {
                    if filter.is_lost(context) {
                        let lost = filter.lost();
                        return Poll::Ready(Some(Err(this.fail(lost))));
                    }
                    let next = match ready!(this.poll_next(context)) {
                        Ok(Next::Coded(bytes)) => {
                            this.give(bytes);
                            continue;
                        }
                        Ok(next) => next,
                        Err(error) => {
                            this.stop();
                            return Poll::Ready(Some(Err(error)));
                        }
                    };
                    let Stage::Between(filter) = std::mem::replace(&mut this.stage, Stage::Ended) else {
                        continue;
                    };
                    this.stage = match next {
                        Next::End(trailers) => {
                            this.is_last = true;
                            Stage::End(Box::pin(filter.end(trailers)))
                        }
                        Next::Piece | Next::Coded(_) => {
                            let piece = this.unseen.split_to(this.unseen.len().min(PIECE));
                            Stage::Piece(Box::pin(filter.piece(piece)))
                        }
                    };
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.stage, Stage::Ended)
            && self.given.is_empty()
            && self.trailers.is_none()
            && self.failure.get().is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let given: u64 = self.given.iter().map(|bytes| bytes.len() as u64).sum();
        if matches!(self.stage, Stage::Ended) {
            return SizeHint::with_exact(given);
        }
        match self.left {
            // While a piece is with the plugin nobody asks.
            Some(left) if !self.changes => {
                // A piece that came is counted once, as it came.
                let came = if self.decoder.is_some() { &self.coded } else { &self.unseen };
                SizeHint::with_exact(left + given + came.len() as u64)
            }
            _ => SizeHint::default(),
        }
    }
}

impl BodyFilter {
    fn no_room(self) -> Failure {
        self.failed(FailureKind::Busy.into())
    }
}
