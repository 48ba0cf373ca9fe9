//! What becomes of one flow between two looks at it, and which flows go when too much is held. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::Limits;

/// How a flow has done so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Record {
    /// Seconds that it may still wait. Waiting uses them up, and what the peer takes buys new ones, never
    /// more than the grace.
    patience: f64,
    /// Bytes each second that the peer takes, of late.
    pace: f64,
}

impl Record {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { patience: limits.grace.as_secs_f64(), pace: 0.0 }
    }

    /// `elapsed` was spent waiting, during which the peer took `taken` bytes. Whether it may go on.
    pub(crate) fn wait(&mut self, limits: &Limits, elapsed: Duration, taken: u64) -> bool {
        let (elapsed, taken) = (elapsed.as_secs_f64(), taken as f64);
        let fresh = (elapsed / MEMORY).min(1.0);
        self.pace += (taken / elapsed.max(f64::EPSILON) - self.pace) * fresh;
        if limits.rate == 0 {
            return true;
        }
        let patience = self.patience - elapsed + taken / limits.rate as f64;
        self.patience = patience.min(limits.grace.as_secs_f64());
        self.patience > 0.0
    }

    /// Whether the peer is about to take the `held` bytes that wait for it, so that they are under way
    /// rather than held.
    pub(crate) fn is_moving(&self, held: u64) -> bool {
        self.pace * SOON >= held as f64
    }
}

/// A flow for which something is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Holding {
    /// Where it stands in the list of its owner.
    pub(crate) at: usize,
    pub(crate) source: IpAddr,
    pub(crate) held: u64,
    pub(crate) record: Record,
}

/// Those that go so that `limit` bytes are held at most: the slowest of whichever source makes us hold most,
/// until it is enough.
pub(crate) fn shed(mut holdings: Vec<Holding>, limit: u64) -> Vec<usize> {
    let mut total: u64 = holdings.iter().map(|holding| holding.held).sum();
    if total <= limit {
        return Vec::new();
    }
    // The slowest last, and of those that are equally slow those that have waited longest.
    holdings.sort_by(|one, other| {
        let slowness = |holding: &Holding| (holding.record.pace, holding.record.patience);
        slowness(other).partial_cmp(&slowness(one)).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut sources: HashMap<IpAddr, (u64, Vec<Holding>)> = HashMap::new();
    for holding in holdings {
        let (sum, of_source) = sources.entry(holding.source).or_default();
        *sum += holding.held;
        of_source.push(holding);
    }
    let mut shed = Vec::new();
    while total > limit {
        let Some((sum, of_source)) = sources.values_mut().max_by_key(|(sum, _)| *sum) else { break };
        let Some(slowest) = of_source.pop() else { break };
        *sum -= slowest.held;
        total -= slowest.held;
        shed.push(slowest.at);
    }
    shed
}

/// Seconds over which a pace is seen.
const MEMORY: f64 = 2.0;
/// Seconds within which a peer that moves takes what waits for it.
const SOON: f64 = 16.0;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { held: 1000, grace: Duration::from_secs(10), rate: 100 };
    const SECOND: Duration = Duration::from_secs(1);

    /// For how many seconds it may wait while it takes so much in each of `taken`, over and over.
    fn lasts(taken: &[u64]) -> Option<usize> {
        let mut record = Record::new(&LIMITS);
        (0..10_000).find(|second| !record.wait(&LIMITS, SECOND, taken[second % taken.len()]))
    }

    #[test]
    fn a_peer_that_takes_nothing_has_the_grace_and_one_that_moves_has_for_ever() {
        assert_eq!(lasts(&[0]), Some(9));
        assert_eq!(lasts(&[50]), Some(19));
        assert_eq!(lasts(&[100]), None);
        assert_eq!(lasts(&[1_000_000]), None);
        // In one piece every eight seconds.
        assert_eq!(lasts(&[0, 0, 0, 0, 0, 0, 0, 800]), None);
        // What was taken long ago buys no more than the grace.
        let once: Vec<u64> = std::iter::once(1_000_000).chain([0; 100]).collect();
        assert_eq!(lasts(&once), Some(10));
    }

    #[test]
    fn without_a_rate_nothing_is_too_slow() {
        let limits = Limits { rate: 0, ..LIMITS };
        let mut record = Record::new(&limits);
        assert!((0..1000).all(|_| record.wait(&limits, SECOND, 0)));
    }

    #[test]
    fn what_moves_is_not_held() {
        let mut record = Record::new(&LIMITS);
        record.wait(&LIMITS, SECOND / 10, 1 << 20);
        assert!(record.is_moving(1 << 20));
        for _ in 0..300 {
            record.wait(&LIMITS, SECOND / 10, 100);
        }
        assert!(!record.is_moving(1 << 20));
    }

    fn holding(at: usize, source: u8, held: u64, pace: f64) -> Holding {
        Holding { at, source: [192, 0, 2, source].into(), held, record: Record { patience: 5.0, pace } }
    }

    #[test]
    fn the_slowest_of_the_source_that_holds_most_go_first() {
        let all = vec![
            holding(0, 1, 400, 9.0),
            holding(1, 1, 400, 0.0),
            holding(2, 1, 400, 3.0),
            // Slower, but of a source that holds little.
            holding(3, 2, 300, 0.0),
        ];
        assert_eq!(shed(all.clone(), 1500), []);
        assert_eq!(shed(all.clone(), 1499), [1]);
        assert_eq!(shed(all.clone(), 1000), [1, 2]);
        assert_eq!(shed(all, 0).len(), 4);
    }

    #[test]
    fn of_those_that_take_nothing_the_one_that_waits_longest_goes_first() {
        let mut all = vec![holding(0, 1, 400, 0.0), holding(1, 1, 400, 0.0)];
        all[1].record.patience = 4.0;
        assert_eq!(shed(all, 500), [1]);
    }
}
