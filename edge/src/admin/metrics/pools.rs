//! Numbers of pools and their endpoints, as many as a scrape can bear: room is shared by account, so that no tenant
//! hides the others. Reads; changes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use adit_balance::health::{PoolHealth, State as Signs};
use adit_metrics::{Kind, Page, number};

use super::flag;
use crate::state::State;
use crate::state::snapshot::{Kept, Snapshot};
use crate::steering::{Balancers, Pool};
use crate::store::records::objects::{self, Object};

/// A pool that is shown by itself.
struct Shown {
    name: String,
    account: String,
    pool: Arc<Pool>,
}

pub(super) fn write(page: &mut Page, state: &State, balancers: &Balancers) {
    let pools = balancers.pools();
    let name = "adit_edge_pools";
    page.family(name, Kind::Gauge, "Pools of load balancers, by their health");
    for health in HEALTHS {
        let count = pools.values().filter(|pool| pool.health() == health).count();
        page.sample(name, &[("health", health.word())], number(count as u64));
    }
    let shown = state.read(|snapshot| shown(snapshot, &pools));
    let name = "adit_edge_pool_info";
    page.family(name, Kind::Gauge, "The name and the account of each pool that is shown by itself");
    for Shown { name: called, account, pool } in &shown {
        page.sample(name, &[("pool", &pool.id), ("name", called), ("account", account)], 1.0);
    }
    let name = "adit_edge_pool_may_serve";
    page.family(name, Kind::Gauge, "1 while a pool gets requests");
    for Shown { pool, .. } in &shown {
        page.sample(name, &[("pool", &pool.id)], flag(pool.health().standing().is_some()));
    }
    let name = "adit_edge_pool_requests_open";
    page.family(name, Kind::Gauge, "Requests under way at the endpoints of a pool");
    for Shown { pool, .. } in &shown {
        page.sample(name, &[("pool", &pool.id)], number(pool.requests() as u64));
    }
    let endpoints = shown
        .iter()
        .flat_map(|shown| shown.pool.endpoints.iter().map(|endpoint| (shown.pool.id.as_str(), endpoint)));
    let endpoints: Vec<_> = endpoints.take(MOST_ENDPOINTS).collect();
    let name = "adit_edge_endpoint_up";
    page.family(name, Kind::Gauge, "1 while an endpoint of a pool is up");
    for (pool, endpoint) in &endpoints {
        let labels = [("pool", *pool), ("endpoint", endpoint.address.as_str())];
        page.sample(name, &labels, flag(endpoint.state() == Signs::Up));
    }
    let name = "adit_edge_endpoint_attempts_total";
    page.family(name, Kind::Counter, "Attempts of requests at an endpoint of a pool");
    for (pool, endpoint) in &endpoints {
        let labels = [("pool", *pool), ("endpoint", endpoint.address.as_str())];
        page.sample(name, &labels, number(endpoint.condition.total()));
    }
}

fn shown(snapshot: &Snapshot, pools: &HashMap<String, Arc<Pool>>) -> Vec<Shown> {
    let all = by_turns(snapshot, objects::Kind::Pool).into_iter();
    let shown = all.take(MOST_POOLS).filter_map(|(id, kept)| {
        let name = kept.record.text("name").unwrap_or_default().to_owned();
        Some(Shown { name, account: kept.record.account.clone(), pool: pools.get(id)?.clone() })
    });
    shown.collect()
}

/// The objects of a kind: in turns one of each account, each account's oldest first.
pub(super) fn by_turns(snapshot: &Snapshot, kind: objects::Kind) -> Vec<(&String, &Arc<Kept<Object>>)> {
    let mut all: Vec<_> = snapshot.objects.of(kind).iter().collect();
    all.sort_by_key(|(id, kept)| (kept.record.created_at, *id));
    let mut turns: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<_> = all
        .into_iter()
        .map(|(id, kept)| {
            let turn = turns.entry(&kept.record.account).or_default();
            *turn += 1;
            (*turn, (id, kept))
        })
        .collect();
    // What is as old stays in its order.
    all.sort_by_key(|(turn, _)| *turn);
    all.into_iter().map(|(_, one)| one).collect()
}

const HEALTHS: [PoolHealth; 5] = [
    PoolHealth::Healthy,
    PoolHealth::Degraded,
    PoolHealth::Critical,
    PoolHealth::Unknown,
    PoolHealth::Disabled,
];
/// Pools that are shown by themselves, and endpoints of these.
const MOST_POOLS: usize = 100;
const MOST_ENDPOINTS: usize = 500;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::state::snapshot::Changes;
    use crate::store::records::to_json;
    use crate::store::timestamp::Timestamp;
    use crate::store::{Batch, Change, StoreRevision};

    #[test]
    fn an_account_with_many_pools_does_not_hide_that_of_another() {
        let now = Timestamp::now();
        let pool = |number: usize, account: &str| {
            let said = json!({ "name": format!("pool-{number}"), "origins": [] });
            let object = Object {
                account: account.to_owned(),
                zone: None,
                name: None,
                said: said.as_object().unwrap().clone(),
                created_at: now.after(std::time::Duration::from_secs(number as u64)),
                modified_at: now,
                modified_by: String::new(),
                disabled_at: Default::default(),
                secrets: Vec::new(),
            };
            Change { key: objects::Kind::Pool.key(&number.to_string()), value: Some(to_json(&object)) }
        };
        let mut changes: Vec<_> = (0..2 * MOST_POOLS).map(|number| pool(number, "many")).collect();
        changes.push(pool(2 * MOST_POOLS, "few"));
        let mut snapshot = Snapshot::default();
        snapshot.apply(Batch { revision: StoreRevision(1), changes }, &mut Changes::default());
        let balancers = Balancers::new(Default::default(), None);
        balancers.follow(&snapshot, &HashMap::new(), None);
        let shown = shown(&snapshot, &balancers.pools());
        assert_eq!(shown.len(), MOST_POOLS);
        assert_eq!(shown.iter().filter(|shown| shown.account == "few").count(), 1);
        assert!(shown.iter().any(|shown| shown.name == "pool-0"), "the oldest stay");
    }
}
