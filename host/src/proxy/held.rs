//! A body that filters may look at as a whole: gathered when one asks, within a limit and in time, and otherwise passed
//! on as it comes. Does not know who asks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_engine::{BodyFailure, BodyFilter, BodyRoom, BodySource, FilteredBody, Gathered};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;

use crate::origin::{Body, BoxError, OriginError, Reached, empty};

/// How long a body that is gathered may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A body on its way through a chain.
pub(super) struct Held {
    /// What was read, and what comes after it.
    read: VecDeque<Bytes>,
    rest: Option<Body>,
    trailers: Option<HeaderMap>,
    /// Whether it has ended.
    is_whole: bool,
    is_upgrade: bool,
    room: Option<BodyRoom>,
    /// Of the plugins that it passes by.
    failures: Vec<BodyFailure>,
}

impl Held {
    pub(super) fn new(body: Body) -> Self {
        Self {
            read: VecDeque::new(),
            rest: Some(body),
            trailers: None,
            is_whole: false,
            is_upgrade: false,
            room: None,
            failures: Vec::new(),
        }
    }

    /// What follows the handshake is no body: it is looked at by nobody.
    pub(super) fn upgrade(body: Body) -> Self {
        Self { is_upgrade: true, ..Self::new(body) }
    }

    /// Where it will be found which plugin broke it off.
    pub(super) fn take_failures(&mut self) -> Vec<BodyFailure> {
        std::mem::take(&mut self.failures)
    }

    /// What goes on.
    pub(super) fn into_body(self) -> Body {
        if self.read.is_empty() && self.trailers.is_none() && !self.is_whole {
            return self.rest.unwrap_or_else(empty);
        }
        Box::pin(self)
    }

    fn length(&self) -> usize {
        self.read.iter().map(Bytes::len).sum()
    }

    /// Reads to the end, or to what is too much.
    async fn read(&mut self, most: usize, room: &mut BodyRoom) -> Gathered {
        let Some(rest) = &mut self.rest else { return Gathered::Broken };
        let mut length: usize = self.read.iter().map(Bytes::len).sum();
        loop {
            // Where the length is stated nothing is read of one that is too long.
            if usize::try_from(rest.size_hint().lower()).is_ok_and(|more| length.saturating_add(more) > most)
            {
                return Gathered::Beyond;
            }
            let frame = match rest.frame().await {
                None => break,
                Some(Err(_)) => return Gathered::Broken,
                Some(Ok(frame)) => frame,
            };
            match frame.into_data() {
                Ok(bytes) => {
                    if !room.grow(bytes.len()) {
                        return Gathered::NoRoom;
                    }
                    length += bytes.len();
                    self.read.push_back(bytes);
                    if length > most {
                        return Gathered::Beyond;
                    }
                }
                Err(frame) => self.trailers = frame.into_trailers().ok(),
            }
        }
        self.rest = None;
        self.is_whole = true;
        if self.read.len() > 1 {
            let mut whole = BytesMut::with_capacity(length);
            self.read.drain(..).for_each(|bytes| whole.extend_from_slice(&bytes));
            self.read.push_back(whole.freeze());
        }
        Gathered::Whole(self.read.front().cloned().unwrap_or_default())
    }
}

impl BodySource for Held {
    async fn gather(&mut self, most: usize, room: BodyRoom) -> Gathered {
        if self.is_upgrade {
            return Gathered::Whole(Bytes::new());
        }
        if self.is_whole {
            let whole = self.read.front().cloned().unwrap_or_default();
            return if whole.len() <= most { Gathered::Whole(whole) } else { Gathered::Beyond };
        }
        let mut room = self.room.take().unwrap_or(room);
        let gathered = timeout(PATIENCE, self.read(most, &mut room)).await.unwrap_or(Gathered::Slow);
        self.room = Some(room);
        gathered
    }

    fn may_have_one(&self) -> bool {
        !self.is_upgrade
    }

    fn is_empty(&self) -> bool {
        self.is_upgrade || HttpBody::is_end_stream(self)
    }

    fn filter(&mut self, filter: BodyFilter) {
        let mut failures = self.take_failures();
        failures.push(filter.failure());
        let held = std::mem::replace(self, Self::new(empty()));
        let body: Body = Box::pin(FilteredBody::new(held.into_body(), filter));
        *self = Self { failures, ..Self::new(body) };
    }

    fn replace(&mut self, body: Bytes) {
        self.read.clear();
        if !body.is_empty() {
            self.read.push_back(body);
        }
        self.rest = None;
        self.is_whole = true;
    }
}

/// Makes the connection that a request will go on.
pub(super) type Reaching<'a> = Pin<Box<dyn Future<Output = Result<Reached, OriginError>> + 'a>>;

/// The body of a request, of which nothing is taken before it is known that its origin can be reached: until then
/// another host may be asked, whatever follows of the body.
pub(super) struct Gathering<'a> {
    held: Held,
    reaching: Option<Reaching<'a>>,
    reached: Reached,
    unreachable: Option<OriginError>,
}

impl<'a> Gathering<'a> {
    /// Whatever answers it needs no connection.
    pub(super) fn of(held: Held) -> Self {
        Self { held, reaching: None, reached: Reached::default(), unreachable: None }
    }

    pub(super) fn after(held: Held, reaching: Reaching<'a>) -> Self {
        Self { reaching: Some(reaching), ..Self::of(held) }
    }

    /// The body, and the connection if there is one; or why there is none, whatever the plugins made of that.
    pub(super) fn end(self) -> Result<(Held, Reached), OriginError> {
        match self.unreachable {
            None => Ok((self.held, self.reached)),
            Some(error) => Err(error),
        }
    }
}

impl BodySource for Gathering<'_> {
    async fn gather(&mut self, most: usize, room: BodyRoom) -> Gathered {
        if !self.held.is_empty()
            && let Some(reaching) = self.reaching.take()
        {
            match reaching.await {
                Ok(reached) => self.reached = reached,
                Err(error) => self.unreachable = Some(error),
            }
        }
        if self.unreachable.is_some() {
            return Gathered::Broken;
        }
        self.held.gather(most, room).await
    }

    fn may_have_one(&self) -> bool {
        self.held.may_have_one()
    }

    fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    fn replace(&mut self, body: Bytes) {
        self.held.replace(body);
    }

    fn filter(&mut self, filter: BodyFilter) {
        self.held.filter(filter);
    }
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(bytes) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(rest) = &mut self.rest {
            return rest.as_mut().poll_frame(context);
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && self.trailers.is_none()
            && self.rest.as_ref().is_none_or(|rest| rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.length() as u64;
        match &self.rest {
            None => SizeHint::with_exact(read),
            Some(rest) => {
                let hint = rest.size_hint();
                let mut all = SizeHint::new();
                all.set_lower(hint.lower().saturating_add(read));
                if let Some(upper) = hint.upper() {
                    all.set_upper(upper.saturating_add(read));
                }
                all
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn body(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Body {
        Box::pin(StreamBody::new(stream::iter(frames)))
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn room() -> BodyRoom {
        BodyRoom::alone()
    }

    async fn rest(held: Held) -> (Bytes, Option<HeaderMap>) {
        let collected = held.into_body().collect().await.expect("a whole body");
        let trailers = collected.trailers().cloned();
        (collected.to_bytes(), trailers)
    }

    #[tokio::test]
    async fn a_body_is_gathered_once_and_goes_on_with_its_trailers() {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
        let mut held =
            Held::new(body(vec![data("one "), data("two"), Ok(Frame::trailers(trailers.clone()))]));
        assert_eq!(held.gather(7, room()).await, Gathered::Whole("one two".into()));
        assert_eq!(held.gather(6, room()).await, Gathered::Beyond, "by one with less room for it");
        assert_eq!(held.gather(7, room()).await, Gathered::Whole("one two".into()));
        assert_eq!(held.size_hint().exact(), Some(7));
        assert_eq!(rest(held).await, ("one two".into(), Some(trailers)));
    }

    #[tokio::test]
    async fn what_is_longer_goes_on_as_it_came() {
        let mut held = Held::new(body(vec![data("one "), data("two "), data("three")]));
        assert_eq!(held.gather(5, room()).await, Gathered::Beyond);
        assert_eq!(held.gather(5, room()).await, Gathered::Beyond);
        assert_eq!(rest(held).await.0, "one two three");
        let mut stated = Held::new(crate::origin::full(Bytes::from_static(b"too long")));
        assert_eq!(stated.gather(5, room()).await, Gathered::Beyond);
        assert!(stated.read.is_empty(), "nothing of it was read");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_not_whole() {
        let mut held = Held::new(body(vec![data("one "), Err("gone".into())]));
        assert_eq!(held.gather(100, room()).await, Gathered::Broken);
    }

    #[tokio::test]
    async fn a_body_is_replaced_whether_it_was_read_or_not() {
        for is_read in [false, true] {
            let mut held = Held::new(body(vec![data("one")]));
            if is_read {
                held.gather(100, room()).await;
            }
            held.replace("another".into());
            assert_eq!(rest(held).await.0, "another");
        }
    }

    #[tokio::test]
    async fn what_follows_a_handshake_is_nobodys_body() {
        let mut held = Held::upgrade(body(vec![data("frames")]));
        assert_eq!(held.gather(100, room()).await, Gathered::Whole(Bytes::new()));
        assert!(!held.may_have_one());
        assert_eq!(rest(held).await.0, "frames");
    }
}
