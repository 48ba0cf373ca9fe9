//! The answer of a host on its way to the visitor: what of it may be passed on, and how it ends. Does not know how
//! it was come by.

use std::time::Duration;

use adit_net::crumbs::Gathered;
use adit_protocol::extensions::{self, Instead};
use adit_protocol::stream::Answer;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, Response, StatusCode};
use tokio::time::timeout;

use super::body::{Body, OriginBody, Rest};
use super::{Failure, ForwardContext, headers};
use crate::limits::in_flight::InFlight;
use crate::registry::{Connection, RequestGuard};
use crate::transport::stream::Downstream;

/// Everything of an exchange that the answer's body has to hold.
pub(super) struct Exchange {
    pub(super) down: Downstream,
    pub(super) has_trailers: bool,
    pub(super) slot: RequestGuard,
    pub(super) upload: Option<Rest>,
    pub(super) is_head: bool,
    pub(super) busy: InFlight,
}

impl Exchange {
    /// No body follows: an upload that is still going on is of no use.
    fn release(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.release();
        }
    }
}

pub(super) async fn respond(
    answer: Answer,
    mut exchange: Exchange,
    place: &ForwardContext<'_>,
) -> Result<Response<Body>, Failure> {
    let (response, left) = match accepted(answer) {
        Ok(accepted) => accepted,
        Err(reason) => {
            exchange.release();
            return Err(Failure::Refused(reason));
        }
    };
    let (mut parts, ()) = response.into_parts();
    // An answer that ends with its head has to leave as such: a client of gRPC finds its status nowhere else.
    // Where one is there, the end of a host that says it apart is on its way.
    let patience = parts.headers.contains_key(GRPC_STATUS).then_some(END_OF_NOTHING);
    let is_over = left.unwrap_or(0) == 0 && exchange.down.is_over(patience).await;
    exchange.has_trailers &= !is_over;
    headers::for_visitor(&mut parts.headers, place.ray, exchange.has_trailers);
    let is_bodiless =
        exchange.is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_over || is_bodiless || (left == Some(0) && !exchange.has_trailers) {
        exchange.release();
        if !is_over {
            // The end is on its way; without it in sight the host would hear of a visitor that left.
            let _ = timeout(END_OF_NOTHING, exchange.down.read()).await;
        }
        return Ok(Response::from_parts(parts, Body::empty().keeping(exchange.busy)));
    }
    let Exchange { down, has_trailers, slot, upload, busy, is_head: _ } = exchange;
    let down = Gathered::new(down);
    let body = OriginBody { down, left, has_trailers, upload, _slot: slot };
    Ok(Response::from_parts(parts, Body::origin(body, busy, place)))
}

/// The answer of an origin with the length of its body, or why it cannot be passed on.
fn accepted(answer: Answer) -> Result<(Response<()>, Option<u64>), String> {
    match answer {
        Answer::Http(response) if response.status().is_informational() => {
            Err(format!("status {} is no answer", response.status()))
        }
        Answer::Http(response) => {
            let length = length(response.headers())?;
            Ok((response, length))
        }
        Answer::Accepted => Err("it answered as if to a TCP stream".to_owned()),
        Answer::Refused { reason, .. } => Err(reason),
    }
}

/// What `Content-Length` announces. More than one value means somebody disagrees with somebody
/// (RFC 9112 6.3), and with chunks it means nothing.
fn length(headers: &HeaderMap) -> Result<Option<u64>, &'static str> {
    if headers.contains_key(http::header::TRANSFER_ENCODING) {
        return Ok(None);
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match (digits.and_then(|digits| digits.parse().ok()), lengths.next()) {
        (Some(length), None) => Ok(Some(length)),
        (_, Some(_)) => Err("more than one Content-Length"),
        (None, None) => Err("a Content-Length that is no number"),
    }
}

/// Who has answered in the place of the service, if the host can say so.
pub(super) fn instead(answer: &Answer, live: &Connection) -> Option<Instead> {
    let Answer::Http(response) = answer else { return None };
    Instead::of(response.headers()).filter(|_| live.features.instead)
}

/// Whether the host says that the body of its answer is in frames.
pub(super) fn is_framed(answer: &Answer) -> bool {
    let Answer::Http(response) = answer else { return false };
    response.headers().get(extensions::TRAILERS) == Some(&extensions::FRAMED)
}

/// The head of an answer that turns the stream into a WebSocket.
pub(super) fn switched(answer: &Answer) -> Option<Response<Body>> {
    let Answer::Http(response) = answer else { return None };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let mut switched = Response::new(Body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = response.headers().clone();
    Some(switched)
}

const END_OF_NOTHING: Duration = Duration::from_millis(250);
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
