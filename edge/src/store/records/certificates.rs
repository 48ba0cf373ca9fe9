//! Certificates that an authority has issued, and what leads to them: accounts there, orders, and what the authority
//! looks for. Private keys are sealed, see `certificates/seal`.

use serde::{Deserialize, Serialize};

use crate::store::timestamp::Timestamp;

pub(crate) const CERTIFICATE: &str = "certificate/";
pub(crate) const ORDER: &str = "order/";
pub(crate) const CHALLENGE: &str = "challenge/";
pub(crate) const AUTHORITY: &str = "authority/";
pub(crate) const LEDGER: &str = "order-ledger/";
/// There is one for all orders.
pub(crate) const LEDGER_KEY: &str = "order-ledger/all";

pub(crate) fn certificate_key(name: &str) -> String {
    format!("{CERTIFICATE}{name}")
}

pub(crate) fn order_key(name: &str) -> String {
    format!("{ORDER}{name}")
}

pub(crate) fn challenge_key(name: &str) -> String {
    format!("{CHALLENGE}{name}")
}

pub(crate) fn authority_key(id: &str) -> String {
    format!("{AUTHORITY}{id}")
}

/// What was issued for a host name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    /// In PEM, its own certificate first.
    pub(crate) chain: String,
    /// Its private key in PKCS #8, sealed for the key of this record.
    pub(crate) key: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Where it was ordered.
    pub(crate) directory: String,
    /// When the authority would have it renewed, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) renew_at: Option<Timestamp>,
    /// When the authority is to be asked about that again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask_at: Option<Timestamp>,
}

/// The state of a name's order: who has it, or when it may be tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The process that orders, until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) holder: Option<String>,
    /// From here on anybody may order.
    pub(crate) next: Timestamp,
    /// In a row.
    #[serde(default)]
    pub(crate) failures: u32,
    /// Why the last one failed, in the authority's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What an authority looks for, to see whether a name leads here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Challenge {
    pub(crate) kind: ChallengeKind,
    /// The name without `*.`.
    pub(crate) host: String,
    pub(crate) token: String,
    /// What it is to find; no secret.
    pub(crate) answer: String,
    /// Nobody looks for it any more.
    pub(crate) until: Timestamp,
}

/// How an authority looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ChallengeKind {
    #[serde(rename = "http-01")]
    Http,
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn,
    #[serde(rename = "dns-01")]
    Dns,
}

/// The account that this edge, with all others of the same state, has at an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AuthorityAccount {
    pub(crate) directory: String,
    /// Who may order by it: sealed for the key of this record.
    pub(crate) credentials: String,
}

/// Orders of late, of all edges of one state: what budgets are counted by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) orders: Vec<Ordered>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ordered {
    pub(crate) at: Timestamp,
    pub(crate) account: String,
    pub(crate) zone: String,
    /// In the place of one that ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) is_renewal: bool,
}
