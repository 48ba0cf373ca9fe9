//! The log of this process as somebody far away watches it: at most one at a time. While nobody does, an event costs
//! nothing, because nobody asks for it. A queue with an end stands between who logs and who watches: what does not fit
//! is counted and dropped, so that nothing waits for a watcher. Knows events; does not know where they come from.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use adit_protocol::management::{EventKind, Filters, Level};
use arc_swap::ArcSwapOption;
use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Where events come in, and who watches them.
#[derive(Default)]
pub struct Tail {
    /// 0 while nobody watches, else one more than the least level that is wanted.
    wanted: AtomicU8,
    watch: ArcSwapOption<Watch>,
    turn: Mutex<()>,
    dropped: AtomicU64,
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// An event as it was logged; secrets may be in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Happened {
    pub at: SystemTime,
    pub level: Level,
    pub event: EventKind,
    pub message: String,
    pub fields: Map<String, Value>,
}

/// Somebody who watches.
struct Watch {
    actor: String,
    filters: Filters,
    queue: mpsc::Sender<Happened>,
    /// Events that did not fit since the watcher was told last.
    missed: AtomicU64,
    /// Somebody else watches instead.
    displaced: CancellationToken,
}

/// The watcher's end; nobody watches when it is dropped.
pub(super) struct Watching {
    tail: Arc<Tail>,
    watch: Arc<Watch>,
    queue: mpsc::Receiver<Happened>,
}

/// Somebody else watches.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Busy;

impl Tail {
    /// `changed` is called when what is wanted has changed, so that who logs looks anew.
    pub fn told(&self, changed: impl Fn() + Send + Sync + 'static) {
        let _ = self.changed.set(Box::new(changed));
    }

    /// The least level that is wanted; `None` while nobody watches.
    #[inline]
    pub fn level(&self) -> Option<Level> {
        let wanted = self.wanted.load(Ordering::Relaxed);
        Level::ALL.get(usize::from(wanted.checked_sub(1)?)).copied()
    }

    /// Whether an event is wanted. Where a share is, chance says so.
    pub fn wants(&self, event: EventKind, level: Level) -> bool {
        let watch = self.watch.load();
        let Some(watch) = &*watch else { return false };
        let share = watch.filters.share();
        watch.filters.want(event, level) && (share >= 1.0 || fastrand::f64() < share)
    }

    /// Hands an event on that is wanted. Never waits.
    pub fn say(&self, happened: Happened) {
        let watch = self.watch.load();
        let Some(watch) = &*watch else { return };
        if watch.queue.try_send(happened).is_err() {
            watch.missed.fetch_add(1, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that no watcher was told, since the process began.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Begins to watch. Who watches already makes room for the same person, and for nobody else.
    pub(super) fn watch(self: &Arc<Self>, actor: &str, filters: Filters) -> Result<Watching, Busy> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = self.watch.load_full() {
            if other.actor != actor {
                return Err(Busy);
            }
            other.displaced.cancel();
        }
        let (queue, waiting) = mpsc::channel(QUEUE);
        let watch = Arc::new(Watch {
            actor: actor.to_owned(),
            filters,
            queue,
            missed: AtomicU64::new(0),
            displaced: CancellationToken::new(),
        });
        self.set(Some(watch.clone()));
        drop(turn);
        Ok(Watching { tail: self.clone(), watch, queue: waiting })
    }

    fn set(&self, watch: Option<Arc<Watch>>) {
        let level = watch.as_ref().map(|watch| watch.filters.level.unwrap_or_default());
        let at = level.and_then(|level| Level::ALL.iter().position(|known| *known == level));
        self.watch.store(watch);
        self.wanted.store(at.map_or(0, |at| at as u8 + 1), Ordering::Relaxed);
        if let Some(changed) = self.changed.get() {
            changed();
        }
    }
}

impl Watching {
    /// The next event. May be dropped midway.
    pub(super) async fn next(&mut self) -> Happened {
        match self.queue.recv().await {
            Some(happened) => happened,
            // There is a sender as long as this watches.
            None => std::future::pending().await,
        }
    }

    /// How many did not fit since the last call.
    pub(super) fn missed(&self) -> u64 {
        self.watch.missed.swap(0, Ordering::Relaxed)
    }

    /// Cancelled when somebody else watches instead.
    pub(super) fn displaced(&self) -> CancellationToken {
        self.watch.displaced.clone()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _turn = self.tail.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_own = self.tail.watch.load().as_ref().is_some_and(|watch| Arc::ptr_eq(watch, &self.watch));
        if is_own {
            self.tail.set(None);
        }
    }
}

/// Events that wait for a watcher.
const QUEUE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(message: &str) -> Happened {
        Happened {
            at: SystemTime::UNIX_EPOCH,
            level: Level::Info,
            event: EventKind::Http,
            message: message.to_owned(),
            fields: Map::new(),
        }
    }

    fn filters(level: Level) -> Filters {
        Filters { level: Some(level), ..Filters::default() }
    }

    #[tokio::test]
    async fn events_are_wanted_only_while_somebody_watches_and_only_those() {
        let tail = Arc::new(Tail::default());
        let told = Arc::new(AtomicU64::new(0));
        tail.told({
            let told = told.clone();
            move || {
                let _ = told.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(tail.level(), None);
        assert!(!tail.wants(EventKind::Http, Level::Error));
        tail.say(happened("to nobody"));
        let mut watching = tail.watch("me", filters(Level::Info)).unwrap();
        assert_eq!(tail.level(), Some(Level::Info));
        assert!(tail.wants(EventKind::Http, Level::Info) && !tail.wants(EventKind::Http, Level::Debug));
        tail.say(happened("one"));
        assert_eq!(watching.next().await.message, "one");
        drop(watching);
        assert_eq!((tail.level(), told.load(Ordering::Relaxed)), (None, 2));
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_nobody_waits_for_it() {
        let tail = Arc::new(Tail::default());
        let mut watching = tail.watch("me", Filters::default()).unwrap();
        for number in 0..QUEUE + 100 {
            tail.say(happened(&number.to_string()));
        }
        assert_eq!((watching.missed(), watching.missed(), tail.dropped()), (100, 0, 100));
        assert_eq!(watching.next().await.message, "0", "the newest went");
    }

    #[tokio::test]
    async fn one_watches_and_makes_room_for_itself_alone() {
        let tail = Arc::new(Tail::default());
        let first = tail.watch("me", filters(Level::Error)).unwrap();
        assert!(tail.watch("somebody", Filters::default()).is_err());
        let second = tail.watch("me", filters(Level::Warn)).unwrap();
        first.displaced().cancelled().await;
        drop(first);
        assert_eq!(tail.level(), Some(Level::Warn), "the first has nothing to say any more");
        drop(second);
        assert!(tail.watch("somebody", Filters::default()).is_ok());
    }

    #[test]
    fn a_share_is_about_that_share() {
        let tail = Arc::new(Tail::default());
        let filters = Filters { sampling: Some(0.25), ..Filters::default() };
        let _watching = tail.watch("me", filters).unwrap();
        let wanted = (0..10_000).filter(|_| tail.wants(EventKind::Http, Level::Info)).count();
        assert!((2_000..3_000).contains(&wanted), "{wanted}");
    }
}
