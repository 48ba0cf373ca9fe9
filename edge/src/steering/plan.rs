//! What a load balancer says about steering, made ready: which pools there are for whom, how one is chosen, and where
//! sessions are. Knows pools and what was said; does not know requests.

use std::collections::HashMap;
use std::sync::Arc;

use adit_balance::steer::{Atlas, Place};

use super::pool::{Around, Pool};
use super::said;
use super::session::Affinity;
use super::tour::Tour;
use crate::registry::Tunnel;

/// See the module.
pub(crate) struct Plan {
    tours: Vec<Tour>,
    /// Which of them is for which place.
    atlas: Atlas<usize>,
    /// Used where none of the others may serve, whatever its health.
    pub(crate) fallback: Option<Arc<Pool>>,
    /// Whether what an origin may have seen is tried again in another pool.
    pub(crate) fails_over: bool,
    pub(crate) affinity: Option<Affinity>,
    /// Where the sessions of an endpoint are, by what cookies call it.
    homes: HashMap<u128, Home>,
    /// Each pool once.
    pub(super) pools: Vec<Arc<Pool>>,
}

/// An endpoint with sessions.
pub(super) struct Home {
    pub(super) pool: Arc<Pool>,
    pub(super) at: usize,
}

impl Plan {
    /// Of what was said, with these pools.
    pub(super) fn of(plan: &said::Plan<'_>, known: &HashMap<String, Arc<Pool>>, around: &Around) -> Self {
        let mut tours = Vec::new();
        let mut tour = |ids: Vec<&str>| {
            let pools = said::found(known, &ids);
            let weights = pools.iter().map(|pool| plan.weight_of(&pool.id)).collect();
            tours.push(Tour::new(pools, weights, plan.policy(), around.clone()));
            vec![tours.len() - 1]
        };
        let mut places = |name: &str| -> HashMap<String, Vec<usize>> {
            let places = plan.places(name).filter(|_| plan.is_geographic());
            places.map(|(code, ids)| (code.to_ascii_uppercase(), tour(ids))).collect()
        };
        let (pops, countries) = (places("pop_pools"), places("country_pools"));
        let regions = places("region_pools");
        let atlas = Atlas { pops, countries, regions, default: tour(plan.pools()) };
        let mut pools: Vec<Arc<Pool>> = Vec::new();
        for pool in tours.iter().flat_map(|tour| &tour.pools) {
            if !pools.iter().any(|known| Arc::ptr_eq(known, pool)) {
                pools.push(pool.clone());
            }
        }
        let affinity = plan.affinity();
        let mut homes = HashMap::new();
        for pool in pools.iter().filter(|_| affinity.is_some()) {
            for (at, endpoint) in pool.endpoints.iter().enumerate() {
                if let Some(id) = endpoint.session_id {
                    homes.insert(id, Home { pool: pool.clone(), at });
                }
            }
        }
        let fallback = plan.fallback().and_then(|id| known.get(id)).cloned();
        Self { tours, atlas, fallback, fails_over: plan.fails_over(), affinity, homes, pools }
    }

    /// Which pools are for requests from a place, see [`Plan::tour`].
    pub(super) fn tour_for(&self, place: &Place<'_>) -> usize {
        self.atlas.pools(place).first().copied().unwrap_or(0)
    }

    /// As it is written where these pools are.
    pub(super) fn list_of(&self, tour: usize) -> String {
        let lists = [
            ("pop_pools", &self.atlas.pops),
            ("country_pools", &self.atlas.countries),
            ("region_pools", &self.atlas.regions),
        ];
        let codes =
            lists.into_iter().flat_map(|(name, list)| list.iter().map(move |(code, at)| (name, code, at)));
        let found = codes.into_iter().find(|(.., at)| at.contains(&tour));
        found.map_or_else(|| "default_pools".to_owned(), |(name, code, _)| format!("{name}.{code}"))
    }

    pub(super) fn tour(&self, at: usize) -> &Tour {
        &self.tours[at]
    }

    /// Whether it matters where a request is from.
    pub(super) fn is_geographic(&self) -> bool {
        self.tours.len() > 1
    }

    /// The endpoint that a session is at.
    pub(super) fn home(&self, endpoint: u128) -> Option<&Home> {
        self.homes.get(&endpoint)
    }

    /// The tunnels that a request may wait for, if none is there.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        let pools = self.pools.iter().chain(&self.fallback).filter(|pool| pool.is_enabled);
        let endpoints = pools.flat_map(|pool| &pool.endpoints).filter(|endpoint| endpoint.is_enabled);
        endpoints.filter_map(|endpoint| endpoint.tunnel.as_ref())
    }
}
