//! What becomes of one flow between two looks at it, and which flows go when too much is held. Pure.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::{Group, Limits};

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
    pub(crate) group: Group,
    /// All of its group ends with it.
    pub(crate) is_whole: bool,
    pub(crate) held: u64,
    pub(crate) record: Record,
}

/// What has to go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Shed {
    /// Those to be cut.
    pub(crate) cut: Vec<usize>,
    /// Those that go with them, because all of their group does.
    pub(crate) leaving: Vec<usize>,
    /// What is held for the others.
    pub(crate) held: u64,
}

/// What goes so that `limit` bytes are held at most: the slowest of whichever source makes us hold most, until it
/// is enough.
pub(crate) fn shed(mut holdings: Vec<Holding>, limit: u64) -> Shed {
    let mut shed = Shed { held: holdings.iter().map(|holding| holding.held).sum(), ..Shed::default() };
    if shed.held <= limit {
        return shed;
    }
    // The slowest last, and of those that are equally slow those that have waited longest.
    holdings.sort_by(|one, other| {
        let slowness = |holding: &Holding| (holding.record.pace, holding.record.patience);
        slowness(other).partial_cmp(&slowness(one)).unwrap_or(Ordering::Equal)
    });
    let mut sources: HashMap<IpAddr, (u64, Vec<usize>)> = HashMap::new();
    let mut groups: HashMap<Group, Members> = HashMap::new();
    for (place, holding) in holdings.iter().enumerate() {
        let (sum, of_source) = sources.entry(holding.source).or_default();
        *sum += holding.held;
        of_source.push(place);
        let members = groups.entry(holding.group).or_default();
        members.places.push(place);
        members.parts += usize::from(!holding.is_whole);
    }
    let mut is_gone = vec![false; holdings.len()];
    while shed.held > limit {
        let Some((_, of_source)) = sources.values_mut().max_by_key(|(sum, _)| *sum) else { break };
        let Some(slowest) = of_source.pop() else { break };
        if is_gone[slowest] {
            continue;
        }
        shed.cut.push(holdings[slowest].at);
        let Some(members) = groups.get_mut(&holdings[slowest].group) else { break };
        members.parts -= usize::from(!holdings[slowest].is_whole);
        let ends_all = holdings[slowest].is_whole || members.parts == 0;
        let going = if ends_all { members.places.as_slice() } else { &[slowest] };
        for &place in going {
            let holding = &holdings[place];
            if std::mem::replace(&mut is_gone[place], true) {
                continue;
            }
            shed.held -= holding.held;
            if let Some((sum, _)) = sources.get_mut(&holding.source) {
                *sum -= holding.held;
            }
            if place != slowest {
                shed.leaving.push(holding.at);
            }
        }
    }
    shed
}

#[derive(Default)]
struct Members {
    places: Vec<usize>,
    /// Those that can go without the rest.
    parts: usize,
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
        let record = Record { patience: 5.0, pace };
        let source = [192, 0, 2, source].into();
        Holding { at, source, group: Group::numbered(at), is_whole: true, held, record }
    }

    /// What is cut of these.
    fn cut(holdings: Vec<Holding>, limit: u64) -> Vec<usize> {
        shed(holdings, limit).cut
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
        assert_eq!(cut(all.clone(), 1500), []);
        assert_eq!(cut(all.clone(), 1499), [1]);
        assert_eq!(cut(all.clone(), 1000), [1, 2]);
        assert_eq!(cut(all, 0).len(), 4);
    }

    #[test]
    fn of_those_that_take_nothing_the_one_that_waits_longest_goes_first() {
        let mut all = vec![holding(0, 1, 400, 0.0), holding(1, 1, 400, 0.0)];
        all[1].record.patience = 4.0;
        assert_eq!(cut(all, 500), [1]);
    }

    #[test]
    fn what_goes_with_a_connection_is_not_asked_of_others() {
        // Ten connections with one exchange each; the sockets are slower than what waits behind them.
        let connections = (0..10).flat_map(|number| {
            let group = Group::numbered(number);
            let socket = Holding { group, ..holding(2 * number, 1, 100, 0.0) };
            [socket, Holding { group, is_whole: false, ..holding(2 * number + 1, 1, 900, 1.0) }]
        });
        let all: Vec<Holding> = connections.collect();
        let by_sockets = shed(all.clone(), 6000);
        assert_eq!((by_sockets.cut.len(), by_sockets.leaving.len(), by_sockets.held), (4, 4, 6000));
        assert!(by_sockets.cut.iter().all(|at| at % 2 == 0));
        let faster = |mut holding: Holding| {
            holding.record.pace += if holding.is_whole { 2.0 } else { 0.0 };
            holding
        };
        let all = all.into_iter().map(faster).collect();
        let by_exchanges = shed(all, 6000);
        assert_eq!((by_exchanges.cut.len(), by_exchanges.leaving.len(), by_exchanges.held), (4, 4, 6000));
        assert!(by_exchanges.cut.iter().all(|at| at % 2 == 1));
    }

    #[test]
    fn a_connection_stays_while_one_of_its_exchanges_does() {
        let group = Group::numbered(7);
        let part = |at, pace| Holding { group, is_whole: false, ..holding(at, 1, 400, pace) };
        let all = vec![Holding { group, ..holding(0, 1, 100, 9.0) }, part(1, 0.0), part(2, 1.0)];
        assert_eq!(shed(all.clone(), 500), Shed { cut: vec![1], leaving: vec![], held: 500 });
        assert_eq!(shed(all, 499), Shed { cut: vec![1, 2], leaving: vec![0], held: 0 });
    }
}
