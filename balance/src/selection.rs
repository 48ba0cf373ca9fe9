//! Which endpoint serves the next request, and which of its connections. First the endpoint, because weights and
//! stickiness are about endpoints however many connections each has; then the connection.

use crate::hash::bid;
use crate::{MOST_WEIGHT, next, part};

/// How willing an endpoint is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Serving,
    /// Draining, or its weight is 0.
    Drained,
    /// Somebody who asks holds it for down, or nobody knows yet.
    Doubted,
    /// None of its connections was heard lately.
    Silent,
    DrainedAndSilent,
}

/// An endpoint as it stands now. One that cannot be tried has none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Score {
    pub rank: Rank,
    /// 0 to [`MOST_WEIGHT`]; 0 is only compared with 0.
    pub weight: u8,
    /// Requests under way on all of its connections.
    pub requests: usize,
}

/// A connection as it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub is_silent: bool,
    /// Another thread drives it.
    pub is_far: bool,
    /// Requests under way.
    pub requests: usize,
}

impl Rank {
    pub fn new(is_drained: bool, is_silent: bool) -> Self {
        match (is_drained, is_silent) {
            (false, false) => Self::Serving,
            (true, false) => Self::Drained,
            (false, true) => Self::Silent,
            (true, true) => Self::DrainedAndSilent,
        }
    }
}

impl Score {
    /// Whether this one is better than another that was drawn before it: it is more willing, or has less to do
    /// for its weight.
    pub fn is_better_than(&self, first: &Self) -> bool {
        let has_less = || {
            if self.weight == first.weight {
                return self.requests < first.requests;
            }
            // requests / weight, without a division
            self.requests as u128 * u128::from(first.weight)
                < first.requests as u128 * u128::from(self.weight)
        };
        self.rank < first.rank || (self.rank == first.rank && has_less())
    }
}

/// The endpoint for the next request among all (`None` cannot be tried), where two that were drawn beforehand
/// ([`crate::Lots::two`]) are no choice. Of those of the best rank it is the one with the least to do if all have
/// the same weight; else two are drawn by weight, and the one with less to do for its weight is it.
///
/// Each score is looked at once: it may change from one look to the next.
pub fn endpoint(scores: impl Iterator<Item = Option<Score>>, mut chance: u64) -> Option<usize> {
    let mut best: Option<Best> = None;
    for (at, score) in scores.enumerate() {
        let Some(score) = score else { continue };
        match &mut best {
            Some(best) if score.rank > best.least.1.rank => {}
            Some(best) if score.rank == best.least.1.rank => best.add(at, score, &mut chance),
            Some(_) | None => best = Some(Best::new(at, score)),
        }
    }
    best.map(Best::chosen)
}

/// What is known of the endpoints of the best rank so far.
struct Best {
    least: (usize, Score),
    /// How many have as little to do as that one.
    equals: usize,
    is_even: bool,
    sum: u64,
    /// Each is the last that was kept with the likelihood of its weight.
    drawn: [(usize, Score); 2],
}

impl Best {
    fn new(at: usize, score: Score) -> Self {
        let one = (at, score);
        Self { least: one, equals: 1, is_even: true, sum: score.weight.into(), drawn: [one; 2] }
    }

    fn add(&mut self, at: usize, score: Score, chance: &mut u64) {
        self.is_even &= score.weight == self.least.1.weight;
        if score.requests < self.least.1.requests {
            (self.least, self.equals) = ((at, score), 1);
        } else if score.requests == self.least.1.requests {
            self.equals += 1;
            if part(next(chance), self.equals) == 0 {
                self.least = (at, score);
            }
        }
        self.sum += u64::from(score.weight);
        for drawn in &mut self.drawn {
            if (part(next(chance), self.sum as usize) as u64) < u64::from(score.weight) {
                *drawn = (at, score);
            }
        }
    }

    fn chosen(self) -> usize {
        let [first, other] = self.drawn;
        if self.is_even {
            self.least.0
        } else if other.1.is_better_than(&first.1) {
            other.0
        } else {
            first.0
        }
    }
}

/// The endpoint to which a visitor belongs: among those of the best rank the one with the highest score.
/// Weighted rendezvous hashing: when an endpoint goes only its own visitors move, and when it is back they
/// return. `hash(at)` is one of visitor and endpoint ([`crate::Key::with`]).
pub fn sticky(scores: impl Iterator<Item = Option<Score>>, hash: impl Fn(usize) -> u64) -> Option<usize> {
    let mut best: Option<(Rank, f64, usize)> = None;
    for (at, score) in scores.enumerate() {
        let Some(Score { rank, weight, .. }) = score else { continue };
        if best.is_some_and(|(least, ..)| rank > least) {
            continue;
        }
        // Those whose weight is 0 are here only among themselves.
        let weight = if weight == 0 { MOST_WEIGHT } else { weight };
        let highest = best.filter(|(least, ..)| *least == rank).map_or(0.0, |(_, highest, _)| highest);
        if let Some(bid) = bid(f64::from(weight), hash(at), highest) {
            best = Some((rank, bid, at));
        }
    }
    best.map(|(.., at)| at)
}

/// The connection with the least to do (`None` cannot be tried), `chance` decides between equals. A far one
/// costs a wake across threads both ways, so it has to have clearly less to do than a near one.
///
/// Each load is looked at once: it may change from one look to the next, and then none would be the best.
pub fn connection(loads: impl Iterator<Item = Option<Load>>, mut chance: u64) -> Option<usize> {
    let cost = |load: Load| {
        let far = if load.is_far { load.requests + FAR } else { 0 };
        (load.is_silent, load.requests.saturating_add(far))
    };
    let (mut best, mut equals) = (None, 0);
    for (at, load) in loads.enumerate() {
        let Some(cost) = load.map(cost) else { continue };
        match best {
            Some((least, _)) if cost > least => {}
            Some((least, _)) if cost == least => {
                equals += 1;
                // Each of them is the last that is kept with the same likelihood.
                if part(next(&mut chance), equals) == 0 {
                    best = Some((cost, at));
                }
            }
            Some(_) | None => (best, equals) = (Some((cost, at)), 1),
        }
    }
    best.map(|(_, at)| at)
}

/// A far connection counts as if it had twice as many requests, and this many besides.
const FAR: usize = 8;

#[cfg(test)]
pub(crate) mod tests;
