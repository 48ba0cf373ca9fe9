//! A visitor's request becomes a stream on a live connection, and the host's answer the visitor's
//! response; where an attempt gives no answer, another one may follow (docs/retries.md). Knows streams
//! and bodies; does not know listeners, host names or how errors look.

pub(crate) mod attempts;
mod body;
mod head;
pub(crate) mod headers;
pub(crate) mod ray;
mod replay;
mod upload;
mod websocket;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use adit_balance::Key;
use adit_net::crumbs::Gathered;
use adit_protocol::extensions::{self, Instead};
use adit_protocol::stream::{Answer, Connect, DecodeError, EncodeError};
use http::header::{CONTENT_LENGTH, SET_COOKIE};
use http::{HeaderMap, HeaderName, Method, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::balancer::retry_budget::Reason;
use crate::forward::ray::Ray;
use crate::limits::in_flight::{Activity, InFlight};
use crate::limits::pace::Share;
use crate::registry::{Connection, RequestGuard, Tunnel};
use crate::steering::{Balancer, Visit};
use crate::transport::connection::WriteError;
use crate::transport::http2;
use crate::transport::stream::{Downstream, Unanswered, Upstream};
use headers::Trailers;

pub(crate) use attempts::Outlook;
use attempts::{Attempts, Selected};
pub(crate) use body::Body;
use body::{OriginBody, Rest};
use head::Head;
use replay::ReplayBody;
use upload::{Upload, UploadEnd};

/// A request that is ready to leave.
pub(crate) struct ForwardRequest {
    pub(crate) request: http::Request<()>,
    pub(crate) body: Incoming,
    /// Bytes of the body that may wait in this edge unread.
    pub(crate) window: u64,
    /// What the visitor says about trailers, if anything.
    pub(crate) trailers: Option<Trailers>,
    /// The visitor's connection, if it asks for a WebSocket.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) busy: InFlight,
}

/// What a request is for.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Tunnel(&'a Arc<Tunnel>),
    Balancer(&'a Balancer, &'a Visit),
}

/// Where a request is served.
pub(crate) struct ForwardContext<'a> {
    pub(crate) shard: usize,
    /// What keeps the visitor to its replica.
    pub(crate) key: Option<Key>,
    pub(crate) ray: &'a Ray,
    pub(crate) patience: Patience,
    /// Owns what outlives the answer's head: uploads and WebSockets.
    pub(crate) tasks: &'a TaskTracker,
    /// Where it counts what visitor and host do not take.
    pub(crate) share: &'a Share,
}

/// How long a request waits for the other side, once it has a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patience {
    /// From the end of the upload to the head of the answer.
    pub(crate) answer: Duration,
    /// While the host takes no byte of an upload.
    pub(crate) upload: Duration,
}

/// Why there is no answer of an origin, and after how many attempts.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) tries: u32,
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
    #[error("the connection was lost before the request was sent: {0}")]
    NotSent(String),
    #[error("the host takes no new requests")]
    TurnedAway,
    #[error("the host did not take the request: {0}")]
    Write(#[source] WriteError),
    #[error("the connection was lost during the upload")]
    Lost,
    #[error("the host broke off before its answer: {0}")]
    Read(#[source] quinn::ReadError),
    #[error("no answer over HTTP/2: {0}")]
    NoAnswer(#[source] http2::NoAnswer),
    #[error("the host ended the stream without an answer")]
    Ended,
    #[error("nothing is heard of the host")]
    Silent,
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
    #[error("the body is too long to be sent once more ({})", .0.word())]
    NotReplayable(Reason),
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        match unanswered {
            Unanswered::TurnedAway => Self::TurnedAway,
            Unanswered::Read(error) => Self::Read(error),
            Unanswered::Http2(error) => Self::NoAnswer(error),
            Unanswered::Ended => Self::Ended,
            Unanswered::Decode(error) => Self::Decode(error),
        }
    }
}

impl Failure {
    /// Whether the host says that an origin has answered and broken off: its head is lost, and the request was
    /// worked on.
    pub(crate) fn is_of_origin(&self) -> bool {
        if let Self::Read(quinn::ReadError::Reset(code)) = self {
            return code.into_inner() == u64::from(extensions::BROKEN_OFF);
        }
        if let Self::NoAnswer(http2::NoAnswer::Broken(error)) = self {
            let code = error.reason().filter(|_| error.is_reset() && error.is_remote());
            return code.is_some_and(|code| u32::from(code) == extensions::BROKEN_OFF);
        }
        false
    }

    /// Whether it says that the endpoint is not well. What the visitor does, and a host that only leaves, says
    /// nothing; nor does any answer, whoever has given it.
    fn is_of_endpoint(&self) -> bool {
        match self {
            Self::NotSent(_)
            | Self::Lost
            | Self::Read(_)
            | Self::NoAnswer(http2::NoAnswer::Broken(_) | http2::NoAnswer::Malformed(_))
            | Self::Ended
            | Self::Silent
            | Self::Decode(_)
            | Self::Refused(_)
            | Self::Late => true,
            Self::TurnedAway
            | Self::NoAnswer(http2::NoAnswer::Refused)
            | Self::NoConnection
            | Self::Head(_)
            | Self::Busy
            | Self::Write(_)
            | Self::Stalled
            | Self::Visitor
            | Self::NotReplayable(_) => false,
        }
    }

    /// Why another attempt may follow; `None` if this one was the last.
    fn reason(&self) -> Option<Reason> {
        if self.is_of_origin() {
            return None;
        }
        match self {
            Self::NotSent(_) => Some(Reason::NotSent),
            Self::TurnedAway => Some(Reason::Refused),
            Self::Refused(reason) if reason.starts_with(extensions::NOT_HERE_REASON) => Some(Reason::NotHere),
            Self::Lost | Self::Read(_) | Self::NoAnswer(http2::NoAnswer::Broken(_)) | Self::Ended => {
                Some(Reason::Broken)
            }
            Self::Silent => Some(Reason::Silent),
            Self::NoConnection
            | Self::Head(_)
            | Self::Busy
            | Self::Write(_)
            | Self::NoAnswer(_)
            | Self::Decode(_)
            | Self::Refused(_)
            | Self::Late
            | Self::Stalled
            | Self::Visitor
            | Self::NotReplayable(_) => None,
        }
    }
}

/// Reads on beside an answer that does not need this body, so that the visitor gets to see it.
pub(crate) fn dismiss(body: Incoming, activity: Arc<Activity>, share: &Share, tasks: &TaskTracker) {
    // Nothing waits: what comes is thrown away at once.
    upload::linger(ReplayBody::new(body, activity, |_| share.idle(0, None), 0), tasks);
}

/// Carries one request to its target; `led` is told which tunnel of a load balancer it was asked of last. Dropped
/// midway it cancels the request at the origin.
pub(crate) async fn forward(
    target: Target<'_>,
    order: ForwardRequest,
    place: &ForwardContext<'_>,
    led: &mut Option<Arc<Tunnel>>,
) -> Result<Response<Body>, Failed> {
    let ForwardRequest { request, body, window, trailers, upgrade, busy } = order;
    let is_head = request.method() == Method::HEAD;
    let is_websocket = upgrade.is_some();
    let is_idempotent = IDEMPOTENT.contains(request.method()) && !is_websocket;
    let mut attempts = Attempts::new(target, place, is_idempotent, led);
    let connect = if is_websocket { Connect::WebSocket(request) } else { Connect::Http(request) };
    let is_whole = !is_websocket && body.is_end_stream();
    let mut head = Head::new(connect, is_whole, trailers.filter(|_| !is_websocket));
    let waiting = |held| place.share.begin(held, None);
    let mut source =
        (!is_whole && !is_websocket).then(|| ReplayBody::new(body, busy.activity().clone(), waiting, window));

    let upload = source.as_ref().map(ReplayBody::flow);
    let stalled = async {
        match upload {
            Some(flow) => flow.cut().await,
            None => std::future::pending().await,
        }
    };
    let answered = tokio::select! {
        biased;
        answered = ask(&mut attempts, &mut head, &mut source) => answered,
        _ = stalled => Err(Failure::Stalled),
    };
    if let Some(source) = source {
        upload::linger(source, place.tasks);
    }
    let tries = attempts.tries();
    let failed = |failure| Failed { failure, tries };
    let Answered { answer, up, upload, mut down, slot, connector } = answered.map_err(failed)?;
    let cookie = attempts.cookie(connector);
    let response = match (upgrade, switched(&answer), up) {
        (Some(upgrade), Some(mut response), Some(up)) => {
            headers::for_visitor(response.headers_mut(), place.ray, false);
            websocket::announce(response.headers_mut());
            busy.switch();
            let flows = websocket::Flows::new(place);
            place.tasks.spawn(websocket::carry(upgrade, up, down, slot, busy, flows));
            Ok(response)
        }
        (_, _, up) => {
            if let Some(mut up) = up {
                // Over HTTP/2 leaving it open would cancel the answer too: of a WebSocket that was refused.
                up.finish();
            }
            let has_trailers = head.takes_trailers() && down.take_trailers(is_framed(&answer));
            let upload = upload.map(|upload| rest(upload, place.tasks));
            respond(answer, Exchange { down, has_trailers, slot, upload, is_head, busy }, place).await
        }
    };
    let mut response = response.map_err(failed)?;
    headers::add_tries(response.headers_mut(), tries);
    if let Some(cookie) = cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Where a request would go, if it was sent now.
pub(crate) fn outlook(target: Target<'_>, method: &Method, place: &ForwardContext<'_>) -> Outlook {
    Attempts::looking(target, place, IDEMPOTENT.contains(method), &mut None).outlook()
}

/// An answer that has begun.
struct Answered {
    /// Anything but a refusal.
    answer: Answer,
    down: Downstream,
    /// Of a request without a body.
    up: Option<Upstream>,
    /// A body that is not all sent yet.
    upload: Option<Upload>,
    slot: RequestGuard,
    /// Whose answer it is.
    connector: Uuid,
}

/// Asks one connection after the other until there is an answer or no reason to go on. The `source` is
/// left behind if it is not needed any more.
async fn ask(
    attempts: &mut Attempts<'_>,
    head: &mut Head,
    source: &mut Option<ReplayBody>,
) -> Result<Answered, Failure> {
    loop {
        let chosen = attempts.next().await?;
        let live = chosen.live.clone();
        match attempt(attempts, chosen, head, source).await {
            Ok(answered) => {
                attempts.answered(instead(&answered.answer, &live));
                return Ok(answered);
            }
            Err(failure) => {
                attempts.miss(failure, &live, source.as_ref().is_none_or(ReplayBody::is_replayable))?;
            }
        }
        if let Some(source) = source {
            source.rewind();
        }
    }
}

async fn attempt(
    attempts: &mut Attempts<'_>,
    chosen: Selected,
    head: &mut Head,
    source: &mut Option<ReplayBody>,
) -> Result<Answered, Failure> {
    let Selected { live, slot, channel, host } = chosen;
    let connector = live.connector;
    head.ask_as(host);
    let sent = timeout(STREAM_CREDIT, head.send(channel, live.features.trailers));
    let (up, mut down) = sent.await.unwrap_or(Err(Failure::Stalled))?;
    let Some(body) = source.take() else {
        let (answer, _) = answer(attempts, &live, &mut down, None).await?;
        return Ok(Answered { answer, down, up: Some(up), upload: None, slot, connector });
    };
    let mut upload = Upload { up, source: body, patience: attempts.patience().upload };
    match answer(attempts, &live, &mut down, Some(&mut upload)).await {
        Ok((answer, false)) => Ok(Answered { answer, down, up: None, upload: Some(upload), slot, connector }),
        Ok((answer, true)) => {
            *source = Some(upload.source);
            Ok(Answered { answer, down, up: None, upload: None, slot, connector })
        }
        Err(failure) => {
            *source = Some(upload.source);
            Err(failure)
        }
    }
}

/// Sends the visitor's body and waits for the answer at the same time: an origin may answer before it
/// has read everything. Says too whether the upload is over.
async fn answer(
    attempts: &mut Attempts<'_>,
    live: &Connection,
    down: &mut Downstream,
    mut upload: Option<&mut Upload>,
) -> Result<(Answer, bool), Failure> {
    let (budget, patience) = (attempts.budget(), attempts.patience().answer);
    let mut answered = pin!(down.answer());
    let mut doubt = pin!(attempts.failover_due(live));
    let (mut is_sent, mut may_doubt) = (upload.is_none(), true);
    loop {
        let pump = async {
            match &mut upload {
                Some(upload) if !is_sent => upload.pump().await,
                Some(_) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            // An answer that is there counts, whatever became of the upload.
            biased;
            answer = &mut answered => return match answer? {
                Answer::Refused { reason, .. } => Err(Failure::Refused(reason)),
                answer @ (Answer::Http(_) | Answer::Accepted) => Ok((answer, is_sent)),
            },
            end = pump => match end {
                UploadEnd::Finished | UploadEnd::NotWanted => is_sent = true,
                UploadEnd::Refused => return Err(Failure::TurnedAway),
                UploadEnd::VisitorFailed => return Err(Failure::Visitor),
                UploadEnd::Lost => return Err(Failure::Lost),
                UploadEnd::Stalled => return Err(Failure::Stalled),
            },
            () = &mut doubt, if may_doubt => {
                may_doubt = false;
                let is_replayable = upload.as_ref().is_none_or(|upload| upload.source.is_replayable());
                if is_replayable && budget.is_some_and(|budget| budget.allow(Reason::Silent)) {
                    return Err(Failure::Silent);
                }
            }
            () = sleep(patience), if is_sent => return Err(Failure::Late),
        }
    }
}

/// Goes on with an upload beside the answer. It will not be needed again.
fn rest(mut upload: Upload, tasks: &TaskTracker) -> Rest {
    upload.source.forget();
    let (brake, braked) = oneshot::channel();
    Rest { end: tasks.spawn(upload.run(braked, tasks.clone())), brake }
}

/// Everything of an exchange that the answer's body has to hold.
struct Exchange {
    down: Downstream,
    has_trailers: bool,
    slot: RequestGuard,
    upload: Option<Rest>,
    is_head: bool,
    busy: InFlight,
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
fn instead(answer: &Answer, live: &Connection) -> Option<Instead> {
    let Answer::Http(response) = answer else { return None };
    Instead::of(response.headers()).filter(|_| live.features.instead)
}

/// Whether the host says that the body of its answer is in frames.
fn is_framed(answer: &Answer) -> bool {
    let Answer::Http(response) = answer else { return false };
    response.headers().get(extensions::TRAILERS) == Some(&extensions::FRAMED)
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

/// How long a request waits for a stream on connections that are all at their limit, and for its
/// head to be taken.
const STREAM_CREDIT: Duration = Duration::from_secs(10);
/// RFC 9110 9.2.2
const IDEMPOTENT: [Method; 6] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
const END_OF_NOTHING: Duration = Duration::from_millis(250);
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
