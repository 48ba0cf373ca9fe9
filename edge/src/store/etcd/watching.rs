//! Changes as etcd tells them: whole revisions out of fragments, for as long as it is heard. Knows messages; does not
//! know who follows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tracing::{error, warn};

use super::channel::{Answer, CallError, Code, Questions};
use super::client::{Client, Failure, Mark, Member, PATIENCE, RANGE, WATCH};
use super::messages::{
    Event, EventKind, RangeRequest, RangeResponse, WatchCreate, WatchProgress, WatchRequest, WatchResponse,
};
use super::writing::{Keys, number, range, revision_of};
use crate::store::{Batch, Change, StoreError, StoreRevision, Watch};

/// Begins a watch, after it was made sure that what etcd has is what `from` is a revision of: a backup that was put
/// back has another history, and a watch on a revision that it has not reached yet would wait in silence.
pub(super) async fn watch(
    client: Arc<Client>,
    prefix: String,
    from: StoreRevision,
) -> Result<Watch, StoreError> {
    let from = from.max(StoreRevision(1));
    let question =
        RangeRequest { key: client.keys.mark().into(), revision: number(from), ..RangeRequest::default() };
    let then: RangeResponse = match client.ask(RANGE, &question, PATIENCE).await {
        Ok(then) => then,
        Err(Failure::Call(CallError::Refused { code: Code::OutOfRange, message })) => {
            warn!(%message, revision = from.0, "the history of the state was cut or has gone back; reading all of it");
            return Err(StoreError::Compacted(from));
        }
        Err(error) => return Err(client.store_error(error)),
    };
    if let Some(known) = client.mark().filter(|known| known.revision <= number(from)) {
        let then = then.kvs.into_iter().next();
        let then = then.map(|record| Mark { revision: record.mod_revision, value: record.value });
        if then != Some(known) {
            error!(
                revision = from.0,
                "etcd has another history than the one that was served, as after a restored backup; reading all of it"
            );
            return Err(StoreError::Compacted(from));
        }
    }
    let until = Instant::now() + PATIENCE;
    let member = client.member(until).await.map_err(|error| client.store_error(error))?;
    let (key, range_end) = range(&client.keys.record(&prefix));
    let create =
        WatchCreate { key, range_end, start_revision: number(from).saturating_add(1), fragment: true };
    let create = WatchRequest { create: Some(create), progress: None };
    let broken = |error| client.store_error(Failure::Call(error));
    let opened = member.connection.stream(WATCH, &create, until).await;
    let first = match opened {
        Ok((questions, mut answer)) => match timeout(ANSWER, answer.next::<WatchResponse>()).await {
            Ok(Ok(Some(first))) => Ok((questions, answer, first)),
            Ok(Ok(None)) => Err(CallError::Broken("the watch ended".to_owned())),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CallError::Broken("no answer to a watch".to_owned())),
        },
        Err(error) => Err(error),
    };
    let (questions, answer, first) = match first {
        Ok(opened) => opened,
        Err(error) => {
            client.leave(&member).await;
            return Err(broken(error));
        }
    };
    if first.canceled {
        if first.compact_revision != 0 {
            return Err(StoreError::Compacted(from));
        }
        return Err(client.unavailable(&format!("no watch: {}", first.cancel_reason)));
    }
    let (batches, receiver) = mpsc::channel(UNSEEN);
    let gather = Gather::new(client.keys.clone(), prefix, from);
    tokio::spawn(Following { client, member, questions, answer, gather, batches }.run());
    Ok(Watch { batches: receiver, keys: None })
}

struct Following {
    client: Arc<Client>,
    member: Arc<Member>,
    questions: Questions,
    answer: Answer,
    gather: Gather,
    batches: mpsc::Sender<Batch>,
}

impl Following {
    /// A member that is silent is asked whether it is there, because one that stands still closes nothing.
    async fn run(mut self) {
        let mut is_asked = false;
        let mut last = Instant::now();
        loop {
            let silence = if is_asked { ANSWER } else { QUIET };
            let heard = tokio::select! {
                () = self.batches.closed() => return,
                heard = timeout(silence, self.answer.next::<WatchResponse>()) => heard,
            };
            match heard {
                Ok(Ok(Some(response))) => {
                    is_asked = false;
                    self.client.heard();
                    if response.canceled {
                        warn!(reason = response.cancel_reason, "etcd has ended the watch on the state");
                        return;
                    }
                    // An idle prefix must not fall behind what etcd keeps.
                    let may_progress = !self.member.is_old && last.elapsed() >= IDLE;
                    let (batches, mark) = self.gather.add(response, may_progress);
                    if !batches.is_empty() {
                        last = Instant::now();
                    }
                    if mark.is_some() {
                        self.client.set_mark(mark);
                    }
                    for batch in batches {
                        if self.batches.send_timeout(batch, SLOW).await.is_err() {
                            return;
                        }
                    }
                }
                Ok(Ok(None)) => return self.client.leave(&self.member).await,
                Ok(Err(error)) => {
                    warn!(%error, "the watch on the state broke off");
                    return self.client.leave(&self.member).await;
                }
                Err(_) if is_asked => {
                    warn!("etcd is silent; asking another member");
                    return self.client.leave(&self.member).await;
                }
                Err(_) => {
                    let question = WatchRequest { create: None, progress: Some(WatchProgress {}) };
                    if !self.questions.send(&question).await {
                        return self.client.leave(&self.member).await;
                    }
                    is_asked = true;
                }
            }
        }
    }
}

/// Puts revisions together again.
struct Gather {
    keys: Keys,
    prefix: String,
    /// Everything up to here was given.
    at: i64,
    /// What is known of the one that comes.
    unfinished: Option<Batch>,
}

impl Gather {
    fn new(keys: Keys, prefix: String, from: StoreRevision) -> Self {
        Self { keys, prefix, at: number(from), unfinished: None }
    }

    /// The revisions that are whole now, and the mark of the last of them, if it was among what is watched.
    fn add(&mut self, response: WatchResponse, may_progress: bool) -> (Vec<Batch>, Option<Mark>) {
        let (mut whole, mut mark) = (Vec::new(), None);
        let is_progress = response.events.is_empty() && !response.created && !response.fragment;
        for Event { kind, kv } in response.events {
            let Some(record) = kv else { continue };
            // An event again, as after a connection that was lost.
            if record.mod_revision <= self.at {
                continue;
            }
            let revision = revision_of(record.mod_revision);
            if self.unfinished.as_ref().is_some_and(|unfinished| unfinished.revision < revision) {
                whole.extend(self.finish());
            }
            let batch = self.unfinished.get_or_insert_with(|| Batch { revision, changes: Vec::new() });
            match self.keys.name(&record.key) {
                // Seen only by those who watch everything.
                Some("") => mark = Some(Mark { revision: record.mod_revision, value: record.value }),
                Some(name) if name.starts_with(&self.prefix) => {
                    let is_gone = kind == i32::from(EventKind::Delete);
                    let value = (!is_gone).then_some(record.value);
                    batch.changes.push(Change { key: name.to_owned(), value });
                }
                Some(_) | None => {}
            }
        }
        if !response.fragment {
            whole.extend(self.finish());
        }
        if let Some(header) = response.header.filter(|_| is_progress && may_progress)
            && header.revision > self.at
            && self.unfinished.is_none()
        {
            self.at = header.revision;
            whole.push(Batch { revision: revision_of(header.revision), changes: Vec::new() });
        }
        (whole, mark)
    }

    fn finish(&mut self) -> Option<Batch> {
        let batch = self.unfinished.take()?;
        self.at = number(batch.revision);
        Some(batch)
    }
}

/// Transactions that a follower may be behind.
const UNSEEN: usize = 4096;
/// How long a follower may take for the next one, then.
const SLOW: Duration = Duration::from_secs(10);
/// After so much silence etcd is asked whether it is there.
const QUIET: Duration = Duration::from_secs(2);
/// How long it may take to say so.
const ANSWER: Duration = Duration::from_secs(3);
/// How old the newest revision that is known may become while others write.
const IDLE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::super::messages::{Header, KeyValue};
    use super::*;

    fn event(name: &str, revision: i64, value: Option<&str>) -> Event {
        let kind = if value.is_some() { EventKind::Put } else { EventKind::Delete };
        let value = value.unwrap_or_default().to_owned().into();
        let key = format!("/adit/main/s/{name}").into();
        Event { kind: kind.into(), kv: Some(KeyValue { key, mod_revision: revision, value }) }
    }

    fn response(events: Vec<Event>, fragment: bool) -> WatchResponse {
        let header = Some(Header { cluster_id: 1, revision: 99 });
        WatchResponse { header, events, fragment, ..WatchResponse::default() }
    }

    type Said<'b> = (&'b str, Option<&'b [u8]>);

    fn said(batches: &[Batch]) -> Vec<(u64, Vec<Said<'_>>)> {
        batches
            .iter()
            .map(|batch| {
                let changes = batch.changes.iter();
                (batch.revision.0, changes.map(|one| (one.key.as_str(), one.value.as_deref())).collect())
            })
            .collect()
    }

    #[test]
    fn a_revision_in_fragments_is_given_once_it_is_whole() {
        let mut gather = Gather::new(Keys::of("main"), String::new(), StoreRevision(4));
        let (batches, mark) = gather.add(
            response(
                vec![event("a", 4, Some("known")), event("a", 5, Some("1")), event("b", 6, Some("2"))],
                true,
            ),
            true,
        );
        assert_eq!(said(&batches), [(5, vec![("a", Some(&b"1"[..]))])]);
        assert_eq!(mark, None);
        let (batches, mark) =
            gather.add(response(vec![event("c", 6, None), event("", 6, Some("m"))], true), true);
        assert!(batches.is_empty() && mark.is_some());
        let (batches, _) = gather.add(response(vec![event("d", 6, Some("3"))], false), true);
        assert_eq!(said(&batches), [(6, vec![("b", Some(&b"2"[..])), ("c", None), ("d", Some(&b"3"[..]))])]);
    }

    #[test]
    fn progress_moves_on_only_where_it_can_be_trusted_and_nothing_is_half_there() {
        let mut gather = Gather::new(Keys::of("main"), String::new(), StoreRevision(4));
        assert!(gather.add(response(Vec::new(), false), false).0.is_empty());
        let (batches, _) = gather.add(response(Vec::new(), false), true);
        assert_eq!(said(&batches), [(99, vec![])]);
        assert!(gather.add(response(Vec::new(), false), true).0.is_empty(), "once");
        let mut gather = Gather::new(Keys::of("main"), String::new(), StoreRevision(4));
        gather.add(response(vec![event("a", 5, Some("1"))], true), true);
        let created = WatchResponse { created: true, ..response(Vec::new(), true) };
        assert!(gather.add(created, true).0.is_empty());
    }

    #[test]
    fn a_change_that_only_moves_the_mark_still_counts_as_a_revision() {
        let mut gather = Gather::new(Keys::of("main"), String::new(), StoreRevision(4));
        let (batches, mark) = gather.add(response(vec![event("", 7, Some("m"))], false), false);
        assert_eq!(said(&batches), [(7, vec![])]);
        assert_eq!(mark, Some(Mark { revision: 7, value: "m".into() }));
    }
}
