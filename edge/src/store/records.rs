//! The records of an edge: their keys and their JSON. Knows what is kept; does not know who may see it. Those of load
//! balancing are in `objects` and `sessions`, what is noted about alerts is in `alerts`, what
//! authorities have issued in `certificates`, the nodes of a fleet in `nodes`, what management tokens are signed with in
//! `management`.

pub(crate) mod alerts;
pub(crate) mod certificates;
pub(crate) mod management;
pub(crate) mod nodes;
pub(crate) mod objects;
pub(crate) mod sessions;

use std::collections::BTreeMap;
use std::time::Duration;

use adit_protocol::credentials::{Credentials, TunnelSecret};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::store::timestamp::Timestamp;

/// Where each kind of record is kept.
pub(crate) mod key {
    use uuid::Uuid;

    pub(crate) const ACCOUNT: &str = "account/";
    pub(crate) const ZONE: &str = "zone/";
    pub(crate) const ZONE_NAME: &str = "zone-name/";
    pub(crate) const TUNNEL: &str = "tunnel/";
    pub(crate) const TUNNEL_NAME: &str = "tunnel-name/";
    pub(crate) const ROUTE: &str = "route/";
    pub(crate) const TOKEN: &str = "token/";
    pub(crate) const CONFIGURATION: &str = "configuration/";
    pub(crate) const SEEN: &str = "seen/";
    pub(crate) const REPLICA: &str = "replica/";
    pub(crate) const SESSIONS: &str = "sessions/";
    /// There is one for all load balancers.
    pub(crate) const SESSION_KEYS: &str = "sessions/keys";

    pub(crate) fn account(id: &str) -> String {
        format!("{ACCOUNT}{id}")
    }

    pub(crate) fn zone(id: &str) -> String {
        format!("{ZONE}{id}")
    }

    pub(crate) fn zone_name(name: &str) -> String {
        format!("{ZONE_NAME}{name}")
    }

    pub(crate) fn tunnel(id: Uuid) -> String {
        format!("{TUNNEL}{id}")
    }

    /// Holds the id of the one living tunnel of this name.
    pub(crate) fn tunnel_name(account: &str, name: &str) -> String {
        format!("{TUNNEL_NAME}{account}/{name}")
    }

    pub(crate) fn route(hostname: &str) -> String {
        format!("{ROUTE}{hostname}")
    }

    pub(crate) fn token(id: &str) -> String {
        format!("{TOKEN}{id}")
    }

    pub(crate) fn configuration(tunnel: Uuid) -> String {
        format!("{CONFIGURATION}{tunnel}")
    }

    pub(crate) fn replica(tunnel: Uuid, connector: Uuid) -> String {
        format!("{REPLICA}{tunnel}/{connector}")
    }

    pub(crate) fn seen(tunnel: Uuid) -> String {
        format!("{SEEN}{tunnel}")
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
}

/// A domain whose names may lead to tunnels of one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Zone {
    pub(crate) account: String,
    /// In lower case, without a final dot.
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Tunnel {
    pub(crate) account: String,
    pub(crate) name: String,
    /// A deleted tunnel has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<TunnelSecret>,
    /// What a rotation replaced, for hosts that were not restarted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<Previous>,
    pub(crate) created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) deleted_at: Option<Timestamp>,
    /// Whether its rules come from the control API instead of a file beside the host.
    #[serde(default)]
    pub(crate) remote: bool,
    /// Made for nobody in particular, and removed when nobody uses it.
    #[serde(default)]
    pub(crate) quick: bool,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) metadata: Value,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Previous {
    pub(crate) secret: TunnelSecret,
    /// From here on it opens nothing.
    pub(crate) until: Timestamp,
}

impl Tunnel {
    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted_at.is_some()
    }

    /// What a host needs to serve it.
    pub(crate) fn credentials(&self, id: Uuid) -> Option<Credentials> {
        Some(Credentials {
            account_tag: self.account.clone(),
            tunnel_secret: self.secret.clone()?,
            tunnel_id: id,
            endpoint: None,
        })
    }
}

/// A host name and the tunnel that it leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Route {
    pub(crate) zone: String,
    pub(crate) tunnel: Uuid,
    pub(crate) created_at: Timestamp,
    /// When it was last changed, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) modified_at: Option<Timestamp>,
    /// By which it is known as a DNS record; [`Route::id`] makes one for those that were kept without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(default, skip_serializing_if = "Remarks::are_none")]
    pub(crate) remarks: Remarks,
}

impl Route {
    pub(crate) fn new(zone: impl Into<String>, tunnel: Uuid) -> Self {
        Self {
            zone: zone.into(),
            tunnel,
            created_at: Timestamp::now(),
            modified_at: None,
            id: Some(Uuid::new_v4().simple().to_string()),
            remarks: Remarks::default(),
        }
    }

    /// The id of the record, which stays the same under another name and is not used again.
    pub(crate) fn id(&self, hostname: &str) -> String {
        self.id.clone().unwrap_or_else(|| {
            let digest = Sha256::digest(format!("{} {hostname}", self.created_at));
            digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
        })
    }

    /// The record of this host name, changed now; under whatever name it is kept, its id stays.
    pub(crate) fn changed(self, hostname: &str, now: Timestamp) -> Self {
        Self { id: Some(self.id(hostname)), modified_at: Some(now), ..self }
    }
}

/// What a route says as a DNS record beside where it leads: kept and shown, and without effect on visitors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remarks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) comment_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tags: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tags_at: Option<Timestamp>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<u32>,
    /// `None`: as every route is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) proxied: Option<bool>,
    /// `flatten_cname` and its like.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, bool>,
    /// Whether the tunnel was named by the reference's domain instead of the edge's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by_reference: Option<bool>,
}

impl Remarks {
    fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What a bearer of the control API may do. The token itself is not kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Token {
    pub(crate) name: String,
    pub(crate) account: String,
    pub(crate) scope: Scope,
    #[serde(default)]
    pub(crate) read_only: bool,
    /// SHA-256 of the secret part, in hexadecimal digits. The secret is random and long, so that
    /// nothing slower is needed.
    pub(crate) sha256: String,
    pub(crate) created_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at: Option<Timestamp>,
}

impl Token {
    /// Whether it opens nothing any more.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        self.revoked_at.is_some() || self.expires_at.is_some_and(|end| end <= now)
    }
}

/// How far a token reaches within its account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scope {
    /// Every tunnel and every zone.
    Account,
    /// The routes of these zones, and looking tunnels up.
    Zones(Vec<String>),
    /// These tunnels and nothing else.
    Tunnels(Vec<Uuid>),
}

/// The rules of a tunnel, as the control API was given them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Configuration {
    pub(crate) version: i32,
    pub(crate) config: Value,
    pub(crate) created_at: Timestamp,
}

/// When hosts were there, as far as it was noted: not whether one is there now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) active_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) inactive_at: Option<Timestamp>,
    /// The node of a fleet that has noted it, and that will say when they are gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
}

/// How much of a tunnel's requests a replica is to get, where an operator has said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ReplicaShare {
    pub(crate) weight: u8,
    #[serde(default)]
    pub(crate) draining: bool,
}

pub(crate) fn to_json(record: &impl Serialize) -> Bytes {
    serde_json::to_vec(record).expect("records have a JSON form").into()
}

pub(crate) fn from_json<T: DeserializeOwned>(value: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(value)
}

/// How long a replaced secret still opens its tunnel, unless whoever rotates it says otherwise.
pub(crate) const PREVIOUS_SECRET: Duration = Duration::from_secs(24 * 60 * 60);
