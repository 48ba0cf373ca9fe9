//! What is promised of steering. Chances are drawn from a fixed seed, so that a test passes always or never.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::order::{first, nearest, quickest};
use super::*;
use crate::Key;
use crate::selection::tests::{cases, chances, is_within_chance};

fn candidate(standing: Standing, weight: u32, at: usize) -> Option<Candidate> {
    Some(Candidate { standing, weight, hash: Key::of(&at.to_le_bytes()).0 })
}

fn up(weights: &[u32]) -> Ballot {
    Ballot::new(weights.iter().enumerate().map(|(at, weight)| candidate(Standing::Up, weight * 100, at)))
}

/// All ways to choose, with nothing to do for anybody.
fn all_ways(ballot: &Ballot, open: &dyn Fn(usize) -> bool, chance: u64) -> [Option<usize>; 4] {
    [
        ballot.random(open, chance),
        ballot.hashed(Key(chance), open),
        ballot.least(|at| open(at).then_some(0), chance),
        ballot.quickest(|at| open(at).then_some((0.03, 0)), chance),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![Just(Standing::Up), Just(Standing::Unknown), Just(Standing::Down)]
}

/// How good a candidate is, as a table rather than as the code has it.
fn class(standing: Standing, weight: u32) -> u8 {
    match (standing, weight > 0) {
        (Standing::Up, true) => 0,
        (Standing::Unknown, true) => 1,
        (Standing::Up, false) => 2,
        (Standing::Unknown, false) => 3,
        (Standing::Down, true) => 4,
        (Standing::Down, false) => 5,
    }
}

/// Requests that end in any order while `under_way` are kept under way.
fn shares(weights: &[u32], under_way: usize, choose: impl Fn(&[usize], u64) -> usize) -> Vec<f64> {
    let (mut loads, mut served) = (vec![0_usize; weights.len()], vec![0_u32; weights.len()]);
    let mut open: Vec<usize> = Vec::new();
    for chance in chances(30_000) {
        if open.len() >= under_way {
            let ended = open.swap_remove((chance.rotate_left(17) % open.len() as u64) as usize);
            loads[ended] -= 1;
        }
        let at = choose(&loads, chance);
        loads[at] += 1;
        served[at] += 1;
        open.push(at);
    }
    served.into_iter().map(|served| f64::from(served) / 30_000.0).collect()
}

#[test]
fn under_load_the_shares_of_alike_endpoints_stay_their_weights() {
    for weights in [&[60, 30, 10][..], &[90, 10], &[100, 100, 50], &[1, 1, 1, 1]] {
        let (ballot, all) = (up(weights), weights.iter().sum::<u32>());
        for under_way in [5, 20, 100] {
            let by_load = shares(weights, under_way, |loads, chance| {
                ballot.least(|at| Some(loads[at]), chance).unwrap()
            });
            let by_latency = shares(weights, under_way, |loads, chance| {
                ballot.quickest(|at| Some((0.01, loads[at])), chance).unwrap()
            });
            for (at, weight) in weights.iter().enumerate() {
                let wanted = f64::from(*weight) / f64::from(all);
                for (way, share) in [("load", by_load[at]), ("latency", by_latency[at])] {
                    assert!((share - wanted).abs() < 0.02, "{weights:?} by {way}, {under_way}: {share}");
                }
            }
        }
    }
}

#[test]
fn who_has_more_to_do_or_is_slow_gets_less() {
    let ballot = up(&[50, 50, 50]);
    let count = |choose: &dyn Fn(u64) -> Option<usize>| {
        chances(3000).filter(|chance| choose(*chance) == Some(0)).count() as u32
    };
    // Of every pair that it is in, the first is the worse one.
    assert_eq!(count(&|chance| ballot.least(|at| Some([9, 1, 2][at]), chance)), 0);
    assert_eq!(count(&|chance| ballot.quickest(|at| Some(([0.2, 0.1, 0.1][at], 0)), chance)), 0);
    assert_eq!(count(&|chance| ballot.quickest(|at| Some((0.1, [3, 1, 1][at])), chance)), 0);
    // Quick enough for two more under way.
    let quick = count(&|chance| ballot.quickest(|at| Some(([0.01, 0.1, 0.1][at], [2, 0, 0][at])), chance));
    assert!(is_within_chance(quick, 3000, 2.0 / 3.0), "{quick}");
}

#[test]
fn when_a_candidate_goes_only_its_own_keys_move_and_they_return() {
    let ballot = up(&[50, 100, 20, 70, 100, 30, 30, 90, 10, 100]);
    let mut homes = [0_u32; 10];
    for key in chances(10_000).map(Key) {
        let usual = ballot.hashed(key, |_| true).unwrap();
        homes[usual] += 1;
        for gone in 0..10 {
            let now = ballot.hashed(key, |at| at != gone).unwrap();
            assert!(if gone == usual { now != gone } else { now == usual });
        }
    }
    assert!(is_within_chance(homes[1], 10_000, 100.0 / 600.0), "{homes:?}");
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn each_way_serves_by_weight_when_idle(weights in prop::collection::vec(0..=100_u32, 2..20)) {
        let all: u32 = weights.iter().sum();
        prop_assume!(all > 0);
        let ballot = up(&weights);
        let mut chosen = vec![[0_u32; 4]; weights.len()];
        for chance in chances(4_000) {
            for (way, at) in all_ways(&ballot, &|_| true, chance).into_iter().enumerate() {
                chosen[at.unwrap()][way] += 1;
            }
        }
        for (chosen, weight) in chosen.into_iter().zip(weights) {
            let share = f64::from(weight) / f64::from(all);
            for chosen in chosen {
                prop_assert!(is_within_chance(chosen, 4_000, share), "{chosen} of 4,000 for {share}");
                prop_assert!(weight > 0 || chosen == 0);
            }
        }
    }

    #[test]
    fn weights_are_compared_and_nothing_else(
        weights in prop::collection::vec(0..=25_u32, 2..20), factor in 1..=4_u32, chance: u64,
    ) {
        let scaled: Vec<_> = weights.iter().map(|weight| weight * factor).collect();
        let (one, other) = (up(&weights), up(&scaled));
        prop_assert_eq!(all_ways(&one, &|_| true, chance), all_ways(&other, &|_| true, chance));
    }

    #[test]
    fn the_best_that_was_not_tried_is_chosen_and_one_as_long_as_there_is_any(
        candidates in prop::collection::vec((prop::option::of((standing(), 0..3_u32)), any::<bool>()), 0..12),
        chance: u64,
    ) {
        let ballot = Ballot::new(candidates.iter().enumerate().map(|(at, (candidate, _))| {
            let (standing, weight) = (*candidate)?;
            self::candidate(standing, weight, at)
        }));
        let open = |at: usize| candidates[at].1;
        let class_of = |at: usize| candidates[at].0.filter(|_| open(at)).map(|(of, weight)| class(of, weight));
        let best = (0..candidates.len()).filter_map(class_of).min();
        for chosen in all_ways(&ballot, &open, chance) {
            prop_assert_eq!(chosen.and_then(class_of), best);
            prop_assert_eq!(chosen.is_some(), best.is_some());
        }
    }

    #[test]
    fn those_left_over_after_a_failure_share_by_weight(weights in prop::collection::vec(1..=100_u32, 3..10)) {
        let (ballot, left) = (up(&weights), &weights[2..]);
        let all: u32 = left.iter().sum();
        let mut chosen = vec![[0_u32; 3]; left.len()];
        let open = |at: usize| at >= 2;
        // Chances with which the first draw is among those that were tried already would be no fair ones.
        for chance in chances(4_000) {
            let [random, _, least, quick] = all_ways(&ballot, &open, chance);
            for (way, at) in [random, least, quick].into_iter().enumerate() {
                chosen[at.unwrap() - 2][way] += 1;
            }
        }
        for (chosen, weight) in chosen.into_iter().zip(left) {
            let share = f64::from(*weight) / f64::from(all);
            for chosen in chosen {
                prop_assert!((f64::from(chosen) / 4_000.0 - share).abs() < 0.06, "{chosen} of 4,000 for {share}");
            }
        }
    }

    #[test]
    fn a_new_weight_moves_keys_only_to_or_from_its_candidate(
        weights in prop::collection::vec(1..=100_u32, 2..8), changed in 0..8_usize, to in 1..=100_u32,
    ) {
        let changed = changed % weights.len();
        let mut other = weights.clone();
        other[changed] = to;
        let (before, now) = (up(&weights), up(&other));
        for key in chances(200).map(Key) {
            let (before, now) = (before.hashed(key, |_| true).unwrap(), now.hashed(key, |_| true).unwrap());
            let is_its_own = if to > weights[changed] { now == changed } else { before == changed };
            prop_assert!(before == now || is_its_own, "{before} became {now}");
        }
    }

    #[test]
    fn a_pool_that_is_down_is_never_first_and_one_that_is_up_always_is(
        pools in prop::collection::vec(prop::option::of((standing(), prop::option::of(0.0..1.0_f64))), 0..8),
        current in prop::option::of(0..9_usize),
    ) {
        let standing = |at: usize| pools[at].map(|(standing, _)| standing);
        let places = pools.iter().map(|seen| seen.map(|(standing, value)| {
            (standing, value.map(|value| Point { latitude: value * 90.0, longitude: value * 180.0 }))
        }));
        let here = Point { latitude: 0.0, longitude: 0.0 };
        let best = (0..pools.len()).filter_map(standing).min().filter(|best| *best != Standing::Down);
        for chosen in [
            first((0..pools.len()).map(standing)),
            quickest(current, pools.iter().copied()),
            nearest(Some(here), places.clone()),
        ] {
            prop_assert_eq!(chosen.and_then(standing), best);
        }
        prop_assert_eq!(first((0..pools.len()).map(standing)), nearest(None, places));
    }

    #[test]
    fn no_two_places_are_further_apart_than_the_other_side_of_the_earth(
        one in (-90.0..=90.0_f64, -180.0..=180.0_f64), two in (-90.0..=90.0_f64, -180.0..=180.0_f64),
    ) {
        let (one, two) = (Point::new(one.0, one.1).unwrap(), Point::new(two.0, two.1).unwrap());
        let antipode = Point {
            latitude: -one.latitude,
            longitude: if one.longitude > 0.0 { one.longitude - 180.0 } else { one.longitude + 180.0 },
        };
        let (there, back) = (one.angle(two), two.angle(one));
        prop_assert!((there - back).abs() < 1e-9 && (0.0..=std::f64::consts::PI).contains(&there));
        prop_assert!((one.angle(antipode) - std::f64::consts::PI).abs() < 1e-6);
        prop_assert!((there + two.angle(antipode) - std::f64::consts::PI).abs() < 1e-6);
        prop_assert!(one.angle(one) == 0.0);
    }

    #[test]
    fn a_mean_of_samples_at_one_moment_and_of_many_small_steps_is_the_same(
        steps in 1..50_u32, from in 1..500_u64, to in 1..500_u64,
    ) {
        // However often a constant latency is sampled, after ten seconds as much of the old is left.
        let mut mean = Ewma::new(Duration::from_secs(5));
        mean.add(Duration::ZERO, Duration::from_millis(from));
        for step in 1..=steps {
            mean.add(Duration::from_secs(10) * step / steps, Duration::from_millis(to));
        }
        let (from, to) = (from as f64 / 1e3, to as f64 / 1e3);
        let wanted = to + (from - to) * (-2.0_f64).exp();
        prop_assert!((mean.value().unwrap() - wanted).abs() < 1e-6);
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_a_quick_one_by_and_by(slow in 100..60_000_u64, gap in 0..60_000_u64) {
        let (began, peak) = (Duration::from_secs(1), Peak::new(Duration::from_secs(1)));
        prop_assert!((peak.value(began) - Peak::START).abs() < 1e-6);
        let slow = Duration::from_millis(slow);
        peak.answered(began, slow);
        prop_assert!((peak.value(began) / slow.as_secs_f64() - 1.0).abs() < 1e-6);
        let later = began + Duration::from_millis(gap);
        let left = (-(gap as f64) / 10_000.0).exp();
        prop_assert!((peak.value(later) / (slow.as_secs_f64() * left) - 1.0).abs() < 1e-5);
        peak.answered(later, Duration::from_millis(1));
        let wanted = slow.as_secs_f64() * left + 0.001 * (1.0 - left);
        prop_assert!((peak.value(later) / wanted - 1.0).abs() < 1e-5);
        peak.failed(later, Duration::from_millis(1));
        prop_assert!(peak.value(later) >= 4.99);
    }
}

#[test]
fn a_latency_outlives_the_day_on_which_its_clock_begins_anew() {
    let wrap = Duration::from_millis(1 << 32);
    let peak = Peak::new(wrap - Duration::from_millis(10));
    peak.answered(wrap - Duration::from_millis(10), Duration::from_secs(1));
    assert!((peak.value(wrap + Duration::from_secs(10)) - (-1.001_f64).exp()).abs() < 1e-6);
    // Another thread's look at the clock, a little earlier.
    peak.answered(wrap, Duration::from_secs(2));
    assert!((peak.value(wrap - Duration::from_millis(1)) - 2.0).abs() < 1e-6);
}

#[test]
fn pools_that_are_alike_do_not_take_turns() {
    let up = |latencies: [f64; 3]| latencies.map(|latency| Some((Standing::Up, Some(latency)))).into_iter();
    for (current, latencies, wanted) in [
        (None, [0.050, 0.049, 0.051], 1),
        (Some(0), [0.050, 0.049, 0.051], 0),
        // A tenth, but not five milliseconds.
        (Some(0), [0.020, 0.017, 0.030], 0),
        // Five milliseconds, but not a tenth.
        (Some(0), [0.100, 0.094, 0.200], 0),
        (Some(0), [0.100, 0.089, 0.200], 1),
        (Some(7), [0.100, 0.089, 0.200], 1),
    ] {
        assert_eq!(quickest(current, up(latencies)), Some(wanted), "{latencies:?}");
    }
    // Without data it comes after, in its order, and does not stay for having been there.
    let seen = [(Standing::Up, None), (Standing::Up, Some(0.2)), (Standing::Up, None)];
    assert_eq!(quickest(Some(0), seen.into_iter().map(Some)), Some(1));
    assert_eq!(quickest(None, [Some(seen[0]), None, Some(seen[2])].into_iter()), Some(0));
    let seen = [(Standing::Unknown, Some(0.1)), (Standing::Up, Some(0.9))];
    assert_eq!(quickest(Some(0), seen.into_iter().map(Some)), Some(1));
}

#[test]
fn the_nearest_pool_may_lie_beyond_the_date_line() {
    let point = |latitude, longitude| Point::new(latitude, longitude).unwrap();
    let (fiji, samoa, auckland) = (point(-18.1, 178.4), point(-13.8, -171.8), point(-36.8, 174.8));
    let pools = [None, Some(auckland), Some(samoa)];
    let seen = || pools.iter().map(|place| Some((Standing::Up, *place)));
    assert_eq!(nearest(Some(fiji), seen()), Some(2));
    assert_eq!(nearest(Some(auckland), seen()), Some(1));
    // London to New York in kilometres, as tables have it.
    let kilometres = point(51.5074, -0.1278).angle(point(40.7128, -74.006)) * 6371.0;
    assert!((kilometres - 5570.0).abs() < 5.0, "{kilometres}");
    // At a pole every longitude is the same place.
    assert!(point(90.0, 12.0).angle(point(90.0, -150.0)) < 1e-9);
    for (latitude, longitude) in [(90.1, 0.0), (0.0, 180.1), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
        assert_eq!(Point::new(latitude, longitude), None);
    }
}

#[test]
fn the_most_exact_place_that_has_a_list_decides() {
    let lists = |code: &str, pool| HashMap::from([(code.to_owned(), vec![pool])]);
    let atlas = Atlas {
        pops: lists("FRA", "frankfurt"),
        countries: lists("DE", "germany"),
        regions: lists("WEU", "europe"),
        default: vec!["world"],
    };
    for (pop, country, region, wanted) in [
        (Some("FRA"), Some("DE"), Some("WEU"), "frankfurt"),
        (Some("BER"), Some("DE"), Some("WEU"), "germany"),
        (None, Some("DE"), None, "germany"),
        (Some("VIE"), Some("AT"), Some("WEU"), "europe"),
        (None, None, Some("WEU"), "europe"),
        (Some("LAX"), Some("US"), Some("WNAM"), "world"),
        (None, None, None, "world"),
    ] {
        assert_eq!(atlas.pools(&Place { pop, country, region }), [wanted]);
    }
}
