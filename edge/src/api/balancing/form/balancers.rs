//! Load balancers.

use std::collections::HashSet;

use adit_balance::condition::Condition;
use http::header::HeaderName;
use serde_json::{Map, Value};

use super::{Known, LONGEST_ID, LONGEST_NAME, LONGEST_TEXT};
use crate::api::balancing::fields::Fields;
use crate::store::records::objects::{Kind, Object};

pub(super) fn balancer(fields: &mut Fields<'_>, known: &mut dyn Known) {
    fields.wanted("name");
    if let Some(name) = fields.text("name", LONGEST_NAME)
        && let Err(why) = known.balancer_name(name)
    {
        fields.wrong("name", &why);
    }
    fields.text_or("description", LONGEST_TEXT, "");
    fields.flag_or("enabled", true);
    let proxied = fields.flag_or("proxied", false);
    fields.number("ttl", 1..=86_400);
    if fields.value("ttl").is_none() && proxied == Some(false) {
        fields.keep("ttl", 30);
    }
    for name in ["default_pools", "fallback_pool"] {
        fields.wanted(name);
    }
    if fields.value("default_pools").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        fields.wrong("default_pools", "has at least one pool");
    }
    if fields.value("steering_policy").is_none() {
        fields.keep("steering_policy", "");
    }
    let affinity = fields.value("session_affinity").and_then(Value::as_str).unwrap_or("none");
    if fields.value("session_affinity").is_none() {
        fields.keep("session_affinity", "none");
    }
    steering(fields, known, affinity);
    if affinity != "none" && fields.value("session_affinity_ttl").is_none() {
        fields.keep("session_affinity_ttl", if affinity == "header" { 1_800 } else { 82_800 });
    }
    if affinity != "none" && fields.value("session_affinity_attributes").is_none() {
        let usual = Map::from_iter(USUAL_ATTRIBUTES.map(|(name, value)| (name.to_owned(), value.into())));
        let mut usual = usual;
        usual.insert("drain_duration".to_owned(), 0.into());
        fields.keep("session_affinity_attributes", usual);
    }
    rules(fields, known);
    fields.objects("pool_sets", MOST_POOL_SETS, |set| {
        // What they are made of is not looked at before they have an effect.
        for (name, value) in set.all() {
            set.keep(name, value.clone());
        }
    });
    fields.texts("networks", 16, LONGEST_NAME);
}

/// What a rule may say otherwise for some requests.
fn steering(fields: &mut Fields<'_>, known: &mut dyn Known, affinity: &str) {
    let no_pool = "names a pool that is not there";
    for id in fields.texts("default_pools", MOST_POOLS, LONGEST_ID) {
        if !known.has(Kind::Pool, id) {
            fields.wrong("default_pools", no_pool);
        }
    }
    if let Some(id) = fields.text("fallback_pool", LONGEST_ID)
        && !known.has(Kind::Pool, id)
    {
        fields.wrong("fallback_pool", no_pool);
    }
    for name in MAPS {
        for (place, pools) in fields.map(name, 300) {
            let ids = pools.as_array().filter(|ids| ids.len() <= MOST_POOLS);
            let all = ids.is_some_and(|ids| {
                ids.iter().all(|id| id.as_str().is_some_and(|id| known.has(Kind::Pool, id)))
            });
            if !all {
                let place: String = place.chars().take(16).collect();
                fields.wrong(
                    name,
                    &format!("has a list of pools for each place, and under `{place}` one that is not there"),
                );
            }
        }
        if fields.value(name).and_then(Value::as_object).is_some_and(Map::is_empty) {
            fields.leave(name);
        }
    }
    fields.one_of("steering_policy", &POLICIES);
    fields.object("random_steering", |random| {
        random.weight("default_weight");
        for (pool, weight) in random.map("pool_weights", 300) {
            let fits = weight.as_f64().is_some_and(|weight| (0.0..=1.0).contains(&weight));
            if !fits || !known.has(Kind::Pool, pool) {
                random
                    .wrong("pool_weights", "has a weight from 0 to 1 for each of some pools that are there");
            }
        }
    });
    fields.object("location_strategy", |strategy| {
        strategy.one_of("mode", &["pop", "resolver_ip"]);
        strategy.one_of("prefer_ecs", &["always", "never", "proximity", "geo"]);
    });
    fields.object("adaptive_routing", |routing| {
        routing.flag("failover_across_pools");
    });
    fields.one_of("session_affinity", &["none", "cookie", "ip_cookie", "header"]);
    let bounds = if affinity == "header" { 30..=3_600 } else { 1_800..=604_800 };
    fields.number("session_affinity_ttl", bounds);
    fields.object("session_affinity_attributes", |attributes| {
        attributes.number_or("drain_duration", 0..=86_400, 0);
        let secure = attributes.one_of_or("secure", &["Auto", "Always", "Never"], "Auto");
        let samesite = attributes.one_of_or("samesite", &["Auto", "Lax", "None", "Strict"], "Auto");
        if samesite == Some("None") && secure == Some("Never") {
            attributes.wrong("samesite", "cannot be `None` where `secure` is `Never`");
        }
        let failover =
            attributes.one_of_or("zero_downtime_failover", &["none", "temporary", "sticky"], "none");
        if failover == Some("sticky") && affinity == "header" {
            attributes.wrong("zero_downtime_failover", "cannot be `sticky` with affinity by headers");
        }
        for header in attributes.texts("headers", 5, 128) {
            if !header.starts_with("cookie") && header.parse::<HeaderName>().is_err() {
                attributes.wrong("headers", "has names of headers, and of cookies as `cookie:one,other`");
            }
        }
        // A session stays with a replica of its tunnel too; the reference knows nothing like it.
        attributes.flag("replica");
        attributes.flag("require_all_headers");
    });
}

fn rules(fields: &mut Fields<'_>, known: &mut dyn Known) {
    let mut patterns = 0;
    fields.objects("rules", MOST_RULES, |rule| {
        rule.wanted("name");
        rule.text("name", 200);
        match rule.text("condition", LONGEST_CONDITION).map(Condition::parse) {
            Some(Ok(condition)) => patterns += condition.patterns(),
            Some(Err(mistake)) => rule.wrong("condition", &format!("cannot be read {mistake}")),
            None => {}
        }
        rule.number("priority", 0..=1_000_000);
        rule.flag("disabled");
        rule.flag("terminates");
        let affinity = rule.value("overrides").and_then(|overrides| overrides.get("session_affinity"));
        let affinity = affinity.and_then(Value::as_str).unwrap_or("none");
        rule.object("overrides", |overrides| {
            overrides.number("ttl", 1..=86_400);
            steering(overrides, known, affinity);
        });
        rule.object("fixed_response", |response| {
            response.number("status_code", 200..=599);
            for (name, longest) in [("content_type", 32), ("location", 2_048), ("message_body", 1_024)] {
                if let Some(text) = response.text(name, longest)
                    && name != "message_body"
                    && text.bytes().any(|byte| byte.is_ascii_control())
                {
                    response.wrong(name, "has no controls");
                }
            }
        });
    });
    if patterns > MOST_PATTERNS {
        fields.wrong("rules", &format!("have at most {MOST_PATTERNS} regular expressions together"));
    }
}

/// What a load balancer says that is kept and not done.
pub(super) fn without_effect(balancer: &Object) -> Vec<String> {
    let mut lines = Vec::new();
    let said = &balancer.said;
    let is_said = |name: &str| match said.get(name) {
        None | Some(Value::Null) => false,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    for name in ["pool_sets", "location_strategy"] {
        if is_said(name) {
            lines.push(format!("`{name}` is kept and has no effect yet"));
        }
    }
    let policy = balancer.text("steering_policy").unwrap_or_default();
    for name in MAPS.into_iter().filter(|name| is_said(name) && !["", "geo"].contains(&policy)) {
        lines.push(format!("`{name}` has no effect with `steering_policy` `{policy}`"));
    }
    let attributes = said.get("session_affinity_attributes");
    let headers = attributes.and_then(|attributes| attributes.get("headers")?.as_array());
    if balancer.text("session_affinity") == Some("header") && headers.is_none_or(Vec::is_empty) {
        lines.push("`session_affinity` `header` has no effect without `headers`".to_owned());
    }
    lines
}

/// The ids of all pools that a load balancer names, whether or not they count at the moment.
pub(in crate::api::balancing) fn mentions(balancer: &Object) -> HashSet<&str> {
    let mut found = HashSet::new();
    let said = &balancer.said;
    let names = ["default_pools", "fallback_pool", "random_steering", "rules", "pool_sets"];
    for value in names.into_iter().chain(MAPS).filter_map(|name| said.get(name)) {
        gather(value, &mut found);
    }
    found
}

/// The ids of the pools that are tried first.
pub(in crate::api::balancing) fn default_pools(balancer: &Object) -> Vec<&str> {
    let list = balancer.said.get("default_pools").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Every text and every name of a map: ids of pools are found again among them, and nothing else looks like one.
fn gather<'v>(value: &'v Value, found: &mut HashSet<&'v str>) {
    match value {
        Value::String(text) => drop(found.insert(text)),
        Value::Array(list) => list.iter().for_each(|one| gather(one, found)),
        Value::Object(map) => {
            for (name, one) in map {
                found.insert(name);
                gather(one, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

const MAPS: [&str; 3] = ["region_pools", "country_pools", "pop_pools"];
/// What the reference has, and `hash`, which keeps a visitor to its pool.
const POLICIES: [&str; 9] = [
    "",
    "off",
    "random",
    "hash",
    "geo",
    "dynamic_latency",
    "proximity",
    "least_outstanding_requests",
    "least_connections",
];
const USUAL_ATTRIBUTES: [(&str, &str); 3] =
    [("samesite", "Auto"), ("secure", "Auto"), ("zero_downtime_failover", "none")];
/// In one list of a load balancer.
const MOST_POOLS: usize = 100;
const MOST_POOL_SETS: usize = 1_000;
const MOST_RULES: usize = 50;
const LONGEST_CONDITION: usize = 4_096;
/// Regular expressions of all rules.
const MOST_PATTERNS: usize = 16;
