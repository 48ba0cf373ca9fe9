//! The way of one request through the pools of a load balancer: first the endpoint that its session is at, then the
//! endpoints of one pool, then the next pool that may serve, then the fallback pool. Knows which ones it has handed
//! out; does not know why another one is wanted.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use uuid::Uuid;

use super::counts::Stay;
use super::pool::{End, Pool};
use super::session::{Failover, Served};
use super::{Balancer, Endpoint, Visit};
use crate::balancer::retry_budget::RetryBudget;
use crate::balancer::under_way::UnderWay;
use crate::registry::Tunnel;

/// See [`Balancer::way`].
pub(crate) struct Way<'a> {
    balancer: &'a Balancer,
    visit: &'a Visit,
    /// Whether it can be sent again, so that it may find out how an endpoint is.
    is_repeatable: bool,
    /// Nothing is sent, so it finds nothing out.
    is_look: bool,
    /// Where its first attempt was.
    first: Option<&'a Arc<Pool>>,
    /// A bit for each pool that was entered, or may not serve.
    left: u128,
    is_fallback_left: bool,
    pool: Option<&'a Arc<Pool>>,
    /// Whether that is the fallback pool, of which nobody asks how it is.
    is_last: bool,
    /// A bit for each endpoint of the pool that was handed out.
    tried: u128,
    /// Whether it was looked for the endpoint of the session.
    was_home: bool,
    /// Whether that was handed out.
    has_home: bool,
}

/// An endpoint that was handed out.
#[derive(Clone, Copy)]
pub(crate) struct Stopover<'a> {
    pub(crate) pool: &'a Arc<Pool>,
    at: usize,
    /// The request finds out whether the endpoint is well again.
    is_trial: bool,
    /// The session of the request is here.
    pub(crate) is_home: bool,
    is_last: bool,
    visit: &'a Visit,
    pub(crate) tunnel: &'a Arc<Tunnel>,
}

impl<'a> Stopover<'a> {
    pub(crate) fn endpoint(&self) -> &'a Endpoint {
        &self.pool.endpoints[self.at]
    }

    /// The replica that the session is at.
    pub(crate) fn replica(&self) -> Option<Uuid> {
        self.visit.who.replica().filter(|_| self.is_home)
    }

    /// Takes note of an attempt that begins here.
    pub(crate) fn begin(&self, now: Instant) -> UnderWay {
        self.pool.begin(self.at, now)
    }

    /// Takes note of what became of it.
    pub(crate) fn end(&self, end: End, asked: Instant) {
        self.pool.end(self.at, end, asked, self.is_trial, self.visit.who.visitor);
    }
}

impl<'a> Way<'a> {
    pub(super) fn new(balancer: &'a Balancer, visit: &'a Visit, is_repeatable: bool) -> Self {
        Self {
            balancer,
            visit,
            is_repeatable,
            is_look: false,
            first: None,
            left: 0,
            is_fallback_left: false,
            pool: None,
            is_last: false,
            tried: 0,
            was_home: false,
            has_home: false,
        }
    }

    /// The same for one who only looks where a request would go.
    pub(crate) fn looking(self) -> Self {
        Self { is_look: true, ..self }
    }

    pub(crate) fn retries(&self) -> &'a RetryBudget {
        &self.balancer.retries
    }

    /// Whether what an origin may have seen is tried again in another pool.
    pub(crate) fn fails_over(&self) -> bool {
        self.visit.plan.fails_over
    }

    /// Whether what its own endpoint may have seen is not tried at another one.
    pub(crate) fn stays_home(&self) -> bool {
        self.visit.plan.affinity.as_ref().is_some_and(|affinity| affinity.failover == Failover::None)
    }

    /// The tunnels that a request may wait for, if none is there.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &'a Arc<Tunnel>> {
        self.visit.plan.awaited()
    }

    /// The next endpoint of the pool; none of a tunnel that `is_visited`, which can be an endpoint of another pool.
    pub(crate) fn endpoint(&mut self, is_visited: impl Fn(&Tunnel) -> bool) -> Option<Stopover<'a>> {
        let now = Instant::now();
        if !std::mem::replace(&mut self.was_home, true)
            && let Some(home) = self.home(now)
        {
            return Some(home);
        }
        let (pool, visit) = (self.pool?, self.visit);
        loop {
            let trial = self.trial(pool, |at| self.tried & (1 << at) == 0, now);
            let choose = || pool.choose(self.tried, self.is_last, visit.who.visitor, visit.who.key, now);
            let at = trial.or_else(choose)?;
            self.tried |= 1 << at;
            if let Some(tunnel) = &pool.endpoints[at].tunnel
                && !is_visited(tunnel)
            {
                // Who is known by its headers belongs to whichever comes first.
                let affinity = visit.plan.affinity.as_ref();
                let is_home = !self.has_home
                    && trial.is_none()
                    && visit.who.key.is_some()
                    && affinity.is_some_and(|affinity| affinity.is_by_headers());
                self.has_home |= is_home;
                let (is_trial, is_last) = (trial.is_some(), self.is_last);
                return Some(Stopover { pool, at, is_trial, is_home, is_last, visit, tunnel });
            }
        }
    }

    /// An ejected endpoint that the request finds out about.
    fn trial(&self, pool: &Pool, open: impl Fn(usize) -> bool, now: Instant) -> Option<usize> {
        if self.is_look { None } else { pool.trial(open, self.is_repeatable, now) }
    }

    /// The endpoint that the session is at, if it may serve it.
    fn home(&mut self, now: Instant) -> Option<Stopover<'a>> {
        let (visit, plan) = (self.visit, &*self.visit.plan);
        let (affinity, session) = (plan.affinity.as_ref()?, visit.who.session?);
        let home = plan.home(session.endpoint)?;
        let (pool, at) = (&home.pool, home.at);
        let tunnel = pool.endpoints[at].tunnel.as_ref()?;
        let is_trial = self.trial(pool, |ejected| ejected == at, now).is_some();
        if !is_trial && !affinity.may_serve(pool, at) {
            return None;
        }
        let place = plan.tour(visit.tour).pools.iter().position(|known| Arc::ptr_eq(known, pool));
        if let Some(place) = place {
            (self.left, self.pool, self.tried) = (self.left | 1 << place, Some(pool), 1 << at);
        }
        self.has_home = true;
        Some(Stopover { pool, at, is_trial, is_home: true, is_last: false, visit, tunnel })
    }

    /// Goes on to the next pool that may serve, or else to the fallback pool; whether there is one.
    pub(crate) fn enter(&mut self) -> bool {
        let (visit, plan) = (self.visit, &*self.visit.plan);
        let tour = plan.tour(visit.tour);
        self.tried = 0;
        if let Some(at) = tour.choose(self.left, visit.who.visitor, visit.who.key, Instant::now()) {
            self.left |= 1 << at;
            self.pool = Some(&tour.pools[at]);
            return true;
        }
        // Only where none of the others was any good, and whatever its health.
        self.pool = plan.fallback.as_ref().filter(|pool| !self.is_fallback_left && pool.is_enabled);
        (self.is_fallback_left, self.is_last) = (true, true);
        self.pool.is_some()
    }

    /// Looks at all pools anew: others may serve by now. Whoever asks says again which tunnels were visited.
    pub(crate) fn begin_anew(&mut self) {
        let Self { is_look, first, has_home, .. } = *self;
        let was_home = self.was_home && has_home;
        let anew = Self::new(self.balancer, self.visit, self.is_repeatable);
        *self = Self { was_home, has_home, is_look, first, ..anew };
    }

    /// Counts an attempt that begins.
    pub(crate) fn begin(&mut self, stopover: &Stopover<'a>) {
        let counts = &self.balancer.counts;
        match self.first {
            Some(first) => counts.retry(!Arc::ptr_eq(first, stopover.pool)),
            None => self.first = Some(stopover.pool),
        }
        if stopover.is_last {
            counts.fallback();
        }
    }

    /// Whether an endpoint that was not handed out could take the request, `across` pools or in this one.
    pub(crate) fn has_other(&self, across: bool, is_well: impl Fn(&Tunnel) -> bool) -> bool {
        let pool = self.pool.into_iter();
        let others = self.visit.plan.tour(self.visit.tour).pools.iter();
        let others = others.filter(|pool| across && pool.health().standing().is_some());
        let endpoints = pool.chain(others).flat_map(|pool| &pool.endpoints);
        let up = endpoints.filter(|endpoint| endpoint.may_serve());
        up.filter_map(|endpoint| endpoint.tunnel.as_deref()).any(is_well)
    }

    /// The header that makes or moves the session of a request that was answered by this replica of an endpoint.
    pub(crate) fn cookie(&self, stopover: &Stopover<'_>, replica: Uuid) -> Option<HeaderValue> {
        let affinity = self.visit.plan.affinity.as_ref()?;
        // Who was served in an emergency does not stay there.
        let endpoint = stopover.endpoint().session_id.filter(|_| !stopover.is_last)?;
        let served = Served { endpoint, replica, is_elsewhere: self.has_home && !stopover.is_home };
        let keys = self.balancer.around.keys.load();
        let who = &self.visit.who;
        let cookie = affinity.cookie((&self.balancer.id, keys.as_deref()), who, served);
        if !affinity.is_by_headers() {
            self.balancer.counts.session(match (who.session, &cookie) {
                (None, _) => Stay::New,
                (Some(_), None) => Stay::Kept,
                (Some(_), Some(_)) => Stay::Moved,
            });
        }
        cookie
    }
}
