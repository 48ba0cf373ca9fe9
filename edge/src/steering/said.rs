//! What objects say about steering, read from what is kept of them. It was looked at when it was kept, so what
//! cannot be read counts as not said.

use serde_json::{Map, Value};

use super::Policy;
use crate::store::records::objects::Object;

pub(super) struct Balancer<'o> {
    pub(super) pools: Vec<&'o str>,
    pub(super) fallback: Option<&'o str>,
    pub(super) policy: Policy,
    pub(super) fails_over: bool,
    random: Option<&'o Map<String, Value>>,
}

impl<'o> Balancer<'o> {
    pub(super) fn of(object: &'o Object) -> Self {
        let said = &object.said;
        let pools = said.get("default_pools").and_then(Value::as_array);
        let policy = match object.text("steering_policy") {
            Some("random") => Policy::Random,
            Some("hash") => Policy::Hash,
            Some("least_outstanding_requests" | "least_connections") => Policy::Least,
            // Without geography all others go through the pools in their order.
            _ => Policy::Off,
        };
        let adaptive = said.get("adaptive_routing").and_then(|routing| routing.get("failover_across_pools"));
        Self {
            pools: pools.into_iter().flatten().filter_map(Value::as_str).take(MOST_POOLS).collect(),
            fallback: object.text("fallback_pool"),
            policy,
            fails_over: adaptive == Some(&Value::Bool(true)),
            random: said.get("random_steering").and_then(Value::as_object),
        }
    }

    pub(super) fn weight_of(&self, pool: &str) -> u8 {
        let weight = self.random.and_then(|random| {
            let own = random.get("pool_weights").and_then(|weights| weights.get(pool));
            own.or_else(|| random.get("default_weight"))
        });
        hundredths(weight)
    }
}

/// How the endpoints of a pool are chosen.
pub(super) fn policy_of(pool: &Object) -> Policy {
    let policy = pool.said.get("origin_steering").and_then(|steering| steering.get("policy")?.as_str());
    match policy {
        Some("hash") => Policy::Hash,
        Some("least_outstanding_requests" | "least_connections") => Policy::Least,
        _ => Policy::Random,
    }
}

/// A weight from 0 to 1 in hundredths; 1 where none is said.
pub(super) fn hundredths(weight: Option<&Value>) -> u8 {
    let weight = weight.and_then(Value::as_f64).unwrap_or(1.0).clamp(0.0, 1.0) * 100.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
    let weight = weight.round() as u8;
    weight
}

/// As many as a way remembers.
pub(super) const MOST_POOLS: usize = u128::BITS as usize;
