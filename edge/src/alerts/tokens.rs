//! API tokens that end: some time before it, and when it has come. Knows tokens; does not know who uses them.

use std::time::Duration;

use uuid::Uuid;

use super::event::{self, AlertType, Event, Turn, brief};
use crate::state::snapshot::Snapshot;
use crate::store::records::Token;
use crate::store::records::alerts::{Said, said_key, unsaid};
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// What is to be told of tokens, and what need not be remembered any more.
pub(super) fn tell(snapshot: &Snapshot, now: Timestamp) -> Vec<Transaction> {
    let told = snapshot.tokens.iter().filter_map(|(id, kept)| {
        let (token, key) = (&kept.record, subject(id));
        let before = snapshot.alerts.said.get(&key);
        let said = before.map(|kept| &kept.record);
        let state = said.map(|said| said.state.as_str());
        let (is_over, ended) = (token.is_over(now), ended(token, now));
        let (word, turn, what) = match (is_over, state) {
            (true, Some(ENDED)) => return None,
            (true, Some(_)) => (ENDED, Turn::End, "has ended"),
            // Long ago, or before anybody asked.
            (true, None) if now.since(ended?) > LATELY => return None,
            (true, None) => (ENDED, Turn::Once, "has ended"),
            (false, None) if ends_soon(token, now) => (ENDING, Turn::Start, "ends soon"),
            (false, _) => return None,
        };
        if !event::is_asked_for(snapshot, &token.account, AlertType::TokenEnd) {
            return None;
        }
        let mut said = said.cloned().unwrap_or_else(|| Said {
            account: token.account.clone(),
            correlation: Uuid::new_v4().simple().to_string(),
            ..Said::default()
        });
        word.clone_into(&mut said.state);
        let name = brief(&token.name);
        let mut labels = vec![("token_id", id.clone()), ("token_name", name.clone())];
        labels.extend(token.expires_at.map(|at| ("expires_at", at.to_string())));
        let event = Event {
            account: token.account.clone(),
            kind: AlertType::TokenEnd,
            turn,
            correlation: said.correlation.clone(),
            text: format!("The API token {id} ({name}) {what}."),
            labels,
        };
        let note = AuditEntry { actor: "edge".to_owned(), action: "alert", subject: event.text.clone() };
        let transaction = unsaid(Transaction::new(note), &key, before.map(|kept| kept.revision));
        let transaction = event.tell_once(snapshot, transaction, &mut said.told, now);
        Some(transaction.put(said_key(&key), to_json(&said)))
    });
    let over = snapshot.alerts.said.iter().filter_map(|(key, kept)| {
        let id = key.strip_prefix(PREFIX)?;
        let token = snapshot.tokens.get(id).map(|kept| &kept.record);
        let is_old = |token: &Token| ended(token, now).is_some_and(|ended| now.since(ended) > LATELY);
        if token.is_some_and(|token| kept.record.state != ENDED || !is_old(token)) {
            return None;
        }
        let note = AuditEntry { actor: "edge".to_owned(), action: "alert.forget", subject: key.clone() };
        Some(Transaction::new(note).if_at(said_key(key), kept.revision).remove(said_key(key)))
    });
    told.chain(over).collect()
}

/// Of a token that has: when.
fn ended(token: &Token, now: Timestamp) -> Option<Timestamp> {
    let expired = token.expires_at.filter(|at| *at <= now);
    token.revoked_at.into_iter().chain(expired).min()
}

/// In the last tenth of its time, and the last week at most.
fn ends_soon(token: &Token, now: Timestamp) -> bool {
    token.expires_at.is_some_and(|end| end.since(now) <= SOON.min(end.since(token.created_at) / TENTH))
}

fn subject(token: &str) -> String {
    format!("{PREFIX}{token}")
}

const PREFIX: &str = "token/";
const ENDING: &str = "ending";
const ENDED: &str = "ended";
const SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const TENTH: u32 = 10;
/// What ended before that is not told any more.
const LATELY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::Scope;

    #[test]
    fn a_token_ends_soon_in_the_last_tenth_of_its_time_and_the_last_week_at_most() {
        let made = Timestamp::now();
        let day = |days: u64| Duration::from_secs(days * 24 * 60 * 60);
        for (valid_for, after, wanted) in [
            (day(365), day(357), false),
            (day(365), day(359), true),
            (day(10), day(8), false),
            (day(10), day(9), true),
            (Duration::from_secs(10), Duration::from_secs(8), false),
            (Duration::from_secs(10), Duration::from_secs(9), true),
        ] {
            let token = Token {
                name: String::new(),
                account: String::new(),
                scope: Scope::Account,
                read_only: false,
                sha256: String::new(),
                created_at: made,
                expires_at: Some(made.after(valid_for)),
                revoked_at: None,
            };
            assert_eq!(ends_soon(&token, made.after(after)), wanted, "{valid_for:?} {after:?}");
        }
    }
}
