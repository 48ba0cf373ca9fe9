//! One request of a visitor: finds what its host name leads to, has the request carried,
//! and gives back an answer or a page. Knows host names; does not know connections or streams.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_pace::Account;
use adit_traces::Tracer;
use http::header::{CONNECTION, HeaderValue, STRICT_TRANSPORT_SECURITY};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use rustls::ServerConfig;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::connection::{HTTP1_BUFFER, HTTP2_WINDOW};
use super::guide::{Arrival, Course, Guide, Led, Peer};
use super::identified::{self, Identified};
use super::secure::Secure;
use crate::balancer::retry_budget::Reason;
use crate::certificates::challenges::{Challenges, WELL_KNOWN};
use crate::forward::headers::{self, Trailers, Upload};
use crate::forward::ray::{Ray, Rays};
use crate::forward::{self, Body, Failed, Failure, ForwardContext, ForwardRequest, Patience, Target, Traced};
use crate::limits::in_flight::{Activity, InFlight};
use crate::limits::pace::Share;
use crate::metrics::{Counters, Speaks, Traffic};
use crate::registry::Tunnel;
use crate::shutdown::Shutdown;
use crate::visitor::error_page::{self, Problem, Wanted};
use crate::visitor::host_table::Destination;

/// What all visitors of one shard share.
pub(crate) struct Service {
    pub(crate) guide: Arc<Guide>,
    /// What an authority may look for.
    pub(crate) challenges: Arc<Challenges>,
    /// What names want of their visitors.
    pub(crate) secure: Arc<Secure>,
    /// TLS for names that want certificates of their visitors, one for each of its verifiers.
    pub(crate) identifying: Arc<[Arc<ServerConfig>]>,
    pub(crate) rays: Arc<Rays>,
    pub(crate) shard: usize,
    pub(crate) patience: Patience,
    /// How long a visitor that has ended its direction may wait without a byte.
    pub(crate) half_closed: Duration,
    pub(crate) stop: Shutdown,
    /// Owns what outlives the head of an answer.
    pub(crate) tasks: TaskTracker,
    pub(crate) account: Arc<Account>,
    pub(crate) counters: Arc<Counters>,
    /// Where traces are on.
    pub(crate) tracer: Option<Tracer>,
}

/// The service for the requests of one connection.
#[derive(Clone)]
pub(super) struct Handler {
    pub(super) service: Arc<Service>,
    pub(super) activity: Arc<Activity>,
    /// Who has opened the connection; a proxy in front may say more with each request.
    pub(super) visitor: IpAddr,
    pub(super) share: Share,
    pub(super) is_secure: bool,
    pub(super) arrival: Arrival,
    /// A certificate was asked for when the connection was made.
    pub(super) identified: Option<Arc<Identified>>,
}

impl Service {
    pub(super) fn answer(
        handler: Handler,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> {
        // Before anything else is read of the connection, which may be its end.
        let busy = handler.activity.begin();
        Self::answered(handler, request, busy)
    }

    async fn answered(
        handler: Handler,
        request: Request<Incoming>,
        busy: InFlight,
    ) -> Result<Response<Body>, Infallible> {
        let ray = handler.service.rays.next();
        let wanted = Wanted::of(request.method(), request.headers());
        let version = request.version();
        let waits = headers::waits_to_be_asked(request.headers());
        debug!(ray = ray.as_str(), method = %request.method(), "request");
        let mut count = Count::begin(&handler.service, version);
        let tracer = handler.service.tracer.as_ref();
        let mut traced =
            tracer.map(|tracer| Traced::begin(tracer, &request, ray.as_str(), handler.is_secure));
        let mut dismissed = None;
        let carried = handler.carry(request, &mut dismissed, &ray, busy, (&mut count, &mut traced)).await;
        let mut response = match carried {
            Ok(response) => response,
            Err(Told { problem, tries }) => {
                count.page(problem);
                if let Some(traced) = &mut traced {
                    traced.page(problem.word());
                }
                if let Some(body) = dismissed {
                    let (activity, tasks) = (handler.activity.clone(), &handler.service.tasks);
                    forward::dismiss(body, activity, &handler.share, tasks);
                }
                let mut page = error_page::page(problem, wanted, &ray);
                headers::add_tries(page.headers_mut(), tries);
                // RFC 9110 10.1.1: the body that it was not asked for does not come any more.
                if waits && version < Version::HTTP_2 {
                    page.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                page.map(Body::text)
            }
        };
        count.answered(response.status());
        if let Some(hsts) = count.hsts.take() {
            response.headers_mut().entry(STRICT_TRANSPORT_SECURITY).or_insert(hsts);
        }
        // RFC 9112 9.6: so that the visitor sends its next request elsewhere.
        if handler.service.stop.draining.is_fired()
            && version < Version::HTTP_2
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(mut traced) = traced {
            traced.answered(response.status(), count.tunnel.as_ref().map(|tunnel| tunnel.id));
            response = response.map(|body| body.traced(Some(traced)));
        }
        Ok(response)
    }
}

impl Handler {
    /// What an authority finds here that looks whether a name leads here.
    async fn looked_for(&self, parts: &Parts) -> Option<String> {
        if !parts.uri.path().starts_with(WELL_KNOWN) {
            return None;
        }
        let authority = headers::authority(parts).ok()?;
        // Boxed, because hardly any request waits for it.
        Box::pin(self.service.challenges.find_over_http(authority.as_str(), parts.uri.path())).await
    }

    async fn carry(
        &self,
        mut request: Request<Incoming>,
        dismissed: &mut Option<Incoming>,
        ray: &Ray,
        busy: InFlight,
        (count, traced): (&mut Count<'_>, &mut Option<Box<Traced>>),
    ) -> Result<Response<Body>, Told> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (parts, body) = request.into_parts();
        let body = dismissed.insert(body);
        if !busy.is_welcome() {
            return Err(Problem::TooMany.into());
        }
        if let Some(answer) = self.looked_for(&parts).await {
            return Ok(error_page::plain(answer, ray).map(Body::text));
        }
        let (authority, found) = self.service.guide.find(&parts)?;
        if let Some(traced) = traced {
            traced.asks_for(authority.host());
        }
        let mut certificate: &[_] = &[];
        if let Some(wish) = self.service.secure.find(authority.as_str()) {
            let caller = self.service.guide.proxies.caller(&parts.headers, self.visitor, self.is_secure);
            if !caller.is_secure && wish.redirect {
                return Ok(error_page::to_tls(authority.host(), &parts.uri, ray).map(Body::text));
            }
            count.hsts = wish.hsts.clone().filter(|_| caller.is_secure);
            if let Some(wanted) = wish.certificate {
                let host = adit_address::host(authority.as_str()).map_err(|_| Problem::UnknownHost)?;
                certificate = identified::told(wanted, self.identified.as_deref(), &host, self.is_secure)?;
            }
        }
        if let Destination::Tunnel(tunnel) = &found {
            count.leads_to(tunnel);
        }
        if headers::is_about_server(&parts) {
            return Ok(error_page::capabilities(ray).map(Body::text));
        }
        let upgrade = headers::is_websocket(&parts).then_some(upgrade);
        let upload = match body.size_hint().exact() {
            _ if upgrade.is_some() => Upload::Upgrade,
            _ if body.is_end_stream() => Upload::None,
            Some(length) => Upload::Sized(length),
            None => Upload::Chunked,
        };
        let window = if parts.version < Version::HTTP_2 { HTTP1_BUFFER as u64 } else { HTTP2_WINDOW.into() };
        let trailers = Trailers::of(&parts, upload);
        let (address, is_secure, arrival) = (self.visitor, self.is_secure, self.arrival);
        let peer = Peer { address, is_secure, certificate, arrival };
        let Led { request, source, course } =
            self.service.guide.lead(parts, (authority, &found), peer, upload, ray)?;
        let (target, key) = match &course {
            Course::Tunnel(tunnel, key) => (Target::Tunnel(tunnel), *key),
            Course::Balancer(balancer, visit) => (Target::Balancer(balancer, visit), None),
            Course::IsAnswered(balancer, fixed) => {
                balancer.answered();
                let is_head = request.method() == Method::HEAD;
                return Ok(error_page::fixed(fixed, is_head, ray).map(Body::text));
            }
        };
        let Service { shard, patience, tasks, .. } = &*self.service;
        let share = self.share.of(source.visitor);
        let (came, patience) = (count.began, *patience);
        let place = ForwardContext { shard: *shard, came, key, ray, patience, tasks, share: &share };
        let Some(body) = dismissed.take() else { return Err(Problem::BrokenBody.into()) };
        let visitor = source.came;
        let order = ForwardRequest { request, body, window, trailers, visitor, upgrade, busy };
        forward::forward(target, order, &place, &mut count.tunnel, traced).await.map_err(
            |Failed { failure, tries }| {
                debug!(ray = ray.as_str(), reason = %failure, tries, "request failed");
                Told { problem: problem(&failure, target), tries }
            },
        )
    }
}

/// Counts what becomes of one request, with those of its tunnel.
struct Count<'a> {
    service: &'a Service,
    tunnel: Option<Arc<Tunnel>>,
    speaks: Speaks,
    began: Instant,
    is_answered: bool,
    /// What visitors of this name are to remember.
    hsts: Option<HeaderValue>,
}

impl<'a> Count<'a> {
    fn begin(service: &'a Service, version: Version) -> Self {
        let speaks = if version < Version::HTTP_2 { Speaks::Http1 } else { Speaks::Http2 };
        Self { service, tunnel: None, speaks, began: Instant::now(), is_answered: false, hsts: None }
    }

    fn leads_to(&mut self, tunnel: &Arc<Tunnel>) {
        self.seat(tunnel);
        self.tunnel = Some(tunnel.clone());
    }

    fn seat(&self, tunnel: &Tunnel) {
        self.service.counters.series.seat(&tunnel.place, tunnel.id, || tunnel.account());
    }

    fn page(&self, problem: Problem) {
        self.count(|traffic, shard| traffic.page(shard, problem.word()));
    }

    fn answered(&mut self, status: StatusCode) {
        self.is_answered = true;
        let (speaks, after) = (self.speaks, self.began.elapsed());
        self.count(|traffic, shard| traffic.answered(shard, speaks, status.as_u16(), after));
    }

    fn count(&self, count: impl FnOnce(&Traffic, usize)) {
        let shard = self.service.shard;
        match &self.tunnel {
            Some(tunnel) => {
                // One that a load balancer has chosen has no place yet.
                self.seat(tunnel);
                tunnel.place.count(|traffic| count(traffic, shard));
            }
            None => count(self.service.counters.series.none(), shard),
        }
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.count(|traffic, shard| traffic.left(shard, self.speaks));
        }
    }
}

/// What a visitor is told instead of an answer.
struct Told {
    problem: Problem,
    /// Attempts that were made.
    tries: u32,
}

impl From<Problem> for Told {
    fn from(problem: Problem) -> Self {
        Self { problem, tries: 0 }
    }
}

/// What a visitor is told about a failure: its kind, and nothing of its details.
pub(super) fn problem(failure: &Failure, target: Target<'_>) -> Problem {
    match failure {
        failure if failure.is_of_origin() => Problem::OriginFailed,
        Failure::NoConnection => match target {
            Target::Tunnel(_) | Target::Replica(..) => Problem::NoConnection,
            Target::Balancer(..) => Problem::NoEndpoint,
        },
        Failure::Head(_) => Problem::HeadTooLong,
        Failure::Busy | Failure::Late | Failure::Stalled => Problem::OriginTimeout,
        Failure::NotSent(_)
        | Failure::Absent
        | Failure::TurnedAway
        | Failure::NotReplayable(Reason::NotSent | Reason::Refused) => Problem::NotTaken,
        Failure::Lost
        | Failure::Read(_)
        | Failure::NoAnswer(_)
        | Failure::Ended
        | Failure::Silent
        | Failure::SilentThere
        | Failure::BrokenThere
        | Failure::NotReplayable(Reason::Broken | Reason::Silent) => Problem::Lost,
        Failure::Write(_)
        | Failure::OriginThere
        | Failure::Decode(_)
        | Failure::Refused(_)
        | Failure::NotReplayable(Reason::NotHere) => Problem::OriginFailed,
        Failure::Visitor => Problem::BrokenBody,
    }
}
