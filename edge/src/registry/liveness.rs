//! Whether a connection still answers, found out long before it is given up: the monitor of one
//! connection, and what it tells requests that wait. Knows counts of what was sent and received, and the
//! clock; does not know transports or requests. The contract is docs/retries.md.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use crate::transport::signs::{POLL, STANDSTILL, Traffic};

/// How a connection was found at the last look, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Health {
    Well,
    /// It was asked and has said nothing for a moment: it gets no new request where there is another way.
    Silent,
    /// It is likely to be dead: what waits for an answer on it may be asked elsewhere.
    Suspect,
}

/// How a connection stands, kept up to date by its monitor.
pub(crate) struct Liveness {
    health: AtomicU8,
    began: Instant,
    /// Milliseconds from `began` to the monitor's last look.
    looked: AtomicU64,
    fell: Notify,
}

impl Liveness {
    pub(crate) fn new() -> Self {
        Self {
            health: AtomicU8::new(Health::Well as u8),
            began: Instant::now(),
            looked: AtomicU64::new(0),
            fell: Notify::new(),
        }
    }

    /// Whether the connection should get no new request: it says nothing, or nobody has looked for so long
    /// that this process must have stood still, and the host may have given the connection up meanwhile.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        // The clock first: `set` writes it last.
        self.unlooked(now) >= STANDSTILL || self.health() > Health::Well
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.health() == Health::Suspect
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

    fn health(&self) -> Health {
        match self.health.load(Ordering::Acquire) {
            0 => Health::Well,
            1 => Health::Silent,
            _ => Health::Suspect,
        }
    }

    fn unlooked(&self, now: Instant) -> Duration {
        let looked = Duration::from_millis(self.looked.load(Ordering::Acquire));
        now.saturating_duration_since(self.began + looked)
    }

    fn set(&self, health: Health, now: Instant) {
        self.health.store(health as u8, Ordering::Release);
        let now = u64::try_from((now - self.began).as_millis()).unwrap_or(u64::MAX);
        self.looked.store(now, Ordering::Release);
        if health == Health::Suspect {
            self.fell.notify_waiters();
        }
    }
}

/// Follows one connection for as long as it is polled. `begun` counts the requests that ever began on it;
/// `tell` hears of every change, what it was and what it is.
pub(crate) async fn monitor(
    liveness: &Liveness,
    signs: impl Fn() -> Traffic,
    begun: impl Fn() -> u64,
    tell: impl Fn(Health, Health),
) {
    let mut watch = FailureDetector::new(signs(), Instant::now());
    let mut before = begun();
    loop {
        // Who has nothing to do, and nothing to wait for, is looked at less often.
        let requests = begun();
        let is_open = watch.asked.is_some() || watch.doubt.is_some();
        let pace = if is_open || requests != before { BRISK } else { POLL };
        before = requests;
        sleep(pace).await;
        let now = Instant::now();
        if liveness.unlooked(now) >= STANDSTILL {
            watch.stand_still(now);
        }
        let (was, is) = (liveness.health(), watch.look(signs(), now));
        liveness.set(is, now);
        if is != was {
            tell(was, is);
        }
    }
}

/// What was seen since something was last received.
struct FailureDetector {
    received: u64,
    /// What had been sent then.
    heard_at: u64,
    /// When it was first seen that something was sent since.
    sent: Option<Instant>,
    /// When it was first seen that something was asked since.
    asked: Option<Instant>,
    /// Until when what is read may have waited in a socket, because this process stood still. What is read
    /// later ends the doubt.
    doubt: Option<Instant>,
    looked: Instant,
}

impl FailureDetector {
    fn new(signs: Traffic, now: Instant) -> Self {
        let heard_at = signs.sent_before.unwrap_or(signs.sent);
        Self { received: signs.received, heard_at, sent: None, asked: None, doubt: None, looked: now }
    }

    /// Until something new is heard, nothing is known of the connection.
    fn stand_still(&mut self, now: Instant) {
        self.doubt = Some(now + BACKLOG);
    }

    /// How the connection is at this look.
    fn look(&mut self, signs: Traffic, now: Instant) -> Health {
        if signs.received != self.received {
            let doubt = self.doubt.filter(|until| self.looked < *until);
            *self = Self { doubt, ..Self::new(signs, now) };
        }
        self.looked = now;
        let least = if self.doubt.is_some() { Health::Silent } else { Health::Well };
        let unheard = signs.sent.saturating_sub(self.heard_at);
        if unheard == 0 {
            return least;
        }
        let sent = *self.sent.get_or_insert(now);
        // One datagram may be lost, or be nothing that asks for an answer.
        let is_asked = signs.is_asked || (unheard >= 2 && signs.sent_before.is_none());
        self.asked = self.asked.or(is_asked.then_some(now));
        let has_passed = |since: Instant, patience: Duration| {
            now.duration_since(since) >= patience.max(3 * signs.round_trip)
        };
        if (is_asked || unheard >= 2) && has_passed(sent, PATIENCE) {
            Health::Suspect
        } else if self.asked.is_some_and(|asked| has_passed(asked, ANSWER)) {
            Health::Silent
        } else {
            least
        }
    }
}

/// Between two looks at a connection that has just got a request, or was asked.
const BRISK: Duration = Duration::from_millis(50);
/// From a question to the moment from which new requests go elsewhere.
const ANSWER: Duration = Duration::from_millis(300);
/// From the first that was not heard to suspicion.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long reading may take what has come in while this process stood still.
const BACKLOG: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;

    fn signs(sent: u64, received: u64) -> Traffic {
        Traffic { sent, received, sent_before: None, is_asked: false, round_trip: Duration::from_millis(1) }
    }

    /// What is thought of a connection after each look: milliseconds, sent, received.
    fn healths(looks: &[(u64, u64, u64)]) -> Vec<Health> {
        let start = Instant::now();
        let mut watch = FailureDetector::new(signs(5, 5), start);
        let at = |millis| start + Duration::from_millis(millis);
        looks.iter().map(|&(ms, sent, received)| watch.look(signs(sent, received), at(ms))).collect()
    }

    #[test]
    fn who_is_asked_twice_and_says_nothing_is_silent_and_after_a_second_suspect() {
        use Health::{Silent, Suspect, Well};
        for (looks, wanted) in [
            // An idle connection is none of our business.
            (&[(0, 5, 5), (10_000, 5, 5)][..], [Well, Well].as_slice()),
            (&[(0, 7, 5), (250, 9, 5)], &[Well, Well]),
            (&[(0, 7, 5), (300, 9, 5)], &[Well, Silent]),
            (&[(0, 7, 5), (300, 7, 5), (999, 7, 5), (1000, 7, 5)], &[Well, Silent, Silent, Suspect]),
            (&[(0, 6, 5), (5000, 6, 5)], &[Well, Well]),
            // The second question counts from when it was asked.
            (&[(0, 6, 5), (200, 7, 5), (450, 7, 5), (500, 7, 5)], &[Well, Well, Well, Silent]),
            (&[(0, 7, 5), (250, 8, 6), (500, 9, 6)], &[Well, Well, Well]),
            // Heard again.
            (&[(0, 7, 5), (1000, 9, 5), (1250, 9, 6)], &[Well, Suspect, Well]),
        ] {
            assert_eq!(healths(looks), wanted, "{looks:?}");
        }
    }

    #[test]
    fn where_nothing_is_lost_only_a_question_asks() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let one = |is_asked| Traffic { sent_before: Some(6), is_asked, ..signs(7, 6) };
        // An origin may take its time over many requests.
        let many = |is_asked| Traffic { sent_before: Some(6), is_asked, ..signs(20, 6) };
        for is_asked in [true, false] {
            let found = if is_asked { [Health::Silent, Health::Suspect] } else { [Health::Well; 2] };
            let mut watch = FailureDetector::new(signs(6, 6), start);
            assert_eq!(watch.look(one(is_asked), start), Health::Well);
            assert_eq!([300, 1000].map(|ms| watch.look(one(is_asked), at(ms))), found);
            let mut watch = FailureDetector::new(signs(6, 6), start);
            assert_eq!(watch.look(many(is_asked), start), Health::Well);
            assert_eq!(watch.look(many(is_asked), at(300)), found[0]);
        }
    }

    #[test]
    fn what_was_sent_after_the_last_word_and_before_the_look_counts_where_it_is_known() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let asked = |sent| Traffic { sent_before: Some(6), ..signs(sent, 6) };
        let mut watch = FailureDetector::new(signs(5, 5), start);
        let found = [(0, 7), (750, 8), (1000, 8)].map(|(ms, sent)| watch.look(asked(sent), at(ms)));
        assert_eq!(found, [Health::Well, Health::Well, Health::Suspect]);
    }

    #[test]
    fn a_long_line_gets_three_round_trips() {
        let far = |sent| Traffic { round_trip: Duration::from_millis(600), ..signs(sent, 0) };
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = FailureDetector::new(far(0), start);
        let found = [(0, 2), (1750, 4), (1800, 4)].map(|(ms, sent)| watch.look(far(sent), at(ms)));
        assert_eq!(found, [Health::Well, Health::Well, Health::Suspect]);
    }

    #[test]
    fn what_waited_in_a_socket_while_the_edge_stood_still_is_no_sign_of_life() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut watch = FailureDetector::new(signs(5, 5), start);
        watch.stand_still(at(10_000));
        // The backlog is read bit by bit, and the last of it is seen late.
        for (ms, received) in [(10_000, 6), (10_100, 7), (10_200, 7), (10_300, 8), (10_350, 8)] {
            assert_eq!(watch.look(signs(5, received), at(ms)), Health::Silent, "{ms}");
        }
        assert_eq!(watch.look(signs(5, 9), at(10_400)), Health::Well);
    }

    #[test]
    fn a_connection_that_was_not_looked_at_is_silent_before_its_monitor_runs() {
        let mut liveness = Liveness::new();
        assert!(!liveness.is_silent(Instant::now()));
        liveness.began -= STANDSTILL;
        assert!(liveness.is_silent(Instant::now()) && !liveness.is_suspect());
        liveness.set(Health::Well, Instant::now());
        assert!(!liveness.is_silent(Instant::now()));
    }

    #[tokio::test]
    async fn a_request_that_waits_is_woken_by_the_fall() {
        let liveness = Liveness::new();
        let (fell, ()) =
            tokio::join!(liveness.suspected(), async { liveness.set(Health::Suspect, Instant::now()) });
        assert_eq!(fell, ());
        liveness.suspected().await;
        liveness.set(Health::Well, Instant::now());
        assert!(!liveness.is_suspect());
    }
}
