//! One request of a visitor: finds the tunnel that its host name leads to, has the request carried,
//! and gives back an answer or a page. Knows host names; does not know connections or streams.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::names::HostNames;
use crate::activity::{Activity, Busy};
use crate::forward::{self, Body, Failure, Order, Place};
use crate::headers::{self, Facts, Upload};
use crate::pages::{self, Problem, Wanted};
use crate::ray::{Ray, Rays};
use crate::registry::Tunnel;

/// What all visitors of one shard share.
pub(crate) struct Service {
    pub(crate) names: Arc<HostNames<Arc<Tunnel>>>,
    pub(crate) rays: Arc<Rays>,
    pub(crate) shard: usize,
    /// Owns what outlives the head of an answer.
    pub(crate) tasks: TaskTracker,
}

/// The service for the requests of one connection.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) service: Arc<Service>,
    pub(super) activity: Arc<Activity>,
    pub(super) visitor: IpAddr,
    pub(super) is_secure: bool,
}

impl Service {
    pub(super) async fn answer(
        handler: Handler,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let ray = handler.service.rays.next();
        let wanted = Wanted::of(request.method(), request.headers());
        let busy = handler.activity.begin();
        debug!(ray = ray.as_str(), method = %request.method(), "request");
        Ok(match handler.carry(request, &ray, busy).await {
            Ok(response) => response,
            Err(problem) => pages::page(problem, wanted, &ray).map(Body::text),
        })
    }
}

impl Handler {
    async fn carry(
        &self,
        mut request: Request<Incoming>,
        ray: &Ray,
        busy: Busy,
    ) -> Result<Response<Body>, Problem> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        if parts.method == Method::CONNECT || parts.method == Method::TRACE {
            return Err(Problem::Method);
        }
        let authority = headers::authority(&parts).map_err(Problem::BadRequest)?;
        let tunnel = self.service.names.find(authority.as_str()).ok_or(Problem::UnknownHost)?;
        let upgrade = headers::is_websocket(&parts).then_some(upgrade);
        let upload = match body.size_hint().exact() {
            _ if upgrade.is_some() || body.is_end_stream() => Upload::None,
            Some(length) => Upload::Sized(length),
            None => Upload::Chunked,
        };
        let facts = Facts { visitor: self.visitor, is_secure: self.is_secure, ray };
        let request = headers::for_origin(parts, authority, upload, &facts).map_err(Problem::BadRequest)?;
        let key = tunnel.stickiness.key(self.visitor, request.headers());
        let place = Place { shard: self.service.shard, key, ray, tasks: &self.service.tasks };
        let order = Order { request, body, upgrade, busy };
        forward::forward(tunnel, order, &place).await.map_err(|failure| {
            debug!(ray = ray.as_str(), reason = %failure, "request failed");
            problem(&failure)
        })
    }
}

/// What a visitor is told about a failure: its kind, and nothing of its details.
fn problem(failure: &Failure) -> Problem {
    match failure {
        Failure::NoConnection => Problem::NoConnection,
        Failure::Head(_) => Problem::HeadTooLong,
        Failure::Busy | Failure::Late | Failure::Stalled => Problem::OriginTimeout,
        Failure::Write(_)
        | Failure::Read(_)
        | Failure::NoAnswer(_)
        | Failure::Ended
        | Failure::Decode(_)
        | Failure::Refused(_) => Problem::OriginFailed,
        Failure::Visitor => Problem::BrokenBody,
    }
}
