//! What happened, in the words of the reference, and the messages that policies make of it. Decides on one snapshot;
//! writes nothing.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::state::snapshot::{Kept, Snapshot};
use crate::store::Transaction;
use crate::store::records::alerts::{Message, Told, message_key};
use crate::store::records::objects::{Kind, Object};
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;

/// What policies can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AlertType {
    TunnelHealth,
    TunnelUpdate,
    PoolHealth,
    PoolEnablement,
    /// A type of our own.
    TokenEnd,
    /// Of a name.
    Certificate,
}

/// What an event is for whoever counts incidents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Start,
    End,
    /// It neither begins nor ends anything.
    Once,
}

/// Something that is worth telling an account.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) account: String,
    pub(crate) kind: AlertType,
    pub(crate) turn: Turn,
    /// What the beginning and the end of it have in common.
    pub(crate) correlation: String,
    pub(crate) text: String,
    /// What filters look at; the message shows it too.
    pub(crate) labels: Labels,
}

/// Names and values.
pub(crate) type Labels = Vec<(&'static str, String)>;

impl AlertType {
    pub(crate) const ALL: [Self; 6] = [
        Self::TunnelHealth,
        Self::TunnelUpdate,
        Self::PoolHealth,
        Self::PoolEnablement,
        Self::TokenEnd,
        Self::Certificate,
    ];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::TunnelHealth => "tunnel_health_event",
            Self::TunnelUpdate => "tunnel_update_event",
            Self::PoolHealth => "load_balancing_health_alert",
            Self::PoolEnablement => "load_balancing_pool_enablement_alert",
            Self::TokenEnd => "expiring_api_token_alert",
            Self::Certificate => "universal_ssl_event_type",
        }
    }

    pub(crate) fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.word() == word)
    }

    /// As the reference's list of types has it: a group, a name, and when it is told.
    pub(crate) fn described(self) -> [&'static str; 3] {
        match self {
            Self::TunnelHealth => [
                "Cloudflare Tunnel",
                "Tunnel Health Alert",
                "A tunnel is healthy, degraded or down for a while",
            ],
            Self::TunnelUpdate => {
                ["Cloudflare Tunnel", "Tunnel Creation or Deletion Event", "A tunnel is created or deleted"]
            }
            Self::PoolHealth => [
                "Load Balancing",
                "Load Balancing Health Alert",
                "A pool or an endpoint is healthy or unhealthy for a while",
            ],
            Self::PoolEnablement => ["Load Balancing", "Pool Enablement", "A pool is enabled or disabled"],
            Self::TokenEnd => {
                ["API", "Expiring API Token", "An API token of this edge ends soon, or has ended"]
            }
            Self::Certificate => [
                "SSL/TLS",
                "Universal SSL Alert",
                "No certificate was issued for a name, or its certificate ends without another in its place",
            ],
        }
    }

    /// What a policy may ask about it; the values that there are, if they are few.
    pub(crate) fn filters(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::TunnelHealth => &[
                ("tunnel_id", &[]),
                ("tunnel_name", &[]),
                (
                    "new_status",
                    &["TUNNEL_STATUS_TYPE_HEALTHY", "TUNNEL_STATUS_TYPE_DEGRADED", "TUNNEL_STATUS_TYPE_DOWN"],
                ),
            ],
            Self::TunnelUpdate => &[("tunnel_id", &[]), ("tunnel_name", &[])],
            Self::PoolHealth => &[
                ("pool_id", &[]),
                ("new_health", &["Healthy", "Unhealthy"]),
                ("event_source", &["pool", "origin"]),
            ],
            Self::PoolEnablement => &[("pool_id", &[]), ("enabled", &["true", "false"])],
            Self::TokenEnd => &[("token_id", &[])],
            Self::Certificate => {
                &[("hostname", &[]), ("new_status", &["issued", "failing", "ending", "ended"])]
            }
        }
    }
}

impl Turn {
    fn word(self) -> Option<&'static str> {
        match self {
            Self::Start => Some("ALERT_STATE_EVENT_START"),
            Self::End => Some("ALERT_STATE_EVENT_END"),
            Self::Once => None,
        }
    }
}

impl Event {
    /// One that has no end.
    pub(crate) fn once(account: &str, kind: AlertType, text: String, labels: Labels) -> Self {
        let correlation = Uuid::new_v4().simple().to_string();
        Self { account: account.to_owned(), kind, turn: Turn::Once, correlation, text, labels }
    }

    /// Puts the messages of all policies that ask for it into a transaction.
    pub(crate) fn tell(&self, snapshot: &Snapshot, transaction: Transaction, now: Timestamp) -> Transaction {
        self.tell_once(snapshot, transaction, &mut BTreeMap::new(), now)
    }

    /// The same for one of an object of which policies were told before: not more often than each wants to hear.
    pub(crate) fn tell_once(
        &self,
        snapshot: &Snapshot,
        mut transaction: Transaction,
        told: &mut BTreeMap<String, Told>,
        now: Timestamp,
    ) -> Transaction {
        let mut room = MOST_MESSAGES.saturating_sub(snapshot.alerts.waiting(&self.account));
        for (id, kept) in policies(snapshot, &self.account) {
            let policy = &kept.record;
            if !self.fits(policy) || !self.is_news(id, policy, told, now) {
                continue;
            }
            for webhook in webhooks(policy) {
                let Some(kept) = snapshot.objects.get(&self.account, Kind::Webhook, webhook) else {
                    continue;
                };
                if room == 0 {
                    tracing::warn!(
                        account = self.account,
                        alert = self.kind.word(),
                        "an alert is lost: {MOST_MESSAGES} messages of its account wait already"
                    );
                    return transaction;
                }
                room -= 1;
                let message = self.message(id, policy, webhook, &kept.record, now);
                let id = format!("msg_{}", Uuid::new_v4().simple());
                transaction = transaction.put(message_key(&id), to_json(&message));
            }
        }
        transaction
    }

    /// Whether a policy asks for it.
    fn fits(&self, policy: &Object) -> bool {
        if !policy.is_enabled() || policy.text("alert_type") != Some(self.kind.word()) {
            return false;
        }
        let filters = policy.said.get("filters").and_then(Value::as_object);
        filters.into_iter().flatten().all(|(name, wanted)| {
            let wanted = wanted.as_array().map(Vec::as_slice).unwrap_or_default();
            let is_wanted = |value: &str| wanted.iter().any(|one| one.as_str() == Some(value));
            wanted.is_empty() || self.labels.iter().any(|(label, value)| label == name && is_wanted(value))
        })
    }

    fn is_news(&self, id: &str, policy: &Object, told: &mut BTreeMap<String, Told>, now: Timestamp) -> bool {
        match self.turn {
            Turn::Once => true,
            Turn::Start => {
                let last = told.get(id);
                let is_muted = last.is_some_and(|last| now.since(last.began) < interval(policy));
                let began = last.filter(|_| is_muted).map_or(now, |last| last.began);
                told.insert(id.to_owned(), Told { began, is_muted });
                !is_muted
            }
            // The end of what was not told is not told either.
            Turn::End => !told.get(id).is_some_and(|last| last.is_muted),
        }
    }

    fn message(&self, id: &str, policy: &Object, webhook: &str, to: &Object, now: Timestamp) -> Message {
        let policy_name = brief(policy.text("name").unwrap_or_default());
        let mut data: Map<String, Value> =
            self.labels.iter().map(|(name, value)| ((*name).to_owned(), json!(brief(value)))).collect();
        data.insert("seq".to_owned(), json!(next(now)));
        let since = SystemTime::from(now).duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut body = json!({
            "name": brief(to.text("name").unwrap_or_default()),
            "text": self.text,
            "data": data,
            "ts": since.as_secs(),
            "account_id": self.account,
            "policy_id": id,
            "policy_name": policy_name,
            "alert_type": self.kind.word(),
            "alert_correlation_id": self.correlation,
        });
        if let Some(turn) = self.turn.word() {
            body["alert_event"] = json!(turn);
        }
        Message {
            account: self.account.clone(),
            policy: id.to_owned(),
            policy_name,
            webhook: webhook.to_owned(),
            alert_type: self.kind.word().to_owned(),
            body: body.to_string(),
            created_at: now,
            attempts: 0,
            due: now,
            claim: None,
        }
    }
}

/// Whether any policy of the account asks for this.
pub(crate) fn is_asked_for(snapshot: &Snapshot, account: &str, kind: AlertType) -> bool {
    policies(snapshot, account)
        .any(|(_, kept)| kept.record.is_enabled() && kept.record.text("alert_type") == Some(kind.word()))
}

/// What a webhook is sent when it is made, so that nobody learns too late that it is none.
pub(crate) fn trial(account: &str, name: &str, now: Timestamp) -> String {
    let since = SystemTime::from(now).duration_since(UNIX_EPOCH).unwrap_or_default();
    let body = json!({
        "name": brief(name),
        "text": "This is a test message: this webhook is about to be told of alerts.",
        "data": { "seq": next(now) },
        "ts": since.as_secs(),
        "account_id": account,
        "alert_type": "test",
    });
    body.to_string()
}

/// The webhooks of a policy.
pub(crate) fn webhooks(policy: &Object) -> impl Iterator<Item = &str> {
    let named = policy.said.get("mechanisms").and_then(|mechanisms| mechanisms.get("webhooks")?.as_array());
    named.into_iter().flatten().filter_map(|one| one.get("id")?.as_str())
}

/// A text of an account's, short enough for a message.
pub(crate) fn brief(text: &str) -> String {
    text.chars().take(LONGEST_NAME).collect()
}

fn policies<'s>(
    snapshot: &'s Snapshot,
    account: &'s str,
) -> impl Iterator<Item = (&'s String, &'s Kept<Object>)> {
    let all = snapshot.objects.of(Kind::Policy).iter();
    all.filter(move |(_, kept)| kept.record.account == account).map(|(id, kept)| (id, &**kept))
}

/// How long a policy wants to hear nothing new of the same object.
fn interval(policy: &Object) -> Duration {
    let said = policy.text("alert_interval").and_then(|text| humantime::parse_duration(text).ok());
    said.unwrap_or_default()
}

/// Grows with every message, also across restarts.
fn next(now: Timestamp) -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::from(now).duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1)));
    now.max(last.unwrap_or_default() + 1)
}

/// The longest `alert_interval`.
pub(crate) const LONGEST_INTERVAL: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Of one account, waiting for their webhooks.
const MOST_MESSAGES: usize = 1_000;
/// Characters.
const LONGEST_NAME: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::snapshot::Changes;
    use crate::store::{AuditEntry, Batch, Change, StoreRevision};

    fn object(said: Value) -> Object {
        let Value::Object(said) = said else { panic!("an object") };
        let now = Timestamp::now();
        Object {
            account: "a".to_owned(),
            zone: None,
            name: None,
            said,
            created_at: now,
            modified_at: now,
            modified_by: String::new(),
            disabled_at: BTreeMap::new(),
            secrets: Vec::new(),
        }
    }

    /// A webhook, and a policy for it that says this besides.
    fn snapshot(more: Value) -> Snapshot {
        let mut policy = json!({
            "name": "p", "alert_type": "load_balancing_health_alert", "enabled": true,
            "mechanisms": { "webhooks": [{ "id": "w" }, { "id": "gone" }] },
        });
        policy.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let put = |key: String, object: Object| Change { key, value: Some(to_json(&object)) };
        let changes = vec![
            put(Kind::Webhook.key("w"), object(json!({ "name": "hook", "url": "https://a.test/" }))),
            put(Kind::Policy.key("p"), object(policy)),
        ];
        let mut snapshot = Snapshot::default();
        snapshot.apply(Batch { revision: StoreRevision(1), changes }, &mut Changes::default());
        snapshot
    }

    fn event(turn: Turn, health: &str) -> Event {
        let labels = vec![("pool_id", "one".to_owned()), ("new_health", health.to_owned())];
        let text = "pool one".to_owned();
        Event { turn, ..Event::once("a", AlertType::PoolHealth, text, labels) }
    }

    fn count(event: &Event, snapshot: &Snapshot, told: &mut BTreeMap<String, Told>, now: Timestamp) -> usize {
        let note = AuditEntry { actor: String::new(), action: "test", subject: String::new() };
        let transaction = event.tell_once(snapshot, Transaction::new(note), told, now);
        format!("{transaction:?}").matches("alert-message/").count()
    }

    #[test]
    fn a_policy_is_told_what_its_filters_ask_for() {
        let now = Timestamp::now();
        for (more, wanted) in [
            (json!({}), 1),
            (json!({ "enabled": false }), 0),
            (json!({ "alert_type": "tunnel_health_event" }), 0),
            (json!({ "filters": { "pool_id": ["two", "one"], "new_health": [] } }), 1),
            (json!({ "filters": { "pool_id": ["two"] } }), 0),
            (json!({ "filters": { "new_health": ["Healthy"] } }), 0),
            (json!({ "filters": { "event_source": ["pool"] } }), 0),
        ] {
            let seen =
                count(&event(Turn::Start, "Unhealthy"), &snapshot(more.clone()), &mut BTreeMap::new(), now);
            assert_eq!(seen, wanted, "{more}");
        }
        let other = Event { account: "b".to_owned(), ..event(Turn::Start, "Unhealthy") };
        assert_eq!(count(&other, &snapshot(json!({})), &mut BTreeMap::new(), now), 0);
    }

    #[test]
    fn what_begins_again_within_the_interval_is_not_told_nor_is_its_end() {
        let (snapshot, mut told) = (snapshot(json!({ "alert_interval": "30m" })), BTreeMap::new());
        let began = Timestamp::now();
        for (minutes, turn, wanted) in [
            (0, Turn::Start, 1),
            (1, Turn::End, 1),
            (5, Turn::Start, 0),
            (6, Turn::End, 0),
            (31, Turn::Start, 1),
            (90, Turn::End, 1),
        ] {
            let now = began.after(Duration::from_secs(minutes * 60));
            assert_eq!(count(&event(turn, "Unhealthy"), &snapshot, &mut told, now), wanted, "{minutes} min");
        }
    }
}
