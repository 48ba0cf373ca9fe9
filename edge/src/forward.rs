//! A visitor's request becomes a stream on a live connection, and the host's answer the visitor's
//! response. Knows streams and bodies; does not know listeners, host names or how errors look.

mod body;
mod stream;
mod upload;
mod websocket;

use std::pin::pin;
use std::time::Duration;

use adit_protocol::stream::{Answer, Connect, DecodeError};
use bytes::BytesMut;
use futures_util::FutureExt;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use quinn::{ReadError, RecvStream, SendStream};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::headers;
use crate::pages::Problem;
use crate::ray::Ray;
use crate::registry::{Slot, Tunnel};
use crate::visitor::Busy;

pub(crate) use body::Body;
use body::{OriginBody, Upload};
use stream::{Downstream, Upstream};
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
    pub(crate) ray: &'a Ray,
    /// Owns what outlives the answer's head: uploads and WebSockets.
    pub(crate) tasks: &'a TaskTracker,
}

/// Carries one request over `tunnel`. Dropped midway it cancels the request at the origin.
pub(crate) async fn forward(
    tunnel: &Tunnel,
    order: Order,
    place: &Place<'_>,
) -> Result<Response<Body>, Problem> {
    let Order { request, body, upgrade, busy } = order;
    let is_head = request.method() == http::Method::HEAD;
    let connect = if upgrade.is_some() { Connect::WebSocket(request) } else { Connect::Http(request) };
    let opened = match connect.encode() {
        Ok(head) => open(tunnel, place).await.map(|opened| (head, opened)),
        Err(error) => {
            // Everything else that `encode` refuses was refused before.
            debug!(ray = place.ray.as_str(), %error, "request head not sent");
            Err(Problem::HeadTooLong)
        }
    };
    let (head, Opened { send, recv, slot }) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            place.tasks.spawn(upload::linger(body));
            return Err(problem);
        }
    };
    let mut up = Upstream::new(send);
    let mut down = Downstream::new(recv);

    if upgrade.is_some() || body.is_end_stream() {
        let sent = async {
            up.write(head).await.map_err(Failure::Write)?;
            if upgrade.is_none() {
                up.finish();
            }
            answer(&mut down).await
        };
        let answer = in_time(sent).await.map_err(|failure| failure.problem(place.ray))?;
        if let (Some(upgrade), Some(response)) = (upgrade, switched(&answer)) {
            let mut response = response;
            headers::for_visitor(response.headers_mut(), place.ray);
            websocket::announce(response.headers_mut());
            place.tasks.spawn(websocket::carry(upgrade, up, down, slot, busy));
            return Ok(response);
        }
        return respond(answer, Exchange { down, slot, upload: None, is_head, busy }, place).await;
    }

    let (brake, braked) = oneshot::channel();
    let mut upload = Box::pin(upload::run(up, head, body, braked, place.tasks.clone()));
    let (answer, ended) = {
        let mut answered = pin!(answer(&mut down));
        tokio::select! {
            // An answer that is there counts, whatever became of the upload.
            biased;
            answer = &mut answered => (answer, false),
            end = &mut upload => match end {
                UploadEnd::Finished | UploadEnd::NotWanted => (in_time(answered).await, true),
                UploadEnd::VisitorFailed => (Err(Failure::Visitor), true),
                UploadEnd::HostFailed => (Err(Failure::Stalled), true),
            }
        }
    };
    // Most uploads are over before the answer and never become a task.
    let upload = (!ended).then(|| Upload { end: place.tasks.spawn(upload), brake });
    match answer {
        Ok(answer) => respond(answer, Exchange { down, slot, upload, is_head, busy }, place).await,
        Err(failure) => {
            if let Some(upload) = upload {
                upload.release();
            }
            Err(failure.problem(place.ray))
        }
    }
}

struct Opened {
    send: SendStream,
    recv: RecvStream,
    slot: Slot,
}

/// Opens a stream on the best connection that takes one at once; if all are at their limit of
/// streams, waits for the best of them. Nothing of the request has been sent before this succeeds, so
/// trying another connection is always safe.
async fn open(tunnel: &Tunnel, place: &Place<'_>) -> Result<Opened, Problem> {
    let mut busy = None;
    for live in tunnel.choices(place.shard) {
        let Some(slot) = live.begin() else { continue };
        match live.link.open_bi().now_or_never() {
            Some(Ok((send, recv))) => return Ok(Opened { send, recv, slot }),
            Some(Err(error)) => debug!(ray = place.ray.as_str(), %error, "connection cannot take a request"),
            None => {
                busy.get_or_insert((live, slot));
            }
        }
    }
    let Some((live, slot)) = busy else { return Err(Problem::NoConnection) };
    match timeout(STREAM_CREDIT, live.link.open_bi()).await {
        Ok(Ok((send, recv))) => Ok(Opened { send, recv, slot }),
        Ok(Err(_)) => Err(Problem::NoConnection),
        Err(_) => Err(Problem::OriginTimeout),
    }
}

/// Why there is no answer. For the log; a visitor sees the problem it becomes.
#[derive(Debug, Error)]
enum Failure {
    #[error("the host did not take the request: {0}")]
    Write(#[source] quinn::WriteError),
    #[error("the host broke off before its answer: {0}")]
    Read(#[source] ReadError),
    #[error("the host ended the stream without an answer")]
    Ended,
    #[error("the host's answer is not readable: {0}")]
    Decode(#[source] DecodeError),
    #[error("no answer in time")]
    Late,
    #[error("the host took no more of the upload")]
    Stalled,
    #[error("the visitor's body broke off")]
    Visitor,
}

impl Failure {
    fn problem(self, ray: &Ray) -> Problem {
        debug!(ray = ray.as_str(), reason = %self, "request failed");
        match self {
            Self::Late | Self::Stalled => Problem::OriginTimeout,
            Self::Write(_) | Self::Read(_) | Self::Ended | Self::Decode(_) => Problem::OriginFailed,
            Self::Visitor => Problem::BadRequest(headers::Unacceptable::BrokenBody),
        }
    }
}

async fn in_time(answer: impl Future<Output = Result<Answer, Failure>>) -> Result<Answer, Failure> {
    timeout(ANSWER, answer).await.unwrap_or(Err(Failure::Late))
}

/// Reads the head of the answer; what came with it of the body goes back into `down`.
async fn answer(down: &mut Downstream) -> Result<Answer, Failure> {
    let mut buffered = BytesMut::new();
    loop {
        let chunk = down.read().await.map_err(Failure::Read)?.ok_or(Failure::Ended)?;
        buffered.extend_from_slice(&chunk);
        if let Some(answer) = Answer::decode(&mut buffered).map_err(Failure::Decode)? {
            down.unread(buffered.freeze());
            return Ok(answer);
        }
    }
}

/// Everything of an exchange that the answer's body has to hold.
struct Exchange {
    down: Downstream,
    slot: Slot,
    upload: Option<Upload>,
    is_head: bool,
    busy: Busy,
}

async fn respond(answer: Answer, exchange: Exchange, place: &Place<'_>) -> Result<Response<Body>, Problem> {
    let Exchange { mut down, slot, upload, is_head, busy } = exchange;
    let checked = match answer {
        Answer::Http(response) if response.status().is_informational() => {
            Err("a status below 200".to_owned())
        }
        Answer::Http(response) => match length(response.headers()) {
            Ok(length) => Ok((response, length)),
            Err(reason) => Err(reason.to_owned()),
        },
        Answer::Accepted => Err("the answer to a TCP stream".to_owned()),
        Answer::Refused { reason, .. } => Err(reason),
    };
    let (response, left) = match checked {
        Ok(checked) => checked,
        Err(reason) => {
            debug!(ray = place.ray.as_str(), reason, "host refused the request");
            if let Some(upload) = upload {
                upload.release();
            }
            return Err(Problem::OriginFailed);
        }
    };
    let (mut parts, ()) = response.into_parts();
    headers::for_visitor(&mut parts.headers, place.ray);
    let has_body =
        !is_head && parts.status != StatusCode::NO_CONTENT && parts.status != StatusCode::NOT_MODIFIED;
    let body = if has_body && left != Some(0) {
        Body::origin(OriginBody { down, left, upload, _slot: slot })
    } else {
        if let Some(upload) = upload {
            upload.release();
        }
        // The end is on its way; without it in sight the host would hear of a visitor that left.
        let _ = timeout(END_OF_NOTHING, down.read()).await;
        Body::empty()
    };
    Ok(Response::from_parts(parts, body.keeping(busy)))
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
/// How long a request waits for a stream on connections that are all at their limit.
const STREAM_CREDIT: Duration = Duration::from_secs(10);
const END_OF_NOTHING: Duration = Duration::from_millis(250);
