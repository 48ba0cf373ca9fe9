//! What objects say about steering, read from what is kept of them. It was looked at when it was kept, so what
//! cannot be read counts as not said.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use adit_balance::steer::Point;
use serde_json::{Map, Value};

use super::Policy;
use super::session::{Affinity, By, Failover, Part, SameSite, Secure};
use crate::store::records::objects::Object;

type Said = Map<String, Value>;

/// What a load balancer says, or one whose rules say some of it otherwise.
pub(super) struct Plan<'o>(pub(super) &'o Said);

impl<'o> Plan<'o> {
    fn text(&self, name: &str) -> Option<&'o str> {
        self.0.get(name)?.as_str()
    }

    /// In the order in which they are written.
    pub(super) fn pools(&self) -> Vec<&'o str> {
        texts(self.0.get("default_pools")).take(MOST_POOLS).collect()
    }

    pub(super) fn fallback(&self) -> Option<&'o str> {
        self.text("fallback_pool")
    }

    pub(super) fn policy(&self) -> Policy {
        match self.text("steering_policy") {
            Some("random") => Policy::Random,
            Some("hash") => Policy::Hash,
            Some("least_outstanding_requests" | "least_connections") => Policy::Least,
            Some("dynamic_latency") => Policy::Quickest,
            Some("proximity") => Policy::Nearest,
            _ => Policy::Off,
        }
    }

    /// Whether the lists for places count: also where nothing is said of steering.
    pub(super) fn is_geographic(&self) -> bool {
        matches!(self.text("steering_policy"), None | Some("" | "geo"))
    }

    /// Lists of pools by the code of a place.
    pub(super) fn places(&self, name: &str) -> impl Iterator<Item = (&'o String, Vec<&'o str>)> {
        let places = self.0.get(name).and_then(Value::as_object).into_iter().flatten();
        places.map(|(code, pools)| (code, texts(Some(pools)).take(MOST_POOLS).collect()))
    }

    pub(super) fn fails_over(&self) -> bool {
        let routing = self.0.get("adaptive_routing");
        routing.and_then(|routing| routing.get("failover_across_pools")) == Some(&Value::Bool(true))
    }

    pub(super) fn weight_of(&self, pool: &str) -> u8 {
        let weight = self.0.get("random_steering").and_then(|random| {
            let own = random.get("pool_weights").and_then(|weights| weights.get(pool));
            own.or_else(|| random.get("default_weight"))
        });
        hundredths(weight)
    }

    pub(super) fn affinity(&self) -> Option<Affinity> {
        let attributes = self.0.get("session_affinity_attributes");
        let attribute = |name: &str| attributes.and_then(|attributes| attributes.get(name));
        let word = |name: &str| attribute(name).and_then(Value::as_str);
        let by = match self.text("session_affinity") {
            Some("cookie") => By::Cookie,
            Some("ip_cookie") => By::AddressAndCookie,
            Some("header") => By::Headers {
                parts: texts(attribute("headers")).flat_map(Part::read).take(MOST_PARTS).collect(),
                are_all_required: attribute("require_all_headers") == Some(&Value::Bool(true)),
            },
            _ => return None,
        };
        let number =
            |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok());
        Some(Affinity {
            by,
            ttl: number(self.0.get("session_affinity_ttl")).unwrap_or(USUAL_TTL),
            secure: match word("secure") {
                Some("Always") => Secure::Always,
                Some("Never") => Secure::Never,
                _ => Secure::Auto,
            },
            same_site: match word("samesite") {
                Some("Lax") => SameSite::Lax,
                Some("None") => SameSite::None,
                Some("Strict") => SameSite::Strict,
                _ => SameSite::Auto,
            },
            failover: match word("zero_downtime_failover") {
                Some("temporary") => Failover::Temporary,
                Some("sticky") => Failover::Sticky,
                _ => Failover::None,
            },
            drain: Duration::from_secs(number(attribute("drain_duration")).unwrap_or(0).into()),
            keeps_replica: attribute("replica") == Some(&Value::Bool(true)),
        })
    }
}

/// Everything that a load balancer says that may be the id of a pool: no other texts look like one.
pub(super) fn mentioned(said: &Said) -> HashSet<&str> {
    let mut found = HashSet::new();
    let names = ["default_pools", "fallback_pool", "rules", "region_pools", "country_pools", "pop_pools"];
    for value in names.into_iter().filter_map(|name| said.get(name)) {
        gather(value, &mut found);
    }
    found
}

fn gather<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
    match value {
        Value::String(text) => drop(found.insert(text)),
        Value::Array(list) => list.iter().for_each(|one| gather(one, found)),
        Value::Object(map) => map.values().for_each(|one| gather(one, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The pools of a list that are there.
pub(super) fn found<P: Clone>(pools: &HashMap<String, P>, ids: &[&str]) -> Vec<P> {
    ids.iter().filter_map(|id| pools.get(*id)).cloned().collect()
}

/// How the endpoints of a pool are chosen.
pub(super) fn policy_of(pool: &Object) -> Policy {
    let policy = pool.said.get("origin_steering").and_then(|steering| steering.get("policy")?.as_str());
    match policy {
        Some("hash") => Policy::Hash,
        Some("least_outstanding_requests" | "least_connections") => Policy::Least,
        Some("peak_ewma") => Policy::Peak,
        _ => Policy::Random,
    }
}

/// Where a pool is, if it says so.
pub(super) fn place_of(pool: &Object) -> Option<Point> {
    let degrees = |name: &str| pool.said.get(name).and_then(Value::as_f64);
    Point::new(degrees("latitude")?, degrees("longitude")?)
}

/// A weight from 0 to 1 in hundredths; 1 where none is said.
pub(super) fn hundredths(weight: Option<&Value>) -> u8 {
    let weight = weight.and_then(Value::as_f64).unwrap_or(1.0).clamp(0.0, 1.0) * 100.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100")]
    let weight = weight.round() as u8;
    weight
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// As many as a way remembers.
pub(super) const MOST_POOLS: usize = u128::BITS as usize;
/// Headers and cookies of one load balancer that count.
const MOST_PARTS: usize = 16;
const USUAL_TTL: u32 = 82_800;
