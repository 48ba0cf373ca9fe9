//! Lets whoever must not answer by what was so a moment ago wait until this edge knows what other processes had written
//! by now. One look at the store is everybody's who came before it, and looks have a pace: strangers who have many wait
//! cost no more than one who does. Knows the state; does not know who waits, nor for what.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::State;

/// Handle on the looks at the store.
#[derive(Clone)]
pub(crate) struct Fresh(Arc<Looks>);

struct Looks {
    state: State,
    wanted: Notify,
    begun: AtomicU64,
    done: watch::Sender<u64>,
}

impl Fresh {
    pub(crate) fn new(state: State) -> Self {
        let (wanted, begun) = (Notify::new(), AtomicU64::new(0));
        Self(Arc::new(Looks { state, wanted, begun, done: watch::Sender::new(0) }))
    }

    /// Waits until all is known that was written before this; if the store is slow, what is known by then counts. May be
    /// dropped midway.
    pub(crate) async fn wait(&self) {
        let mut done = self.0.done.subscribe();
        // A look that has begun already may have come too early.
        let next = self.0.begun.load(Ordering::SeqCst) + 1;
        self.0.wanted.notify_one();
        let _ = timeout(LONGEST_WAIT, done.wait_for(|done| *done >= next)).await;
    }

    /// Looks for whoever waits, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        let looks = async {
            loop {
                self.0.wanted.notified().await;
                let number = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
                self.0.state.catch_up_within(LONGEST_WAIT).await;
                self.0.done.send_replace(number);
                sleep(PACE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = looks => {}
        }
    }
}

/// Authorities give up after ten seconds or more.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// From one look to the next.
const PACE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::records::{Account, key, to_json};
    use crate::store::sqlite::Sqlite;
    use crate::store::timestamp::Timestamp;
    use crate::store::{AuditEntry, Store, Transaction};

    #[tokio::test]
    async fn what_was_written_elsewhere_before_a_wait_is_known_after_it_and_many_cost_few_looks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (own, other) = (Arc::new(Sqlite::open(&path).unwrap()), Sqlite::open(&path).unwrap());
        let (state, follower) = State::load(own).await.unwrap();
        let (stop, fresh) = (CancellationToken::new(), Fresh::new(state.clone()));
        let following = tokio::spawn(follower.run(|_, _| {}, stop.clone()));
        let looking = tokio::spawn({
            let (fresh, stop) = (fresh.clone(), stop.clone());
            async move { fresh.run(stop).await }
        });
        for number in 0..5 {
            let note = AuditEntry { actor: "test".to_owned(), action: "put", subject: String::new() };
            let account = Account { name: number.to_string(), created_at: Timestamp::now() };
            let put = Transaction::new(note).put(key::account(&number.to_string()), to_json(&account));
            other.commit(put).await.unwrap();
            futures_util::future::join_all((0..1000).map(|_| async {
                fresh.wait().await;
                assert_eq!(state.read(|snapshot| snapshot.accounts.len()), number + 1);
            }))
            .await;
        }
        assert!(fresh.0.begun.load(Ordering::SeqCst) <= 10, "at most one under way and one for all others");
        stop.cancel();
        following.await.unwrap();
        looking.await.unwrap();
    }
}
