//! What monitors have found, once for a fleet: each replica is asked by one of the nodes that have it, and the others
//! are told. Which node it is each knows by itself. For a moment two may think that it is theirs, or none; that costs a
//! question. Knows verdicts; does not know how nodes speak to each other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use adit_balance::Key;
use tokio::sync::watch;
use uuid::Uuid;

use super::ask::Outcome;
use super::watched::Watched;
use crate::registry::Tunnel;

/// Held by all that is watched at one node.
#[derive(Default)]
pub(crate) struct Sharing {
    /// This node; an edge that is none asks everybody.
    own: OnceLock<Key>,
    told: Mutex<Told>,
    /// Turned with each verdict that is to be told.
    news: watch::Sender<u64>,
    watched: Mutex<HashMap<u64, Weak<Watched>>>,
}

/// What this node has to say.
#[derive(Default)]
struct Told {
    sequence: u64,
    verdicts: HashMap<(u64, Uuid), (u64, Outcome, bool)>,
}

/// What became of the last question to one replica, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SharedVerdict {
    /// What is watched.
    pub(crate) subject: u64,
    pub(crate) connector: Uuid,
    pub(crate) is_up: bool,
    pub(crate) outcome: Outcome,
}

impl Sharing {
    /// This edge is a node of a fleet.
    pub(crate) fn join(&self, name: &str) {
        let _ = self.own.set(Key::of(name.as_bytes()));
    }

    /// Whether this node is the one that asks a replica that is connected here.
    pub(super) fn has(&self, subject: u64, tunnel: &Tunnel, connector: Uuid) -> bool {
        let Some(own) = self.own.get() else { return true };
        let what = Key::of(connector.as_bytes()).0 ^ subject;
        let bid = own.with(what);
        let others = tunnel.nodes_with(connector);
        others.iter().all(|other| Key::of(other.as_bytes()).with(what) <= bid)
    }

    /// This node has asked.
    pub(super) fn tell(&self, subject: u64, connector: Uuid, outcome: &Outcome, is_up: bool) {
        if self.own.get().is_none() {
            return;
        }
        let mut told = lock(&self.told);
        told.sequence += 1;
        let sequence = told.sequence;
        told.verdicts.insert((subject, connector), (sequence, outcome.clone(), is_up));
        drop(told);
        self.news.send_replace(sequence);
    }

    /// Of other replicas of what is watched nothing is to be told any more.
    pub(super) fn keep(&self, subject: u64, is_mine: impl Fn(&Uuid) -> bool) {
        if self.own.get().is_some() {
            let mut told = lock(&self.told);
            told.verdicts.retain(|(of, connector), _| *of != subject || is_mine(connector));
        }
    }

    pub(super) fn watch(&self, subject: u64, watched: &Arc<Watched>) {
        if self.own.get().is_some() {
            lock(&self.watched).insert(subject, Arc::downgrade(watched));
        }
    }

    pub(super) fn forget(&self, subject: u64, watched: &Watched) {
        let mut all = lock(&self.watched);
        if all.get(&subject).is_some_and(|known| std::ptr::eq(known.as_ptr(), watched)) {
            all.remove(&subject);
            drop(all);
            self.keep(subject, |_| false);
        }
    }

    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What was found behind this point, oldest first, and where it ends.
    pub(crate) fn since(&self, sequence: u64) -> (u64, Vec<SharedVerdict>) {
        let told = lock(&self.told);
        let new = told.verdicts.iter().filter(|(_, (at, ..))| *at > sequence);
        let mut new: Vec<_> = new
            .map(|((subject, connector), (at, outcome, is_up))| {
                let (subject, connector, is_up) = (*subject, *connector, *is_up);
                (*at, SharedVerdict { subject, connector, is_up, outcome: outcome.clone() })
            })
            .collect();
        new.sort_unstable_by_key(|(at, _)| *at);
        (told.sequence, new.into_iter().map(|(_, verdict)| verdict).collect())
    }

    /// Another node has found this.
    pub(crate) fn hear(&self, verdict: SharedVerdict) {
        let watched = lock(&self.watched).get(&verdict.subject).and_then(Weak::upgrade);
        if let Some(watched) = watched {
            watched.hear(verdict);
        }
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_told_once_and_the_last_word_of_each_replica_to_who_comes_later() {
        let sharing = Sharing::default();
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        sharing.tell(7, one, &Outcome::default(), true);
        assert_eq!(sharing.since(0), (0, Vec::new()), "an edge alone tells nobody");
        sharing.join("a");
        sharing.tell(7, one, &Outcome::default(), true);
        sharing.tell(7, other, &Outcome::default(), true);
        let (end, all) = sharing.since(0);
        assert_eq!((end, all.len()), (2, 2));
        sharing.tell(7, one, &Outcome { status: Some(503), ..Outcome::default() }, false);
        let (end, new) = sharing.since(end);
        let [new] = &new[..] else { panic!("{new:?}") };
        assert_eq!((new.connector, new.is_up, new.outcome.status), (one, false, Some(503)));
        assert_eq!(sharing.since(end).1, []);
        assert_eq!(sharing.since(0).1.len(), 2);
        sharing.keep(7, |connector| *connector == other);
        sharing.keep(8, |_| false);
        assert_eq!(sharing.since(0).1.len(), 1);
    }
}
