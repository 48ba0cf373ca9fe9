//! What a load balancer makes of a request and why, for people: as its pools and endpoints stand at the moment, read
//! from what requests read. Changes nothing.

use std::sync::Arc;
use std::time::Instant;

use adit_balance::health::State;
use serde::Serialize;
use uuid::Uuid;

use super::{Asked, Balancer, Policy, Pool, Visit};

/// A load balancer as one request finds it.
#[derive(Serialize)]
pub(crate) struct Explained {
    id: String,
    name: String,
    /// How one of its pools is chosen.
    policy: &'static str,
    /// Which list of pools counts.
    list: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<SessionView>,
    /// As they are written.
    pools: Vec<PoolView>,
    /// Where none of the others may serve.
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<PoolView>,
}

#[derive(Serialize)]
struct SessionView {
    /// `cookie`, `ip_cookie` or `header`
    by: &'static str,
    /// The request says which endpoint it belongs to, or has the headers that do.
    known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connector: Option<Uuid>,
    /// That endpoint takes it.
    serves: bool,
}

#[derive(Serialize)]
struct PoolView {
    id: String,
    name: String,
    health: &'static str,
    may_serve: bool,
    /// The part of the requests that are not steered otherwise, where weights count.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<f64>,
    /// In which place it is tried, where the policy has an order.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<usize>,
    /// What its monitors see.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_ms: Option<f64>,
    requests: usize,
    /// How one of its endpoints is chosen.
    policy: &'static str,
    endpoints: Vec<EndpointView>,
}

#[derive(Serialize)]
struct EndpointView {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<Uuid>,
    state: &'static str,
    why: String,
    weight: f64,
    /// The part of the pool's requests that its weight is worth now, beside the others that may serve.
    part: f64,
    requests: usize,
    /// It is left out, and the next request finds out how it is.
    trial: bool,
}

impl Balancer {
    /// The names of the rules that have something to say about a request, in the order in which they do.
    pub(crate) fn rules_of(&self, asked: &Asked<'_>) -> Vec<String> {
        self.rules.names(&self.look(asked))
    }

    pub(crate) fn explain(&self, visit: &Visit) -> Explained {
        let (plan, now) = (&*visit.plan, Instant::now());
        let tour = plan.tour(visit.tour);
        let pools = tour.pools.iter().zip(tour.standing(now));
        Explained {
            id: self.id.clone(),
            name: self.name.clone(),
            policy: if plan.is_geographic() { "geo" } else { tour.policy.word() },
            list: plan.list_of(visit.tour),
            session: SessionView::of(visit),
            pools: pools.map(|(pool, (part, place))| PoolView::of(pool, part, place, now)).collect(),
            fallback: plan.fallback.as_ref().map(|pool| PoolView::of(pool, None, None, now)),
        }
    }
}

impl SessionView {
    fn of(visit: &Visit) -> Option<Self> {
        let (plan, who) = (&*visit.plan, &visit.who);
        let affinity = plan.affinity.as_ref()?;
        let home = who.session.and_then(|session| plan.home(session.endpoint));
        let by_headers = affinity.is_by_headers() && who.key.is_some();
        Some(Self {
            by: affinity.word(),
            known: who.session.is_some() || by_headers,
            pool: home.map(|home| home.pool.id.clone()),
            endpoint: home.map(|home| home.pool.endpoints[home.at].address.clone()),
            connector: who.replica(),
            serves: by_headers || home.is_some_and(|home| affinity.may_serve(&home.pool, home.at)),
        })
    }
}

impl PoolView {
    fn of(pool: &Arc<Pool>, part: Option<f64>, place: Option<usize>, now: Instant) -> Self {
        let board = pool.board(now);
        let is_due = board.next_trial.is_some_and(|due| pool.around.at(now) >= due);
        let endpoints = pool.endpoints.iter().zip(&board.states).enumerate();
        let endpoints = endpoints.map(|(at, (endpoint, state))| EndpointView {
            address: endpoint.address.clone(),
            tunnel: endpoint.tunnel.as_ref().map(|tunnel| tunnel.id),
            state: state.word(),
            why: endpoint.why(*state),
            weight: f64::from(endpoint.weight) / 100.0,
            part: thousandths(board.ballot.part(at)),
            requests: endpoint.condition.requests(),
            trial: is_due && *state == State::Ejected,
        });
        Self {
            id: pool.id.clone(),
            name: pool.name.clone(),
            health: board.health.word(),
            may_serve: board.health.standing().is_some(),
            part: part.map(thousandths),
            place,
            latency_ms: pool.latency(now).map(|seconds| thousandths(seconds * 1e3)),
            requests: pool.requests(),
            policy: pool.policy.word(),
            endpoints: endpoints.collect(),
        }
    }
}

impl Policy {
    /// As it is written.
    fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Random => "random",
            Self::Hash => "hash",
            Self::Least => "least_outstanding_requests",
            Self::Peak => "peak_ewma",
            Self::Quickest => "dynamic_latency",
            Self::Nearest => "proximity",
        }
    }
}

fn thousandths(number: f64) -> f64 {
    (number * 1e3).round() / 1e3
}
