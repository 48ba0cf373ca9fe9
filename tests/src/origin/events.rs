//! Server-sent events that only count, so that a visitor sees whether one is missing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use tokio::time::{Interval, interval};

use super::{Body, Error};

/// `data: 0`, `data: 1` and so on, until nobody listens.
pub(super) fn answer() -> Response<Body> {
    let body = Counting { next: 0, ticks: interval(EVERY) };
    let mut response = Response::new(body.boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    response
}

struct Counting {
    next: u64,
    ticks: Interval,
}

impl HttpBody for Counting {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        ready!(self.ticks.poll_tick(cx));
        let event = format!("data: {}\n\n", self.next);
        self.next += 1;
        Poll::Ready(Some(Ok(Frame::data(event.into()))))
    }
}

const EVERY: Duration = Duration::from_millis(50);
