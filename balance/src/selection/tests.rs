//! What is promised of a choice. Chances are drawn from a fixed seed, so that a test passes always or never.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::{Key, Lots};

/// Chances that are as good as any.
pub(crate) fn chances(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|turn| Key::of(&turn.to_le_bytes()).0)
}

/// Something that happens with this likelihood may have happened so often: chance alone goes beyond it once in
/// 150,000 times. A few are let pass besides, where hardly any are to be expected.
pub(crate) fn is_within_chance(times: u32, of: u32, likelihood: f64) -> bool {
    let of = f64::from(of);
    let spread = (likelihood * (1.0 - likelihood) / of).sqrt();
    (f64::from(times) / of - likelihood).abs() <= 4.5 * spread + 4.0 / of
}

/// The same on each run.
pub(crate) fn cases() -> ProptestConfig {
    ProptestConfig { cases: 64, rng_seed: RngSeed::Fixed(15), ..ProptestConfig::default() }
}

fn score(rank: Rank, weight: u8, requests: usize) -> Option<Score> {
    Some(Score { rank, weight, requests })
}

fn load(is_silent: bool, is_far: bool, requests: usize) -> Option<Load> {
    Some(Load { is_silent, is_far, requests })
}

/// As the edge chooses among endpoints that all serve.
fn choose(lots: &Lots, scores: &[Score], chance: u64) -> usize {
    match lots.two(chance) {
        Some((first, other)) if scores[other].is_better_than(&scores[first]) => other,
        Some((first, _)) => first,
        None => endpoint(scores.iter().copied().map(Some), chance).unwrap(),
    }
}

#[test]
fn loads_that_change_while_they_are_looked_at_leave_one() {
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
    let loads = [load(false, false, 1), load(false, false, 0), load(false, true, 0), load(false, false, 0)];
    let mut chosen = [0_u32; 4];
    for chance in chances(1000) {
        chosen[connection(loads.iter().copied(), chance).unwrap()] += 1;
    }
    assert_eq!((chosen[0], chosen[2]), (0, 0));
    assert!(is_within_chance(chosen[1], 1000, 0.5), "{chosen:?}");
}

#[test]
fn the_best_rank_is_chosen_whatever_there_is_to_do() {
    let ranks = [Rank::DrainedAndSilent, Rank::Silent, Rank::Drained, Rank::Serving];
    for count in 1..=ranks.len() {
        let scores: Vec<_> = ranks[..count].iter().map(|rank| score(*rank, 0, count * 10)).collect();
        for chance in chances(8) {
            assert_eq!(endpoint(scores.iter().copied(), chance), Some(count - 1));
            assert_eq!(sticky(scores.iter().copied(), |at| chance ^ at as u64), Some(count - 1));
        }
    }
    assert_eq!(endpoint([None, None].into_iter(), 0), None);
    assert_eq!(sticky([None, None].into_iter(), |_| 0), None);
}

#[test]
fn endpoints_of_equal_weight_are_chosen_by_what_they_have_to_do() {
    let scores = [3, 1, 2].map(|requests| score(Rank::Serving, 50, requests));
    for chance in chances(8) {
        assert_eq!(endpoint(scores.into_iter(), chance), Some(1));
    }
    let (least, most) = (scores[1].unwrap(), scores[0].unwrap());
    assert!(least.is_better_than(&most) && !most.is_better_than(&least) && !least.is_better_than(&least));
}

#[test]
fn under_load_the_shares_of_alike_endpoints_stay_their_weights() {
    for weights in [&[60, 30, 10][..], &[90, 10], &[100, 100, 50]] {
        let all: u32 = weights.iter().copied().map(u32::from).sum();
        let lots = Lots::new(weights.iter().copied());
        for under_way in [5, 20, 100] {
            let mut scores: Vec<_> =
                weights.iter().filter_map(|weight| score(Rank::Serving, *weight, 0)).collect();
            let (mut open, mut served) = (Vec::new(), vec![0_u32; weights.len()]);
            for chance in chances(30_000) {
                // Any of those under way may be the next to end.
                if open.len() >= under_way {
                    let ended: usize = open.swap_remove(part(chance.rotate_left(17), open.len()));
                    scores[ended].requests -= 1;
                }
                let at = choose(&lots, &scores, chance);
                scores[at].requests += 1;
                served[at] += 1;
                open.push(at);
            }
            for (served, weight) in served.iter().zip(weights) {
                let (share, wanted) = (f64::from(*served) / 30_000.0, f64::from(*weight) / f64::from(all));
                assert!((share - wanted).abs() < 0.02, "{weights:?} with {under_way}: {share} for {wanted}");
            }
        }
    }
}

#[test]
fn an_endpoint_that_is_slow_gets_less_than_its_weight() {
    // The first has five times as much to do as its weight says.
    let scores =
        [(60, 50), (30, 5), (10, 2)].map(|(weight, busy)| score(Rank::Serving, weight, busy).unwrap());
    let lots = Lots::new([60_u8, 30, 10]);
    let first = chances(10_000).filter(|chance| choose(&lots, &scores, *chance) == 0).count();
    // Only where both draws are its own.
    assert!(is_within_chance(first as u32, 10_000, 0.36), "{first}");
}

#[test]
fn when_an_endpoint_goes_only_its_own_visitors_move_and_they_return() {
    let endpoints: Vec<u64> = chances(5).collect();
    let home = |gone: Option<usize>, visitor: Key| {
        let scores = (0..5).map(|at| (Some(at) != gone).then(|| score(Rank::Serving, 100, at)).flatten());
        sticky(scores, |at| visitor.with(endpoints[at])).unwrap()
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
    assert!(visitors.iter().all(|count| is_within_chance(*count, 5000, 0.2)), "{visitors:?}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_single_pass_draws_by_weight_too(weights in prop::collection::vec(1..=100_u8, 2..12)) {
        let all: u32 = weights.iter().copied().map(u32::from).sum();
        let is_even = weights.iter().all(|weight| *weight == weights[0]);
        let mut chosen = vec![0_u32; weights.len()];
        for chance in chances(4_000) {
            let scores = weights.iter().map(|weight| score(Rank::Serving, *weight, 0));
            chosen[endpoint(scores, chance).unwrap()] += 1;
        }
        for (chosen, weight) in chosen.into_iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(all);
            prop_assert!(is_within_chance(chosen, 4_000, share), "{chosen} of 4,000 for {share}, even: {is_even}");
        }
    }

    #[test]
    fn an_endpoint_without_weight_serves_only_where_none_has_any(
        weights in prop::collection::vec(0..=2_u8, 2..12), busy in prop::collection::vec(0..9_usize, 12), chance: u64,
    ) {
        let scores: Vec<_> = weights.iter().zip(&busy)
            .map(|(weight, busy)| score(Rank::new(*weight == 0, false), *weight, *busy)).collect();
        let at = endpoint(scores.iter().copied(), chance).unwrap();
        prop_assert!(weights[at] > 0 || weights.iter().all(|weight| *weight == 0));
        let home = sticky(scores.iter().copied(), |at| Key(chance).with(at as u64)).unwrap();
        prop_assert!(weights[home] > 0 || weights.iter().all(|weight| *weight == 0));
    }

    #[test]
    fn a_new_weight_moves_visitors_only_to_or_from_its_endpoint(
        weights in prop::collection::vec(1..=100_u8, 2..8), changed in 0..8_usize, to in 1..=100_u8,
    ) {
        let changed = changed % weights.len();
        let home = |weights: &[u8], visitor: u64| {
            let scores = weights.iter().map(|weight| score(Rank::Serving, *weight, 0));
            sticky(scores, |at| Key(visitor).with(Key::of(&[at as u8]).0)).unwrap()
        };
        let mut other = weights.clone();
        other[changed] = to;
        for visitor in chances(200) {
            let (before, now) = (home(&weights, visitor), home(&other, visitor));
            let is_its_own = if to > weights[changed] { now == changed } else { before == changed };
            prop_assert!(before == now || is_its_own, "{before} became {now}");
        }
    }

    #[test]
    fn visitors_are_spread_by_weight(weights in prop::collection::vec(1..=100_u8, 2..6)) {
        let all: u32 = weights.iter().copied().map(u32::from).sum();
        let mut homes = vec![0_u32; weights.len()];
        for visitor in chances(4_000) {
            let scores = weights.iter().map(|weight| score(Rank::Serving, *weight, 0));
            homes[sticky(scores, |at| Key(visitor).with(Key::of(&[at as u8]).0)).unwrap()] += 1;
        }
        for (homes, weight) in homes.into_iter().zip(&weights) {
            let share = f64::from(*weight) / f64::from(all);
            prop_assert!(is_within_chance(homes, 4_000, share), "{homes} of 4,000 for {share}");
        }
    }
}
