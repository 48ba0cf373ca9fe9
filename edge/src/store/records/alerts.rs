//! What the edge notes about alerts: messages that are to be sent, what was said of an object, what became of messages,
//! and how a webhook fares. Policies and webhooks themselves are objects. Knows keys and JSON; sends nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::store::timestamp::Timestamp;
use crate::store::{StoreRevision, Transaction};

/// A message to one webhook. It is kept until it was taken, or given up; its id is in its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) account: String,
    pub(crate) policy: String,
    pub(crate) policy_name: String,
    pub(crate) webhook: String,
    pub(crate) alert_type: String,
    /// Word for word, at every attempt the same.
    pub(crate) body: String,
    pub(crate) created_at: Timestamp,
    /// Attempts that have failed.
    pub(crate) attempts: u32,
    /// Not before.
    pub(crate) due: Timestamp,
    /// Who sends it now, and until when nobody else does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) claim: Option<Claim>,
}

/// Of a message, by the process of one edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) by: Uuid,
    pub(crate) until: Timestamp,
}

/// What a transaction about an object depends on: that nobody has said anything of it since, at this edge or another.
pub(crate) fn unsaid(transaction: Transaction, key: &str, before: Option<StoreRevision>) -> Transaction {
    match before {
        Some(revision) => transaction.if_at(said_key(key), revision),
        None => transaction.if_absent(said_key(key)),
    }
}

/// What was said last of an object, while that is worth remembering.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) account: String,
    /// The state that was told last, as the alert has it.
    pub(crate) state: String,
    /// Whether it was said to change all the time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_flapping: bool,
    /// What the beginning and the end of it have in common.
    pub(crate) correlation: String,
    /// By policy.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) told: BTreeMap<String, Told>,
}

/// What a policy was told of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    /// When something began the last time that was told.
    pub(crate) began: Timestamp,
    /// What began since then was too soon to be told, and so its end is not told either.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_muted: bool,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sent {
    pub(crate) policy: String,
    pub(crate) policy_name: String,
    pub(crate) webhook: String,
    pub(crate) alert_type: String,
    pub(crate) body: String,
    pub(crate) at: Timestamp,
    /// Otherwise it was given up.
    pub(crate) is_delivered: bool,
}

/// How a webhook fares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fares {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_success: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_failure: Option<Timestamp>,
    /// Why, as its account may know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure: Option<String>,
    /// It has asked for a pause until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) not_before: Option<Timestamp>,
    /// It has said that it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gone_at: Option<Timestamp>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_false(flag: &bool) -> bool {
    !flag
}

pub(crate) const MESSAGE: &str = "alert-message/";
pub(crate) const SAID: &str = "alert-said/";
pub(crate) const SENT: &str = "alert-sent/";
pub(crate) const FARES: &str = "alert-webhook/";

pub(crate) fn message_key(id: &str) -> String {
    format!("{MESSAGE}{id}")
}

/// `subject` names an object among all that alerts are about.
pub(crate) fn said_key(subject: &str) -> String {
    format!("{SAID}{subject}")
}

/// In the order in which they were sent.
pub(crate) fn sent_key(account: &str, at: Timestamp, id: &str) -> String {
    format!("{SENT}{account}/{at} {id}")
}

pub(crate) fn fares_key(webhook: &str) -> String {
    format!("{FARES}{webhook}")
}
