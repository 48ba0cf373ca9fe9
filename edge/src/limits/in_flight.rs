//! What happens on a visitor's connection: whether there are requests, and whether the visitor takes what is
//! sent to it. Knows requests only by their number, and bytes by theirs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use adit_pace::{Flow, Group, Release};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};

use crate::limits::pace::Share;
use crate::limits::per_address::{Lingering, Source};

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
    /// Bytes on their way to the visitor's socket.
    inside: AtomicU64,
    /// What waits for that socket to take it.
    flow: Flow,
    /// Requests whose visitor has not heard yet that their answers were cut off.
    cuts: AtomicUsize,
    is_cut: AtomicBool,
    cut: Notify,
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
    pub(crate) fn new(permit: OwnedSemaphorePermit, source: Source, share: &Share) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
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
            inside: AtomicU64::new(0),
            flow: share.idle(0, Some(this.clone())),
            cuts: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
            cut: Notify::new(),
        })
    }

    /// See [`Source::linger`].
    pub(crate) fn linger(&self) -> Option<Lingering> {
        self.source.linger()
    }

    /// What ends with the connection.
    pub(crate) fn group(&self) -> Group {
        self.flow.group()
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

    /// So many bytes of an answer are on their way to the visitor's socket.
    pub(crate) fn gave(&self, bytes: usize) {
        self.inside.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An answer of which so many bytes were given broke off: with its stream, the connection drops what it has
    /// not sent.
    pub(crate) fn took_back(&self, bytes: usize) {
        self.less_inside(bytes.min(SEND_BUFFER));
    }

    fn less_inside(&self, bytes: usize) {
        let less = |inside: u64| Some(inside.saturating_sub(bytes as u64));
        let _ = self.inside.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// The visitor's socket has taken so many bytes, what stands around answers included.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.less_inside(bytes);
        self.flow.took(bytes);
    }

    /// The visitor's socket takes nothing now.
    pub(crate) fn blocked(&self) {
        self.flow.hold(self.inside.load(Ordering::Relaxed) + BUFFERS);
        self.flow.gave(0);
    }

    /// Waits until the connection has to end: its visitor takes too little. For one waiter; may be dropped
    /// midway.
    pub(crate) async fn cut(&self) {
        while !self.is_cut() {
            self.cut.notified().await;
        }
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::SeqCst)
    }

    fn end(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.cut.notify_one();
    }
}

impl Release for Activity {
    fn release(&self) {
        self.end();
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

impl Activity {
    /// The answer to a request was cut off. As long as the visitor takes nothing it cannot be told; when
    /// there is no other request, its connection ends.
    pub(crate) fn cut_off(&self) {
        let cuts = self.cuts.fetch_add(1, Ordering::SeqCst) + 1;
        if cuts >= self.requests.load(Ordering::SeqCst) {
            self.end();
        }
    }

    /// The visitor was told.
    pub(crate) fn told(&self) {
        self.cuts.fetch_sub(1, Ordering::SeqCst);
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
        let left = activity.requests.fetch_sub(1, Ordering::SeqCst) - 1;
        activity.source.end();
        if left > 0 && activity.cuts.load(Ordering::SeqCst) >= left {
            activity.end();
        }
    }
}

/// What stands around answers on their way to a socket: buffers of TLS and of HTTP.
const BUFFERS: u64 = 32 << 10;
/// Bytes of one answer over HTTP/2 that wait to be sent.
pub(crate) const SEND_BUFFER: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use adit_pace::{Account, Limits as PaceLimits};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::limits::per_address::{Limits, Sources};

    async fn activity() -> Arc<Activity> {
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let limits = Limits { connections: 0, requests: 0, unlimited: Vec::new() };
        let address = [127, 0, 0, 1].into();
        let source = Sources::new(limits).admit(address).unwrap();
        Activity::new(permit, source, &Share::new(&Account::new(PaceLimits::default(), 1), 0, address))
    }

    #[tokio::test]
    async fn a_connection_is_not_quiet_while_a_request_is_under_way() {
        let activity = activity().await;
        let busy = activity.begin();
        let period = Duration::from_millis(5);
        assert!(timeout(20 * period, activity.quiet(period)).await.is_err());
        drop(busy);
        activity.quiet(period).await;
    }

    #[tokio::test]
    async fn a_connection_ends_when_nothing_but_what_was_cut_off_is_left() {
        let activity = activity().await;
        let (stalled, other) = (activity.begin(), activity.begin());
        activity.cut_off();
        assert!(!activity.is_cut());
        drop(other);
        activity.cut().await;
        drop(stalled);
    }
}
