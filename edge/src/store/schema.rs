//! The tables of the SQLite engine and the steps that bring an older file up to date.

use rusqlite::{Connection, TransactionBehavior};

/// One step per version of the format; a step that was released never changes.
const STEPS: &[&str] = &[
    "CREATE TABLE record (
        key TEXT PRIMARY KEY,
        value BLOB NOT NULL,
        revision INTEGER NOT NULL
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE change (
        revision INTEGER NOT NULL,
        key TEXT NOT NULL,
        value BLOB,
        PRIMARY KEY (revision, key)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     INSERT INTO counter VALUES ('revision', 0), ('compacted', 0);
     CREATE TABLE audit (
        revision INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        subject TEXT NOT NULL
     ) STRICT;",
    // The tables stay. A program of before would serve a state with load balancers as if they were not there, and
    // is kept from it.
    "INSERT INTO counter VALUES ('balancing', 0);",
    // The tables stay again. A program of before would find no secret in a tunnel whose secrets are sealed.
    "INSERT INTO counter VALUES ('sealed', 0);",
];

/// The newest format that this program reads and writes.
pub(super) const KNOWN: u32 = STEPS.len() as u32;

/// Which format a file has; 0 is a new one.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<u32> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

/// Brings a file to [`KNOWN`], all steps or none.
pub(super) fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let from = version(&transaction)?;
    for step in STEPS.iter().skip(from as usize) {
        transaction.execute_batch(step)?;
    }
    if from < KNOWN {
        transaction.pragma_update(None, "user_version", KNOWN)?;
    }
    transaction.commit()
}
