//! The engine of a single edge: one SQLite file, on a thread of its own. Other processes may write to the
//! same file (`adit edge token` beside a running edge); their changes reach the watches too.

mod reading;
mod transactions;
mod watchers;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use super::place::Place;
use super::{
    AuditLine, Commit, Entry, Listing, Restored, Store, StoreError, StoreRevision, Transaction, Watch,
    behind, schema,
};
use transactions::{counter, data_version, last_change};
use watchers::{UNSEEN_BATCHES, Watcher, deliver};

pub(crate) use reading::{audit, backup};

/// Handle of the thread that owns the file. The thread ends when the last handle is gone.
pub(crate) struct Sqlite {
    asks: Option<mpsc::Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

enum Ask {
    List { prefix: String, answer: oneshot::Sender<Result<Listing, StoreError>> },
    Watch { prefix: String, from: StoreRevision, answer: oneshot::Sender<Result<Watch, StoreError>> },
    Commit { transaction: Transaction, answer: oneshot::Sender<Result<Commit, StoreError>> },
    Look { answer: oneshot::Sender<Result<StoreRevision, StoreError>> },
    Probe { answer: oneshot::Sender<Result<StoreRevision, StoreError>> },
    Restore { answer: oneshot::Sender<Result<Restored, StoreError>> },
    Audit { count: u32, answer: oneshot::Sender<Result<Vec<AuditLine>, StoreError>> },
    Scrub { answer: oneshot::Sender<Result<(), StoreError>> },
}

impl Sqlite {
    /// Opens the file at `path`, makes it if there is none (readable by its owner only), and brings it to
    /// the format of this program.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Self::of(Engine::open(path)?)
    }

    /// The same for who serves by it: where the file cannot be written now, what is in it is served, and no change
    /// is taken until it can.
    pub(crate) fn open_to_serve(path: &Path) -> Result<Self, StoreError> {
        Self::of(Engine::open(path).or_else(|error| Engine::frozen(path, error))?)
    }

    fn of(engine: Engine) -> Result<Self, StoreError> {
        let path = engine.path.clone();
        let (asks, inbox) = mpsc::channel(WAITING);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || engine.run(inbox))
            .map_err(|error| unavailable(&path, error))?;
        Ok(Self { asks: Some(asks), thread: Some(thread) })
    }

    /// Leaves nothing in the file of what records were before they were last written.
    pub(crate) fn scrub(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        self.ask(|answer| Ask::Scrub { answer })
    }

    fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Ask,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (answer, answered) = oneshot::channel();
        let (asks, ask) = (self.asks.clone(), ask(answer));
        async move {
            asks.ok_or(StoreError::Stopped)?.send(ask).await.map_err(|_| StoreError::Stopped)?;
            answered.await.unwrap_or(Err(StoreError::Stopped))
        }
        .boxed()
    }
}

impl Store for Sqlite {
    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Listing, StoreError>> {
        let prefix = prefix.to_owned();
        self.ask(|answer| Ask::List { prefix, answer })
    }

    fn watch(&self, prefix: &str, from: StoreRevision) -> BoxFuture<'static, Result<Watch, StoreError>> {
        let prefix = prefix.to_owned();
        self.ask(|answer| Ask::Watch { prefix, from, answer })
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, StoreError>> {
        self.ask(|answer| Ask::Commit { transaction, answer })
    }

    fn look(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>> {
        self.ask(|answer| Ask::Look { answer })
    }

    fn probe(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>> {
        self.ask(|answer| Ask::Probe { answer })
    }

    fn restore(&self) -> BoxFuture<'static, Result<Restored, StoreError>> {
        self.ask(|answer| Ask::Restore { answer })
    }

    fn audit(&self, count: u32) -> BoxFuture<'static, Result<Vec<AuditLine>, StoreError>> {
        self.ask(|answer| Ask::Audit { count, answer })
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.asks = None;
        // What was acknowledged is on disk already; this only closes the file in order.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn connect(path: &Path, create: bool) -> Result<Connection, StoreError> {
    if create {
        // Before SQLite does it, so that it is never readable by others; its other files take the mode on.
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
        made.map_err(|error| unavailable(path, error))?;
    } else if let Err(error) = fs::metadata(path) {
        return Err(unavailable(path, error));
    }
    let open = || {
        let connection = Connection::open(path)?;
        connection.busy_timeout(BUSY)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| unavailable(path, error))
}

fn unavailable(path: &Path, reason: impl fmt::Display) -> StoreError {
    StoreError::Unavailable { place: path.display().to_string(), reason: reason.to_string() }
}

/// The owner of the file, on its thread.
struct Engine {
    connection: Connection,
    path: PathBuf,
    place: Place,
    /// The connection is to a copy in memory, because the file could not be opened for changes.
    is_frozen: bool,
    /// The file is not the one at its path any more; said once.
    is_lost: bool,
    /// Why the last change could not be written, until one can be.
    failure: Option<String>,
    /// When that was last tried.
    tried: Instant,
    watchers: Vec<Watcher>,
    /// Tells whether another process has written (PRAGMA data_version).
    seen: i64,
}

impl Engine {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = connect(path, true)?;
        let found = schema::version(&connection).map_err(|error| unavailable(path, error))?;
        if found > schema::KNOWN {
            let place = path.display().to_string();
            return Err(StoreError::TooNew { place, found, known: schema::KNOWN });
        }
        schema::migrate(&mut connection).map_err(|error| unavailable(path, error))?;
        let seen = data_version(&connection).map_err(|error| unavailable(path, error))?;
        let place = Place::of(path).map_err(|error| unavailable(path, error))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            place,
            is_frozen: false,
            is_lost: false,
            failure: None,
            tried: Instant::now(),
            watchers: Vec::new(),
            seen,
        })
    }

    /// What is in a file that could not be opened because of `error`, as on a disk that is full or read-only.
    fn frozen(path: &Path, error: StoreError) -> Result<Self, StoreError> {
        let StoreError::Unavailable { reason, .. } = &error else { return Err(error) };
        let Ok((connection, place)) =
            reading::in_memory(path).and_then(|connection| Ok((connection, Place::of(path)?)))
        else {
            return Err(error);
        };
        if !schema::version(&connection).is_ok_and(|found| found == schema::KNOWN) {
            return Err(error);
        }
        let mut engine = Self {
            connection,
            path: path.to_owned(),
            place,
            is_frozen: true,
            is_lost: false,
            failure: None,
            tried: Instant::now(),
            watchers: Vec::new(),
            seen: 0,
        };
        engine.wrote(Some(reason.clone()));
        Ok(engine)
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Ask>) {
        // Only for the clock: everything else here blocks, and is why this thread exists.
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime,
            Err(error) => return warn!(%error, "the store cannot start"),
        };
        let mut asks = Vec::with_capacity(GROUP);
        loop {
            if self.failure.is_some() && self.tried.elapsed() >= AGAIN {
                self.try_again();
            }
            let count = runtime
                .block_on(async { tokio::time::timeout(POLL, inbox.recv_many(&mut asks, GROUP)).await });
            match count {
                Ok(0) => {
                    let _ = self.find();
                    return;
                }
                Ok(_) => self.answer(&mut asks),
                Err(_) => {
                    // Said as soon as it is so, not when the next change is refused.
                    let _ = self.find();
                    if let Err(error) = self.look() {
                        warn!(%error, "cannot look for changes of the state");
                    }
                }
            }
        }
    }

    /// Commits that stand in a row share one write to the disk.
    fn answer(&mut self, asks: &mut Vec<Ask>) {
        let mut commits = Vec::new();
        for ask in asks.drain(..) {
            match ask {
                Ask::Commit { transaction, answer } => commits.push((transaction, answer)),
                Ask::List { prefix, answer } => {
                    self.commit_all(&mut commits);
                    let _ = answer.send(self.list(&prefix).map_err(|error| unavailable(&self.path, error)));
                }
                Ask::Watch { prefix, from, answer } => {
                    self.commit_all(&mut commits);
                    let _ = answer.send(self.watch(prefix, from));
                }
                Ask::Look { answer } => {
                    self.commit_all(&mut commits);
                    let looked = self.look().and_then(|()| last_change(&self.connection));
                    let _ = answer.send(looked.map_err(|error| unavailable(&self.path, error)));
                }
                Ask::Probe { answer } => {
                    self.commit_all(&mut commits);
                    let _ = answer.send(self.probe().map_err(|reason| unavailable(&self.path, reason)));
                }
                Ask::Audit { count, answer } => {
                    self.commit_all(&mut commits);
                    let lines = reading::audit_lines(&self.connection, count);
                    let _ = answer.send(lines.map_err(|error| unavailable(&self.path, error)));
                }
                Ask::Scrub { answer } => {
                    self.commit_all(&mut commits);
                    let scrubbed = transactions::scrub(&mut self.connection);
                    let _ = answer.send(scrubbed.map_err(|error| unavailable(&self.path, error)));
                }
                Ask::Restore { answer } => {
                    self.commit_all(&mut commits);
                    let _ = answer.send(self.restore());
                }
            }
        }
        self.commit_all(&mut commits);
    }

    fn commit_all(&mut self, commits: &mut Vec<(Transaction, oneshot::Sender<Result<Commit, StoreError>>)>) {
        if commits.is_empty() {
            return;
        }
        // Looked for again once it is written: what went to a file that is gone was not kept.
        let outcomes = self.find().and_then(|()| {
            if self.is_frozen {
                return Err(self.failure.clone().unwrap_or_default());
            }
            transactions::write(&mut self.connection, commits.iter().map(|(transaction, _)| transaction))
                .map_err(|error| error.to_string())
        });
        let outcomes = outcomes.and_then(|outcomes| self.find().map(|()| outcomes));
        self.wrote(outcomes.as_ref().err().cloned());
        if outcomes.is_ok()
            && let Err(error) = deliver(&mut self.watchers, &self.connection)
        {
            warn!(%error, "cannot tell about changes of the state");
            self.watchers.clear();
        }
        match outcomes {
            Ok(outcomes) => {
                for ((_, answer), outcome) in commits.drain(..).zip(outcomes) {
                    let _ = answer.send(Ok(outcome));
                }
            }
            Err(error) => {
                for (_, answer) in commits.drain(..) {
                    let _ = answer.send(Err(unavailable(&self.path, &error)));
                }
            }
        }
    }

    /// What became of a change; the beginning and the end of a time in which none can be written are said.
    fn wrote(&mut self, failure: Option<String>) {
        match (&failure, &self.failure) {
            // That has been said.
            _ if self.is_lost => {}
            (Some(reason), None) => error!(
                reason,
                "the state cannot be written: what was known is served, and changes are refused until it can"
            ),
            (None, Some(_)) => info!("the state can be written again; changes are taken"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        (self.failure, self.tried) = (failure, Instant::now());
    }

    /// Whoever was refused need not come back, so a change that leaves nothing behind shows whether it is over.
    fn try_again(&mut self) {
        let tried = self.find().and_then(|()| {
            if self.is_frozen {
                return self.reopen().map_err(|error| error.to_string());
            }
            let mut write = || {
                let sql = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                // An update to what is there already would write nothing.
                sql.execute("INSERT INTO counter VALUES ('tried', 0)", [])?;
                sql.execute("DELETE FROM counter WHERE name = 'tried'", [])?;
                sql.commit()
            };
            write().map_err(|error: rusqlite::Error| error.to_string())
        });
        self.wrote(tried.err());
    }

    /// Whether the file is still the one at its path.
    fn find(&mut self) -> Result<(), String> {
        let found = self.place.look();
        match &found {
            Ok(()) if self.is_lost => info!("the state file is in its place again; changes are taken"),
            Err(reason) if !self.is_lost => error!(
                reason,
                "the state file is lost: what was known is served, and no change is taken; POST /state at the \
                 admin listener writes it anew"
            ),
            Ok(()) | Err(_) => {}
        }
        if self.is_lost != found.is_err() {
            self.is_lost = found.is_err();
            // What could not be written was for the file that was lost.
            self.failure = None;
            // Closed in order, it would remove what lies beside the path, which is another file's by then.
            let no_tidying =
                self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, self.is_lost);
            if let Err(error) = no_tidying {
                warn!(%error, "the lost state file cannot be set aside");
            }
        }
        found
    }

    /// The file is there, the last change was taken or one could be since, and the place of a writer is to be had.
    /// A full disk shows only with a change.
    fn probe(&mut self) -> Result<StoreRevision, String> {
        self.find()?;
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let sql = self.connection.transaction_with_behavior(TransactionBehavior::Immediate);
        sql.and_then(|sql| Ok(StoreRevision(counter(&sql, "revision")?))).map_err(|error| error.to_string())
    }

    /// Reading goes on from a file that is removed as long as it is open.
    fn restore(&mut self) -> Result<Restored, StoreError> {
        if self.find().is_ok() {
            return Ok(Restored::WasThere);
        }
        self.place
            .restore(|to| reading::copy(&self.connection, to))
            .map_err(|error| unavailable(&self.path, error))?;
        self.reopen()?;
        self.failure = None;
        self.find().map_err(|reason| unavailable(&self.path, reason))?;
        Ok(Restored::Written)
    }

    fn reopen(&mut self) -> Result<(), StoreError> {
        let Self { connection, place, seen, .. } = Self::open(&self.path)?;
        (self.connection, self.place, self.seen, self.is_frozen) = (connection, place, seen, false);
        // Others may have written meanwhile.
        if let Err(error) = deliver(&mut self.watchers, &self.connection) {
            warn!(%error, "cannot tell about changes of the state");
            self.watchers.clear();
        }
        Ok(())
    }

    fn list(&mut self, prefix: &str) -> rusqlite::Result<Listing> {
        let sql = self.connection.transaction()?;
        let revision = StoreRevision(counter(&sql, "revision")?);
        let mut query = sql.prepare(
            "SELECT key, value, revision FROM record WHERE key >= ?1 AND (?2 IS NULL OR key < ?2) ORDER BY key",
        )?;
        let entries = query
            .query_map(params![prefix, behind(prefix)], |row| {
                Ok(Entry {
                    key: row.get(0)?,
                    value: row.get::<_, Vec<u8>>(1)?.into(),
                    revision: StoreRevision(row.get(2)?),
                })
            })?
            .collect::<Result<_, _>>()?;
        Ok(Listing { revision, entries })
    }

    fn watch(&mut self, prefix: String, from: StoreRevision) -> Result<Watch, StoreError> {
        let failed = |error| unavailable(&self.path, error);
        let compacted = counter(&self.connection, "compacted").map_err(failed)?;
        if from.0 < compacted {
            return Err(StoreError::Compacted(from));
        }
        let (batches, receiver) = mpsc::channel(UNSEEN_BATCHES);
        self.watchers.push(Watcher { prefix, at: from, batches });
        deliver(&mut self.watchers, &self.connection).map_err(|error| unavailable(&self.path, error))?;
        Ok(Watch { batches: receiver, keys: None })
    }

    /// Delivers what another process has written, if it has.
    fn look(&mut self) -> rusqlite::Result<()> {
        self.watchers.retain(|watcher| !watcher.batches.is_closed());
        if self.watchers.is_empty() {
            return Ok(());
        }
        let version = data_version(&self.connection)?;
        if version == self.seen {
            return Ok(());
        }
        deliver(&mut self.watchers, &self.connection)?;
        self.seen = version;
        Ok(())
    }
}

/// Asks that wait for the thread; more of them wait outside.
const WAITING: usize = 256;
/// Asks that are answered in one go.
const GROUP: usize = 64;
/// How often another process's changes are looked for.
const POLL: Duration = Duration::from_millis(200);
/// How often it is tried whether the state can be written, while it cannot.
const AGAIN: Duration = Duration::from_secs(1);
/// How long another process may hold the file.
const BUSY: Duration = Duration::from_secs(5);
#[cfg(test)]
mod tests;
