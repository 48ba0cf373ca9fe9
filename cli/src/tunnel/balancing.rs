//! `adit lb`, `adit pool` and `adit monitor`: load balancing by people. Each command is one or two calls of the
//! control API, and says what the API says about them. Knows names; ids are for the API.

mod lb;
mod monitor;
mod pool;

use std::io::Write;

use anyhow::{Context, anyhow, ensure};
use clap::ValueEnum;
use http::Method;
use serde_json::{Value, json};

use super::At;
use super::client::Client;
use crate::Failure;

pub(crate) use lb::{Lb, lb};
pub(crate) use monitor::{Monitor, monitor};
pub(crate) use pool::{Pool, pool};

/// A client that says what the API says.
struct Caller(Client);

impl Caller {
    fn new(at: At) -> Result<Self, Failure> {
        Client::new(&at.options()).map(Self).map_err(Failure::Configuration)
    }

    async fn call(
        &self,
        what: &'static str,
        method: Method,
        zone: Option<&str>,
        rest: &str,
        body: Option<Value>,
    ) -> anyhow::Result<Value> {
        let (result, messages) = self.0.balancing(what, method, zone, rest, body.as_ref()).await?;
        for line in messages {
            // Not `eprintln!`, which panics when nobody reads.
            let _ = writeln!(std::io::stderr(), "adit: note: {line}");
        }
        Ok(result)
    }

    async fn list(&self, kind: &'static str, zone: Option<&str>) -> anyhow::Result<Vec<Value>> {
        self.0.objects(zone, kind).await
    }

    async fn pools(&self) -> anyhow::Result<Vec<Value>> {
        self.list("/pools", None).await
    }

    /// Each load balancer with the id of its zone.
    async fn balancers(&self) -> anyhow::Result<Vec<(String, Value)>> {
        let mut all = Vec::new();
        for zone in self.0.zones().await? {
            let zone = text(&zone, "id").to_owned();
            let found = self.list("", Some(&zone)).await?;
            all.extend(found.into_iter().map(|balancer| (zone.clone(), balancer)));
        }
        Ok(all)
    }

    async fn balancer(&self, name: &str) -> anyhow::Result<(String, Value)> {
        let wanted = name.trim_end_matches('.').to_ascii_lowercase();
        let found = self.balancers().await?.into_iter().find(|(_, one)| text(one, "name") == wanted);
        found.with_context(|| {
            format!("there is no load balancer `{name}`; `adit lb list` shows those that are")
        })
    }

    async fn pool(&self, name: &str) -> anyhow::Result<Value> {
        let found = self.pools().await?.into_iter().find(|pool| text(pool, "name") == name);
        found.with_context(|| format!("there is no pool `{name}`; `adit pool list` shows those that are"))
    }

    /// The ids of pools, all names that are not there said at once.
    async fn pool_ids(&self, names: &[String]) -> anyhow::Result<Vec<Value>> {
        let pools = self.pools().await?;
        let (mut ids, mut missing) = (Vec::new(), Vec::new());
        for name in names {
            match pools.iter().find(|pool| text(pool, "name") == name) {
                Some(pool) => ids.push(pool["id"].clone()),
                None => missing.push(format!("`{name}`")),
            }
        }
        ensure!(
            missing.is_empty(),
            "there is no pool {}; `adit pool list` shows those that are",
            missing.join(", ")
        );
        Ok(ids)
    }

    /// The zone that a host name is in: the one with the longest name that it ends with.
    async fn zone_of(&self, host: &str) -> anyhow::Result<String> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let bare = host.strip_prefix("*.").unwrap_or(&host);
        let zones = self.0.zones().await?;
        let is_of = |zone: &&Value| {
            let rest = bare.strip_suffix(text(zone, "name"));
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let found = zones.iter().filter(is_of).max_by_key(|zone| text(zone, "name").len());
        let found = found.with_context(|| format!("`{host}` is in no zone of this account"))?;
        Ok(text(found, "id").to_owned())
    }

    /// An endpoint for each `TUNNEL[=WEIGHT]`.
    async fn endpoints(&self, tunnels: &[String]) -> anyhow::Result<Vec<Value>> {
        let mut endpoints = Vec::new();
        for said in tunnels {
            let (tunnel, weight) = match said.rsplit_once('=') {
                Some((tunnel, weight)) => {
                    let weight: f64 = weight
                        .parse()
                        .map_err(|_| anyhow!("`{weight}` is no weight: a number from 0 to 1"))?;
                    (tunnel, Some(weight))
                }
                None => (said.as_str(), None),
            };
            let id = self.0.find(tunnel).await?;
            endpoints.push(json!({
                "name": tunnel, "address": format!("{id}.{DOMAIN}"), "weight": weight.unwrap_or(1.0),
            }));
        }
        Ok(endpoints)
    }
}

/// As people know an endpoint.
fn label(endpoint: &Value) -> &str {
    let name = endpoint["tunnel_name"].as_str().unwrap_or_else(|| text(endpoint, "name"));
    if name.is_empty() { text(endpoint, "address") } else { name }
}

fn yes(flag: &Value) -> String {
    if flag == true { "yes" } else { "no" }.to_owned()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// As the API writes it.
fn word(value: impl ValueEnum) -> String {
    let name = value.to_possible_value().map(|value| value.get_name().replace('-', "_"));
    name.unwrap_or_default()
}

/// Before which every edge knows its tunnels by their ids.
const DOMAIN: &str = "cfargotunnel.com";
