//! Load balancers as they are served: pools of endpoints, each endpoint a tunnel. Made anew when an object or a
//! tunnel changes; a request only reads them ([`Way`] is its way through one). Knows what was said of pools and who
//! is connected; does not know requests. The choices themselves are in the crate `adit-balance`.

mod pool;
mod said;
mod way;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use adit_balance::{Key, Lots};
use http::uri::Authority;
use serde_json::Value;
use uuid::Uuid;

use crate::balancer::retry_budget::Retries;
use crate::monitors::{Change, Monitors, Voice, Watch};
use crate::registry::Tunnel;
use crate::settings::host_name::HostName;
use crate::state::snapshot::{Kept, Snapshot};
use crate::store::Revision;
use crate::store::records::objects::{Kind, Object};

pub(crate) use pool::{Endpoint, Pool};
pub(crate) use way::{Stopover, Way};

/// One load balancer.
pub(crate) struct Balancer {
    /// In the order in which they are tried.
    pub(crate) pools: Vec<Arc<Pool>>,
    /// Used where none of them may serve, whatever its health.
    pub(crate) fallback: Option<Arc<Pool>>,
    pub(crate) policy: Policy,
    /// The weights of the pools, laid out for drawing.
    lots: Lots,
    weights: Vec<u8>,
    /// Whether what an origin may have seen is tried again in another pool.
    pub(crate) fails_over: bool,
    pub(crate) retries: Arc<Retries>,
    revision: Revision,
}

/// How one of several is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The first that may serve.
    Off,
    /// By weight.
    Random,
    /// By who asks, and by weight.
    Hash,
    /// Two by weight, and of these the one with less to do for its weight.
    Least,
}

/// What every load balancer of the edge is made of, and was made of before.
#[derive(Default)]
pub(crate) struct Balancers {
    pub(crate) monitors: Monitors,
    built: Mutex<Built>,
}

#[derive(Default)]
struct Built {
    pools: HashMap<String, Arc<Pool>>,
    balancers: HashMap<String, Arc<Balancer>>,
}

impl Balancers {
    /// Makes what is served of a snapshot. What has not changed stays, with all that is known of it.
    pub(crate) fn follow(
        &self,
        snapshot: &Snapshot,
        tunnels: &HashMap<Uuid, Arc<Tunnel>>,
        own_domain: Option<&str>,
    ) {
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let mut change = self.monitors.change();
        let pools = snapshot.objects.of(Kind::Pool).iter().map(|(id, kept)| {
            let tunnel_of = |id: &Uuid| {
                // A tunnel of another account is none.
                let own = snapshot.tunnel(&kept.record.account, *id);
                own.filter(|own| !own.record.is_deleted()).and_then(|_| tunnels.get(id)).cloned()
            };
            let before = built.pools.get(id);
            let watches = |tunnel: &Arc<Tunnel>, host: Option<&Authority>, address: &str| {
                watches(snapshot, &kept.record, &mut change, tunnel, host, address)
            };
            (id.clone(), Pool::follow(id, kept, before, tunnel_of, watches, own_domain))
        });
        built.pools = pools.collect();
        change.done();
        let balancers = snapshot.objects.of(Kind::Balancer).iter().map(|(id, kept)| {
            let pool_of = |id: &str| {
                let own = snapshot.objects.get(&kept.record.account, Kind::Pool, id);
                own.and_then(|_| built.pools.get(id)).cloned()
            };
            (id.clone(), Balancer::follow(kept, built.balancers.get(id), pool_of))
        });
        built.balancers = balancers.collect();
    }

    /// Those that take requests, by host name.
    pub(crate) fn serving(&self, snapshot: &Snapshot) -> Vec<(HostName, Arc<Balancer>)> {
        let built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        let all = snapshot.objects.of(Kind::Balancer).iter();
        let enabled = all.filter(|(_, kept)| kept.record.is_enabled());
        let named = enabled.filter_map(|(id, kept)| {
            let name = kept.record.name.as_ref()?.parse().ok()?;
            Some((name, built.balancers.get(id)?.clone()))
        });
        named.collect()
    }

    pub(crate) fn pool(&self, id: &str) -> Option<Arc<Pool>> {
        self.built.lock().unwrap_or_else(PoisonError::into_inner).pools.get(id).cloned()
    }
}

impl Balancer {
    fn follow(
        kept: &Kept<Object>,
        before: Option<&Arc<Self>>,
        pool_of: impl Fn(&str) -> Option<Arc<Pool>>,
    ) -> Arc<Self> {
        let said = said::Balancer::of(&kept.record);
        let pools: Vec<_> = said.pools.iter().filter_map(|id| pool_of(id)).collect();
        let fallback = said.fallback.and_then(&pool_of);
        if let Some(before) = before
            && before.revision == kept.revision
            && are_same(&before.pools, &pools)
            && are_same(before.fallback.as_slice(), fallback.as_slice())
        {
            return before.clone();
        }
        let weights: Vec<u8> = pools.iter().map(|pool| said.weight_of(&pool.id)).collect();
        Arc::new(Self {
            lots: Lots::new(weights.iter().copied()),
            weights,
            pools,
            fallback,
            policy: said.policy,
            fails_over: said.fails_over,
            retries: before.map_or_else(|| Arc::new(Retries::new()), |before| before.retries.clone()),
            revision: kept.revision,
        })
    }

    /// The way of a request of this visitor through the pools.
    pub(crate) fn way(&self, visitor: Key) -> Way<'_> {
        Way::new(self, visitor)
    }

    /// The tunnels that a request may wait for, if none is there.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = &Arc<Tunnel>> {
        let pools = self.pools.iter().chain(&self.fallback).filter(|pool| pool.is_enabled);
        let endpoints = pools.flat_map(|pool| &pool.endpoints).filter(|endpoint| endpoint.is_enabled);
        endpoints.filter_map(|endpoint| endpoint.tunnel.as_ref())
    }
}

/// Who asks how an endpoint of this pool is: its monitor, or those of its group.
fn watches(
    snapshot: &Snapshot,
    pool: &Object,
    change: &mut Change<'_>,
    tunnel: &Arc<Tunnel>,
    host: Option<&Authority>,
    address: &str,
) -> Vec<Watch> {
    let own = |kind, id: &str| snapshot.objects.get(&pool.account, kind, id);
    let mut watch = |id: &str, standing| {
        let kept: &Kept<Object> = own(Kind::Monitor, id)?;
        let watched = change.watch((id, kept), tunnel, host, address)?;
        Some(Watch { watched, standing })
    };
    let named = |name| pool.text(name).filter(|id| !id.is_empty());
    let Some(group) = named("monitor_group").and_then(|id| own(Kind::MonitorGroup, id)) else {
        return named("monitor").and_then(|id| watch(id, Voice::ALONE)).into_iter().collect();
    };
    let members = group.record.said.get("members").and_then(Value::as_array).into_iter().flatten();
    let members = members.filter_map(|member| {
        let is = |name| member.get(name) == Some(&Value::Bool(true));
        let (is_enabled, must_be_healthy) = (is("enabled"), is("must_be_healthy"));
        let standing = Voice { is_enabled, must_be_healthy, monitoring_only: is("monitoring_only") };
        watch(member.get("monitor_id")?.as_str().filter(|_| is_enabled)?, standing)
    });
    members.collect()
}

fn are_same(before: &[Arc<Pool>], after: &[Arc<Pool>]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(one, other)| Arc::ptr_eq(one, other))
}
