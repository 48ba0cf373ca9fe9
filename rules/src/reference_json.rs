//! The rules that serve in the reference's form, without secrets: short as the edge is told them (wire.md,
//! 9.4), and whole as whoever asks this host is shown them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::plan::{HostPattern, Http2, IpRule, OriginPlan, PathHeaders, Paths, Plan, Reach};

/// What the edge is told about a local configuration, JSON.
pub fn of(plan: &Plan) -> Vec<u8> {
    let rules: Vec<Value> = plan
        .rules
        .iter()
        .map(|rule| {
            let mut entry = Map::new();
            match &rule.hostname {
                HostPattern::Any => {}
                HostPattern::Exact(name) => drop(entry.insert("hostname".into(), json!(name))),
                HostPattern::Wildcard(suffix) => {
                    drop(entry.insert("hostname".into(), json!(format!("*{suffix}"))))
                }
            }
            if let Some(path) = &rule.path {
                entry.insert("path".into(), json!(path.as_str()));
            }
            // Keys of ours stand only where they say something.
            if rule.paths == Paths::AsSent {
                entry.insert("paths".into(), json!("as-sent"));
            }
            if rule.path_headers == PathHeaders::AsSent {
                entry.insert("pathHeaders".into(), json!("as-sent"));
            }
            entry.insert("service".into(), json!(rule.service.text(|index| &plan.plugins[index].name)));
            entry.insert("originRequest".into(), difference(&rule.origin));
            Value::Object(entry)
        })
        .collect();
    json!({ "__configuration_flags": {}, "ingress": rules, "warp-routing": {} }).to_string().into_bytes()
}

/// The same with every default, and the version of what the edge has pushed.
pub fn whole(report: &[u8], version: i32) -> Value {
    let mut report: Value = serde_json::from_slice(report).unwrap_or_default();
    let defaults = everything(&OriginPlan::default());
    let mut rules = report["ingress"].take();
    for rule in rules.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        rule.entry("hostname").or_insert(json!(""));
        rule.entry("path").or_insert(Value::Null);
        // What stands in front of a rule is a plugin here, and never what the reference lists.
        rule.entry("Handlers").or_insert(Value::Null);
        let mut origin = defaults.clone();
        if let Some(Value::Object(written)) = rule.remove("originRequest") {
            origin.extend(written);
        }
        rule.insert("originRequest".to_owned(), origin.into());
    }
    let config = json!({ "ingress": rules, "warp-routing": {}, "originRequest": defaults });
    json!({ "version": version, "config": config })
}

/// What is not as it is where nothing is written.
fn difference(origin: &OriginPlan) -> Value {
    let defaults = everything(&OriginPlan::default());
    let written = everything(origin);
    written.into_iter().filter(|(key, value)| defaults.get(key) != Some(value)).collect::<Map<_, _>>().into()
}

/// As the reference's own program shows it, also for what there is none of here.
fn everything(origin: &OriginPlan) -> Map<String, Value> {
    let OriginPlan {
        connect_timeout,
        tls_timeout,
        keep_alive_timeout,
        keep_alive_connections,
        tls_verify,
        ca_file,
        server_name,
        server_name_from_host,
        http2,
        chunked,
        tcp_keep_alive,
        happy_eyeballs,
        host_header,
        // The reference has nothing like it.
        response_timeout: _,
        idle_timeout: _,
        reach,
        header_case: _,
    } = origin;
    let page = json!({
        "connectTimeout": seconds(*connect_timeout),
        "tlsTimeout": seconds(*tls_timeout),
        "tcpKeepAlive": seconds(tcp_keep_alive.unwrap_or_default()),
        "noHappyEyeballs": !happy_eyeballs,
        "keepAliveTimeout": seconds(*keep_alive_timeout),
        "keepAliveConnections": keep_alive_connections,
        "httpHostHeader": host_header.as_deref().unwrap_or_default(),
        "originServerName": server_name.as_deref().unwrap_or_default(),
        "matchSNItoHost": server_name_from_host,
        "caPool": ca_file.as_deref().map(|path| path.to_string_lossy()).unwrap_or_default(),
        "noTLSVerify": !tls_verify,
        "disableChunkedEncoding": !chunked,
        "bastionMode": false,
        "proxyAddress": "127.0.0.1",
        "proxyPort": 0,
        "proxyType": "",
        "ipRules": ip_rules(reach),
        "http2Origin": *http2 != Http2::Never,
        "access": { "teamName": "", "audTag": null },
    });
    let Value::Object(page) = page else { return Map::new() };
    page
}

fn ip_rules(reach: &Reach) -> Value {
    let rules = reach.first();
    if rules.is_empty() {
        return Value::Null;
    }
    let one = |rule: &IpRule| json!({ "prefix": rule.network.to_string(), "ports": rule.ports, "allow": rule.allow });
    rules.iter().map(one).collect()
}

/// Whole ones without a fraction, as readers of the form expect them.
fn seconds(time: Duration) -> Value {
    match time.subsec_nanos() {
        0 => json!(time.as_secs()),
        _ => json!(time.as_secs_f64()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;

    #[test]
    fn the_edge_is_told_what_is_written_and_who_asks_is_shown_all() {
        let plan = plan(
            "[[ingress]]\nhostname = \"*.example.com\"\npath = \"^/x\"\nservice = \"https://app:8443\"\n\
             [ingress.origin]\nhttp2 = \"if-offered\"\ntls-verify = false\nconnect-timeout = \"1500ms\"\n\
             tls-timeout = \"10s\"\n[[ingress]]\nservice = \"http_status:404\"\n",
        );
        let report = of(&plan);
        let told: Value = serde_json::from_slice(&report).unwrap();
        let written = json!({ "connectTimeout": 1.5, "noTLSVerify": true, "http2Origin": true });
        let first = json!({ "hostname": "*.example.com", "path": "^/x", "service": "https://app:8443", "originRequest": written });
        let last = json!({ "service": "http_status:404", "originRequest": {} });
        assert_eq!(told["ingress"], json!([first, last]));

        let shown = whole(&report, 7);
        let [first, last] = shown["config"]["ingress"].as_array().unwrap().as_slice() else { panic!("two") };
        assert_eq!((&shown["version"], &first["hostname"]), (&json!(7), &json!("*.example.com")));
        let origin = &first["originRequest"];
        assert_eq!((&origin["connectTimeout"], &origin["tlsTimeout"]), (&json!(1.5), &json!(10)));
        assert_eq!((&last["hostname"], &last["path"]), (&json!(""), &Value::Null));
        assert_eq!(last.get("Handlers"), Some(&Value::Null));
        assert_eq!(last["originRequest"], shown["config"]["originRequest"]);
        assert_eq!(last["originRequest"]["keepAliveTimeout"], json!(90));
    }

    #[test]
    fn what_is_ours_alone_is_told_where_it_is_written() {
        let plan = plan(
            "[[ingress]]\nservice = \"http_status:404\"\npaths = \"as-sent\"\npath-headers = \"as-sent\"\n",
        );
        let told: Value = serde_json::from_slice(&of(&plan)).unwrap();
        let rule = &told["ingress"][0];
        assert_eq!((&rule["paths"], &rule["pathHeaders"]), (&json!("as-sent"), &json!("as-sent")));
    }
}
