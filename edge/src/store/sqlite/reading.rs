//! What a command reads of the file while an edge may be writing to it: a whole copy, and the audit log. Knows the
//! tables; changes nothing.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{connect, unavailable};
use crate::store::{AuditLine, StoreError};

/// Copies the state at `from` to a new file at `to` while others read and write it. The copy is whole and
/// has everything that was committed before.
pub(crate) fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    let source = connect(from, false)?;
    copy(&source, to).map_err(|error| unavailable(to, error))
}

/// What is in a file that nothing can be written to or beside, in memory. Nobody may write to it meanwhile.
pub(super) fn in_memory(path: &Path) -> io::Result<Connection> {
    let read = |connection: Connection| {
        // What is beside the file is not shared then, and need not be made.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let mut memory = Connection::open_in_memory()?;
        rusqlite::backup::Backup::new(&connection, &mut memory)?.run_to_completion(
            BACKUP_PAGES,
            BACKUP_PAUSE,
            None,
        )?;
        Ok(memory)
    };
    let whole = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).and_then(read);
    let whole = whole.or_else(|error: rusqlite::Error| {
        // On a disk that is read-only there is no place for a log; where none was left, all is in the file.
        let opened = OpenOptions::new().write(true).open(path);
        let is_read_only = opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem);
        let has_log = fs::metadata(path.with_extension("db-wal")).is_ok_and(|log| log.len() > 0);
        if !is_read_only || has_log {
            return Err(error);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        Connection::open_with_flags(immutable(path), flags).and_then(read)
    });
    whole.map_err(io::Error::other)
}

/// As an address, with what nobody changes about it.
fn immutable(path: &Path) -> String {
    let escaped = path.as_os_str().as_bytes().iter().map(|byte| match byte {
        b'/' | b'.' | b'-' | b'_' => char::from(*byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(*byte).to_string(),
        byte => format!("%{byte:02x}"),
    });
    format!("file:{}?immutable=1", escaped.collect::<String>())
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
    audit_lines(&connection, count).map_err(|error| unavailable(path, error))
}

pub(super) fn audit_lines(connection: &Connection, count: u32) -> rusqlite::Result<Vec<AuditLine>> {
    let mut query = connection
        .prepare("SELECT revision, at, actor, action, subject FROM audit ORDER BY revision DESC LIMIT ?1")?;
    let lines = query.query_map([count], |row| {
        Ok(AuditLine {
            revision: row.get(0)?,
            at: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            subject: row.get(4)?,
        })
    })?;
    lines.collect()
}

const BACKUP_PAGES: i32 = 256;
const BACKUP_PAUSE: Duration = Duration::from_millis(5);
