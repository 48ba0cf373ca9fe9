//! What happens on a visitor's connection, as far as others have to know. Knows requests only by their number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::visitor::Source;

/// What all requests of one connection share.
pub(crate) struct Activity {
    requests: AtomicUsize,
    /// All that ever began.
    total: AtomicUsize,
    /// Somebody waits for more of the body of a request.
    wants_body: AtomicBool,
    /// The connection speaks another protocol by now.
    has_switched: AtomicBool,
    began: Instant,
    /// Milliseconds from `began` to the end of the last request.
    ended: AtomicU64,
    has_begun: AtomicBool,
    first: Notify,
    /// Held as long as anything of the connection lives, a WebSocket made of it included.
    _permit: OwnedSemaphorePermit,
    source: Source,
}

/// See [`Activity::want_body`].
pub(crate) struct BodyWanted<'a>(&'a Activity);

/// A request under way: as long as it lives, its connection is not idle.
pub(crate) struct Busy {
    activity: Arc<Activity>,
    /// Whoever asks may have one more request.
    is_welcome: bool,
}

impl Activity {
    pub(crate) fn new(permit: OwnedSemaphorePermit, source: Source) -> Arc<Self> {
        Arc::new(Self {
            requests: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            wants_body: AtomicBool::new(false),
            has_switched: AtomicBool::new(false),
            began: Instant::now(),
            ended: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            first: Notify::new(),
            _permit: permit,
            source,
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        if !self.has_begun.load(Ordering::Relaxed) {
            self.has_begun.store(true, Ordering::Relaxed);
            self.first.notify_one();
        }
        Busy { activity: self.clone(), is_welcome: self.source.begin() }
    }

    /// How many requests have ever begun.
    pub(crate) fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether more of the body of a request is waited for.
    pub(crate) fn wants_body(&self) -> bool {
        self.wants_body.load(Ordering::Relaxed)
    }

    /// Says so, as long as the result lives.
    pub(crate) fn want_body(&self) -> BodyWanted<'_> {
        self.wants_body.store(true, Ordering::Relaxed);
        BodyWanted(self)
    }

    pub(crate) fn has_switched(&self) -> bool {
        self.has_switched.load(Ordering::Relaxed)
    }

    /// Waits for the first request, unless it has already come. For one waiter; may be dropped midway.
    pub(crate) async fn begun(&self) {
        if !self.has_begun.load(Ordering::Relaxed) {
            self.first.notified().await;
        }
    }

    /// Waits until, from now on, there was no request for the whole of `period`. May be dropped midway.
    pub(crate) async fn quiet(&self, period: Duration) {
        let mut from = Instant::now();
        loop {
            sleep_until(from + period).await;
            let ended = self.began + Duration::from_millis(self.ended.load(Ordering::Relaxed));
            if self.requests.load(Ordering::Relaxed) > 0 {
                from = Instant::now();
            } else if ended > from {
                from = ended;
            } else {
                return;
            }
        }
    }
}

impl Busy {
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// From here on the connection speaks another protocol.
    pub(crate) fn switch(&self) {
        self.activity.has_switched.store(true, Ordering::Relaxed);
    }

    /// Whether its source may have one more request.
    pub(crate) fn is_welcome(&self) -> bool {
        self.is_welcome
    }
}

impl Drop for BodyWanted<'_> {
    fn drop(&mut self) {
        self.0.wants_body.store(false, Ordering::Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let activity = &self.activity;
        let ended = u64::try_from(activity.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        activity.ended.store(ended, Ordering::Relaxed);
        activity.requests.fetch_sub(1, Ordering::Relaxed);
        activity.source.end();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::visitor::{Limits, Sources};

    #[tokio::test]
    async fn a_connection_is_not_quiet_while_a_request_is_under_way() {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let limits = Limits { connections: 0, requests: 0, unlimited: Vec::new() };
        let source = Sources::new(limits).admit([127, 0, 0, 1].into()).unwrap();
        let activity = Activity::new(permit, source);
        let busy = activity.begin();
        let period = Duration::from_millis(5);
        assert!(timeout(20 * period, activity.quiet(period)).await.is_err());
        drop(busy);
        activity.quiet(period).await;
    }
}
