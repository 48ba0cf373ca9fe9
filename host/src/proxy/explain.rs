//! What would become of a request, without sending it: the same steps as for a real one, up to the origin.

use adit_engine::RequestOutcome;
use http::request;
use serde_json::{Value, json};

use super::request::{cut_path_headers, remove_hop_by_hop, route};
use super::{CONNECTING_IP, HeaderValue, RequestContext, Tags, client_ip, scheme};
use crate::generation::{Backend, Generation};

/// The rule, the plugins and what they do, the origin and what it would be sent, as a running generation
/// treats it. `runs_plugins`: their request phases really run, with all that they do besides.
pub async fn explain(
    generation: &Generation,
    mut head: request::Parts,
    tags: &Tags,
    runs_plugins: bool,
) -> Value {
    let asked = RequestContext::of(&head);
    let client = head.headers.get(&CONNECTING_IP).cloned();
    let (client_ip, scheme) = (client_ip(client.as_ref()), scheme(&head));
    let rule = match route(generation, &head) {
        Ok(rule) => rule,
        Err(trouble) => {
            return json!({ "generation": generation.number, "rule": null, "refused": trouble.to_string() });
        }
    };
    remove_hop_by_hop(&mut head.headers);
    if !rule.passes_path_headers {
        cut_path_headers(&mut head.headers);
    }
    let index = generation.rules().iter().position(|known| std::ptr::eq(known, rule));
    let mut outcome = json!("not asked");
    let mut reply = Value::Null;
    if runs_plugins {
        let facts = adit_engine::Facts { id: &asked.id, client_ip, scheme, stopwatch: None, exchange: None };
        outcome = match rule.chain.on_request(0, &facts, &mut head).await {
            RequestOutcome::Continue(_) => json!("passed"),
            RequestOutcome::Respond(answer, _) => {
                reply = json!({ "status": answer.status, "headers": pairs(&answer.headers) });
                json!("answered")
            }
            RequestOutcome::Failed(failure) => {
                json!({ "failed": failure.plugin, "why": failure.to_string() })
            }
        };
    }
    tags.put_into(&mut head.headers);
    let (head, origin) = match &rule.backend {
        Backend::Origin(origin, _) => {
            let name = origin.explained(&head.headers);
            (origin.addressed(head), name)
        }
        Backend::Component(plugin) => (head, format!("wasm:{}", plugin.name())),
    };
    json!({
        "generation": generation.number,
        "rule": { "number": index, "name": rule.name },
        "plugins": rule.chain.names(),
        "outcome": outcome,
        "reply": reply,
        "origin": origin,
        "request": {
            "method": head.method.as_str(),
            "target": head.uri.to_string(),
            "headers": pairs(&head.headers),
        },
    })
}

fn pairs(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}
