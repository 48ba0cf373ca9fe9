//! What an edge remembers: small records under text keys, each with the revision of its last change.
//! Knows keys, revisions and transactions; does not know what a record means.
//!
//! The contract is the one that clustered engines keep too: `list` gives everything under a prefix with
//! the revision at which that was so, `watch` gives every change since a revision without a gap, and
//! `commit` changes several records or none. Nothing on the path of a visitor's request asks a store.

#[cfg(test)]
pub(crate) mod contract;
pub(crate) mod etcd;
mod place;
pub(crate) mod records;
mod schema;
pub(crate) mod seal;
pub(crate) mod sealed;
pub(crate) mod sqlite;
pub(crate) mod timestamp;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Counts the transactions of a store; the first one makes revision 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct StoreRevision(pub(crate) u64);

/// Where state is kept. An answer may be dropped midway; a commit that was begun may then be done or not.
pub(crate) trait Store: Send + Sync {
    /// Everything whose key begins with `prefix`, in the order of keys.
    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Listing, StoreError>>;

    /// Every change to keys that begin with `prefix` after revision `from`, in order and without a gap.
    fn watch(&self, prefix: &str, from: StoreRevision) -> BoxFuture<'static, Result<Watch, StoreError>>;

    /// Does all of a transaction if every comparison holds, else nothing. Once it says
    /// [`Commit::Done`], no crash of this process takes it back.
    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, StoreError>>;

    /// Delivers to the watches what others have written up to now; the revision of the last change.
    fn look(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>>;

    /// Whether a change would be taken now, as far as can be said without one; the revision of the last.
    fn probe(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>>;

    /// Writes everything anew to where it is kept, after it was lost from there; nothing if it was not.
    fn restore(&self) -> BoxFuture<'static, Result<Restored, StoreError>>;

    /// Who changed what and when: the newest `count` lines of the audit log, newest first.
    fn audit(&self, count: u32) -> BoxFuture<'static, Result<Vec<AuditLine>, StoreError>>;

    /// Which fleet's records these are, once that is known; those of one edge are no fleet's.
    fn fleet(&self) -> Option<Uuid> {
        None
    }

    /// Takes no other fleet's records from now on.
    fn expect(&self, _fleet: Uuid) {}

    /// How long nothing was heard of what holds the records, while that is somewhere else; `None` if it never was.
    fn silent_for(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    /// Keeps a record there until `stop`, and no longer than some seconds after this process has ended. Nobody else
    /// has what is in the file of one edge, so nothing is kept there.
    fn hold(&self, _key: &str, _value: Bytes, stop: CancellationToken) -> BoxFuture<'static, ()> {
        Box::pin(async move { stop.cancelled().await })
    }
}

/// One line of the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    pub revision: u64,
    /// RFC 3339.
    pub at: String,
    pub actor: String,
    pub action: String,
    pub subject: String,
}

/// What a store had to do to be where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restored {
    WasThere,
    Written,
}

/// What was under a prefix at one revision.
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) revision: StoreRevision,
    pub(crate) entries: Vec<Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) value: Bytes,
    /// Of the last change to this key.
    pub(crate) revision: StoreRevision,
}

/// The changes of one transaction, as far as a watch asked for them; there may be none, and the revision counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) revision: StoreRevision,
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: String,
    /// `None`: the record is gone.
    pub(crate) value: Option<Bytes>,
}

/// Changes as they come. The end means that whoever watched was too slow, or that the store is gone:
/// list again.
pub(crate) struct Watch {
    batches: mpsc::Receiver<Batch>,
    /// Where what is secret is sealed.
    keys: Option<seal::SealKeys>,
}

impl Watch {
    /// The next transaction. May be dropped midway.
    pub(crate) async fn next(&mut self) -> Option<Batch> {
        let batch = self.batches.recv().await;
        self.opened(batch)
    }

    /// The next one, if it is there already.
    pub(crate) fn ready(&mut self) -> Option<Batch> {
        let batch = self.batches.try_recv().ok();
        self.opened(batch)
    }

    fn opened(&self, batch: Option<Batch>) -> Option<Batch> {
        let mut batch = batch?;
        if let Some(keys) = &self.keys {
            sealed::open_all(keys, &mut batch);
        }
        Some(batch)
    }
}

/// What is to be done together, provided that nothing changed in the meantime.
#[derive(Debug, Clone)]
pub(crate) struct Transaction {
    compares: Vec<Compare>,
    operations: Vec<Operation>,
    note: AuditEntry,
}

#[derive(Debug, Clone)]
enum Compare {
    Absent(String),
    At(String, StoreRevision),
}

#[derive(Debug, Clone)]
enum Operation {
    Put(String, Bytes),
    Remove(String),
}

/// Who did what, for the audit log; written by the same transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    pub(crate) actor: String,
    pub(crate) action: &'static str,
    pub(crate) subject: String,
}

impl Transaction {
    pub(crate) fn new(note: AuditEntry) -> Self {
        Self { compares: Vec::new(), operations: Vec::new(), note }
    }

    /// Only if there is no such record.
    pub(crate) fn if_absent(mut self, key: impl Into<String>) -> Self {
        self.compares.push(Compare::Absent(key.into()));
        self
    }

    /// Only if the record is still the one of this revision.
    pub(crate) fn if_at(mut self, key: impl Into<String>, revision: StoreRevision) -> Self {
        self.compares.push(Compare::At(key.into(), revision));
        self
    }

    pub(crate) fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.operations.push(Operation::Put(key.into(), value.into()));
        self
    }

    pub(crate) fn remove(mut self, key: impl Into<String>) -> Self {
        self.operations.push(Operation::Remove(key.into()));
        self
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Commit {
    Done(StoreRevision),
    /// This record was not as compared; nothing was changed.
    Conflict {
        key: String,
    },
}

#[derive(Debug, Clone, Error)]
pub(crate) enum StoreError {
    #[error("the state in {place} cannot be used: {reason}")]
    Unavailable { place: String, reason: String },
    #[error("the state in {place} was written by a newer version (format {found}, this one knows {known})")]
    TooNew { place: String, found: u32, known: u32 },
    #[error("changes since revision {0:?} are not kept any more")]
    Compacted(StoreRevision),
    #[error("the store has stopped")]
    Stopped,
}

/// The first key behind all that begin with `prefix`, or `None` if there is no end.
fn behind(prefix: &str) -> Option<String> {
    let mut end = prefix.to_owned();
    // Keys are ASCII, so the last character has a successor.
    let last = end.pop()?;
    end.push(char::from_u32(u32::from(last) + 1)?);
    Some(end)
}
