//! The nodes of a fleet, the authority that vouches for them, and invitations to become one. Knows their JSON; does not
//! know who connects to whom.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::store::timestamp::Timestamp;

pub(crate) const NODE: &str = "node/";
pub(crate) const ALIVE: &str = "alive/";
pub(crate) const INVITATION: &str = "invitation/";
pub(crate) const NODE_AUTHORITY: &str = "node-authority/";
/// There is one for a fleet.
pub(crate) const NODE_AUTHORITY_KEY: &str = "node-authority/all";

pub(crate) fn node_key(name: &str) -> String {
    format!("{NODE}{name}")
}

pub(crate) fn alive_key(name: &str) -> String {
    format!("{ALIVE}{name}")
}

pub(crate) fn invitation_key(id: &str) -> String {
    format!("{INVITATION}{id}")
}

/// A node: what others need to reach it and to know it. It is there whether the node runs or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRecord {
    pub(crate) region: String,
    /// Where other nodes reach it.
    #[serde(default)]
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) pin: Pin,
    /// One more each time somebody joins by this name.
    #[serde(default)]
    pub(crate) generation: u16,
    pub(crate) wanted: Wanted,
    pub(crate) joined_at: Timestamp,
}

/// What an operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wanted {
    Active,
    /// Serves what it has, is given nothing new, and ends.
    Draining,
    /// Is no node any more: its key opens nothing.
    Left,
}

impl Wanted {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Left => "left",
        }
    }
}

/// By what a node's key is known: SHA-256 of its public key, as certificates have it (SubjectPublicKeyInfo in DER).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Pin([u8; 32]);

impl Pin {
    pub(crate) fn of(public_key: &[u8]) -> Self {
        Self(Sha256::digest(public_key).into())
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pin {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "it is no SHA-256 in hexadecimal digits";
        if text.len() != 64 || !text.is_ascii() {
            return Err(wrong);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| wrong)?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Who vouches for nodes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeAuthority {
    /// In PEM: the first signs, all are believed.
    pub(crate) certificates: Vec<String>,
    /// The private key of the first in PKCS #8 and base64; whoever reads the state without the fleet's key has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<String>,
    /// The same of the last, while that is believed and does not sign yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) next_key: Option<String>,
}

impl fmt::Debug for NodeAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeAuthority").field("certificates", &self.certificates).finish_non_exhaustive()
    }
}

/// A node that runs. The record goes with the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Alive {
    pub(crate) epoch: u64,
    pub(crate) version: String,
    pub(crate) started_at: Timestamp,
}

/// Leave to become a node, once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Invitation {
    /// What both sides prove to know, in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<String>,
    /// Only for a node of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Whether it may take the place of a node that has that name.
    #[serde(default)]
    pub(crate) replaces: bool,
    pub(crate) expires_at: Timestamp,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invitation").field("name", &self.name).finish_non_exhaustive()
    }
}
