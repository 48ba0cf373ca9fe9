//! `tunnel route lb TUNNEL HOST POOL`: a tunnel behind a load balancer, in one call. What of it is not there yet is
//! made, what is there gets what it lacks, and all of it is one transaction.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::Api;
use super::draft::Draft;
use crate::api::envelope::{Answer, Problem};
use crate::api::identity::Identity;
use crate::api::zones::name_in_zone;
use crate::store::records::Scope;
use crate::store::records::objects::{Kind, REFERENCE, tunnel_of};

/// What became of one of the two objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    New,
    Updated,
    Unchanged,
}

impl Api {
    pub(in crate::api) async fn route_to_balancer(
        &self,
        who: &Identity,
        zone: &str,
        tunnel: Uuid,
        hostname: &str,
        pool: &str,
    ) -> Result<Answer, Problem> {
        // A pool is the account's.
        if who.token().scope != Scope::Account {
            return Err(Problem::Forbidden);
        }
        let plan = |draft: &mut Draft<'_>| self.plan_route(draft, who, zone, tunnel, hostname, pool);
        let shown = |_: &_, (balancer, pool): (Change, Change)| json!({ "load_balancer": balancer.word(), "pool": pool.word() });
        self.change_objects(who, "route.lb", plan, shown).await
    }

    fn plan_route(
        &self,
        draft: &mut Draft<'_>,
        who: &Identity,
        zone: &str,
        tunnel: Uuid,
        hostname: &str,
        pool: &str,
    ) -> Result<(Change, Change), Problem> {
        let snapshot = draft.snapshot();
        let kept = snapshot.tunnel(who.account(), tunnel).filter(|kept| !kept.record.is_deleted());
        let tunnel_name = kept.ok_or(Problem::NotFound("tunnel"))?.record.name.clone();
        let (name, zone) = name_in_zone(who, snapshot, zone, hostname, "lb_name")?;
        let (zone, whole) = (zone.to_owned(), name.to_string());
        let own_domain = self.fixed.domain.as_deref();
        let endpoint = json!({
            "name": tunnel_name, "address": format!("{tunnel}.{REFERENCE}"), "enabled": true, "weight": 1,
        });

        let known = draft.pool_named(pool).map(|(id, pool)| (id, pool.clone()));
        let (pool_id, of_pool) = match known {
            None => {
                let body = object(json!({ "name": pool, "origins": [endpoint] }));
                (draft.create(Kind::Pool, None, &body)?, Change::New)
            }
            Some((id, pool)) => {
                let is_it =
                    |address: &str| tunnel_of(address, own_domain).is_some_and(|(id, _)| id == tunnel);
                let mut addresses = pool.endpoints().filter_map(|endpoint| endpoint.get("address")?.as_str());
                if addresses.any(is_it) {
                    (id, Change::Unchanged)
                } else {
                    let endpoints = pool.endpoints().cloned().map(Value::Object).chain([endpoint]);
                    let body = object(json!({ "origins": endpoints.collect::<Value>() }));
                    draft.edit(Kind::Pool, None, &id, &body)?;
                    (id, Change::Updated)
                }
            }
        };
        let known = draft.balancer_named(&whole).map(|(id, balancer)| (id, balancer.clone()));
        let of_balancer = match known {
            None => {
                let body = object(json!({
                    "name": whole, "default_pools": [pool_id], "fallback_pool": pool_id, "proxied": true,
                }));
                draft.create(Kind::Balancer, Some(&zone), &body)?;
                Change::New
            }
            Some((id, balancer)) => {
                let mut pools = super::form::default_pools(&balancer);
                if pools.contains(&pool_id.as_str()) {
                    Change::Unchanged
                } else {
                    pools.push(&pool_id);
                    let body = object(json!({ "default_pools": pools }));
                    draft.edit(Kind::Balancer, Some(&zone), &id, &body)?;
                    Change::Updated
                }
            }
        };
        Ok((of_balancer, of_pool))
    }
}

impl Change {
    fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Updated => "updated",
            Self::Unchanged => "unchanged",
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}
