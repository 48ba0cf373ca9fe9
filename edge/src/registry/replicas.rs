//! Who serves a tunnel at one moment, laid out for choosing: replicas with their connections. Made anew
//! whenever somebody comes, leaves or gets another share; a request only reads it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use adit_balance::selection::{self, Load, Rank, Score};
use adit_balance::{Key, Lots};
use uuid::Uuid;

use super::{MOST_CONNECTIONS, Tunnel};
use crate::balancer::weights::Weight;
use crate::registry::connection::Connection;

/// Nobody in it is leaving, except those who began to after it was made.
#[derive(Default)]
pub(crate) struct Replicas {
    /// Those of one replica stand together.
    connections: Vec<Arc<Connection>>,
    replicas: Vec<Replica>,
    /// Their weights, laid out for drawing.
    lots: Lots,
    /// None of them is reached through another node.
    are_all_here: bool,
    /// All that take requests get as much.
    are_even: bool,
}

struct Replica {
    connector: Uuid,
    hash: u64,
    weight: u8,
    connections: Range<usize>,
}

impl Replicas {
    pub(crate) fn new<'a>(
        connections: impl Iterator<Item = &'a Arc<Connection>>,
        share: impl Fn(&Uuid) -> Weight,
    ) -> Self {
        let mut connections: Vec<_> = connections.cloned().collect();
        // More may be there for a moment, when the end of others has not been seen yet.
        connections.truncate(u128::BITS as usize);
        connections.sort_by_key(|live| live.connector);
        let mut replicas: Vec<Replica> = Vec::new();
        for (at, live) in connections.iter().enumerate() {
            match replicas.last_mut() {
                Some(last) if last.connector == live.connector => last.connections.end = at + 1,
                Some(_) | None => replicas.push(Replica {
                    connector: live.connector,
                    hash: Key::of(live.connector.as_bytes()).0,
                    weight: share(&live.connector).effective(),
                    connections: at..at + 1,
                }),
            }
        }
        let lots = Lots::new(replicas.iter().map(|replica| replica.weight));
        let are_all_here = connections.iter().all(|live| live.link.distance() == 0);
        let mut weights = replicas.iter().map(|replica| replica.weight).filter(|weight| *weight > 0);
        let first = weights.next();
        let are_even = weights.all(|weight| Some(weight) == first);
        Self { connections, replicas, lots, are_all_here, are_even }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }
}

/// The connections in the order in which one request should try them, see [`Tunnel::choices`].
pub(crate) struct Candidates<'a> {
    tunnel: &'a Tunnel,
    roster: Arc<Replicas>,
    /// A bit for each connection of the roster that was handed out or is out of the question.
    tried: u128,
    excluded: Vec<Uuid>,
    shard: usize,
    key: Option<Key>,
    /// The replica that the visitor belongs to, as long as it is well.
    home: Option<Uuid>,
    /// When it was last looked who is there.
    now: Instant,
}

impl<'a> Candidates<'a> {
    pub(crate) fn new(tunnel: &'a Tunnel, shard: usize, key: Option<Key>) -> Self {
        Self {
            tunnel,
            roster: tunnel.roster(),
            tried: 0,
            excluded: Vec::new(),
            shard,
            key,
            home: None,
            now: Instant::now(),
        }
    }

    /// Connections of this replica come first.
    pub(crate) fn at_home(self, home: Option<Uuid>) -> Self {
        Self { home, ..self }
    }

    /// Only those of this replica, and none through another node.
    pub(crate) fn only_here(mut self, connector: Uuid) -> Self {
        for (at, live) in self.roster.connections.iter().enumerate() {
            if live.connector != connector || live.link.distance() > 0 {
                self.tried |= 1 << at;
            }
        }
        self
    }

    /// Whether there is one to hand out, be it a silent one.
    pub(crate) fn has_any(&self) -> bool {
        (0..self.roster.connections.len()).any(|at| self.load(at).is_some())
    }

    /// Hands out no connection of this replica any more.
    pub(crate) fn exclude(&mut self, connector: Uuid) {
        for replica in self.roster.replicas.iter().filter(|replica| replica.connector == connector) {
            self.tried |= bits(&replica.connections);
        }
        self.excluded.push(connector);
    }

    /// May hand out a connection again that was passed over.
    pub(crate) fn put_back(&mut self, live: &Connection) {
        if let Some(at) = self.roster.connections.iter().position(|known| known.id == live.id) {
            self.tried &= !(1 << at);
        }
    }

    /// Whether a connection is one of them.
    pub(crate) fn has(&self, live: &Connection) -> bool {
        self.roster.connections.iter().any(|known| known.id == live.id)
    }

    /// Looks anew who is there. What was tried and who is excluded stays so.
    pub(crate) fn refresh(&mut self) {
        self.now = Instant::now();
        let before = std::mem::replace(&mut self.roster, self.tunnel.roster());
        if Arc::ptr_eq(&before, &self.roster) {
            return;
        }
        let was_tried = |live: &Connection| {
            let at = before.connections.iter().position(|known| known.id == live.id);
            at.is_some_and(|at| self.tried & (1 << at) != 0) || self.excluded.contains(&live.connector)
        };
        let connections = self.roster.connections.iter().enumerate();
        self.tried = connections.fold(0, |tried, (at, live)| tried | (u128::from(was_tried(live)) << at));
    }

    /// Whether there is a connection to hand out that was heard lately.
    pub(crate) fn has_healthy(&self) -> bool {
        let is_well = |at: usize| self.load(at).is_some_and(|load| !load.is_silent);
        let mut connections = self.roster.connections.iter().enumerate();
        connections.any(|(at, live)| is_well(at) && live.is_serving())
    }

    fn replica(&self) -> Option<usize> {
        let replicas = &self.roster.replicas;
        if replicas.len() < 2 {
            return (!replicas.is_empty()).then_some(0);
        }
        let at_home =
            self.home.and_then(|home| replicas.iter().position(|replica| replica.connector == home));
        let is_well = |score: Score| matches!(score.rank, Rank::Serving | Rank::Drained);
        if let Some(at) = at_home.filter(|at| self.score(*at).is_some_and(is_well)) {
            return Some(at);
        }
        let chance = fastrand::u64(..);
        let scores = (0..replicas.len()).map(|at| self.score(at));
        if let Some(key) = self.key {
            return selection::sticky(scores, |at| key.with(replicas[at].hash));
        }
        if !self.roster.are_all_here
            && self.roster.are_even
            && let Some(at) = self.nearest(chance)
        {
            return Some(at);
        }
        // Two at random come close to the best of all at a fraction of its cost, and several edges that think
        // alike do not all run to the same one.
        if let Some((one, other)) = self.roster.lots.two(chance)
            && let (Some(first), Some(second)) = (self.score(one), self.score(other))
        {
            let (at, best) = if second.is_better_than(&first) { (other, second) } else { (one, first) };
            if best.rank == Rank::Serving {
                return Some(at);
            }
        }
        selection::endpoint(scores, chance)
    }

    /// The replica with the least to do among those that are the least far away.
    fn nearest(&self, chance: u64) -> Option<usize> {
        let all = 0..self.roster.replicas.len();
        let ranks = all.map(|at| Some((self.score(at)?, self.distance(at)?)));
        let ranks: Vec<Option<(Score, (bool, u8))>> = ranks.collect();
        let place = |(score, distance): &(Score, (bool, u8))| (score.rank, *distance);
        let least = ranks.iter().flatten().map(place).min()?;
        let near = |known: &(Score, (bool, u8))| (place(known) == least).then_some(known.0);
        selection::endpoint(ranks.iter().map(|known| known.as_ref().and_then(near)), chance)
    }

    /// Whether nothing is heard of the best way to a replica that is left to try, and how far it is.
    fn distance(&self, replica: usize) -> Option<(bool, u8)> {
        let connections = self.roster.replicas[replica].connections.clone();
        let open = connections.filter_map(|at| Some((self.load(at)?.is_silent, at)));
        open.map(|(is_silent, at)| (is_silent, self.roster.connections[at].link.distance())).min()
    }

    /// `None` if none of its connections is left to try.
    fn score(&self, replica: usize) -> Option<Score> {
        let Replica { weight, connections, .. } = &self.roster.replicas[replica];
        let loads = connections.clone().filter_map(|at| self.load(at));
        let (mut is_there, mut is_silent, mut requests) = (false, true, 0);
        let is_doubted = connections.clone().all(|at| self.roster.connections[at].is_doubted());
        for load in loads {
            is_there = true;
            is_silent &= load.is_silent;
            requests += load.requests;
        }
        let rank = Rank::new(*weight == 0, is_silent);
        let rank = if is_doubted { rank.max(Rank::Doubted) } else { rank };
        is_there.then_some(Score { rank, weight: *weight, requests })
    }

    fn load(&self, at: usize) -> Option<Load> {
        let live = &self.roster.connections[at];
        let is_open = self.tried & (1 << at) == 0 && !live.is_leaving();
        is_open.then(|| Load {
            is_silent: live.is_silent(self.now),
            is_far: live.shard != self.shard,
            requests: live.requests(),
        })
    }
}

impl Iterator for Candidates<'_> {
    type Item = Arc<Connection>;

    fn next(&mut self) -> Option<Arc<Connection>> {
        let at = loop {
            let replica = self.replica()?;
            let connections = self.roster.replicas[replica].connections.clone();
            let nearest = if self.roster.are_all_here { None } else { self.distance(replica) };
            let loads = connections.clone().map(|at| {
                let load = self.load(at)?;
                let distance = || (load.is_silent, self.roster.connections[at].link.distance());
                nearest.is_none_or(|nearest| nearest == distance()).then_some(load)
            });
            match selection::connection(loads, fastrand::u64(..)) {
                Some(at) => break connections.start + at,
                None if self.roster.replicas.len() < 2 => return None,
                // Its last connection has begun to leave since; what leaves does not come back.
                None => {}
            }
        };
        self.tried |= 1 << at;
        Some(self.roster.connections[at].clone())
    }
}

fn bits(connections: &Range<usize>) -> u128 {
    connections.clone().fold(0, |bits, at| bits | 1 << at)
}

const _: () = assert!(MOST_CONNECTIONS <= u128::BITS as usize);
