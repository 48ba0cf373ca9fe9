//! The objects of load balancing and of alerts as they are kept: what was said of each, word for word, and what the edge notes
//! beside it. Knows kinds and keys; does not know which fields an object has.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::store::timestamp::Timestamp;

/// What kind of object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Monitor,
    MonitorGroup,
    Pool,
    Balancer,
    /// Where alerts are sent.
    Webhook,
    /// Which alerts are sent where.
    Policy,
}

/// One object. Its id is in its key, and is not used again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Object {
    pub(crate) account: String,
    /// Of a load balancer: the zone that its name is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<String>,
    /// By which it is found: a pool's name, or the host name of a load balancer as visitors ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// With what goes without saying.
    pub(crate) said: Map<String, Value>,
    pub(crate) created_at: Timestamp,
    pub(crate) modified_at: Timestamp,
    /// Who changed it last, as the audit log says it.
    pub(crate) modified_by: String,
    /// Since when the endpoints of a pool are disabled, by address, and, as an empty one, the pool itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) disabled_at: BTreeMap<String, Timestamp>,
    /// Of a webhook: what its messages are signed with, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) secrets: Vec<Secret>,
}

/// A secret that is shown to nobody.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret {
    pub(crate) text: String,
    /// For one that was replaced: messages are signed with it as well until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Timestamp>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Monitor, Self::MonitorGroup, Self::Pool, Self::Balancer, Self::Webhook, Self::Policy];

    /// Whether what visitors get depends on it.
    pub(crate) fn is_served(self) -> bool {
        !matches!(self, Self::Webhook | Self::Policy)
    }

    /// Where objects of this kind are kept.
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Monitor => "monitor/",
            Self::MonitorGroup => "monitor-group/",
            Self::Pool => "pool/",
            Self::Balancer => "balancer/",
            Self::Webhook => "webhook/",
            Self::Policy => "alert-policy/",
        }
    }

    pub(crate) fn key(self, id: &str) -> String {
        format!("{}{id}", self.prefix())
    }

    /// As people call it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Monitor => "monitor",
            Self::MonitorGroup => "monitor group",
            Self::Pool => "pool",
            Self::Balancer => "load balancer",
            Self::Webhook => "webhook",
            Self::Policy => "notification policy",
        }
    }
}

impl Object {
    /// Holds the id of the one object that has this name.
    pub(crate) fn name_key(&self, kind: Kind) -> Option<String> {
        let name = self.name.as_ref()?;
        match kind {
            Kind::Pool => Some(format!("pool-name/{}/{name}", self.account)),
            Kind::Balancer => Some(format!("balancer-name/{name}")),
            Kind::Monitor | Kind::MonitorGroup | Kind::Webhook | Kind::Policy => None,
        }
    }

    /// What is said under this name, if it is a text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.said.get(name)?.as_str()
    }

    /// Whether it is not switched off.
    pub(crate) fn is_enabled(&self) -> bool {
        self.said.get("enabled") != Some(&Value::Bool(false))
    }

    /// Whether a load balancer keeps sessions, or a rule of it does.
    pub(crate) fn has_sessions(&self) -> bool {
        let keeps = |said: &Map<String, Value>| {
            said.get("session_affinity").and_then(Value::as_str).is_some_and(|by| by != "none")
        };
        let rules = self.said.get("rules").and_then(Value::as_array).into_iter().flatten();
        let mut overrides = rules.filter_map(|rule| rule.get("overrides")?.as_object());
        keeps(&self.said) || overrides.any(keeps)
    }

    /// The endpoints of a pool, as they are said.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Map<String, Value>> {
        let said = self.said.get("origins").and_then(Value::as_array);
        said.into_iter().flatten().filter_map(Value::as_object)
    }
}

/// Changes whenever an object of the account does, so that objects that name each other are changed one at a time.
pub(crate) fn turn_key(account: &str) -> String {
    format!("{TURN}{account}")
}

/// The tunnel that an endpoint's address names: `ID.DOMAIN` with the edge's own domain, or the one that tools of
/// the reference write. One tunnel has one spelling of its id.
pub(crate) fn tunnel_of(address: &str, own_domain: Option<&str>) -> Option<(Uuid, bool)> {
    let address = address.strip_suffix('.').unwrap_or(address).to_ascii_lowercase();
    let (tunnel, domain) = address.split_once('.')?;
    let by_reference = domain == REFERENCE;
    if !by_reference && own_domain.is_none_or(|own| !own.eq_ignore_ascii_case(domain)) {
        return None;
    }
    let id: Uuid = tunnel.parse().ok().filter(|id: &Uuid| id.hyphenated().to_string() == tunnel)?;
    Some((id, by_reference))
}

pub(crate) const TURN: &str = "balancing/";
/// The domain of all tunnels at the reference, which its tools write whatever edge they speak to.
pub(crate) const REFERENCE: &str = "cfargotunnel.com";
