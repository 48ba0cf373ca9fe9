//! What a command reads of the file while an edge may be writing to it: a whole copy, and the audit log. Knows the
//! tables; changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{connect, unavailable};
use crate::store::StoreError;

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

/// Copies the state at `from` to a new file at `to` while others read and write it. The copy is whole and
/// has everything that was committed before.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let source = connect(from, false)?;
    copy(&source, to).map_err(|error| unavailable(to, error))
}

/// The new file is on the disk, and readable by its owner only.
pub(super) fn copy(source: &Connection, to: &Path) -> io::Result<()> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
    made?;
    let copied = (|| {
        let mut target = Connection::open(to)?;
        rusqlite::backup::Backup::new(source, &mut target)?.run_to_completion(
            BACKUP_PAGES,
            BACKUP_PAUSE,
            None,
        )?;
        target.pragma_update(None, "journal_mode", "DELETE")?;
        target.close().map_err(|(_, error)| error)
    })();
    copied.map_err(io::Error::other).and_then(|()| File::open(to)?.sync_all()).inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

/// The newest `count` lines of the audit log, newest first.
pub(crate) fn audit(path: &Path, count: u32) -> Result<Vec<AuditLine>, StoreError> {
    let connection = connect(path, false)?;
    let read = || {
        let mut query = connection.prepare(
            "SELECT revision, at, actor, action, subject FROM audit ORDER BY revision DESC LIMIT ?1",
        )?;
        let lines = query.query_map([count], |row| {
            Ok(AuditLine {
                revision: row.get(0)?,
                at: row.get(1)?,
                actor: row.get(2)?,
                action: row.get(3)?,
                subject: row.get(4)?,
            })
        })?;
        lines.collect::<rusqlite::Result<_>>()
    };
    read().map_err(|error| unavailable(path, error))
}

const BACKUP_PAGES: i32 = 256;
const BACKUP_PAUSE: Duration = Duration::from_millis(5);
