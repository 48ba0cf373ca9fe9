//! Who is told of changes, and how far each has come. Knows the table of changes; does not know who writes to it.

use bytes::Bytes;
use rusqlite::Connection;
use tokio::sync::mpsc;

use crate::store::{Batch, Change, StoreRevision};

pub(super) struct Watcher {
    pub(super) prefix: String,
    /// Everything up to here was delivered.
    pub(super) at: StoreRevision,
    pub(super) batches: mpsc::Sender<Batch>,
}

/// Gives every watcher what it has not had. One that does not take it is dropped, and its watch ends.
pub(super) fn deliver(watchers: &mut Vec<Watcher>, connection: &Connection) -> rusqlite::Result<()> {
    let Some(from) = watchers.iter().map(|watcher| watcher.at).min() else { return Ok(()) };
    let mut query = connection
        .prepare("SELECT revision, key, value FROM change WHERE revision > ?1 ORDER BY revision, key")?;
    let mut batches: Vec<Batch> = Vec::new();
    let mut rows = query.query([from.0])?;
    while let Some(row) = rows.next()? {
        let revision = StoreRevision(row.get(0)?);
        let change = Change { key: row.get(1)?, value: row.get::<_, Option<Vec<u8>>>(2)?.map(Bytes::from) };
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.changes.push(change),
            _ => batches.push(Batch { revision, changes: vec![change] }),
        }
    }
    let Some(newest) = batches.last().map(|batch| batch.revision) else { return Ok(()) };
    watchers.retain_mut(|watcher| {
        let unseen = batches.iter().filter(|batch| batch.revision > watcher.at);
        for Batch { revision, changes } in unseen {
            let changes: Vec<_> =
                changes.iter().filter(|change| change.key.starts_with(&watcher.prefix)).cloned().collect();
            let batch = Batch { revision: *revision, changes };
            if !batch.changes.is_empty() && watcher.batches.try_send(batch).is_err() {
                return false;
            }
        }
        watcher.at = newest;
        true
    });
    Ok(())
}

/// Transactions that a watcher may be behind.
pub(super) const UNSEEN_BATCHES: usize = 4096;
