//! What is promised of ejection, for histories that somebody thought of and for any.

use proptest::prelude::*;

use super::*;
use crate::selection::tests::cases;

/// A pool whose endpoints are all able, unless it says otherwise.
struct Pool {
    ejector: Ejector,
    tallies: Vec<Tally>,
    able: Vec<bool>,
}

impl Pool {
    fn new(endpoints: usize) -> Self {
        Self {
            ejector: Ejector::new(endpoints),
            tallies: (0..endpoints).map(|_| Tally::default()).collect(),
            able: vec![true; endpoints],
        }
    }

    fn judge(&mut self, now: Duration, chance: u64) -> Vec<Change> {
        self.ejector.judge(now, |at| &self.tallies[at], |at| self.able[at], chance)
    }

    fn out(&self) -> Vec<usize> {
        (0..self.able.len()).filter(|at| self.able[*at] && self.ejector.is_out(*at)).collect()
    }

    /// Failures of as many visitors.
    fn fail(&self, at: usize, now: Duration, times: u64) -> bool {
        (1..=times).fold(false, |_, source| self.tallies[at].bad(now, source))
    }
}

const fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn five_failures_in_a_row_of_five_visitors_eject_and_of_one_visitor_do_not() {
    let mut pool = Pool::new(3);
    // One visitor, again and again.
    assert!((0..15).all(|_| !pool.tallies[0].bad(at(1), 7)));
    assert!(pool.judge(at(1), 0).is_empty());
    // Four more make a row of five; a success in between begins it anew.
    assert!(!pool.fail(1, at(1), 4));
    pool.tallies[1].good(at(1));
    assert!(!pool.fail(1, at(1), 4));
    assert!(pool.judge(at(1), 0).is_empty());
    assert!(pool.fail(1, at(1), 5));
    let changes = pool.judge(at(1), 1 << 62);
    let [Change::Ejected { at: 1, why: Why::InARow, lasts }] = changes[..] else { panic!("{changes:?}") };
    assert!((lasts.as_secs_f64() - 10.0).abs() < 0.01, "{lasts:?}");
    assert_eq!(pool.out(), [1]);
}

#[test]
fn who_fails_half_of_the_time_is_ejected_only_with_enough_to_go_by() {
    let mut pool = Pool::new(2);
    let mixed = |pool: &Pool, good: u64, bad: u64, now| {
        for _ in 0..good {
            pool.tallies[0].good(now);
        }
        // Of one visitor, so that there is no row.
        (0..bad).fold(None, |_, _| Some(pool.tallies[0].bad(now, 1)))
    };
    mixed(&pool, 9, 10, at(20));
    assert!(pool.judge(at(20), 0).is_empty());
    // Ten seconds later that is forgotten.
    assert_eq!(mixed(&pool, 10, 10, at(30)), Some(false));
    assert!(pool.judge(at(30), 0).is_empty());
    assert_eq!(mixed(&pool, 0, 1, at(39)), Some(true));
    let changes = pool.judge(at(39), 0);
    assert!(matches!(changes[..], [Change::Ejected { at: 0, why: Why::MostFailed, .. }]), "{changes:?}");
}

#[test]
fn who_is_half_as_good_as_the_others_is_ejected_earlier() {
    let mut pool = Pool::new(3);
    for _ in 0..30 {
        pool.tallies[1].good(at(5));
    }
    for _ in 0..4 {
        pool.tallies[0].good(at(5));
    }
    pool.fail(0, at(5), 1);
    assert!(pool.judge(at(5), 0).is_empty());
    for _ in 0..5 {
        pool.tallies[0].bad(at(5), 1);
    }
    let changes = pool.judge(at(5), 0);
    assert!(matches!(changes[..], [Change::Ejected { at: 0, why: Why::WorseThanOthers, .. }]), "{changes:?}");
    // Where everybody fails as often, nobody is worse.
    let mut pool = Pool::new(3);
    for tally in &pool.tallies {
        (0..9).for_each(|_| tally.good(at(5)));
        (0..10).for_each(|_| _ = tally.bad(at(5), 1));
    }
    assert!(pool.judge(at(5), 0).is_empty());
}

#[test]
fn when_all_fail_half_of_them_stay_and_a_single_one_always_does() {
    for (endpoints, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (7, 3)] {
        let mut pool = Pool::new(endpoints);
        for endpoint in 0..endpoints {
            pool.fail(endpoint, at(1), 30);
        }
        assert_eq!(pool.judge(at(1), 3).len(), most);
        assert_eq!(pool.out().len(), most);
        // However often it is looked.
        assert!(pool.judge(at(2), 3).is_empty());
    }
}

#[test]
fn one_request_finds_out_and_whoever_fails_it_stays_out_for_longer() {
    let mut pool = Pool::new(2);
    pool.fail(0, at(0), 5);
    pool.judge(at(0), u64::MAX / 2);
    assert_eq!(pool.ejector.next_trial().map(|due| due.as_millis().div_ceil(10)), Some(1000));
    assert!(!pool.ejector.begin_trial(0, at(9), true));
    assert!(!pool.ejector.begin_trial(1, at(11), true), "it is not ejected");
    assert!(!pool.ejector.begin_trial(0, at(11), false), "one that may be sent again is preferred");
    assert!(pool.ejector.begin_trial(0, at(11), true));
    assert!(!pool.ejector.begin_trial(0, at(11), true), "one is enough");
    let change = pool.ejector.end_trial(0, false, at(12), &pool.tallies[0], u64::MAX / 2);
    let Some(Change::Ejected { at: 0, why: Why::Trial, lasts }) = change else { panic!("{change:?}") };
    assert!((lasts.as_secs_f64() - 20.0).abs() < 0.01);
    // Only what cannot be sent again is asked; its time is over, and a while.
    assert!(!pool.ejector.begin_trial(0, at(33), false));
    assert!(pool.ejector.begin_trial(0, at(43), false));
    // Of that one nothing is heard.
    assert!(!pool.ejector.begin_trial(0, at(72), true));
    assert!(pool.ejector.begin_trial(0, at(73), true));
    assert_eq!(
        pool.ejector.end_trial(0, true, at(73), &pool.tallies[0], 0),
        Some(Change::Returned { at: 0 })
    );
    assert_eq!(pool.ejector.end_trial(0, true, at(73), &pool.tallies[0], 0), None);
    // What it did before does not count against it, but how often it was out does, for some minutes.
    assert!(pool.judge(at(73), 0).is_empty());
    pool.fail(0, at(74), 5);
    let [Change::Ejected { lasts, .. }] = pool.judge(at(74), u64::MAX / 2)[..] else { panic!() };
    assert!((lasts.as_secs_f64() - 30.0).abs() < 0.01, "{lasts:?}");
}

#[test]
fn who_is_ejected_comes_back_when_others_are_lost() {
    let mut pool = Pool::new(4);
    for endpoint in [0, 1] {
        pool.fail(endpoint, at(1), 5);
    }
    assert_eq!(pool.judge(at(1), 5).len(), 2);
    pool.able[2] = false;
    let changes = pool.judge(at(2), 5);
    assert!(matches!(changes[..], [Change::Released { .. }]), "{changes:?}");
    pool.able[3] = false;
    assert!(matches!(pool.judge(at(2), 5)[..], []));
    // One that nobody else holds for able neither counts nor is released.
    let out = pool.out();
    assert_eq!(out.len(), 1);
    pool.able[out[0]] = false;
    assert!(pool.judge(at(3), 5).is_empty());
    assert!(pool.ejector.is_out(out[0]));
}

#[test]
fn an_ejection_stays_with_its_endpoint_when_the_pool_is_changed() {
    let mut pool = Pool::new(3);
    pool.fail(2, at(1), 5);
    pool.judge(at(1), 0);
    let changed = pool.ejector.rearranged([Some(2), None, Some(0)]);
    assert_eq!([0, 1, 2].map(|at| changed.is_out(at)), [true, false, false]);
}

#[derive(Debug, Clone)]
enum Event {
    Good(usize),
    Bad(usize, u64),
    Able(usize, bool),
    Ask(usize, bool),
    Answer(usize, bool),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let endpoint = 0..8_usize;
    prop_oneof![
        2 => endpoint.clone().prop_map(Event::Good),
        6 => (endpoint.clone(), 0..50_u64).prop_map(|(at, source)| Event::Bad(at, source)),
        1 => (endpoint.clone(), any::<bool>()).prop_map(|(at, is_able)| Event::Able(at, is_able)),
        1 => (endpoint.clone(), any::<bool>()).prop_map(|(at, is_repeatable)| Event::Ask(at, is_repeatable)),
        1 => (endpoint, any::<bool>()).prop_map(|(at, is_good)| Event::Answer(at, is_good)),
        1 => (0..40_000_u64).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn whatever_happens_the_floor_holds_and_nobody_is_out_for_long_without_a_trial(
        endpoints in 1..8_usize, events in prop::collection::vec(event(), 1..600), mut chance: u64,
    ) {
        let (mut pool, mut now) = (Pool::new(endpoints), Duration::ZERO);
        // Since when each could not even have been tried.
        let mut since = vec![None; endpoints];
        for event in events {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
            match event {
                Event::Good(at) if at < endpoints => pool.tallies[at].good(now),
                Event::Bad(at, source) if at < endpoints => {
                    if pool.tallies[at].bad(now, source) {
                        pool.judge(now, chance);
                    }
                }
                Event::Able(at, is_able) if at < endpoints => {
                    pool.able[at] = is_able;
                    pool.judge(now, chance);
                }
                Event::Ask(at, is_repeatable) => {
                    pool.ejector.begin_trial(at, now, is_repeatable);
                }
                Event::Answer(at, is_good) if at < endpoints => {
                    pool.ejector.end_trial(at, is_good, now, &pool.tallies[at], chance);
                }
                Event::Wait(millis) => now += Duration::from_millis(millis),
                Event::Good(_) | Event::Bad(..) | Event::Able(..) | Event::Answer(..) => {}
            }
            let able = pool.able.iter().filter(|is_able| **is_able).count();
            let out = pool.out().len();
            prop_assert!(out <= able / 2 && (able == 0 || out < able), "{out} of {able}");
            for (at, since) in since.iter_mut().enumerate() {
                let may_be_tried = pool.ejector.clone().begin_trial(at, now, false);
                *since = (pool.ejector.is_out(at) && !may_be_tried).then(|| since.unwrap_or(now));
                let blocked = since.map_or(Duration::ZERO, |since| now - since);
                prop_assert!(blocked <= at_most(), "{at} for {blocked:?}");
            }
        }
    }
}

/// Out for the longest time, and then a trial of which nothing is heard.
fn at_most() -> Duration {
    LONGEST.mul_f64(1.0 + JITTER) + PREFERENCE + LONGEST_TRIAL + Duration::from_secs(40)
}
