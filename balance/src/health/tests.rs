//! What is promised of health, by tables and for any history.

use proptest::prelude::*;

use super::*;
use crate::selection::tests::cases;

const UP: Signs = Signs {
    is_enabled: true,
    is_connected: Some(true),
    active: Active::Up,
    is_ejected: false,
    is_draining: false,
};

#[test]
fn an_endpoint_is_what_is_known_of_it() {
    for (signs, wanted) in [
        (UP, State::Up),
        (Signs { active: Active::NotMonitored, ..UP }, State::Up),
        (Signs { is_connected: None, ..UP }, State::Up),
        (Signs { active: Active::Unknown, ..UP }, State::Unknown),
        (Signs { active: Active::Overdue, ..UP }, State::Overdue),
        (Signs { active: Active::Down, ..UP }, State::Down),
        // No monitor is waited for.
        (Signs { is_connected: Some(false), ..UP }, State::NotConnected),
        (
            Signs { is_connected: Some(false), is_ejected: true, active: Active::Down, ..UP },
            State::NotConnected,
        ),
        (Signs { is_ejected: true, ..UP }, State::Ejected),
        (Signs { is_ejected: true, active: Active::Unknown, ..UP }, State::Ejected),
        // A monitor that says so is no floor's business.
        (Signs { is_ejected: true, active: Active::Down, ..UP }, State::Down),
        (Signs { is_enabled: false, ..UP }, State::Disabled),
        (Signs { is_enabled: false, is_draining: true, ..UP }, State::Draining),
        (Signs { is_enabled: false, is_draining: true, is_connected: Some(false), ..UP }, State::Disabled),
    ] {
        assert_eq!(signs.state(), wanted, "{signs:?}");
    }
    for (monitored, is_up, overdue, wanted) in [
        (false, Some(false), true, Active::NotMonitored),
        (true, Some(true), true, Active::Up),
        (true, Some(false), false, Active::Down),
        (true, None, false, Active::Unknown),
        (true, None, true, Active::Overdue),
    ] {
        assert_eq!(Active::new(monitored, is_up, overdue), wanted);
    }
}

#[test]
fn a_pool_is_what_its_endpoints_are() {
    use State::{Disabled, Down, Draining, Ejected, NotConnected, Overdue, Unknown, Up};
    for (minimum, states, wanted) in [
        (1, &[Up, Up][..], PoolHealth::Healthy),
        (1, &[Up, Down], PoolHealth::Degraded),
        (2, &[Up, Down], PoolHealth::Critical),
        (2, &[Up, Unknown, Down], PoolHealth::Unknown),
        (1, &[Up, Unknown], PoolHealth::Healthy),
        (1, &[Unknown, Unknown], PoolHealth::Unknown),
        (1, &[NotConnected, Overdue], PoolHealth::Critical),
        // Ejection alone makes no pool critical, nor degraded.
        (2, &[Ejected, Ejected], PoolHealth::Healthy),
        (2, &[Up, Up, Disabled, Draining], PoolHealth::Healthy),
        (1, &[Disabled], PoolHealth::Critical),
        (0, &[Down], PoolHealth::Critical),
        (1, &[], PoolHealth::Critical),
    ] {
        assert_eq!(PoolHealth::new(true, minimum, states.iter().copied()), wanted, "{minimum} of {states:?}");
        assert_eq!(PoolHealth::new(false, minimum, states.iter().copied()), PoolHealth::Disabled);
    }
}

#[test]
fn a_verdict_needs_its_results_in_a_row_and_the_first_counts_at_once() {
    let thresholds = Thresholds { consecutive_up: 2, consecutive_down: 3 };
    for first in [true, false] {
        let mut verdict = Verdict::default();
        assert_eq!(verdict.is_up(), None);
        assert!(verdict.see(first, thresholds));
        assert_eq!(verdict.is_up(), Some(first));
    }
    let mut verdict = Verdict::default();
    let changes = [true, false, false, true, false, false, false, true, false, true, true]
        .map(|passed| verdict.see(passed, thresholds));
    assert_eq!(changes, [true, false, false, false, false, false, true, false, false, false, true]);
    for at_once in [0, 1] {
        let thresholds = Thresholds { consecutive_up: at_once, consecutive_down: at_once };
        let mut verdict = Verdict::default();
        assert!([true, false, true, false].into_iter().all(|passed| verdict.see(passed, thresholds)));
    }
}

#[test]
fn a_group_is_down_by_one_that_must_be_healthy_or_by_more_than_half() {
    let member = Member { is_enabled: true, must_be_healthy: false, monitoring_only: false, is_up: None };
    let (up, down) = (Member { is_up: Some(true), ..member }, Member { is_up: Some(false), ..member });
    let must = |member| Member { must_be_healthy: true, ..member };
    let looks = |member| Member { monitoring_only: true, ..member };
    let off = |member| Member { is_enabled: false, ..member };
    for (members, wanted) in [
        (&[up, down][..], Some(true)),
        (&[up, down, down], Some(false)),
        (&[up, up, must(down)], Some(false)),
        (&[must(up), down], Some(true)),
        (&[up, looks(down), looks(must(down)), off(must(down))], Some(true)),
        (&[looks(up), off(up)], None),
        (&[member, member], None),
        (&[member, up], Some(true)),
        (&[must(member), up], None),
        (&[must(member), down], Some(false)),
        (&[], None),
    ] {
        assert_eq!(group(members.iter().copied()), wanted, "{members:?}");
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_verdict_changes_only_after_as_many_results_as_it_should(
        results in prop::collection::vec(any::<bool>(), 1..200), up in 0..5_u32, down in 0..5_u32,
    ) {
        let thresholds = Thresholds { consecutive_up: up, consecutive_down: down };
        let mut verdict = Verdict::default();
        for (at, passed) in results.iter().enumerate() {
            let before = verdict.is_up();
            let has_changed = verdict.see(*passed, thresholds);
            prop_assert_eq!(has_changed, before != verdict.is_up());
            let needed = (if *passed { up } else { down }).max(1) as usize;
            let row = results[..=at].iter().rev().take_while(|result| *result == passed).count();
            if before.is_some() {
                prop_assert_eq!(has_changed, before != Some(*passed) && row >= needed);
            } else {
                prop_assert!(has_changed);
            }
        }
    }

    #[test]
    fn most_decide_whatever_their_order_and_a_tie_changes_nothing(
        votes in prop::collection::vec(prop::option::of(any::<bool>()), 0..9), before in prop::option::of(any::<bool>()),
    ) {
        let count = |wanted| votes.iter().filter(|vote| **vote == Some(wanted)).count();
        let said = majority(votes.iter().copied(), before);
        prop_assert_eq!(said, majority(votes.iter().rev().copied(), before));
        match count(true).cmp(&count(false)) {
            std::cmp::Ordering::Greater => prop_assert_eq!(said, Some(true)),
            std::cmp::Ordering::Less => prop_assert_eq!(said, Some(false)),
            std::cmp::Ordering::Equal => prop_assert_eq!(said, if count(true) == 0 { None } else { before }),
        }
    }

    #[test]
    fn one_endpoint_more_that_is_up_never_makes_a_pool_worse(
        up in 0..5_usize, unknown in 0..5_usize, down in 0..5_usize, minimum in 0..6_usize,
    ) {
        let health = |up: usize| {
            let states = [(State::Up, up), (State::Unknown, unknown), (State::Down, down)];
            let states = states.into_iter().flat_map(|(state, count)| std::iter::repeat_n(state, count));
            PoolHealth::new(true, minimum, states).standing()
        };
        let rank = |standing: Option<Standing>| standing.unwrap_or(Standing::Down);
        prop_assert!(rank(health(up + 1)) <= rank(health(up)));
    }
}
