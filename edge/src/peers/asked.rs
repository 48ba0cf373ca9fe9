//! A request that another node hands on: it is for one replica that is connected here, gets one attempt, and never goes
//! on to a third node. The other node made of it what the origin is to get, and owns the attempts; it is told what
//! became of this one. Knows heads; does not know who the other node is.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use adit_protocol::extensions::{self, VisitorFacts};
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::debug;

use super::door::Door;
use crate::forward::headers::{self, Trailers, Upload};
use crate::forward::ray::Ray;
use crate::forward::{self, Body, Failed, Failure, ForwardContext, ForwardRequest, Target, Traced};
use crate::limits::in_flight::InFlight;
use crate::limits::pace::Share;
use crate::transport::peer::{Errand, NOT_SWITCHED, OUTCOME, Outcome};

/// The answer to another node. Counts as a visitor's until it is over.
pub(super) struct Answer {
    body: Body,
    _counted: Option<TaskTrackerToken>,
}

/// Makes the one attempt.
pub(super) async fn carry(
    door: &Door,
    errand: Errand,
    mut request: Request<Incoming>,
    share: &Share,
    busy: InFlight,
) -> Response<Answer> {
    let counted = door.tasks.token();
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let is_websocket =
        parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket");
    if errand.hops > 0 || (parts.method == Method::CONNECT) != is_websocket {
        debug!(?errand, "another node asks for what no node does");
        return told(Outcome::Failed);
    }
    let Some(tunnel) = door.peers.registry.tunnel(&errand.tunnel) else { return told(Outcome::Absent) };
    let upload = match body.size_hint().exact() {
        _ if is_websocket => Upload::Upgrade,
        _ if body.is_end_stream() => Upload::None,
        Some(length) => Upload::Sized(length),
        None => Upload::Chunked,
    };
    let trailers = Trailers::of(&parts, upload);
    let mut traced = door.tracer.as_ref().map(|tracer| Traced::hand_on(tracer, &parts, &errand.tunnel));
    let (ray, visitor) = (Ray::of(parts.headers.get(headers::CF_RAY)), visitor(&parts.headers));
    let facts = parts.headers.get(extensions::VISITOR).map(VisitorFacts::of).unwrap_or_default();
    let now = Instant::now();
    // The way from there to here is nowhere in it: the clocks of two nodes are two.
    let came = extensions::has_waited(&parts.headers).and_then(|waited| now.checked_sub(waited));
    let request = for_origin(parts, upload);
    let share = visitor.map_or_else(|| share.clone(), |visitor| share.of(visitor));
    let context = ForwardContext {
        shard: door.shard,
        came: came.unwrap_or(now),
        key: None,
        ray: &ray,
        patience: door.patience,
        tasks: &door.tasks,
        share: &share,
    };
    let order = ForwardRequest {
        request,
        body,
        window: super::door::WINDOW.into(),
        trailers,
        visitor: facts,
        upgrade: is_websocket.then_some(upgrade),
        busy,
    };
    let target = Target::Replica(&tunnel, errand.connector);
    match forward::forward(target, order, &context, &mut None, &mut traced).await {
        Ok(mut response) => {
            let status = response.status();
            if let Some(traced) = &mut traced {
                traced.answered(status, Some(errand.tunnel));
            }
            if status == StatusCode::SWITCHING_PROTOCOLS {
                *response.status_mut() = StatusCode::OK;
                response.headers_mut().remove(CONNECTION);
                response.headers_mut().remove(UPGRADE);
            } else if is_websocket && status.is_success() {
                response.headers_mut().insert(NOT_SWITCHED, HeaderValue::from(status.as_u16()));
                *response.status_mut() = StatusCode::MULTIPLE_CHOICES;
            }
            response.map(|body| Answer { body: body.traced(traced), _counted: Some(counted) })
        }
        Err(Failed { failure, .. }) => {
            debug!(ray = ray.as_str(), reason = %failure, "the attempt for another node failed");
            if let Some(traced) = &mut traced {
                traced.page(outcome(&failure).word());
                traced.answered(StatusCode::BAD_GATEWAY, Some(errand.tunnel));
            }
            told(outcome(&failure))
        }
    }
}

/// Why there is no answer of an origin.
pub(super) fn told(outcome: Outcome) -> Response<Answer> {
    let mut response = Response::new(Answer { body: Body::empty(), _counted: None });
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    let word = HeaderValue::from_static(outcome.word());
    response.headers_mut().insert(OUTCOME, word);
    response
}

fn outcome(failure: &Failure) -> Outcome {
    failure.outcome()
}

/// What the other node has made for the origin, as a request from here has it.
fn for_origin(parts: Parts, upload: Upload) -> Request<()> {
    let Parts { method, uri, mut headers, .. } = parts;
    headers::from_node(&mut headers, upload);
    let mut request = Request::new(());
    *request.method_mut() = if upload == Upload::Upgrade { Method::GET } else { method };
    *request.uri_mut() = uri;
    *request.version_mut() = Version::HTTP_11;
    *request.headers_mut() = headers;
    request
}

/// Whom the request is from, as the other node says it.
fn visitor(headers: &HeaderMap) -> Option<IpAddr> {
    headers.get(headers::CF_CONNECTING_IP)?.to_str().ok()?.parse().ok()
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
