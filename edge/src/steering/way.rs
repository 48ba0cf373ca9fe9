//! The way of one request through the pools of a load balancer: first the endpoints of one pool, then the next pool
//! that may serve, then the fallback pool. Knows which ones it has handed out; does not know why another is wanted.

use std::sync::Arc;
use std::time::Instant;

use adit_balance::Key;
use adit_balance::selection::Score;

use super::pool::{self, Pool};
use super::{Balancer, Endpoint};
use crate::balancer::under_way::UnderWay;
use crate::registry::Tunnel;

/// See [`Balancer::way`].
pub(crate) struct Way<'a> {
    pub(crate) balancer: &'a Balancer,
    visitor: Key,
    /// A bit for each pool that was entered, or may not serve.
    left: u128,
    is_fallback_left: bool,
    pool: Option<&'a Arc<Pool>>,
    /// Whether that is the fallback pool, of which nobody asks how it is.
    is_last: bool,
    /// A bit for each endpoint of the pool that was handed out.
    tried: u128,
}

/// An endpoint that was handed out.
#[derive(Clone, Copy)]
pub(crate) struct Stopover<'a> {
    pub(crate) pool: &'a Arc<Pool>,
    at: usize,
    pub(crate) tunnel: &'a Arc<Tunnel>,
}

impl<'a> Stopover<'a> {
    pub(crate) fn endpoint(&self) -> &'a Endpoint {
        &self.pool.endpoints[self.at]
    }

    /// Takes note of an attempt that begins here.
    pub(crate) fn begin(&self) -> UnderWay {
        self.pool.begin(self.at, Instant::now())
    }
}

impl<'a> Way<'a> {
    pub(super) fn new(balancer: &'a Balancer, visitor: Key) -> Self {
        Self { balancer, visitor, left: 0, is_fallback_left: false, pool: None, is_last: false, tried: 0 }
    }

    /// The next endpoint of the pool; none of a tunnel that `is_visited`, which can be an endpoint of another pool.
    pub(crate) fn endpoint(&mut self, is_visited: impl Fn(&Tunnel) -> bool) -> Option<Stopover<'a>> {
        let pool = self.pool?;
        loop {
            let at = pool.choose(self.tried, self.is_last, self.visitor, fastrand::u64(..))?;
            self.tried |= 1 << at;
            if let Some(tunnel) = &pool.endpoints[at].tunnel
                && !is_visited(tunnel)
            {
                return Some(Stopover { pool, at, tunnel });
            }
        }
    }

    /// Goes on to the next pool that may serve, or else to the fallback pool; whether there is one.
    pub(crate) fn enter(&mut self) -> bool {
        let Balancer { pools, fallback, policy, lots, weights, .. } = self.balancer;
        let score = |at: usize| {
            let pool = &pools[at];
            let is_open = self.left & (1 << at) == 0;
            let standing = is_open.then(|| pool.health().standing()).flatten()?;
            let weight = weights[at];
            Some(Score { rank: pool::rank(weight == 0, standing), weight, requests: pool.requests() })
        };
        let hash = |at: usize| self.visitor.with(pools[at].hash);
        let found = pool::choose(*policy, lots, pools.len(), score, hash, fastrand::u64(..));
        self.tried = 0;
        if let Some(at) = found {
            self.left |= 1 << at;
            self.pool = Some(&pools[at]);
            return true;
        }
        // Only where none of the others was any good, and whatever its health.
        self.pool = fallback.as_ref().filter(|pool| !self.is_fallback_left && pool.is_enabled);
        (self.is_fallback_left, self.is_last) = (true, true);
        self.pool.is_some()
    }

    /// Looks at all pools anew: others may serve by now. Whoever asks says again which tunnels were visited.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self::new(self.balancer, self.visitor);
    }

    /// Whether an endpoint that was not handed out could take the request, `across` pools or in this one.
    pub(crate) fn has_other(&self, across: bool, is_well: impl Fn(&Tunnel) -> bool) -> bool {
        let pool = self.pool.into_iter();
        let others = self.balancer.pools.iter().filter(|pool| across && pool.health().standing().is_some());
        let endpoints = pool.chain(others).flat_map(|pool| &pool.endpoints);
        let up = endpoints.filter(|endpoint| endpoint.may_serve());
        up.filter_map(|endpoint| endpoint.tunnel.as_deref()).any(is_well)
    }
}
