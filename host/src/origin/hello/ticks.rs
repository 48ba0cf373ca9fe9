//! `/sse`: an answer that goes on for ever, a number at a time.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, request};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Interval, interval_at};

use super::super::{Body, BoxError, empty};

/// `?freq=1s` says how often.
pub(super) fn respond(head: &request::Parts) -> Response<Body> {
    let pairs = head.uri.query().unwrap_or_default().split('&');
    let wanted = pairs.filter_map(|pair| pair.strip_prefix("freq=")).next();
    let every = wanted.and_then(|text| humantime::parse_duration(text).ok()).unwrap_or(USUAL);
    let every = every.clamp(SHORTEST, LONGEST);
    let body: Body = match head.method {
        Method::HEAD => empty(),
        _ => Box::pin(Ticks { clock: interval_at(Instant::now() + every, every), count: 0 }),
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct Ticks {
    clock: Interval,
    count: u64,
}

impl HttpBody for Ticks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(self.clock.poll_tick(cx));
        let piece = format!("{}\n\n", self.count);
        self.count += 1;
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }
}

const USUAL: Duration = Duration::from_secs(10);
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(3600);
