//! Objects of load balancing as every answer shows them: what was said, word for word, and what the edge adds.

use serde_json::{Map, Value, json};

use crate::store::records::objects::{Kind, Object};

/// The object with its id and times.
pub(super) fn of(kind: Kind, id: &str, object: &Object, zone_name: Option<&str>) -> Value {
    let mut shown = object.said.clone();
    let mut add = |name: &str, value: Value| drop(shown.insert(name.to_owned(), value));
    add("id", id.into());
    add("created_on", json!(object.created_at));
    add("modified_on", json!(object.modified_at));
    match kind {
        // Those of alerts are shown by `alerting`.
        Kind::Monitor | Kind::Webhook | Kind::Policy => {}
        Kind::MonitorGroup => {
            // The SDKs read these, the provider the others.
            add("created_at", json!(object.created_at));
            add("updated_at", json!(object.modified_at));
        }
        Kind::Pool => {
            add("networks", json!(["cloudflare"]));
            if let Some(since) = object.disabled_at.get("") {
                add("disabled_at", json!(since));
            }
            if let Some(Value::Array(endpoints)) = shown.get_mut("origins") {
                endpoints
                    .iter_mut()
                    .filter_map(Value::as_object_mut)
                    .for_each(|endpoint| since(endpoint, object));
            }
        }
        Kind::Balancer => {
            if let Some(zone) = zone_name {
                add("zone_name", zone.into());
            }
        }
    }
    Value::Object(shown)
}

/// What lists of references call an object.
pub(super) fn name_of(kind: Kind, object: &Object) -> &str {
    match kind {
        Kind::Pool | Kind::Balancer | Kind::Webhook | Kind::Policy => object.text("name").unwrap_or_default(),
        Kind::Monitor | Kind::MonitorGroup => object.text("description").unwrap_or_default(),
    }
}

/// The monitors of a group.
pub(super) fn members(group: &Object) -> impl Iterator<Item = &str> {
    let said = group.said.get("members").and_then(Value::as_array);
    said.into_iter().flatten().filter_map(|member| member.get("monitor_id")?.as_str())
}

fn since(endpoint: &mut Map<String, Value>, pool: &Object) {
    let address = endpoint.get("address").and_then(Value::as_str).unwrap_or_default();
    if let Some(since) = pool.disabled_at.get(address).filter(|_| !address.is_empty()) {
        endpoint.insert("disabled_at".to_owned(), json!(since));
    }
}
