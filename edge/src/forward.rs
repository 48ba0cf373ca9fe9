//! A visitor's request becomes a stream on a live connection, and the host's answer the visitor's
//! response; where an attempt gives no answer, another one may follow (docs/retries.md). Knows streams
//! and bodies; does not know listeners, host names or how errors look.

mod answer;
pub(crate) mod attempts;
mod body;
mod failure;
mod head;
pub(crate) mod headers;
pub(crate) mod loops;
pub(crate) mod ray;
mod replay;
mod traced;
mod upload;
mod websocket;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_balance::Key;
use adit_protocol::extensions::{self, Instead, VisitorFacts};
use adit_protocol::stream::{Answer, Connect};
use http::header::SET_COOKIE;
use http::{Method, Response};
use hyper::body::{Body as _, Incoming};
use hyper::upgrade::OnUpgrade;
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
use crate::transport::stream::{Downstream, Upstream};
use headers::Trailers;

use answer::{Exchange, instead, is_framed, respond, switched};
pub(crate) use attempts::Outlook;
use attempts::{Attempts, Selected};
pub(crate) use body::Body;
use body::Rest;
pub(crate) use failure::{Failed, Failure};
use head::Head;
use replay::ReplayBody;
pub(crate) use traced::Traced;
use upload::{Upload, UploadEnd};

/// A request that is ready to leave.
pub(crate) struct ForwardRequest {
    pub(crate) request: http::Request<()>,
    pub(crate) body: Incoming,
    /// Bytes of the body that may wait in this edge unread.
    pub(crate) window: u64,
    /// What the visitor says about trailers, if anything.
    pub(crate) trailers: Option<Trailers>,
    /// How the visitor came; with an attempt, if another node owns the attempts.
    pub(crate) visitor: VisitorFacts,
    /// The visitor's connection, if it asks for a WebSocket.
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) busy: InFlight,
}

/// What a request is for.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Tunnel(&'a Arc<Tunnel>),
    Balancer(&'a Balancer, &'a Visit),
    /// One replica of a tunnel, as it is connected here: another node has chosen it, and owns the attempts.
    Replica(&'a Arc<Tunnel>, Uuid),
}

/// Where a request is served.
pub(crate) struct ForwardContext<'a> {
    pub(crate) shard: usize,
    /// When the request came, to the first edge of those that it passes.
    pub(crate) came: Instant,
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
    traced: &mut Option<Box<Traced>>,
) -> Result<Response<Body>, Failed> {
    let ForwardRequest { request, body, window, trailers, visitor, upgrade, busy } = order;
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
        answered = ask(&mut attempts, &mut head, &mut source, (visitor, traced)) => answered,
        _ = stalled => Err(Failure::Stalled),
    };
    if let Some(source) = source {
        upload::linger(source, place.tasks);
    }
    let tries = attempts.tries();
    let failed = |failure| Failed { failure, tries };
    let Answered { answer, up, upload, mut down, slot, connector, instead } = answered.map_err(failed)?;
    let cookie = attempts.cookie(connector);
    let response = match (upgrade, switched(&answer), up) {
        (Some(upgrade), Some(mut response), Some(up)) => {
            headers::for_visitor(response.headers_mut(), place.ray, false);
            websocket::announce(response.headers_mut());
            busy.switch();
            // Of a visitor, what is not read waits in its socket.
            let beyond = if matches!(target, Target::Replica(..)) { window } else { 0 };
            let flows = websocket::Flows::new(place, beyond);
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
    if let (Target::Replica(..), Some(instead)) = (target, instead) {
        response.headers_mut().insert(extensions::INSTEAD, instead.word());
    }
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
    /// Who has answered in the place of the service.
    instead: Option<Instead>,
}

/// Asks one connection after the other until there is an answer or no reason to go on. The `source` is
/// left behind if it is not needed any more.
async fn ask(
    attempts: &mut Attempts<'_>,
    head: &mut Head,
    source: &mut Option<ReplayBody>,
    (visitor, traced): (VisitorFacts, &mut Option<Box<Traced>>),
) -> Result<Answered, Failure> {
    loop {
        let chosen = attempts.next().await?;
        let live = chosen.live.clone();
        head.tell(live.features.visitor.then(|| {
            let attempt = visitor.attempt.unwrap_or_else(|| attempts.tries());
            VisitorFacts { attempt: Some(attempt), ..visitor }
        }));
        if let Some(traced) = traced {
            head.change(|headers| traced.attempt(&live, headers));
        }
        head.waited(live.features.waited.then(|| attempts.came().elapsed()));
        let outcome = attempt(attempts, chosen, head, source).await;
        if let Some(traced) = traced {
            traced.attempted(outcome.as_ref().map(|answered| &answered.answer));
        }
        match outcome {
            Ok(answered) => {
                attempts.answered(answered.instead);
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
        let instead = instead(&answer, &live);
        return Ok(Answered { answer, down, up: Some(up), upload: None, slot, connector, instead });
    };
    let mut upload = Upload { up, source: body, patience: attempts.patience().upload };
    match answer(attempts, &live, &mut down, Some(&mut upload)).await {
        Ok((answer, false)) => {
            let instead = instead(&answer, &live);
            Ok(Answered { answer, down, up: None, upload: Some(upload), slot, connector, instead })
        }
        Ok((answer, true)) => {
            *source = Some(upload.source);
            let instead = instead(&answer, &live);
            Ok(Answered { answer, down, up: None, upload: None, slot, connector, instead })
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
    // Whoever has asked for it pays for another.
    let is_only = attempts.are_one();
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
                if is_replayable && (is_only || budget.is_some_and(|budget| budget.allow(Reason::Silent))) {
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

/// How long a request waits for a stream on connections that are all at their limit, and for its
/// head to be taken.
const STREAM_CREDIT: Duration = Duration::from_secs(10);
/// RFC 9110 9.2.2
const IDEMPOTENT: [Method; 6] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
