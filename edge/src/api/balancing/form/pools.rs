//! Pools and their endpoints.

use std::collections::HashSet;

use http::header::HeaderValue;
use serde_json::Value;

use super::{Known, LONGEST_ID, LONGEST_NAME, LONGEST_TEXT};
use crate::api::balancing::fields::Fields;
use crate::store::records::objects::{Kind, Object, tunnel_of};

pub(super) fn pool(fields: &mut Fields<'_>, known: &mut dyn Known) {
    fields.wanted("name");
    if let Some(name) = fields.text("name", LONGEST_POOL_NAME)
        && !is_pool_name(name)
    {
        fields.wrong("name", "has letters, digits, `-` and `_` only, and at least one");
    }
    fields.text_or("description", LONGEST_TEXT, "");
    fields.flag_or("enabled", true);
    fields.wanted("origins");
    let mut addresses = HashSet::new();
    let count = fields.objects("origins", MOST_ENDPOINTS, |endpoint| origin(endpoint, known, &mut addresses));
    if count == Some(0) {
        fields.wrong("origins", "has at least one endpoint");
    }
    fields.number_or("minimum_origins", 0..=MOST_ENDPOINTS as u32, 1);
    for (name, kind, what) in [
        ("monitor", Kind::Monitor, "names a monitor that is not there"),
        ("monitor_group", Kind::MonitorGroup, "names a monitor group that is not there"),
    ] {
        if let Some(id) = fields.text(name, LONGEST_ID)
            && !id.is_empty()
            && !known.has(kind, id)
        {
            fields.wrong(name, what);
        }
    }
    let names = |name| fields.value(name).and_then(Value::as_str).is_some_and(|id| !id.is_empty());
    if names("monitor") && names("monitor_group") {
        fields.wrong("monitor_group", "cannot be said beside `monitor`");
    }
    place(fields);
    let regions = fields.texts("check_regions", 16, 32);
    if let Some(unknown) = regions.iter().find(|region| !REGIONS.contains(region)) {
        let shown: String = unknown.chars().take(16).collect();
        fields.wrong("check_regions", &format!("has no region `{shown}`"));
    }
    if fields.value("check_regions").is_none() {
        fields.keep("check_regions", Value::Null);
    }
    fields.text_or("notification_email", LONGEST_TEXT, "");
    fields.object("load_shedding", |shedding| {
        shedding.decimal("default_percent", 0.0..=100.0);
        shedding.one_of("default_policy", &["random", "hash"]);
        shedding.decimal("session_percent", 0.0..=100.0);
        shedding.one_of("session_policy", &["hash"]);
    });
    fields.object("origin_steering", |steering| {
        steering.one_of_or("policy", &POLICIES, "random");
    });
    fields.object("notification_filter", |filter| {
        for part in ["origin", "pool"] {
            filter.object(part, |part| {
                part.flag("disable");
                part.flag("healthy");
            });
        }
    });
}

fn origin<'f>(endpoint: &mut Fields<'f>, known: &mut dyn Known, addresses: &mut HashSet<String>) {
    endpoint.text_or("name", LONGEST_NAME, "");
    endpoint.wanted("address");
    if let Some(address) = endpoint.text("address", LONGEST_NAME) {
        let plain = address.strip_suffix('.').unwrap_or(address).to_ascii_lowercase();
        let is_readable = !plain.is_empty()
            && plain.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:_[]".contains(&byte));
        if !is_readable {
            endpoint.wrong("address", "is a host name or an IP address");
        } else if !addresses.insert(plain) {
            // Two ports of one address are one endpoint.
            endpoint.wrong("address", "is in the pool already");
        } else if let Err(why) = known.address(address) {
            endpoint.wrong("address", why);
        }
    }
    endpoint.number("port", 0..=65_535);
    endpoint.flag_or("enabled", true);
    if endpoint.value("weight").is_none() {
        endpoint.keep("weight", 1);
    }
    endpoint.weight("weight");
    endpoint.text("virtual_network_id", LONGEST_ID);
    endpoint.flag("flatten_cname");
    let address = endpoint.value("address").and_then(Value::as_str).unwrap_or_default().to_owned();
    endpoint.object("header", |header| {
        let hosts = header.texts("Host", 1, LONGEST_NAME);
        let Some(host) = hosts.first() else { return };
        let fits = HeaderValue::from_str(host).is_ok() && adit_address::host(host).is_ok();
        if !fits || !(known.owns(host) || host.eq_ignore_ascii_case(&address)) {
            header.wrong("Host", "is a name below a zone of this account, or the address of the endpoint");
        }
    });
}

/// Both of them, or none.
fn place(fields: &mut Fields<'_>) {
    fields.decimal("latitude", -90.0..=90.0);
    fields.decimal("longitude", -180.0..=180.0);
    for (name, other) in [("latitude", "longitude"), ("longitude", "latitude")] {
        if fields.value(name).is_some() && fields.value(other).is_none() {
            fields.wrong(other, &format!("is wanted beside `{name}`"));
        }
    }
}

/// What a pool says that is kept and not done.
pub(super) fn without_effect(pool: &Object, own_domain: Option<&str>) -> Vec<String> {
    let mut lines = Vec::new();
    let is_plain = |address: &str| tunnel_of(address, own_domain).is_none();
    let mut addresses = pool.endpoints().filter_map(|endpoint| endpoint.get("address")?.as_str());
    if let Some(plain) = addresses.find(|address| is_plain(address)) {
        lines.push(format!("`{plain}` is not the name of a tunnel: it is kept, and gets no requests yet"));
    }
    let is_said = |name: &str| pool.said.get(name).is_some_and(|value| !value.is_null());
    if is_said("load_shedding") {
        lines.push("`load_shedding` is kept and has no effect yet".to_owned());
    }
    if is_said("notification_filter") || pool.text("notification_email").is_some_and(|text| !text.is_empty())
    {
        lines.push(
            "`notification_filter` and `notification_email` are kept and have no effect yet".to_owned(),
        );
    }
    lines
}

fn is_pool_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

const LONGEST_POOL_NAME: usize = 256;
pub(super) const MOST_ENDPOINTS: usize = 100;
/// The last one is our own.
const POLICIES: [&str; 5] =
    ["random", "hash", "least_outstanding_requests", "least_connections", "peak_ewma"];
pub(in crate::api::balancing) const REGIONS: [&str; 14] = [
    "WNAM",
    "ENAM",
    "WEU",
    "EEU",
    "NSAM",
    "SSAM",
    "OC",
    "ME",
    "NAF",
    "SAF",
    "SAS",
    "SEAS",
    "NEAS",
    "ALL_REGIONS",
];
