//! Whether a connection still answers, found out long before it is given up: the monitor of one
//! connection, and what it tells requests that wait. Knows counts of what was sent and received; does not
//! know transports or requests. The contract is docs/retries.md.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// What a connection has sent and received so far, in whatever its transport counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signs {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// What had been sent when something was last received, where the transport knows.
    pub(crate) sent_before: Option<u64>,
    /// A sign of life was asked for and has not come. For transports that lose nothing.
    pub(crate) is_asked: bool,
    pub(crate) round_trip: Duration,
}

/// Whether a connection is suspect: it sends and hears nothing.
#[derive(Default)]
pub(crate) struct Liveness {
    is_suspect: AtomicBool,
    fell: Notify,
}

impl Liveness {
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_suspect.load(Ordering::Acquire)
    }

    /// Waits until the connection is suspect. May be dropped midway.
    pub(crate) async fn suspected(&self) {
        loop {
            let mut fell = std::pin::pin!(self.fell.notified());
            // From here on no fall is missed.
            fell.as_mut().enable();
            if self.is_suspect() {
                return;
            }
            fell.await;
        }
    }

    fn set(&self, is_suspect: bool) {
        self.is_suspect.store(is_suspect, Ordering::Release);
        if is_suspect {
            self.fell.notify_waiters();
        }
    }
}

/// Follows one connection for as long as it is polled. `tell` hears of every change.
pub(crate) async fn monitor(liveness: &Liveness, signs: impl Fn() -> Signs, tell: impl Fn(bool)) {
    let mut watch = Watch::new(signs());
    loop {
        sleep(POLL).await;
        let is_suspect = watch.look(signs(), Instant::now());
        if is_suspect != liveness.is_suspect() {
            liveness.set(is_suspect);
            tell(is_suspect);
        }
    }
}

/// What was seen since something was last received.
struct Watch {
    received: u64,
    /// What had been sent then.
    heard_at: u64,
    /// When it was first seen that something was sent since.
    sent: Option<Instant>,
}

impl Watch {
    fn new(signs: Signs) -> Self {
        let heard_at = signs.sent_before.unwrap_or(signs.sent);
        Self { received: signs.received, heard_at, sent: None }
    }

    /// Whether the connection is suspect at this look.
    fn look(&mut self, signs: Signs, now: Instant) -> bool {
        if signs.received != self.received {
            *self = Self::new(signs);
        }
        let unheard = signs.sent.saturating_sub(self.heard_at);
        if unheard == 0 {
            return false;
        }
        let since = *self.sent.get_or_insert(now);
        // One datagram may be lost, or be nothing that asks for an answer.
        (unheard >= 2 || signs.is_asked) && now.duration_since(since) >= PATIENCE.max(3 * signs.round_trip)
    }
}

pub(crate) const POLL: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(sent: u64, received: u64) -> Signs {
        Signs { sent, received, sent_before: None, is_asked: false, round_trip: Duration::from_millis(1) }
    }

    #[test]
    fn who_is_asked_twice_and_says_nothing_for_a_second_is_suspect() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        for (looks, wanted) in [
            // An idle connection is none of our business.
            (vec![(0, 5, 5), (10_000, 5, 5)], false),
            (vec![(0, 7, 5), (750, 9, 5)], false),
            (vec![(0, 7, 5), (1000, 7, 5)], true),
            (vec![(0, 6, 5), (5000, 6, 5)], false),
            (vec![(0, 6, 5), (1000, 7, 5)], true),
            (vec![(0, 7, 5), (750, 8, 6), (1500, 9, 6)], false),
            // Heard again.
            (vec![(0, 7, 5), (1000, 9, 5), (1250, 9, 6)], false),
        ] {
            let mut watch = Watch::new(signs(5, 5));
            let last = looks.iter().map(|&(ms, sent, received)| watch.look(signs(sent, received), at(ms)));
            assert_eq!(last.last(), Some(wanted), "{looks:?}");
        }
    }

    #[test]
    fn a_question_that_went_out_with_a_request_is_enough_where_nothing_is_lost() {
        let start = Instant::now();
        let one = |is_asked| Signs { sent_before: Some(6), is_asked, ..signs(7, 6) };
        for is_asked in [true, false] {
            let mut watch = Watch::new(signs(6, 6));
            assert!(!watch.look(one(is_asked), start));
            assert_eq!(watch.look(one(is_asked), start + PATIENCE), is_asked);
        }
    }

    #[test]
    fn what_was_sent_after_the_last_word_and_before_the_look_counts_where_it_is_known() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let asked = |sent| Signs { sent_before: Some(6), ..signs(sent, 6) };
        let mut watch = Watch::new(signs(5, 5));
        assert!(!watch.look(asked(7), at(0)));
        assert!(!watch.look(asked(8), at(750)));
        assert!(watch.look(asked(8), at(1000)));
    }

    #[test]
    fn a_long_line_gets_three_round_trips() {
        let far = |sent| Signs { round_trip: Duration::from_millis(600), ..signs(sent, 0) };
        let start = Instant::now();
        let mut watch = Watch::new(far(0));
        assert!(!watch.look(far(2), start));
        assert!(!watch.look(far(4), start + Duration::from_millis(1750)));
        assert!(watch.look(far(4), start + Duration::from_millis(1800)));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_fall() {
        let liveness = Liveness::default();
        let (fell, ()) = tokio::join!(liveness.suspected(), async { liveness.set(true) });
        assert_eq!(fell, ());
        liveness.suspected().await;
        liveness.set(false);
        assert!(!liveness.is_suspect());
    }
}
