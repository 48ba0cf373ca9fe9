//! What a load balancer does at the moment, for people: its pools in the order in which they are tried, which of them
//! may serve, each endpoint's health and share of the last minute against its weight, and who changed what last. A
//! call of our own: the reference has none like it.

use std::time::Instant;

use adit_balance::health::State;
use serde_json::{Map, Value, json};

use super::Api;
use super::form::default_pools;
use crate::api::envelope::{self, Answer, Problem};
use crate::api::identity::Identity;
use crate::state::snapshot::Snapshot;
use crate::steering::Pool;
use crate::store::records::objects::{Kind, Object, tunnel_of};

impl Api {
    pub(super) fn balancer_status(
        &self,
        who: &Identity,
        zone: Option<&str>,
        id: &str,
    ) -> Result<Answer, Problem> {
        self.state.read(|snapshot| {
            let found = snapshot.objects.get(who.account(), Kind::Balancer, id);
            let found = found.filter(|kept| kept.record.zone.as_deref() == zone);
            let balancer = &found.ok_or(Problem::NotFound(Kind::Balancer.word()))?.record;
            let (order, fallback) = (default_pools(balancer), balancer.text("fallback_pool"));
            let last = fallback.filter(|id| !order.contains(id));
            let pools = order.iter().copied().chain(last).filter_map(|id| {
                let kept = snapshot.objects.get(who.account(), Kind::Pool, id)?;
                let (is_last, is_fallback) = (last == Some(id), fallback == Some(id));
                Some(self.pool_status(snapshot, id, &kept.record, is_last, is_fallback))
            });
            Ok(envelope::success(json!({
                "id": id,
                "name": balancer.name,
                "enabled": balancer.is_enabled(),
                "steering_policy": balancer.text("steering_policy"),
                "modified_by": balancer.modified_by,
                "modified_on": balancer.modified_at,
                "pools": pools.collect::<Value>(),
            })))
        })
    }

    fn pool_status(
        &self,
        snapshot: &Snapshot,
        id: &str,
        pool: &Object,
        is_last: bool,
        is_fallback: bool,
    ) -> Value {
        let serving = self.balancers.pool(id);
        let now = Instant::now();
        let seen: Vec<_> =
            pool.endpoints().map(|said| self.endpoint_status(serving.as_deref(), said, now)).collect();
        let of_up = |endpoint: &Seen<'_>| if endpoint.why_down.is_none() { endpoint.weight } else { 0.0 };
        let weights: f64 = seen.iter().map(of_up).sum();
        let requests: u64 = seen.iter().map(|endpoint| endpoint.last_minute).sum();
        let part = |of: f64, all: f64| {
            if all > 0.0 { json!((of / all * 1_000.0).round() / 1_000.0) } else { Value::Null }
        };
        let endpoints = seen.iter().map(|endpoint| {
            let tunnel = endpoint.tunnel.and_then(|id| snapshot.tunnel(&pool.account, id));
            json!({
                "name": endpoint.name,
                "address": endpoint.address,
                "tunnel_id": endpoint.tunnel,
                "tunnel_name": tunnel.map(|kept| &kept.record.name),
                "weight": endpoint.weight,
                "healthy": endpoint.why_down.is_none(),
                "failure_reason": endpoint.why_down,
                "requests_open": endpoint.open,
                "requests_last_minute": endpoint.last_minute,
                "share_last_minute": part(endpoint.last_minute as f64, requests as f64),
                "share_by_weight": part(of_up(endpoint), weights),
            })
        });
        let serves = serving
            .is_some_and(|pool| if is_last { pool.is_enabled } else { pool.health().standing().is_some() });
        json!({
            "id": id,
            "name": pool.name,
            "fallback": is_fallback,
            "enabled": pool.is_enabled(),
            "may_serve": serves,
            "modified_by": pool.modified_by,
            "modified_on": pool.modified_at,
            "endpoints": endpoints.collect::<Value>(),
        })
    }

    fn endpoint_status<'s>(
        &self,
        pool: Option<&Pool>,
        said: &'s Map<String, Value>,
        now: Instant,
    ) -> Seen<'s> {
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
        let address = text("address");
        let served = pool.and_then(|pool| pool.endpoints.iter().find(|known| known.address == address));
        Seen {
            name: text("name"),
            address,
            tunnel: tunnel_of(address, self.fixed.domain.as_deref()).map(|(id, _)| id),
            weight: said.get("weight").and_then(Value::as_f64).unwrap_or(1.0),
            why_down: served.map_or_else(
                || Some("not served yet".to_owned()),
                |known| {
                    let (state, _, why) = Self::health_of(known);
                    (state != State::Up).then_some(why)
                },
            ),
            open: served.map_or(0, |known| known.condition.requests()),
            last_minute: served.map_or(0, |known| known.condition.last_minute(now)),
        }
    }
}

/// An endpoint as it is at the moment.
struct Seen<'s> {
    name: &'s str,
    address: &'s str,
    tunnel: Option<uuid::Uuid>,
    weight: f64,
    why_down: Option<String>,
    open: usize,
    last_minute: u64,
}
