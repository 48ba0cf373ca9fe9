//! The state that this edge knows: a snapshot in memory, fed by the store's watch. Reading it asks
//! nobody; if the store is gone, it stays as it was. A node of a fleet also keeps it on its own disk (`saved`). Knows
//! the store; does not know who reads.

pub(crate) mod fresh;
pub(crate) mod holdings;
pub(crate) mod migrate;
pub(crate) mod name;
pub(crate) mod provision;
pub(crate) mod publish;
pub(crate) mod saved;
pub(crate) mod snapshot;
pub(crate) mod token;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::store::{
    AuditLine, Batch, Commit, Listing, Restored, Store, StoreError, StoreRevision, Transaction, Watch,
};
use saved::Saved;
use snapshot::{Changes, Snapshot};

/// Handle on the snapshot and on the store behind it.
#[derive(Clone)]
pub(crate) struct State {
    store: Arc<dyn Store>,
    snapshot: Arc<RwLock<Snapshot>>,
    /// Up to here the snapshot, and what is made from it, follows the store.
    published: watch::Receiver<StoreRevision>,
    /// When that was written which the snapshot was made of, if it was not the store's.
    saved_at: Option<SystemTime>,
}

/// Whatever keeps the snapshot up to date; without it the snapshot never changes.
pub(crate) struct Follower {
    store: Arc<dyn Store>,
    snapshot: Arc<RwLock<Snapshot>>,
    published: watch::Sender<StoreRevision>,
    /// Where what is known is kept for a start without the store.
    saved: Option<Saved>,
    /// What is known is from there: all of it is read anew, whatever the store has now.
    is_from_disk: bool,
    /// When it was begun anew last.
    tidied: Option<Instant>,
}

/// Why a change was not made, or is not known to be.
#[derive(Debug, Error)]
pub(crate) enum ChangeError {
    #[error("somebody else changed {key} at the same time")]
    Conflict { key: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is written, but not served yet.
    #[error("the edge is slow to follow its own state")]
    Behind,
}

impl State {
    /// Reads everything once.
    pub(crate) async fn load(store: Arc<dyn Store>) -> Result<(Self, Follower), StoreError> {
        let listing = store.list("").await?;
        Ok(Self::of(store, listing, None, None))
    }

    /// The same for a node of a fleet: if the store is away, what was known here before it was stopped.
    pub(crate) async fn load_or_saved(
        store: Arc<dyn Store>,
        mut saved: Saved,
    ) -> Result<(Self, Follower), StoreError> {
        let known = saved.read().unwrap_or_else(|error| {
            warn!(%error, "what was known of the fleet is not used");
            None
        });
        if let Some((fleet, _)) = &known {
            store.expect(*fleet);
        }
        match (store.list("").await, known) {
            (Ok(listing), _) => {
                if let Some(fleet) = store.fleet() {
                    saved.begin(fleet, &listing);
                }
                Ok(Self::of(store, listing, Some(saved), None))
            }
            (Err(error), Some((fleet, listing))) => {
                let revision = listing.revision.0;
                error!(
                    %error, %fleet, revision, path = %saved.path().display(),
                    "the store cannot be used: serving what was known when this edge was stopped, and taking no \
                     change; if this edge is to serve another fleet, remove that file"
                );
                let saved_at = saved.written_at();
                Ok(Self::of(store, listing, Some(saved), Some(saved_at)))
            }
            (Err(error), None) => Err(error),
        }
    }

    fn of(
        store: Arc<dyn Store>,
        listing: Listing,
        saved: Option<Saved>,
        saved_at: Option<SystemTime>,
    ) -> (Self, Follower) {
        let snapshot = Snapshot::from_listing(listing);
        let (sender, published) = watch::channel(snapshot.revision);
        let snapshot = Arc::new(RwLock::new(snapshot));
        let (theirs, known, is_from_disk) = (store.clone(), snapshot.clone(), saved_at.is_some());
        let follower =
            Follower { store: theirs, snapshot: known, published: sender, saved, is_from_disk, tidied: None };
        (Self { store, snapshot, published, saved_at }, follower)
    }

    /// See [`Store::hold`].
    pub(crate) async fn hold(&self, key: &str, value: Bytes, stop: CancellationToken) {
        self.store.hold(key, value, stop).await;
    }

    /// Which fleet's records these are, if they are a fleet's.
    pub(crate) fn fleet(&self) -> Option<Uuid> {
        self.store.fleet()
    }

    /// How long nothing was heard of the store, while that is somewhere else.
    pub(crate) fn silent_for(&self) -> Duration {
        let since_saved = || self.saved_at.and_then(|at| at.elapsed().ok()).unwrap_or_default();
        self.store.silent_for().unwrap_or_else(since_saved)
    }

    /// Looks at the snapshot. `look` must be brief: changes wait for it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&Snapshot) -> T) -> T {
        look(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes over what other processes have written before this, so that a command that is done counts for the
    /// next call. If the store is slow, what is known counts.
    pub(crate) async fn catch_up(&self) {
        self.catch_up_within(CATCH_UP).await;
    }

    /// The same with a limit of its own.
    async fn catch_up_within(&self, limit: Duration) {
        let mut published = self.published.clone();
        let caught_up = async {
            if let Ok(revision) = self.store.look().await {
                let _ = published.wait_for(|seen| *seen >= revision).await;
            }
        };
        let _ = timeout(limit, caught_up).await;
    }

    /// Who changed what and when: the newest lines of the audit log, newest first.
    pub(crate) async fn audit(&self, count: u32) -> Result<Vec<AuditLine>, StoreError> {
        match timeout(AUDIT, self.store.audit(count)).await {
            Ok(lines) => lines,
            Err(_) => Err(StoreError::Stopped),
        }
    }

    /// Writes everything anew to where it is kept, if it was lost from there.
    pub(crate) async fn restore(&self) -> Result<Restored, StoreError> {
        self.store.restore().await
    }

    /// Up to where this edge serves by its state.
    pub(crate) fn served(&self) -> StoreRevision {
        *self.published.borrow()
    }

    /// Sees a change whenever the snapshot has changed.
    pub(crate) fn changes(&self) -> watch::Receiver<StoreRevision> {
        self.published.clone()
    }

    /// See [`Store::probe`].
    pub(crate) async fn probe(&self) -> Result<StoreRevision, StoreError> {
        self.store.probe().await
    }

    /// Makes a change and waits until this edge serves by it. Dropped midway, it may be done or not.
    pub(crate) async fn change(&self, transaction: Transaction) -> Result<(), ChangeError> {
        let revision = match self.store.commit(transaction).await? {
            Commit::Done(revision) => revision,
            Commit::Conflict { key } => return Err(ChangeError::Conflict { key }),
        };
        let mut published = self.published.clone();
        match timeout(PUBLISHED, published.wait_for(|seen| *seen >= revision)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(ChangeError::Behind),
        }
    }
}

impl Follower {
    /// Follows the store until `stop`; calls `publish` after each change with what it touched.
    pub(crate) async fn run(mut self, mut publish: impl FnMut(&Snapshot, &Changes), stop: CancellationToken) {
        let follow = async {
            let mut pause = AGAIN;
            loop {
                match self.watch().await {
                    Ok(watch) => {
                        pause = AGAIN;
                        self.follow(watch, &mut publish).await;
                        warn!("the watch on the state ended; beginning again");
                    }
                    Err(StoreError::Compacted(_)) => {
                        pause = AGAIN;
                        self.start_over(&mut publish).await;
                    }
                    Err(error) => {
                        error!(%error, "cannot watch the state; serving what was known last");
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                // Not all edges of a fleet at the same moment.
                sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
        }
    }

    async fn watch(&self) -> Result<Watch, StoreError> {
        let from = self.snapshot.read().unwrap_or_else(PoisonError::into_inner).revision;
        if self.is_from_disk {
            // Whether the store is back, and still the same.
            self.store.look().await?;
            return Err(StoreError::Compacted(from));
        }
        self.store.watch("", from).await
    }

    async fn follow(&mut self, mut watch: Watch, publish: &mut impl FnMut(&Snapshot, &Changes)) {
        while let Some(batch) = watch.next().await {
            let mut touched = Changes::default();
            self.apply(batch, &mut touched);
            // What is there already shares one publication.
            for _ in 0..MOST_AT_ONCE {
                let Some(batch) = watch.ready() else { break };
                self.apply(batch, &mut touched);
            }
            let revision = {
                let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
                publish(&snapshot, &touched);
                snapshot.revision
            };
            self.published.send_replace(revision);
            self.tidy().await;
        }
    }

    fn apply(&mut self, batch: Batch, touched: &mut Changes) {
        if let Some(saved) = &mut self.saved {
            saved.append(&batch);
        }
        self.snapshot.write().unwrap_or_else(PoisonError::into_inner).apply(batch, touched);
    }

    /// Begins what is kept on the disk anew once it has grown long, but not all the time.
    async fn tidy(&mut self) {
        let (Some(saved), Some(fleet)) = (&mut self.saved, self.store.fleet()) else { return };
        if saved.is_long()
            && self.tidied.is_none_or(|last| last.elapsed() > TIDY)
            && let Ok(listing) = self.store.list("").await
        {
            self.tidied = Some(Instant::now());
            saved.begin(fleet, &listing);
        }
    }

    async fn start_over(&mut self, publish: &mut impl FnMut(&Snapshot, &Changes)) {
        match self.store.list("").await {
            Ok(listing) => {
                if let (Some(saved), Some(fleet)) = (&mut self.saved, self.store.fleet()) {
                    saved.begin(fleet, &listing);
                }
                if self.is_from_disk {
                    info!(revision = listing.revision.0, "the store is back");
                }
                self.is_from_disk = false;
                let fresh = Snapshot::from_listing(listing);
                let revision = fresh.revision;
                *self.snapshot.write().unwrap_or_else(PoisonError::into_inner) = fresh;
                publish(&self.snapshot.read().unwrap_or_else(PoisonError::into_inner), &Changes::all());
                self.published.send_replace(revision);
            }
            Err(error) => error!(%error, "cannot read the state; serving what was known last"),
        }
    }
}

/// How long a change may take from the disk to what is served.
const PUBLISHED: Duration = Duration::from_secs(5);
/// How long the audit log may take to be read.
const AUDIT: Duration = Duration::from_secs(5);
const CATCH_UP: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_secs(1);
/// Between two attempts to reach a store that is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Between two times at which all of the state is written to the disk.
const TIDY: Duration = Duration::from_secs(60);
const MOST_AT_ONCE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::AuditEntry;
    use crate::store::records::{Account, key, to_json};
    use crate::store::sqlite::Sqlite;
    use crate::store::timestamp::Timestamp;

    fn put(number: usize) -> Transaction {
        let note = AuditEntry { actor: "test".to_owned(), action: "put", subject: String::new() };
        let account = Account { name: number.to_string(), created_at: Timestamp::now() };
        Transaction::new(note).put(key::account(&(number % 5).to_string()), to_json(&account))
    }

    #[tokio::test]
    async fn what_another_process_has_written_is_known_once_it_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (own, other) = (Arc::new(Sqlite::open(&path).unwrap()), Sqlite::open(&path).unwrap());
        let (state, follower) = State::load(own).await.unwrap();
        let stop = CancellationToken::new();
        let following = tokio::spawn(follower.run(|_, _| {}, stop.clone()));
        for number in 0..5 {
            other.commit(put(number)).await.unwrap();
            state.catch_up().await;
            assert_eq!(state.read(|snapshot| snapshot.accounts.len()), number + 1);
        }
        stop.cancel();
        following.await.unwrap();
    }

    #[tokio::test]
    async fn a_follower_that_fell_too_far_behind_begins_again_and_misses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap());
        let (state, follower) = State::load(store.clone()).await.unwrap();
        // More than is kept for watches.
        let commits = (0..12_000).map(|number| store.commit(put(number)));
        futures_util::future::join_all(commits).await;
        // What is asked at once is done in any order, so the last ones are asked one after the other.
        for number in 12_000..12_005 {
            store.commit(put(number)).await.unwrap();
        }
        let stop = CancellationToken::new();
        let following = tokio::spawn(follower.run(|_, _| {}, stop.clone()));
        state.change(put(12_005)).await.unwrap();
        let mut names = state.read(|snapshot| {
            snapshot.accounts.values().map(|account| account.record.name.clone()).collect::<Vec<_>>()
        });
        names.sort();
        assert_eq!(names, ["12001", "12002", "12003", "12004", "12005"]);
        stop.cancel();
        following.await.unwrap();
    }
}
