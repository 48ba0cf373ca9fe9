//! Certificates of names that lead somewhere: an order that failed, one that ends soon without another in its place, and
//! the end of either. Knows what is noted of orders; does not know authorities.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::event::{self, AlertType, Event, Turn, brief};
use crate::state::snapshot::Snapshot;
use crate::store::records::alerts::{Said, said_key, unsaid};
use crate::store::records::certificates::Certificate;
use crate::store::records::objects::Kind;
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// How a name fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fare {
    Well,
    /// The last order has brought nothing.
    Failing,
    Ending,
    Ended,
}

/// What is to be told of names, and what need not be remembered any more. Of all edges of a state one tells it.
pub(super) fn tell(snapshot: &Snapshot, now: Timestamp) -> Vec<Transaction> {
    let failing = snapshot.orders.iter().filter(|(_, kept)| kept.record.failures > 0).map(|(name, _)| name);
    let ending = snapshot.certificates.iter().filter(|(_, kept)| end(&kept.record, now) != Fare::Well);
    let said = snapshot.alerts.said.keys().filter_map(|key| key.strip_prefix(PREFIX));
    let names: BTreeSet<&str> =
        failing.chain(ending.map(|(name, _)| name)).map(String::as_str).chain(said).collect();
    names.into_iter().filter_map(|name| told(snapshot, name, now)).collect()
}

fn told(snapshot: &Snapshot, name: &str, now: Timestamp) -> Option<Transaction> {
    let key = format!("{PREFIX}{name}");
    let before = snapshot.alerts.said.get(&key);
    let owner = owner(snapshot, name);
    // What leads nowhere any more is nobody's trouble.
    let fare = owner.as_ref().map_or(Fare::Well, |_| fare(snapshot, name, now));
    let state = before.map_or(Fare::Well.word(), |kept| kept.record.state.as_str());
    let account = before.map(|kept| kept.record.account.clone()).or(owner)?;
    if state == fare.word() {
        let over = before.filter(|_| fare == Fare::Well)?;
        let lately = |at: Timestamp| now.since(at) < event::LONGEST_INTERVAL;
        if over.record.told.values().any(|told| lately(told.began)) {
            return None;
        }
        let note = AuditEntry { actor: "edge".to_owned(), action: "alert.forget", subject: key.clone() };
        return Some(Transaction::new(note).if_at(said_key(&key), over.revision).remove(said_key(&key)));
    }
    if before.is_none() && !event::is_asked_for(snapshot, &account, AlertType::Certificate) {
        return None;
    }
    let mut said = before
        .map(|kept| kept.record.clone())
        .unwrap_or_else(|| Said { account: account.clone(), ..Said::default() });
    if state == Fare::Well.word() {
        said.correlation = Uuid::new_v4().simple().to_string();
    }
    fare.word().clone_into(&mut said.state);
    let mut labels = vec![("hostname", name.to_owned()), ("new_status", fare.word().to_owned())];
    let order = snapshot.orders.get(name).map(|kept| &kept.record);
    let error = order.and_then(|order| order.error.as_deref()).filter(|_| fare != Fare::Well);
    labels.extend(error.map(|error| ("error", brief(error))));
    let certificate = snapshot.certificates.get(name).map(|kept| &kept.record);
    labels.extend(certificate.map(|certificate| ("expires_at", certificate.not_after.to_string())));
    let because = error.map_or(String::new(), |error| format!(": {}", brief(error)));
    let text = match fare {
        Fare::Well => format!("The certificate of {name} is well."),
        Fare::Failing => format!("No certificate for {name} was issued{because}"),
        Fare::Ending => {
            format!("The certificate of {name} ends soon, and no other has taken its place{because}")
        }
        Fare::Ended => {
            format!("The certificate of {name} has ended, and no other has taken its place{because}")
        }
    };
    let turn = if fare == Fare::Well { Turn::End } else { Turn::Start };
    let correlation = said.correlation.clone();
    let event =
        Event { account, kind: AlertType::Certificate, turn, correlation, text: brief(&text), labels };
    let note = AuditEntry { actor: "edge".to_owned(), action: "alert", subject: event.text.clone() };
    let transaction = unsaid(Transaction::new(note), &key, before.map(|kept| kept.revision));
    let transaction = event.tell_once(snapshot, transaction, &mut said.told, now);
    Some(transaction.put(said_key(&key), to_json(&said)))
}

impl Fare {
    fn word(self) -> &'static str {
        match self {
            Self::Well => "issued",
            Self::Failing => "failing",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

fn fare(snapshot: &Snapshot, name: &str, now: Timestamp) -> Fare {
    let certificate = snapshot.certificates.get(name).map(|kept| end(&kept.record, now));
    match certificate {
        Some(trouble @ (Fare::Ending | Fare::Ended)) => trouble,
        Some(Fare::Well | Fare::Failing) | None => {
            let has_failed = snapshot.orders.get(name).is_some_and(|kept| kept.record.failures > 0);
            if has_failed { Fare::Failing } else { Fare::Well }
        }
    }
}

/// A new one is ordered at two thirds of a certificate's life, or at the half of a short one.
fn end(certificate: &Certificate, now: Timestamp) -> Fare {
    let Certificate { not_before, not_after, .. } = certificate;
    let late = not_before.after(not_after.since(*not_before).mul_f64(LATE));
    match now {
        now if now >= *not_after => Fare::Ended,
        now if now >= late => Fare::Ending,
        _ => Fare::Well,
    }
}

/// Whose name it is; what the document itself leads somewhere is no account's.
fn owner(snapshot: &Snapshot, name: &str) -> Option<String> {
    if let Some(route) = snapshot.routes.get(name) {
        return snapshot.zones.get(&route.record.zone).map(|zone| zone.record.account.clone());
    }
    let balancers = snapshot.objects.of(Kind::Balancer).values();
    let mut balancers = balancers.map(|kept| &kept.record);
    balancers.find(|balancer| balancer.text("name") == Some(name)).map(|balancer| balancer.account.clone())
}

const PREFIX: &str = "certificate/";
/// Of a certificate's life.
const LATE: f64 = 0.85;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_certificate_that_should_have_been_exchanged_is_told_before_it_ends() {
        let from = Timestamp::now();
        for days in [6, 45, 90] {
            let day = Duration::from_secs(24 * 60 * 60);
            let certificate = Certificate {
                chain: String::new(),
                key: String::new(),
                not_before: from,
                not_after: from.after(day * days),
                directory: String::new(),
                renew_at: None,
                ask_at: None,
            };
            for (share, wanted) in [
                (0.0, Fare::Well),
                (0.67, Fare::Well),
                (0.86, Fare::Ending),
                (1.0, Fare::Ended),
                (2.0, Fare::Ended),
            ] {
                let now = from.after((day * days).mul_f64(share));
                assert_eq!(end(&certificate, now), wanted, "{days} {share}");
            }
        }
    }
}
