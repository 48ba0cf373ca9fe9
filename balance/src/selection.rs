//! Which replica serves the next request, and which of its connections: plain functions of numbers, with
//! chance handed in. First the replica, because weights and stickiness are about replicas however many
//! connections each has; then the connection.

use crate::balancer::weights::MOST_WEIGHT;

/// How willing a replica is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    Serving,
    /// Draining, or its weight is 0.
    Drained,
    /// None of its connections was heard lately.
    Silent,
    DrainedAndSilent,
}

/// A replica as it stands now. One without a connection to try has none of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) rank: Rank,
    /// 0 to [`MOST_WEIGHT`]
    pub(crate) weight: u8,
    /// Requests under way on all of its connections.
    pub(crate) requests: usize,
}

/// A connection as it stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) is_silent: bool,
    /// Another thread drives it.
    pub(crate) is_far: bool,
    /// Requests under way.
    pub(crate) requests: usize,
}

impl Rank {
    pub(crate) fn new(is_drained: bool, is_silent: bool) -> Self {
        match (is_drained, is_silent) {
            (false, false) => Self::Serving,
            (true, false) => Self::Drained,
            (false, true) => Self::Silent,
            (true, true) => Self::DrainedAndSilent,
        }
    }
}

/// Two of `count` different things, each pair as likely as any other; `count` is at least 2.
pub(crate) fn pair(count: usize, chance: u64) -> (usize, usize) {
    let first = part(chance >> 32, count);
    let other = part(chance & 0xffff_ffff, count - 1);
    (first, if other < first { other } else { other + 1 })
}

/// The better of two replicas of equal weight. The first one where they are alike.
pub(crate) fn is_better(other: &Standing, first: &Standing) -> bool {
    (other.rank, other.requests) < (first.rank, first.requests)
}

/// The replica for the next request among all of a tunnel (`None` is no candidate). Of those of the best
/// rank each is as likely as its weight says, less likely the more it has to do already; if all have the
/// same weight it is the one with the least to do.
pub(crate) fn replica(standings: &[Option<Standing>], chance: u64) -> Option<usize> {
    let best = standings.iter().flatten().map(|standing| standing.rank).min()?;
    let candidates = || {
        let all = standings.iter().enumerate();
        all.filter_map(|(at, standing)| Some((at, (*standing)?))).filter(|(_, it)| it.rank == best)
    };
    let mut weights = candidates().map(|(_, standing)| standing.weight);
    let first = weights.next()?;
    if weights.all(|weight| weight == first) {
        let least = candidates().map(|(_, standing)| standing.requests).min()?;
        let equals = candidates().filter(|(_, standing)| standing.requests == least);
        let at = part(chance >> 32, equals.clone().count());
        return equals.map(|(at, _)| at).nth(at);
    }
    let share = |standing: &Standing| f64::from(standing.weight) / (standing.requests as f64 + 1.0);
    let sum: f64 = candidates().map(|(_, standing)| share(&standing)).sum();
    let mut left = unit(chance) * sum;
    for (at, standing) in candidates() {
        left -= share(&standing);
        if left < 0.0 {
            return Some(at);
        }
    }
    // What rounding has left over.
    candidates().filter(|(_, standing)| standing.weight > 0).map(|(at, _)| at).next_back()
}

/// The replica to which a visitor belongs: among those of the best rank the one with the highest score.
/// Weighted rendezvous hashing: when a replica goes only its own visitors move, and when it is back they
/// return. `scores[at]` is a hash of visitor and replica.
pub(crate) fn sticky(standings: &[Option<Standing>], score: impl Fn(usize) -> u64) -> Option<usize> {
    let best = standings.iter().flatten().map(|standing| standing.rank).min()?;
    let candidates = standings.iter().enumerate().filter_map(|(at, standing)| Some((at, (*standing)?)));
    let candidates = candidates.filter(|(_, standing)| standing.rank == best);
    let scored = candidates.map(|(at, standing)| {
        // Those whose weight is 0 are here only among themselves.
        let weight = if standing.weight == 0 { MOST_WEIGHT } else { standing.weight };
        (at, -f64::from(weight) / unit(score(at)).max(f64::MIN_POSITIVE).ln())
    });
    scored.max_by(|(_, one), (_, other)| one.total_cmp(other)).map(|(at, _)| at)
}

/// The connection with the least to do (`None` is no candidate), `chance` decides between equals. A far one
/// costs a wake across threads both ways, so it has to have clearly less to do than a near one.
///
/// Each load is looked at once: it may change from one look to the next, and then nobody would be the best.
pub(crate) fn connection(loads: impl Iterator<Item = Option<Load>>, mut chance: u64) -> Option<usize> {
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
                chance = chance.wrapping_mul(STEP).wrapping_add(1);
                if part(chance >> 32, equals) == 0 {
                    best = Some((cost, at));
                }
            }
            Some(_) | None => (best, equals) = (Some((cost, at)), 1),
        }
    }
    best.map(|(_, at)| at)
}

/// `chance`, 32 bits of it, as a number below `count`.
fn part(chance: u64, count: usize) -> usize {
    ((chance & 0xffff_ffff).wrapping_mul(count as u64) >> 32) as usize
}

/// `chance` as a number from 0 to 1, without 1.
fn unit(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

/// Makes a new chance of one that was used (Knuth's linear congruential generator).
const STEP: u64 = 6_364_136_223_846_793_005;
/// A far connection counts as if it had twice as many requests, and this many besides.
const FAR: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balancer::affinity::Key;

    /// Chances that are as good as any.
    fn chances(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|turn| Key::of(&turn.to_le_bytes()).0)
    }

    fn standing(rank: Rank, weight: u8, requests: usize) -> Option<Standing> {
        Some(Standing { rank, weight, requests })
    }

    fn load(is_silent: bool, is_far: bool, requests: usize) -> Option<Load> {
        Some(Load { is_silent, is_far, requests })
    }

    #[test]
    fn loads_that_change_while_they_are_looked_at_leave_somebody() {
        let looks = std::cell::Cell::new(0);
        let loads = (0..2).map(|_| {
            looks.set(looks.get() + 1);
            load(false, false, looks.get())
        });
        assert_eq!(connection(loads, 7), Some(0));
        assert_eq!(looks.get(), 2);
    }

    #[test]
    fn the_least_loaded_connection_is_chosen_unless_it_is_far_and_only_a_little_better() {
        for (loads, wanted) in [
            (vec![], None),
            (vec![None, None], None),
            (vec![None, load(false, true, 3)], Some(1)),
            (vec![load(false, false, 2), load(false, false, 1), load(false, false, 3)], Some(1)),
            // A tie, and a little less, is not worth the way.
            (vec![load(false, true, 0), load(false, false, 7)], Some(1)),
            (vec![load(false, true, 16), load(false, false, 39)], Some(1)),
            // Clearly less is.
            (vec![load(false, true, 0), load(false, false, 9)], Some(0)),
            (vec![load(false, true, 15), load(false, false, 39)], Some(0)),
            // One that was not heard comes last, however idle it is.
            (vec![load(true, false, 0), load(false, true, 90)], Some(1)),
            (vec![load(true, false, 1), load(true, false, 0)], Some(1)),
        ] {
            for chance in chances(8) {
                assert_eq!(connection(loads.iter().copied(), chance), wanted, "{loads:?}");
            }
        }
    }

    #[test]
    fn equals_share_the_work() {
        let loads =
            [load(false, false, 1), load(false, false, 0), load(false, true, 0), load(false, false, 0)];
        let mut chosen = [0_u32; 4];
        for chance in chances(1000) {
            chosen[connection(loads.iter().copied(), chance).unwrap()] += 1;
        }
        assert_eq!((chosen[0], chosen[2]), (0, 0));
        assert!(chosen[1].abs_diff(chosen[3]) < 100, "{chosen:?}");
    }

    #[test]
    fn the_best_rank_is_chosen_whatever_there_is_to_do() {
        let ranks = [Rank::DrainedAndSilent, Rank::Silent, Rank::Drained, Rank::Serving];
        for count in 1..=ranks.len() {
            let standings: Vec<_> =
                ranks[..count].iter().map(|rank| standing(*rank, 0, count * 10)).collect();
            for chance in chances(8) {
                assert_eq!(replica(&standings, chance), Some(count - 1));
                assert_eq!(sticky(&standings, |at| chance ^ at as u64), Some(count - 1));
            }
        }
        assert_eq!(replica(&[None, None], 0), None);
        assert_eq!(sticky(&[None, None], |_| 0), None);
    }

    #[test]
    fn replicas_of_equal_weight_are_chosen_by_what_they_have_to_do() {
        let standings = [3, 1, 2].map(|requests| standing(Rank::Serving, 50, requests));
        for chance in chances(8) {
            assert_eq!(replica(&standings, chance), Some(1));
        }
        let (least, most) = (standings[1].unwrap(), standings[0].unwrap());
        assert!(is_better(&least, &most) && !is_better(&most, &least) && !is_better(&least, &least));
    }

    #[test]
    fn idle_replicas_are_chosen_as_their_weights_say_and_busy_ones_less() {
        let share = |standings: [Option<Standing>; 3]| {
            let mut chosen = [0.0_f64; 3];
            for chance in chances(10_000) {
                chosen[replica(&standings, chance).unwrap()] += 1.0 / 10_000.0;
            }
            chosen
        };
        let idle = share([60, 30, 10].map(|weight| standing(Rank::Serving, weight, 0)));
        for (share, wanted) in idle.into_iter().zip([0.6, 0.3, 0.1]) {
            assert!((share - wanted).abs() < 0.02, "{idle:?}");
        }
        let busy =
            share([(60, 5), (30, 0), (10, 0)].map(|(weight, busy)| standing(Rank::Serving, weight, busy)));
        for (share, wanted) in busy.into_iter().zip([0.2, 0.6, 0.2]) {
            assert!((share - wanted).abs() < 0.02, "{busy:?}");
        }
    }

    #[test]
    fn every_pair_is_as_likely_as_any_other() {
        let mut seen = std::collections::HashMap::new();
        for chance in chances(12_000) {
            let (one, other) = pair(4, chance);
            assert!(one != other && one < 4 && other < 4);
            *seen.entry((one, other)).or_insert(0_u32) += 1;
        }
        assert_eq!(seen.len(), 12);
        assert!(seen.values().all(|times| times.abs_diff(1000) < 150), "{seen:?}");
    }

    #[test]
    fn when_a_replica_goes_only_its_own_visitors_move_and_they_return() {
        let replicas: Vec<u64> = chances(5).collect();
        let home = |gone: Option<usize>, visitor: Key| {
            let standings: Vec<_> = (0..5)
                .map(|at| (Some(at) != gone).then(|| standing(Rank::Serving, 100, at)).flatten())
                .collect();
            sticky(&standings, |at| visitor.with(replicas[at])).unwrap()
        };
        let mut visitors = [0; 5];
        for visitor in chances(5000).map(Key) {
            let usual = home(None, visitor);
            visitors[usual] += 1;
            for gone in 0..5 {
                let now = home(Some(gone), visitor);
                assert!(if gone == usual { now != gone } else { now == usual });
            }
        }
        assert!(visitors.iter().all(|count: &i32| count.abs_diff(1000) < 150), "{visitors:?}");
    }

    #[test]
    fn visitors_are_spread_by_weight_and_a_new_weight_moves_no_others() {
        let homes = |weights: [u8; 2]| -> Vec<usize> {
            let standings = weights.map(|weight| standing(Rank::Serving, weight, 0));
            let replicas: Vec<u64> = chances(2).collect();
            chances(5000)
                .map(|visitor| sticky(&standings, |at| Key(visitor).with(replicas[at])).unwrap())
                .collect()
        };
        let (even, uneven) = (homes([50, 50]), homes([50, 10]));
        let second = uneven.iter().filter(|home| **home == 1).count();
        assert!(second.abs_diff(5000 / 6) < 120, "{second}");
        assert!(even.iter().zip(&uneven).all(|(before, now)| before == now || (*before, *now) == (1, 0)));
    }
}
