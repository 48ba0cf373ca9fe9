//! A pool and its endpoints, and what is known of them beside what was said.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use adit_balance::health::{PoolHealth, Signs, State};
use adit_balance::selection::{self, Rank, Score};
use adit_balance::steer::Standing;
use adit_balance::{Key, Lots, Minute};
use http::uri::Authority;
use serde_json::Value;
use uuid::Uuid;

use super::{Policy, said};
use crate::balancer::under_way::UnderWay;
use crate::monitors::{self, Watch};
use crate::registry::Tunnel;
use crate::state::snapshot::Kept;
use crate::store::Revision;
use crate::store::records::objects::{Object, tunnel_of};

/// One pool.
pub(crate) struct Pool {
    pub(crate) id: String,
    pub(crate) is_enabled: bool,
    /// With fewer endpoints that are up it does not serve.
    pub(crate) minimum: usize,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) policy: Policy,
    /// The weights of its endpoints, laid out for drawing.
    lots: Lots,
    pub(super) hash: u64,
    requests: Arc<AtomicUsize>,
    revision: Revision,
}

/// One endpoint of a pool.
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) weight: u8,
    pub(crate) is_enabled: bool,
    /// As which host its requests ask, if not as which the visitor did.
    pub(crate) host: Option<Authority>,
    /// `None` where the address is not the name of a tunnel that is there.
    pub(crate) tunnel: Option<Arc<Tunnel>>,
    named: Option<Uuid>,
    /// The same for the same endpoint of the same pool, whatever else changes.
    hash: u64,
    /// Who asks how it is.
    pub(crate) watches: Vec<Watch>,
    pub(crate) condition: Arc<Condition>,
}

/// What is known of an endpoint beside what was said of it.
pub(crate) struct Condition {
    requests: Arc<AtomicUsize>,
    /// Attempts that began, by seconds since `since`.
    lately: Minute,
    since: Instant,
}

impl Default for Condition {
    fn default() -> Self {
        Self { requests: Arc::default(), lately: Minute::default(), since: Instant::now() }
    }
}

impl Condition {
    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Attempts that began in the last minute.
    pub(crate) fn last_minute(&self, now: Instant) -> u64 {
        self.lately.sum(self.second(now))
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX)
    }
}

impl Pool {
    pub(super) fn follow(
        id: &str,
        kept: &Kept<Object>,
        before: Option<&Arc<Self>>,
        tunnel: impl Fn(&Uuid) -> Option<Arc<Tunnel>>,
        mut watches: impl FnMut(&Arc<Tunnel>, Option<&Authority>, &str) -> Vec<Watch>,
        own_domain: Option<&str>,
    ) -> Arc<Self> {
        let mut is_same = |endpoint: &Endpoint| {
            let now = endpoint.named.as_ref().and_then(&tunnel);
            let Some(now) = now else { return endpoint.tunnel.is_none() };
            let watches = watches(&now, endpoint.host.as_ref(), &endpoint.address);
            endpoint.tunnel.as_ref().is_some_and(|before| Arc::ptr_eq(before, &now))
                && watches.len() == endpoint.watches.len()
                && watches.iter().zip(&endpoint.watches).all(|(one, other)| one.is_same(other))
        };
        if let Some(before) = before
            && before.revision == kept.revision
            && before.endpoints.iter().filter(|endpoint| !is_same(endpoint)).count() == 0
        {
            return before.clone();
        }
        let object = &kept.record;
        let said = object.endpoints().take(MOST_ENDPOINTS);
        let endpoints: Vec<_> = said
            .filter_map(|said| {
                let address = said.get("address")?.as_str()?;
                let known =
                    before.and_then(|pool| pool.endpoints.iter().find(|known| known.address == address));
                let named = tunnel_of(address, own_domain).map(|(id, _)| id);
                let host = said.get("header").and_then(|header| header.get("Host")?.get(0)?.as_str());
                let host: Option<Authority> = host.and_then(|host| host.parse().ok());
                let tunnel = named.as_ref().and_then(&tunnel);
                let watched = tunnel.iter().map(|tunnel| watches(tunnel, host.as_ref(), address));
                Some(Endpoint {
                    watches: watched.flatten().collect(),
                    address: address.to_owned(),
                    weight: said::hundredths(said.get("weight")),
                    is_enabled: said.get("enabled") != Some(&Value::Bool(false)),
                    host,
                    tunnel,
                    named,
                    hash: Key::of(format!("{id} {address}").as_bytes()).0,
                    condition: known.map(|known| known.condition.clone()).unwrap_or_default(),
                })
            })
            .collect();
        let minimum = object.said.get("minimum_origins").and_then(Value::as_u64).unwrap_or(1);
        Arc::new(Self {
            id: id.to_owned(),
            is_enabled: object.is_enabled(),
            minimum: usize::try_from(minimum).unwrap_or(usize::MAX).max(1),
            lots: Lots::new(endpoints.iter().map(|endpoint| endpoint.weight)),
            endpoints,
            policy: said::policy_of(object),
            hash: Key::of(id.as_bytes()).0,
            requests: before.map(|before| before.requests.clone()).unwrap_or_default(),
            revision: kept.revision,
        })
    }

    /// What its endpoints are together.
    pub(crate) fn health(&self) -> PoolHealth {
        PoolHealth::new(self.is_enabled, self.minimum, self.endpoints.iter().map(Endpoint::state))
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Takes note of a request that begins at one of its endpoints.
    pub(super) fn begin(&self, at: usize, now: Instant) -> UnderWay {
        let condition = &self.endpoints[at].condition;
        condition.lately.add(condition.second(now));
        UnderWay::new([&condition.requests, &self.requests])
    }

    /// The endpoint for a request of this visitor, among those that may serve and were not tried; for a `last`
    /// resort also those that a monitor holds for down.
    pub(super) fn choose(&self, tried: u128, is_last: bool, visitor: Key, chance: u64) -> Option<usize> {
        let score = |at: usize| self.endpoints[at].score(is_last).filter(|_| tried & (1 << at) == 0);
        choose(
            self.policy,
            &self.lots,
            self.endpoints.len(),
            score,
            |at| visitor.with(self.endpoints[at].hash),
            chance,
        )
    }
}

impl Endpoint {
    /// What is known of it.
    pub(crate) fn state(&self) -> State {
        let signs = Signs {
            is_enabled: self.is_enabled,
            is_connected: Some(self.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_connected())),
            active: monitors::active(&self.watches),
            is_ejected: false,
            is_draining: false,
        };
        signs.state()
    }

    /// Whether nobody says that it is down.
    pub(crate) fn may_serve(&self) -> bool {
        matches!(self.state().standing(), Some(Standing::Up | Standing::Unknown))
    }

    fn score(&self, is_last: bool) -> Option<Score> {
        let standing = self.state().standing().filter(|standing| is_last || *standing != Standing::Down)?;
        let rank = rank(self.weight == 0, standing);
        Some(Score { rank, weight: self.weight, requests: self.condition.requests() })
    }
}

/// One of which nothing is known comes after those that are well, and before those that are not.
pub(super) fn rank(is_drained: bool, standing: Standing) -> Rank {
    match standing {
        Standing::Up => Rank::new(is_drained, false),
        Standing::Unknown => Rank::Doubted,
        Standing::Down => Rank::new(is_drained, true),
    }
}

/// One of `count` by a policy. Those without a score cannot be chosen.
pub(super) fn choose(
    policy: Policy,
    lots: &Lots,
    count: usize,
    score: impl Fn(usize) -> Option<Score>,
    hash: impl Fn(usize) -> u64,
    chance: u64,
) -> Option<usize> {
    let all = (0..count).map(&score);
    match policy {
        Policy::Off => (0..count).find(|at| score(*at).is_some()),
        Policy::Hash => selection::sticky(all, hash),
        Policy::Random | Policy::Least => {
            let is_random = policy == Policy::Random;
            // Nearly always one of those that were drawn beforehand will do.
            if let Some((one, other)) = lots.two(chance)
                && let Some(first) = score(one).filter(|first| first.rank == Rank::Serving)
            {
                if is_random {
                    return Some(one);
                }
                if let Some(second) = score(other).filter(|second| second.rank == Rank::Serving) {
                    return Some(if second.is_better_than(&first) { other } else { one });
                }
            }
            let alike = |score: Score| if is_random { Score { requests: 0, ..score } } else { score };
            selection::endpoint(all.map(|score| score.map(alike)), chance)
        }
    }
}

/// As many as a way remembers.
const MOST_ENDPOINTS: usize = u128::BITS as usize;
