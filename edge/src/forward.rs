//! A visitor's request becomes a stream on a live connection, and the host's answer the visitor's
//! response. Knows streams and bodies; does not know listeners, host names or how errors look.

mod body;
mod stream;
mod upload;
mod websocket;

use std::io;
use std::pin::pin;
use std::time::Duration;

use adit_protocol::stream::{Answer, Connect, DecodeError, EncodeError};
use futures_util::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::activity::Busy;
use crate::headers;
use crate::ray::Ray;
use crate::registry::{Slot, Tunnel};
use crate::stickiness::Key;
use crate::tunnel::http2;
use crate::tunnel::link::{Channel, WriteError};

pub(crate) use body::Body;
use body::{OriginBody, Upload};
use stream::{Downstream, Head, Upstream};
use upload::UploadEnd;

/// A request that is ready to leave.
pub(crate) struct Order {
    pub(crate) request: http::Request<()>,
    pub(crate) body: Incoming,
    /// The visitor's connection, if it asks for a WebSocket.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) busy: Busy,
}

/// Where a request is served.
pub(crate) struct Place<'a> {
    pub(crate) shard: usize,
    /// What keeps the visitor to its replica.
    pub(crate) key: Option<Key>,
    pub(crate) ray: &'a Ray,
    /// Owns what outlives the answer's head: uploads and WebSockets.
    pub(crate) tasks: &'a TaskTracker,
}

/// Why there is no answer of an origin.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("no host of the tunnel is connected")]
    NoConnection,
    #[error("the head cannot cross: {0}")]
    Head(#[source] EncodeError),
    #[error("every connection is at its limit of streams")]
    Busy,
    #[error("the host did not take the request: {0}")]
    Write(#[source] WriteError),
    #[error("the host broke off before its answer: {0}")]
    Read(#[source] io::Error),
    #[error("no answer over HTTP/2: {0}")]
    NoAnswer(#[source] http2::NoAnswer),
    #[error("the host ended the stream without an answer")]
    Ended,
    #[error("the host's answer is not readable: {0}")]
    Decode(#[source] DecodeError),
    #[error("the host refused: {0}")]
    Refused(String),
    #[error("no answer in time")]
    Late,
    #[error("the host took no more of the request")]
    Stalled,
    #[error("the visitor's body broke off")]
    Visitor,
}

/// Carries one request over `tunnel`. Dropped midway it cancels the request at the origin.
pub(crate) async fn forward(
    tunnel: &Tunnel,
    order: Order,
    place: &Place<'_>,
) -> Result<Response<Body>, Failure> {
    let Order { request, body, upgrade, busy } = order;
    let is_head = request.method() == http::Method::HEAD;
    let connect = if upgrade.is_some() { Connect::WebSocket(request) } else { Connect::Http(request) };
    let is_whole = upgrade.is_none() && body.is_end_stream();
    let begun = begin(tunnel, Head::new(connect, is_whole), place).await;
    let Begun { up, mut down, slot } = match begun {
        Ok(begun) => begun,
        Err(failure) => {
            place.tasks.spawn(upload::linger(body));
            return Err(failure);
        }
    };
    let Some(upgrade) = upgrade else {
        if is_whole {
            let answer = in_time(down.answer()).await?;
            return respond(answer, Exchange { down, slot, upload: None, is_head, busy }, place).await;
        }
        return upload(up, body, Exchange { down, slot, upload: None, is_head, busy }, place).await;
    };
    let answer = in_time(down.answer()).await?;
    let Some(mut response) = switched(&answer) else {
        return respond(answer, Exchange { down, slot, upload: None, is_head, busy }, place).await;
    };
    headers::for_visitor(response.headers_mut(), place.ray);
    websocket::announce(response.headers_mut());
    place.tasks.spawn(websocket::carry(upgrade, up, down, slot, busy));
    Ok(response)
}

/// Sends the visitor's body and waits for the answer at the same time: an origin may answer before
/// it has read everything.
async fn upload(
    up: Upstream,
    body: Incoming,
    mut exchange: Exchange,
    place: &Place<'_>,
) -> Result<Response<Body>, Failure> {
    let (brake, braked) = oneshot::channel();
    let mut sending = Box::pin(upload::run(up, body, braked, place.tasks.clone()));
    let (answer, is_sent) = {
        let mut answered = pin!(exchange.down.answer());
        tokio::select! {
            // An answer that is there counts, whatever became of the upload.
            biased;
            answer = &mut answered => (answer, false),
            end = &mut sending => match end {
                UploadEnd::Finished | UploadEnd::NotWanted => (in_time(answered).await, true),
                UploadEnd::VisitorFailed => (Err(Failure::Visitor), true),
                UploadEnd::HostFailed => (Err(Failure::Stalled), true),
            }
        }
    };
    // Most uploads are over before the answer and never become a task.
    exchange.upload = (!is_sent).then(|| Upload { end: place.tasks.spawn(sending), brake });
    match answer {
        Ok(answer) => respond(answer, exchange, place).await,
        Err(failure) => {
            exchange.release();
            Err(failure)
        }
    }
}

/// A stream on which the head of the request was written.
struct Begun {
    up: Upstream,
    down: Downstream,
    slot: Slot,
}

/// Sends the head on the best connection that takes a stream at once; if all are at their limit,
/// waits for the best of them. A connection that turns out to be lost before it took the head has
/// sent nothing of it, so trying another one is always safe.
async fn begin(tunnel: &Tunnel, mut head: Head, place: &Place<'_>) -> Result<Begun, Failure> {
    let mut busy = None;
    for live in tunnel.choices(place.shard, place.key) {
        let Some(slot) = live.begin() else { continue };
        match live.link.channel().now_or_never() {
            Some(Ok(channel)) => match send_head(channel, slot, &mut head).await {
                Err(Failure::Write(WriteError::Lost(error))) => {
                    debug!(ray = place.ray.as_str(), %error, "trying another connection");
                }
                begun => return begun,
            },
            Some(Err(error)) => debug!(ray = place.ray.as_str(), %error, "trying another connection"),
            None => {
                busy.get_or_insert((live, slot));
            }
        }
    }
    let Some((live, slot)) = busy else { return Err(Failure::NoConnection) };
    match timeout(STREAM_CREDIT, live.link.channel()).await {
        Ok(Ok(channel)) => send_head(channel, slot, &mut head).await,
        Ok(Err(_)) => Err(Failure::NoConnection),
        Err(_) => Err(Failure::Busy),
    }
}

async fn send_head(channel: Channel, slot: Slot, head: &mut Head) -> Result<Begun, Failure> {
    let (up, down) = timeout(STREAM_CREDIT, head.send(channel)).await.unwrap_or(Err(Failure::Stalled))?;
    Ok(Begun { up, down, slot })
}

async fn in_time(answer: impl Future<Output = Result<Answer, Failure>>) -> Result<Answer, Failure> {
    timeout(ANSWER, answer).await.unwrap_or(Err(Failure::Late))
}

/// Everything of an exchange that the answer's body has to hold.
struct Exchange {
    down: Downstream,
    slot: Slot,
    upload: Option<Upload>,
    is_head: bool,
    busy: Busy,
}

impl Exchange {
    /// No body follows: an upload that is still going on is of no use.
    fn release(&mut self) {
        if let Some(upload) = self.upload.take() {
            upload.release();
        }
    }
}

async fn respond(
    answer: Answer,
    mut exchange: Exchange,
    place: &Place<'_>,
) -> Result<Response<Body>, Failure> {
    let (response, left) = match accepted(answer) {
        Ok(accepted) => accepted,
        Err(reason) => {
            exchange.release();
            return Err(Failure::Refused(reason));
        }
    };
    let (mut parts, ()) = response.into_parts();
    headers::for_visitor(&mut parts.headers, place.ray);
    let is_bodiless =
        exchange.is_head || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if is_bodiless || left == Some(0) {
        exchange.release();
        // The end is on its way; without it in sight the host would hear of a visitor that left.
        let _ = timeout(END_OF_NOTHING, exchange.down.read()).await;
        return Ok(Response::from_parts(parts, Body::empty().keeping(exchange.busy)));
    }
    let Exchange { down, slot, upload, busy, is_head: _ } = exchange;
    let body = Body::origin(OriginBody { down, left, upload, _slot: slot });
    Ok(Response::from_parts(parts, body.keeping(busy)))
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

/// The head of an answer that turns the stream into a WebSocket.
fn switched(answer: &Answer) -> Option<Response<Body>> {
    let Answer::Http(response) = answer else { return None };
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return None;
    }
    let mut switched = Response::new(Body::empty());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = response.headers().clone();
    Some(switched)
}

/// As long as Cloudflare waits, about: from the end of the upload to the head of the answer.
const ANSWER: Duration = Duration::from_secs(100);
/// How long a request waits for a stream on connections that are all at their limit, and for its
/// head to be taken.
const STREAM_CREDIT: Duration = Duration::from_secs(10);
const END_OF_NOTHING: Duration = Duration::from_millis(250);
