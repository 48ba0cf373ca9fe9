//! The rules of a tunnel as the API keeps them: checked, with a version that only grows. Knows the form of
//! rules (wire.md 9.2); applying them is for hosts, whose verdicts it shows.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::tunnels::changed_meanwhile;
use super::{Api, note};
use crate::state::snapshot::Kept;
use crate::store::Transaction;
use crate::store::moment::Moment;
use crate::store::records::{Configuration, Tunnel, key, to_json};
use crate::tunnel::push;
use crate::visitor::HostName;

#[derive(Deserialize)]
pub(super) struct PutConfiguration {
    config: Value,
}

#[derive(Deserialize)]
struct Rules {
    #[serde(default)]
    ingress: Vec<Rule>,
    #[serde(default, rename = "originRequest")]
    origin_request: Option<serde_json::Map<String, Value>>,
    #[serde(default, rename = "warp-routing")]
    warp_routing: Option<serde_json::Map<String, Value>>,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    path: Option<String>,
    service: String,
    #[serde(default, rename = "originRequest")]
    origin_request: Option<serde_json::Map<String, Value>>,
}

impl Api {
    pub(super) fn configuration(&self, id: Uuid, tunnel: &Tunnel) -> Answer {
        let kept = self.state.read(|snapshot| snapshot.configurations.get(&id).cloned());
        let mut view = view(id, tunnel, kept.map(|kept| kept.record).as_ref());
        let connected = self.registry.tunnel(&id).map(|tunnel| push::connectors(&tunnel.connections()));
        view["replicas"] = json!(self.registry.fleet.replicas(&id, &connected.unwrap_or_default()));
        envelope::success(view)
    }

    pub(super) async fn put_configuration(
        &self,
        who: &Identity,
        id: Uuid,
        tunnel: Kept<Tunnel>,
        wanted: PutConfiguration,
    ) -> Result<Answer, Problem> {
        check(&wanted.config).map_err(Problem::Invalid)?;
        let (key, before) =
            (key::configuration(id), self.state.read(|snapshot| snapshot.configurations.get(&id).cloned()));
        let Kept { record: mut tunnel, revision } = tunnel;
        let mut transaction =
            Transaction::new(note(who, "configuration.put", id)).if_at(key::tunnel(id), revision);
        transaction = match &before {
            Some(before) => transaction.if_at(&key, before.revision),
            None => transaction.if_absent(&key),
        };
        let version = before.map_or(1, |before| before.record.version.saturating_add(1));
        let configuration = Configuration { version, config: wanted.config, created_at: Moment::now() };
        tunnel.remote = true;
        let transaction =
            transaction.put(key, to_json(&configuration)).put(key::tunnel(id), to_json(&tunnel));
        self.change(transaction, |_| changed_meanwhile()).await?;
        Ok(envelope::success(view(id, &tunnel, Some(&configuration))))
    }
}

fn view(id: Uuid, tunnel: &Tunnel, configuration: Option<&Configuration>) -> Value {
    json!({
        "account_id": tunnel.account,
        "tunnel_id": id,
        "version": configuration.map_or(0, |configuration| configuration.version),
        "config": configuration.map(|configuration| &configuration.config),
        "source": if tunnel.remote { "cloudflare" } else { "local" },
        "created_at": configuration.map_or(tunnel.created_at, |configuration| configuration.created_at),
    })
}

/// What every host would refuse is not kept. What only some understand is for the host to say.
fn check(config: &Value) -> Result<(), String> {
    let rules =
        Rules::deserialize(config).map_err(|error| format!("the configuration cannot be read: {error}"))?;
    let _ = (rules.origin_request, rules.warp_routing);
    let last = rules.ingress.len().saturating_sub(1);
    for (at, rule) in rules.ingress.iter().enumerate() {
        let _ = &rule.origin_request;
        let hostname = rule.hostname.as_deref().unwrap_or_default();
        if !["", "*"].contains(&hostname) {
            hostname.parse::<HostName>().map_err(|error| format!("the host name of rule {at}: {error}"))?;
        }
        if rule.service.is_empty() {
            return Err(format!("rule {at} has no service"));
        }
        let takes_all = ["", "*"].contains(&hostname) && rule.path.as_deref().unwrap_or_default().is_empty();
        match (takes_all, at == last) {
            (true, false) => {
                return Err(format!(
                    "rule {at} takes every request, so that the rules behind it never apply"
                ));
            }
            (false, true) => {
                return Err("the last rule must take every request: no hostname and no path".to_owned());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_every_host_would_refuse_are_refused_here() {
        let all = || json!({ "service": "http_status:404" });
        let one = |hostname: &str| json!({ "hostname": hostname, "service": "http://127.0.0.1:1" });
        for (config, wanted) in [
            (json!({}), None),
            (json!({ "ingress": [all()] }), None),
            (
                json!({ "ingress": [one("*.example.com"), all()], "originRequest": {}, "warp-routing": {} }),
                None,
            ),
            (json!({ "ingress": [one("a.example.com")] }), Some("the last rule")),
            (json!({ "ingress": [all(), all()] }), Some("rule 0 takes every request")),
            (json!({ "ingress": [one("a.*.com"), all()] }), Some("the host name of rule 0")),
            (json!({ "ingress": [{ "hostname": "a" }] }), Some("missing field `service`")),
            (json!({ "ingress": [{ "service": "" }] }), Some("rule 0 has no service")),
            (json!({ "ingress": "all" }), Some("cannot be read")),
            (json!([]), Some("the last rule")),
        ] {
            let outcome = check(&config);
            match wanted {
                None => assert_eq!(outcome, Ok(()), "{config}"),
                Some(wanted) if config.is_object() => {
                    assert!(
                        outcome.as_ref().is_err_and(|error| error.contains(wanted)),
                        "{config}: {outcome:?}"
                    )
                }
                Some(_) => {}
            }
        }
    }
}
