//! Monitors and their groups.

use http::header::HeaderName;
use serde_json::Value;

use super::{Known, LONGEST_ID, LONGEST_NAME, LONGEST_TEXT};
use crate::api::balancing::fields::Fields;
use crate::store::records::objects::{Kind, Object};

pub(super) fn monitor(fields: &mut Fields<'_>) {
    let kind = fields.one_of_or("type", &TYPES, "http");
    let is_http = matches!(kind, Some("http" | "https"));
    fields.text_or("description", LONGEST_TEXT, "");
    let method = if is_http { "GET" } else { "connection_established" };
    if let Some(method) = fields.text_or("method", 32, method)
        && is_http
        && !["GET", "HEAD"].contains(&method)
    {
        fields.wrong("method", "is `GET` or `HEAD`");
    }
    if let Some(path) = fields.text_or("path", LONGEST_TEXT, "/")
        && is_http
        && !(path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()))
    {
        fields.wrong("path", "begins with `/` and has no blanks");
    }
    let port = fields.number_or("port", 0..=65_535, 0);
    if !is_http && kind != Some("icmp_ping") && kind.is_some() && port == Some(0) {
        fields.wrong("port", "is wanted for a monitor of this type");
    }
    let interval = fields.number_or("interval", SHORTEST_INTERVAL..=LONGEST_INTERVAL, 60);
    let timeout = fields.number_or("timeout", 1..=60, 5);
    let retries = fields.number_or("retries", 0..=5, 2);
    if let (Some(interval), Some(timeout), Some(retries)) = (interval, timeout, retries)
        && timeout * (retries + 1) > interval
    {
        fields
            .wrong("interval", "is at least as long as all attempts together, `timeout` times `retries` + 1");
    }
    fields.number_or("consecutive_up", 0..=100, 0);
    fields.number_or("consecutive_down", 0..=100, 0);
    if let Some(codes) = fields.text_or("expected_codes", 256, "")
        && !codes.is_empty()
        && !codes.split(',').all(|code| are_codes(code.trim()))
    {
        fields
            .wrong("expected_codes", "has codes such as `200`, `2xx` or `200-204`, with commas between them");
    }
    fields.text_or("expected_body", LONGEST_TEXT, "");
    fields.flag_or("follow_redirects", false);
    fields.flag_or("allow_insecure", false);
    fields.text_or("probe_zone", LONGEST_NAME, "");
    for (name, values) in fields.map("header", 20) {
        let are_texts = values.as_array().is_some_and(|values| {
            values.len() <= 20
                && values.iter().all(|value| value.as_str().is_some_and(|text| text.len() <= LONGEST_TEXT))
        });
        if name.parse::<HeaderName>().is_err() || !are_texts {
            fields.wrong("header", "has names of headers, each with a list of values");
        } else if name.eq_ignore_ascii_case("user-agent") {
            fields.wrong("header", "cannot say `User-Agent`, by which services know monitors");
        }
    }
    if fields.value("header").is_none() {
        fields.keep("header", Value::Object(serde_json::Map::new()));
    }
}

pub(super) fn group(fields: &mut Fields<'_>, known: &mut dyn Known) {
    fields.wanted("description");
    fields.text("description", LONGEST_TEXT);
    fields.wanted("members");
    let count = fields.objects("members", MOST_MEMBERS, |member| {
        member.wanted("monitor_id");
        if let Some(id) = member.text("monitor_id", LONGEST_ID)
            && !known.has(Kind::Monitor, id)
        {
            member.wrong("monitor_id", "names a monitor that is not there");
        }
        for name in ["enabled", "must_be_healthy", "monitoring_only"] {
            member.wanted(name);
            member.flag(name);
        }
    });
    if count == Some(0) {
        fields.wrong("members", "has at least one member");
    }
}

/// What a monitor says that is kept and not done.
pub(super) fn without_effect(monitor: &Object) -> Vec<String> {
    let kind = monitor.text("type").unwrap_or("http");
    if !["http", "https", "tcp"].contains(&kind) {
        return vec![format!("a monitor of the type {kind} asks nothing: its word has no effect")];
    }
    let mut lines = Vec::new();
    if kind != "tcp" && monitor.said.get("port").and_then(Value::as_u64).is_some_and(|port| port > 0) {
        lines.push("`port` has no effect: the host's rules say where a service is".to_owned());
    }
    if monitor.said.get("allow_insecure") == Some(&Value::Bool(true)) {
        lines.push(
            "`allow_insecure` has no effect: the host's rules say which certificates it takes".to_owned(),
        );
    }
    if monitor.text("probe_zone").is_some_and(|zone| !zone.is_empty()) {
        lines.push("`probe_zone` has no effect".to_owned());
    }
    lines
}

/// `200`, `2xx` or `200-204`.
fn are_codes(text: &str) -> bool {
    let is_code =
        |text: &str| text.len() == 3 && text.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
    let is_class =
        text.len() == 3 && text.ends_with("xx") && text.starts_with(|first| ('1'..='5').contains(&first));
    is_class
        || is_code(text)
        || text.split_once('-').is_some_and(|(one, other)| is_code(one) && is_code(other))
}

const TYPES: [&str; 6] = ["http", "https", "tcp", "udp_icmp", "icmp_ping", "smtp"];
/// Seconds.
const SHORTEST_INTERVAL: u32 = 1;
const LONGEST_INTERVAL: u32 = 3_600;
const MOST_MEMBERS: usize = 10;
