//! What happens on a visitor's connection: whether there are requests, and whether the visitor takes what is
//! sent to it. Knows requests only by their number, and bytes by theirs.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use adit_net::admission::Guest;
use adit_net::unread::SMALL;
use adit_pace::{Flow, Group, Release};
use tokio::sync::Notify;
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
    place: Guest,
    source: Source,
    /// Bytes on their way to the visitor's socket.
    inside: AtomicU64,
    /// What waits for that socket to take it.
    flow: Flow,
    /// Requests whose visitor has not heard yet that their answers were cut off.
    cuts: AtomicUsize,
    uploads: AtomicUsize,
    /// Frames of little data that the visitor has sent and no upload has taken, at most.
    crumbs: AtomicUsize,
    is_cut: AtomicBool,
    cut: Notify,
}

/// One body that is read of the visitor, as long as it lives.
pub(crate) struct Upload(Arc<Activity>);

/// See [`Activity::want_body`].
pub(crate) struct BodyWanted<'a>(&'a Activity);

/// A request under way: as long as it lives, its connection is not idle.
pub(crate) struct InFlight {
    activity: Arc<Activity>,
    /// Whoever asks may have one more request.
    is_welcome: bool,
}

impl Activity {
    pub(crate) fn new(place: Guest, source: Source, share: &Share) -> Arc<Self> {
        Arc::new_cyclic(|this: &Weak<Self>| Self {
            requests: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
            wants_body: AtomicBool::new(false),
            has_switched: AtomicBool::new(false),
            began: Instant::now(),
            ended: AtomicU64::new(0),
            has_begun: AtomicBool::new(false),
            first: Notify::new(),
            place,
            source,
            inside: AtomicU64::new(0),
            flow: share.idle(0, Some(this.clone())),
            cuts: AtomicUsize::new(0),
            uploads: AtomicUsize::new(0),
            crumbs: AtomicUsize::new(0),
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

    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.place.begin();
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        if !self.has_begun.load(Ordering::Relaxed) {
            self.has_begun.store(true, Ordering::Relaxed);
            self.first.notify_one();
        }
        InFlight { activity: self.clone(), is_welcome: self.source.begin() }
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

    /// Waits until the connection has to make room for another one. May be dropped midway.
    pub(crate) async fn dismissed(&self) {
        self.place.dismissed().await;
    }

    /// What becomes of `work`, unless the connection has to make room before.
    pub(crate) async fn unless_dismissed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.place.unless_dismissed(work).await
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

impl Activity {
    pub(crate) fn upload(self: &Arc<Self>) -> Upload {
        self.uploads.fetch_add(1, Ordering::Relaxed);
        Upload(self.clone())
    }

    /// So many frames of little data have come. Whether the connection may go on: each that waits takes some
    /// hundred bytes, which no account knows of.
    pub(crate) fn crumbs_came(&self, count: usize) -> bool {
        self.crumbs.fetch_add(count, Ordering::Relaxed) + count <= MOST_CRUMBS
    }
}

impl Upload {
    /// Whether frames of little data may wait on its connection.
    pub(crate) fn has_crumbs(&self) -> bool {
        self.0.crumbs.load(Ordering::Relaxed) > 0
    }

    /// So many bytes of it were taken, which came in one frame.
    pub(crate) fn took(&self, bytes: usize) {
        if (1..SMALL).contains(&bytes) {
            let less = |crumbs: usize| Some(crumbs.saturating_sub(1));
            let _ = self.0.crumbs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What nobody has taken of the last one is thrown away with it.
        if self.0.uploads.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.crumbs.store(0, Ordering::Relaxed);
        }
    }
}

impl Release for Activity {
    fn release(&self) {
        self.end();
    }
}

impl InFlight {
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

impl Drop for InFlight {
    fn drop(&mut self) {
        let activity = &self.activity;
        let ended = u64::try_from(activity.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        activity.ended.store(ended, Ordering::Relaxed);
        let left = activity.requests.fetch_sub(1, Ordering::SeqCst) - 1;
        activity.source.end();
        if left == 0 {
            activity.place.end();
        }
        if left > 0 && activity.cuts.load(Ordering::SeqCst) >= left {
            activity.end();
        }
    }
}

/// What stands around answers on their way to a socket: buffers of TLS and of HTTP.
const BUFFERS: u64 = 32 << 10;
/// Frames of less than [`SMALL`] bytes that may wait on one connection. Few peers send such frames at all faster
/// than they are taken, and libraries end a connection for far fewer.
const MOST_CRUMBS: usize = 32 << 10;
/// Bytes of one answer over HTTP/2 that wait to be sent.
pub(crate) const SEND_BUFFER: usize = 128 << 10;

#[cfg(test)]
mod tests {
    use adit_net::admission::Admission;
    use adit_pace::{Account, Limits as PaceLimits};
    use tokio::time::timeout;

    use super::*;
    use crate::limits::per_address::{AddressLimits, Limits};

    fn activity() -> Arc<Activity> {
        let limits = Limits { connections: 0, requests: 0, unlimited: Vec::new() };
        let address = [127, 0, 0, 1].into();
        let source = AddressLimits::new(limits).admit(address).unwrap();
        let place = Admission::shared(2).admit(address);
        Activity::new(place, source, &Share::new(&Account::new(PaceLimits::default(), 1), 0, address))
    }

    #[tokio::test]
    async fn a_connection_is_not_quiet_while_a_request_is_under_way() {
        let activity = activity();
        let busy = activity.begin();
        let period = Duration::from_millis(5);
        assert!(timeout(20 * period, activity.quiet(period)).await.is_err());
        drop(busy);
        activity.quiet(period).await;
    }

    #[tokio::test]
    async fn a_connection_ends_when_nothing_but_what_was_cut_off_is_left() {
        let activity = activity();
        let (stalled, other) = (activity.begin(), activity.begin());
        activity.cut_off();
        assert!(!activity.is_cut());
        drop(other);
        activity.cut().await;
        drop(stalled);
    }

    #[tokio::test]
    async fn what_is_unread_in_small_frames_is_bounded_and_forgotten_with_the_last_upload() {
        let activity = activity();
        let (one, other) = (activity.upload(), activity.upload());
        for _ in 0..3 * MOST_CRUMBS {
            assert!(activity.crumbs_came(1), "what is taken does not count");
            one.took(SMALL - 1);
        }
        assert!(activity.crumbs_came(MOST_CRUMBS));
        other.took(SMALL);
        assert!(!activity.crumbs_came(1));
        one.took(1);
        drop(one);
        assert!(!activity.crumbs_came(1), "the other may not have been read");
        drop(other);
        assert!(activity.crumbs_came(MOST_CRUMBS));
    }
}
