//! The pools of a load balancer in the way in which one of them is chosen, and how they stand at the moment. Knows
//! pools; does not know what is tried in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use adit_balance::Key;
use adit_balance::steer::{Ballot, Candidate, ONE, Standing, order};
use arc_swap::{ArcSwap, Guard};

use super::Policy;
use super::pool::{Around, Pool};

/// See the module.
pub(super) struct Tour {
    /// As they are written.
    pub(super) pools: Vec<Arc<Pool>>,
    /// In hundredths.
    weights: Vec<u8>,
    pub(super) policy: Policy,
    /// What requests read, made anew by those that find it out of date.
    board: ArcSwap<Board>,
    /// Where requests go that are steered by latency.
    current: AtomicUsize,
    around: Around,
}

struct Board {
    turn: u64,
    /// From then on it is out of date, whatever happens.
    until: Duration,
    ballot: Ballot,
    /// Those that may serve, in the order in which they are tried where the policy has one.
    order: Vec<usize>,
}

impl Tour {
    pub(super) fn new(pools: Vec<Arc<Pool>>, weights: Vec<u8>, policy: Policy, around: Around) -> Self {
        let nothing = Board { turn: 0, until: Duration::ZERO, ballot: Ballot::default(), order: Vec::new() };
        let (board, current) = (ArcSwap::from_pointee(nothing), AtomicUsize::new(usize::MAX));
        Self { pools, weights, policy, board, current, around }
    }

    /// The pool for a request, among those that may serve and are not `left`; a `key` chooses in the place of chance.
    pub(super) fn choose(&self, left: u128, visitor: Key, key: Option<Key>, now: Instant) -> Option<usize> {
        let board = self.board(now);
        let open = |at: usize| left & (1 << at) == 0;
        match (self.policy, key) {
            (Policy::Off | Policy::Quickest | Policy::Nearest, _) => {
                board.order.iter().copied().find(|at| open(*at))
            }
            (Policy::Random | Policy::Least | Policy::Peak, Some(key)) => board.ballot.hashed(key, open),
            (Policy::Hash, key) => board.ballot.hashed(key.unwrap_or(visitor), open),
            (Policy::Random, None) => board.ballot.random(open, fastrand::u64(..)),
            (Policy::Least | Policy::Peak, None) => {
                let load = |at: usize| open(at).then(|| self.pools[at].requests());
                board.ballot.least(load, fastrand::u64(..))
            }
        }
    }

    /// Of each pool, the part of the requests that its weight is worth now, and in which place it is tried; each
    /// where the policy goes by that.
    pub(super) fn standing(&self, now: Instant) -> Vec<(Option<f64>, Option<usize>)> {
        let board = self.board(now);
        let has_order = matches!(self.policy, Policy::Off | Policy::Quickest | Policy::Nearest);
        let place = |at: usize| board.order.iter().position(|known| *known == at).map(|place| place + 1);
        let one = |at: usize| if has_order { (None, place(at)) } else { (Some(board.ballot.part(at)), None) };
        (0..self.pools.len()).map(one).collect()
    }

    fn board(&self, now: Instant) -> Guard<Arc<Board>> {
        let board = self.board.load();
        if board.turn == self.around.turns.now() && self.around.at(now) < board.until {
            return board;
        }
        self.board.store(Arc::new(self.look(now)));
        self.board.load()
    }

    fn look(&self, now: Instant) -> Board {
        let turn = self.around.turns.now();
        let standings: Vec<_> = self.pools.iter().map(|pool| pool.board(now).health.standing()).collect();
        let candidates = standings.iter().zip(&self.pools).zip(&self.weights);
        let candidates = candidates.map(|((standing, pool), weight)| {
            let weight = u32::from(*weight) * (ONE / 100);
            Some(Candidate { standing: (*standing)?, weight, hash: pool.hash })
        });
        let is_lasting = self.policy != Policy::Quickest;
        Board {
            turn,
            until: if is_lasting { Duration::MAX } else { self.around.at(now) + LATENCY_COUNTS },
            ballot: Ballot::new(candidates),
            order: self.order(&standings, now),
        }
    }

    fn order(&self, standings: &[Option<Standing>], now: Instant) -> Vec<usize> {
        let latency = |at: usize| self.pools[at].latency(now);
        let next = |open: &dyn Fn(usize) -> bool, is_first: bool| {
            let standing = |at: usize| standings[at].filter(|_| open(at));
            let pools = 0..self.pools.len();
            match self.policy {
                Policy::Quickest => {
                    let current = is_first.then(|| self.current.load(Ordering::Relaxed));
                    order::quickest(current, pools.map(|at| Some((standing(at)?, latency(at)))))
                }
                Policy::Nearest => {
                    let seen = pools.map(|at| Some((standing(at)?, self.pools[at].place)));
                    order::nearest(self.around.here, seen)
                }
                Policy::Off | Policy::Random | Policy::Hash | Policy::Least | Policy::Peak => {
                    order::first(pools.map(standing))
                }
            }
        };
        let mut order: Vec<usize> = Vec::new();
        while let Some(at) = next(&|at| !order.contains(&at), order.is_empty()) {
            order.push(at);
        }
        self.current.store(order.first().copied().unwrap_or(usize::MAX), Ordering::Relaxed);
        order
    }
}

/// How long an order by latency holds.
const LATENCY_COUNTS: Duration = Duration::from_secs(1);
