//! What the edge is told about a local configuration (wire.md, 9.4): the rules, without secrets.

use serde_json::{Map, Value, json};

use crate::config::plan::{HostPattern, Plan, Service};

/// The report as JSON bytes.
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
            entry.insert("service".into(), json!(service(&rule.service, plan)));
            let origin = if rule.origin.http2 { json!({ "http2Origin": true }) } else { json!({}) };
            entry.insert("originRequest".into(), origin);
            Value::Object(entry)
        })
        .collect();
    json!({ "__configuration_flags": {}, "ingress": rules, "warp-routing": {} }).to_string().into_bytes()
}

fn service(service: &Service, plan: &Plan) -> String {
    match service {
        Service::Http { authority } => format!("http://{authority}"),
        Service::Https { authority } => format!("https://{authority}"),
        Service::Unix { path } => format!("unix:{}", path.display()),
        Service::Status(status) => format!("http_status:{}", status.as_u16()),
        Service::HelloWorld => "hello_world".into(),
        Service::Component(index) => format!("wasm:{}", plan.plugins[*index].name),
    }
}
