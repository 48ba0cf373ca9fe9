//! How a connection is: whether it is still heard of, judged from what was sent and what came back, and how
//! it ended. Pure: the caller looks at the connection and at the clock.

use std::time::{Duration, Instant};

/// After so much silence it is worth while to ask the edge's machine whether anybody listens.
const UNEASE: Duration = Duration::from_millis(250);
/// How long an edge may be silent after it was asked something.
const PATIENCE: Duration = Duration::from_millis(750);
/// The same in round trips, where these are long.
const ROUND_TRIPS: u32 = 3;
/// One question may get lost.
const ENOUGH_ASKED: u64 = 2;

/// What a connection tells of itself. The numbers only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// What was sent that wants an answer.
    pub asked: u64,
    /// What was received.
    pub heard: u64,
    /// As it is estimated; zero if it is not known.
    pub round_trip: Duration,
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerHealth {
    Well,
    /// It asked at least twice since it heard anything, and waits for an answer to the first of these.
    Uneasy,
    /// It has waited for three quarters of a second, or for three round trips.
    Suspect,
}

/// How a connection ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub reason: String,
    /// Its edge server lives and has forgotten it (RFC 9000, 10.3), as after a restart.
    pub is_reset: bool,
}

/// Remembers one connection between two looks.
#[derive(Debug, Default)]
pub struct FailureDetector {
    heard: u64,
    /// What had been asked when something was heard last.
    asked: u64,
    /// Since when there is a question without an answer.
    unanswered: Option<Instant>,
}

impl FailureDetector {
    pub fn look(&mut self, traffic: Traffic, now: Instant) -> PeerHealth {
        if traffic.heard != self.heard {
            *self = Self { heard: traffic.heard, asked: traffic.asked, unanswered: None };
            return PeerHealth::Well;
        }
        if traffic.asked == self.asked {
            return PeerHealth::Well;
        }
        let since = *self.unanswered.get_or_insert(now);
        let patience = PATIENCE.max(traffic.round_trip * ROUND_TRIPS);
        let waited = now.saturating_duration_since(since);
        if traffic.asked - self.asked < ENOUGH_ASKED || waited < UNEASE.max(traffic.round_trip) {
            PeerHealth::Well
        } else if waited < patience {
            PeerHealth::Uneasy
        } else {
            PeerHealth::Suspect
        }
    }
}

#[cfg(test)]
mod tests {
    use super::PeerHealth::{Suspect, Uneasy, Well};
    use super::*;

    /// What is thought after each look: milliseconds, asked, heard.
    fn looks(round_trip: u64, looks: &[(u64, u64, u64)]) -> Vec<PeerHealth> {
        let (start, mut watch) = (Instant::now(), FailureDetector::default());
        let round_trip = Duration::from_millis(round_trip);
        looks
            .iter()
            .map(|&(at, asked, heard)| {
                watch.look(Traffic { asked, heard, round_trip }, start + Duration::from_millis(at))
            })
            .collect()
    }

    #[test]
    fn a_connection_that_gets_answers_is_never_suspect() {
        let answered: Vec<_> = (0..100).map(|step| (step * 1000, step * 3, step)).collect();
        assert!(looks(0, &answered[1..]).iter().all(|found| *found == Well));
        let idle: Vec<_> = (0..100).map(|step| (step * 1000, 5, 5)).collect();
        assert!(looks(0, &idle).iter().all(|found| *found == Well));
    }

    #[test]
    fn no_answer_to_two_questions_for_long_is_suspicious_until_something_is_heard() {
        let seen = looks(1, &[(0, 1, 1), (250, 2, 1), (500, 3, 1), (999, 9, 1), (1000, 9, 1), (1250, 9, 2)]);
        assert_eq!(seen, [Well, Well, Uneasy, Uneasy, Suspect, Well]);
    }

    #[test]
    fn one_lost_question_is_not_enough() {
        assert_eq!(looks(1, &[(0, 1, 1), (250, 2, 1), (5000, 2, 1)]), [Well; 3]);
    }

    #[test]
    fn where_the_way_is_long_there_is_more_patience() {
        let seen =
            looks(500, &[(0, 1, 1), (250, 3, 1), (500, 3, 1), (750, 3, 1), (1500, 4, 1), (1750, 4, 1)]);
        assert_eq!(seen, [Well, Well, Well, Uneasy, Uneasy, Suspect]);
    }
}
