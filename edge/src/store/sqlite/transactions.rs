//! Changes as SQL writes them: what is compared, what is written in one go, and how far back it is kept. Knows the
//! tables; does not know who asks.

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::store::timestamp::Timestamp;
use crate::store::{Commit, Compare, Operation, StoreRevision, Transaction};

/// Writes as many of these as fit to what is there, in one go.
pub(super) fn write<'t>(
    connection: &mut Connection,
    transactions: impl Iterator<Item = &'t Transaction>,
) -> rusqlite::Result<Vec<Commit>> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut revision = counter(&sql, "revision")?;
    let before = revision;
    let mut outcomes = Vec::new();
    for transaction in transactions {
        match conflict(&sql, transaction)? {
            Some(key) => outcomes.push(Commit::Conflict { key }),
            None => {
                revision += 1;
                apply(&sql, transaction, revision)?;
                outcomes.push(Commit::Done(StoreRevision(revision)));
            }
        }
    }
    if revision != before {
        set_counter(&sql, "revision", revision)?;
        if revision / COMPACT_EVERY != before / COMPACT_EVERY {
            let keep_from = revision.saturating_sub(KEPT_REVISIONS);
            sql.prepare("DELETE FROM change WHERE revision <= ?1")?.execute([keep_from])?;
            set_counter(&sql, "compacted", keep_from)?;
            let keep_from = revision.saturating_sub(KEPT_AUDIT);
            sql.prepare("DELETE FROM audit WHERE revision <= ?1")?.execute([keep_from])?;
        }
    }
    sql.commit()?;
    Ok(outcomes)
}

/// The first record that is not as the transaction wants it.
fn conflict(sql: &Connection, transaction: &Transaction) -> rusqlite::Result<Option<String>> {
    let mut query = sql.prepare("SELECT revision FROM record WHERE key = ?1")?;
    for compare in &transaction.compares {
        let (key, wanted) = match compare {
            Compare::Absent(key) => (key, None),
            Compare::At(key, revision) => (key, Some(revision.0)),
        };
        let found: Option<u64> = query.query_row([key], |row| row.get(0)).optional()?;
        if found != wanted {
            return Ok(Some(key.clone()));
        }
    }
    Ok(None)
}

fn apply(sql: &Connection, transaction: &Transaction, revision: u64) -> rusqlite::Result<()> {
    let mut change =
        sql.prepare("INSERT OR REPLACE INTO change (revision, key, value) VALUES (?1, ?2, ?3)")?;
    for operation in &transaction.operations {
        match operation {
            Operation::Put(key, value) => {
                sql.prepare(
                    "INSERT INTO record (key, value, revision) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET value = ?2, revision = ?3",
                )?
                .execute(params![key, &value[..], revision])?;
                change.execute(params![revision, key, Some(&value[..])])?;
            }
            Operation::Remove(key) => {
                sql.prepare("DELETE FROM record WHERE key = ?1")?.execute([key])?;
                change.execute(params![revision, key, None::<&[u8]>])?;
            }
        }
    }
    let note = &transaction.note;
    sql.prepare("INSERT INTO audit (revision, at, actor, action, subject) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![revision, Timestamp::now().to_string(), note.actor, note.action, note.subject])?;
    Ok(())
}

/// Takes out of the file what records were before. Whoever follows changes is told of the last of each: the same comes
/// of it.
pub(super) fn scrub(connection: &mut Connection) -> rusqlite::Result<()> {
    let sql = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    sql.execute(
        "UPDATE change SET value = (SELECT value FROM record WHERE record.key = change.key) WHERE value IS NOT NULL",
        [],
    )?;
    sql.commit()?;
    // What was written over is still in pages that nothing uses, and in the log.
    connection.execute_batch("VACUUM")?;
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

pub(super) fn counter(sql: &Connection, name: &str) -> rusqlite::Result<u64> {
    sql.prepare("SELECT value FROM counter WHERE name = ?1")?.query_row([name], |row| row.get(0))
}

pub(super) fn set_counter(sql: &Connection, name: &str, value: u64) -> rusqlite::Result<()> {
    sql.prepare("UPDATE counter SET value = ?2 WHERE name = ?1")?.execute(params![name, value])?;
    Ok(())
}

pub(super) fn last_change(sql: &Connection) -> rusqlite::Result<StoreRevision> {
    let mut query = sql.prepare("SELECT max(revision) FROM change")?;
    Ok(StoreRevision(query.query_row([], |row| row.get::<_, Option<u64>>(0))?.unwrap_or_default()))
}

pub(super) fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

/// Changes are kept for watches that begin in the past, at least this many revisions.
pub(super) const KEPT_REVISIONS: u64 = 10_000;
pub(super) const COMPACT_EVERY: u64 = 1_000;
/// Lines of the audit log: strangers make some too.
pub(super) const KEPT_AUDIT: u64 = 1_000_000;
