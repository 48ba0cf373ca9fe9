//! Messages that wait for their webhooks: at least once each, again and again with growing pauses, until one was taken
//! or given up. What waits is in the store, so that it outlives this process. Knows messages; does not know what they
//! are about.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::sender::{self, Attempt, Sender};
use crate::state::State;
use crate::state::snapshot::Snapshot;
use crate::store::records::alerts::{Fares, Message, Sent, fares_key, message_key, sent_key};
use crate::store::records::objects::{Kind, Secret};
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// A message on its way.
struct Flight {
    id: String,
    message: Message,
    /// `None`: there is no such webhook any more, or it is gone.
    to: Option<(String, Vec<Secret>)>,
}

/// Sends what is due until `stop`.
pub(crate) async fn run(state: State, sender: Arc<Sender>, stop: CancellationToken) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = state.changes();
    let mut under_way: JoinSet<(Flight, Attempt)> = JoinSet::new();
    // By webhook: one message at a time, and none for a while if what became of the last cannot be written.
    let mut busy: HashMap<String, (String, Option<Instant>)> = HashMap::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(ended) = under_way.join_next(), if !under_way.is_empty() => {
                let Ok((flight, attempt)) = ended else { continue };
                let webhook = flight.message.webhook.clone();
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
        for flight in state.read(|snapshot| due(snapshot, &busy, Timestamp::now())) {
            let message = &flight.message;
            busy.insert(message.webhook.clone(), (message.account.clone(), None));
            let sender = sender.clone();
            under_way.spawn(async move {
                let attempt = match &flight.to {
                    Some((url, secrets)) => sender.send(url, secrets, &flight.id, &flight.message.body).await,
                    None => Attempt::Gone,
                };
                (flight, attempt)
            });
        }
    }
}

/// What is to be sent now: the oldest message of each webhook that is not busy, and not too many of one account.
fn due(
    snapshot: &Snapshot,
    busy: &HashMap<String, (String, Option<Instant>)>,
    now: Timestamp,
) -> Vec<Flight> {
    let mut first: HashMap<&str, (&String, &Message)> = HashMap::new();
    for (id, kept) in &snapshot.alerts.messages {
        let message = &kept.record;
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
        flights.push(Flight { id: id.clone(), message: message.clone(), to });
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
    let Flight { id, message, to } = flight;
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
            let message = Message { attempts, due, ..message.clone() };
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
