//! Messages that wait for their webhooks: at least once each, again and again with growing pauses, until one was taken
//! or given up. What waits is in the store, so that it outlives this process. Knows messages; does not know what they
//! are about.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::sender::{self, Attempt, Sender};
use crate::nodes::duties::Duties;
use crate::state::State;
use crate::state::snapshot::Snapshot;
use crate::store::records::alerts::{Claim, Fares, Message, Sent, fares_key, message_key, sent_key};
use crate::store::records::objects::{Kind, Secret};
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, StoreRevision, Transaction};

/// A message on its way.
struct Flight {
    id: String,
    message: Message,
    revision: StoreRevision,
    /// `None`: there is no such webhook any more, or it is gone.
    to: Option<(String, Vec<Secret>)>,
}

/// Sends what is due until `stop`.
pub(crate) async fn run(state: State, sender: Arc<Sender>, node: Option<String>, stop: CancellationToken) {
    // The edges of a fleet share what waits: each webhook is one node's, and a message is claimed before it is sent.
    let own = state.fleet().map(|_| Uuid::new_v4());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = state.changes();
    let mut under_way: JoinSet<(Flight, Option<Attempt>)> = JoinSet::new();
    // By webhook: one message at a time, and none for a while if what became of the last cannot be written.
    let mut busy: HashMap<String, (String, Option<Instant>)> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                let Ok((flight, attempt)) = ended else { continue };
                let webhook = flight.message.webhook.clone();
                let Some(attempt) = attempt else {
                    // Another edge has it, or none can: looked at again when that has shown.
                    busy.insert(webhook, (flight.message.account, Some(Instant::now() + UNCLAIMED)));
                    continue;
                };
                if note(&state, flight, attempt).await {
                    busy.remove(&webhook);
                } else if let Some((_, until)) = busy.get_mut(&webhook) {
                    *until = Some(Instant::now() + UNWRITTEN);
                }
            }
            _ = ticks.tick() => {}
            changed = changes.changed() => if changed.is_err() { return },
        }
        let now = Instant::now();
        busy.retain(|_, (_, until)| until.is_none_or(|until| until > now));
        let wanted = state.read(|snapshot| {
            let duties = Duties::of(node.as_deref(), snapshot);
            due(snapshot, &busy, own, &duties, Timestamp::now())
        });
        for mut flight in wanted {
            let message = &flight.message;
            busy.insert(message.webhook.clone(), (message.account.clone(), None));
            let (sender, state) = (sender.clone(), state.clone());
            under_way.spawn(async move {
                if let Some(own) = own
                    && !claim(&state, &mut flight, own).await
                {
                    return (flight, None);
                }
                let attempt = match &flight.to {
                    Some((url, secrets)) => sender.send(url, secrets, &flight.id, &flight.message.body).await,
                    None => Attempt::Gone,
                };
                (flight, Some(attempt))
            });
        }
    }
}

/// Has this edge be the one that sends a message, for as long as that takes at most; whether it is.
async fn claim(state: &State, flight: &mut Flight, own: Uuid) -> bool {
    let key = message_key(&flight.id);
    let until = Timestamp::now().after(CLAIMED);
    let message = Message { claim: Some(Claim { by: own, until }), ..flight.message.clone() };
    let subject = format!("{} to {}", flight.id, message.webhook);
    let note = AuditEntry { actor: "edge".to_owned(), action: "alert.claim", subject };
    let transaction = Transaction::new(note).if_at(&key, flight.revision).put(key, to_json(&message));
    match state.change(transaction).await {
        Ok(()) => true,
        Err(error) => {
            debug!(id = flight.id, %error, "an alert is not sent from here");
            false
        }
    }
}

/// What is to be sent now: the oldest message of each webhook that is not busy, and not too many of one account.
fn due(
    snapshot: &Snapshot,
    busy: &HashMap<String, (String, Option<Instant>)>,
    own: Option<Uuid>,
    duties: &Duties,
    now: Timestamp,
) -> Vec<Flight> {
    let mut first: HashMap<&str, (&String, &Message)> = HashMap::new();
    for (id, kept) in &snapshot.alerts.messages {
        let message = &kept.record;
        let claim = message.claim.as_ref();
        let is_claimed = claim.is_some_and(|claim| Some(claim.by) != own && claim.until > now);
        if is_claimed || !duties.has(message.webhook.as_bytes()) {
            continue;
        }
        let fares = snapshot.alerts.fares.get(&message.webhook).map(|kept| &kept.record);
        let waits = fares.and_then(|fares| fares.not_before).is_some_and(|until| until > now);
        if message.due > now || waits || busy.contains_key(&message.webhook) {
            continue;
        }
        let known = first.entry(&message.webhook).or_insert((id, message));
        if (message.due, id) < (known.1.due, known.0) {
            *known = (id, message);
        }
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    busy.values().for_each(|(account, _)| *counts.entry(account).or_default() += 1);
    let mut all: Vec<_> = first.into_values().collect();
    all.sort_by_key(|(id, message)| (message.due, *id));
    let mut room = sender::AT_ONCE.saturating_sub(busy.len());
    let mut flights = Vec::new();
    for (id, message) in all {
        let count = counts.entry(&message.account).or_default();
        if room == 0 || *count >= AT_ONCE {
            continue;
        }
        (*count, room) = (*count + 1, room - 1);
        let webhook = snapshot.objects.get(&message.account, Kind::Webhook, &message.webhook);
        let is_gone = || {
            let fares = snapshot.alerts.fares.get(&message.webhook);
            fares.is_some_and(|kept| kept.record.gone_at.is_some())
        };
        let to = webhook.filter(|_| !is_gone());
        let to = to.map(|kept| (sender::url_of(&kept.record).to_owned(), kept.record.secrets.clone()));
        let Some(revision) = snapshot.alerts.messages.get(id).map(|kept| kept.revision) else { continue };
        flights.push(Flight { id: id.clone(), message: message.clone(), revision, to });
    }
    flights
}

/// Writes what became of an attempt; whether that could be done.
async fn note(state: &State, flight: Flight, attempt: Attempt) -> bool {
    let now = Timestamp::now();
    let transaction = state.read(|snapshot| outcome(snapshot, &flight, &attempt, now));
    let Flight { id, message, .. } = &flight;
    let attempts = message.attempts + 1;
    let Message { account, webhook, alert_type, .. } = message;
    match &attempt {
        Attempt::Taken => info!(id, account, webhook, alert_type, attempts, "an alert has arrived"),
        Attempt::Gone => {
            warn!(id, account, webhook, alert_type, "an alert is given up: its webhook is gone")
        }
        Attempt::Failed { why, .. } => {
            let is_last = pause(attempts).is_none();
            warn!(id, account, webhook, alert_type, attempts, why, is_last, "an alert was not taken");
        }
    }
    match state.change(transaction).await {
        Ok(()) => true,
        Err(error) => {
            warn!(id, %error, "what became of an alert cannot be noted: it will be sent again");
            false
        }
    }
}

fn outcome(snapshot: &Snapshot, flight: &Flight, attempt: &Attempt, now: Timestamp) -> Transaction {
    let Flight { id, message, revision: _, to } = flight;
    let action = match attempt {
        Attempt::Taken => "alert.sent",
        Attempt::Gone => "alert.gone",
        Attempt::Failed { .. } => "alert.failed",
    };
    let subject = format!("{id} to {}", message.webhook);
    let mut transaction = Transaction::new(AuditEntry { actor: "edge".to_owned(), action, subject });
    let known = snapshot.alerts.fares.get(&message.webhook).map(|kept| kept.record.clone());
    let mut fares = Fares { not_before: None, ..known.unwrap_or_default() };
    let attempts = message.attempts + 1;
    let again = match attempt {
        Attempt::Taken => {
            (fares.last_success, fares.failure) = (Some(now), None);
            None
        }
        Attempt::Gone => {
            (fares.last_failure, fares.gone_at) = (Some(now), fares.gone_at.or(Some(now)));
            fares.failure =
                Some("it says that it is gone, and is told nothing until it is changed".to_owned());
            None
        }
        Attempt::Failed { why, pause: asked } => {
            (fares.last_failure, fares.failure) = (Some(now), Some(why.clone()));
            fares.not_before = asked.map(|pause| now.after(pause));
            pause(attempts).map(|usual| now.after(usual.max(asked.unwrap_or_default())))
        }
    };
    transaction = match again {
        Some(due) => {
            let message = Message { attempts, due, claim: None, ..message.clone() };
            transaction.put(message_key(id), to_json(&message))
        }
        None => transaction.remove(message_key(id)),
    };
    if again.is_none() {
        let sent = Sent {
            policy: message.policy.clone(),
            policy_name: message.policy_name.clone(),
            webhook: message.webhook.clone(),
            alert_type: message.alert_type.clone(),
            body: message.body.clone(),
            at: now,
            is_delivered: *attempt == Attempt::Taken,
        };
        transaction = transaction.put(sent_key(&message.account, now, id), to_json(&sent));
        let count = snapshot.alerts.sent_of(&message.account).count() + 1;
        let old = snapshot.alerts.sent_of(&message.account).take(count.saturating_sub(MOST_SENT));
        for (name, _) in old {
            transaction = transaction.remove(format!("{}{name}", crate::store::records::alerts::SENT));
        }
    }
    if to.is_some() { transaction.put(fares_key(&message.webhook), to_json(&fares)) } else { transaction }
}

/// How long to wait after so many attempts that have failed, and a tenth more or less; `None` after the last one.
fn pause(attempts: u32) -> Option<Duration> {
    let usual = PAUSES.get(usize::try_from(attempts).ok()?.checked_sub(1)?)?;
    Some(usual.mul_f64(0.9 + 0.2 * fastrand::f64()))
}

const EVERY: Duration = Duration::from_secs(1);
/// How long a message is one edge's: longer than an attempt may take.
const CLAIMED: Duration = Duration::from_secs(60);
/// Before a webhook is looked at again whose message another edge has claimed.
const UNCLAIMED: Duration = Duration::from_secs(2);
/// From one attempt to the next; the fifth stands for half a day and more.
const PAUSES: [Duration; 9] = [
    Duration::from_secs(5),
    Duration::from_secs(5 * 60),
    Duration::from_secs(30 * 60),
    Duration::from_secs(2 * 60 * 60),
    Duration::from_secs(5 * 60 * 60),
    Duration::from_secs(10 * 60 * 60),
    Duration::from_secs(14 * 60 * 60),
    Duration::from_secs(20 * 60 * 60),
    Duration::from_secs(24 * 60 * 60),
];
/// Messages of one account under way.
const AT_ONCE: usize = 4;
/// Before a webhook is sent anything again, where it cannot be written what became of the last message.
const UNWRITTEN: Duration = Duration::from_secs(60);
/// Messages of one account that are shown after they were sent.
const MOST_SENT: usize = 100;
