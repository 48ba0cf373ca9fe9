//! Scenes for what a person expects, and random sequences for what must always hold.

use std::collections::HashSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const SLOTS: usize = 4;

fn v4(number: usize) -> SocketAddr {
    format!("192.0.2.{number}:7844").parse().unwrap()
}

fn v6(number: usize) -> SocketAddr {
    format!("[2001:db8::{number}]:7844").parse().unwrap()
}

fn allocation(regions: &[&[SocketAddr]]) -> (Allocation, Instant) {
    let mut allocation = Allocation::new(SLOTS);
    allocation.refresh(regions.iter().map(|region| region.to_vec()));
    (allocation, Instant::now())
}

#[test]
fn slots_alternate_between_regions_and_share_nothing() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2), v4(3)], &[v4(11), v4(12)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| it.hold(slot, now).unwrap()).collect();
    assert_eq!(held, [v4(1), v4(11), v4(2), v4(12)]);
    assert_eq!(it.hold(0, now), Some(v4(1)));
}

#[test]
fn slots_find_their_own_places_in_whatever_order_they_start() {
    for order in [[0, 1], [1, 0]] {
        let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
        for slot in order {
            it.hold(slot, now);
        }
        assert_eq!([it.hold(0, now), it.hold(1, now)], [Some(v4(1)), Some(v4(11))]);
    }
    let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
    assert_eq!(it.hold(2, now), Some(v4(2)));
}

#[test]
fn a_failing_slot_moves_to_a_free_address_and_the_others_stay() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2), v4(3)], &[v4(11), v4(12)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| it.hold(slot, now)).collect();
    it.rotate(1, now);
    assert_eq!(it.hold(1, now), Some(v4(3)));
    assert_eq!([it.hold(0, now), it.hold(2, now), it.hold(3, now)], [held[0], held[2], held[3]]);
}

#[test]
fn a_failing_address_is_tried_again_if_no_other_is_free() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| it.hold(slot, now)).collect();
    it.rotate(2, now);
    assert_eq!(it.hold(2, now), held[2]);
}

#[test]
fn where_all_fail_they_are_tried_in_turn() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2), v4(3)]]);
    for (step, expected) in [1, 2, 3, 1, 2, 3].into_iter().enumerate() {
        let now = now + Duration::from_secs(step as u64);
        assert_eq!(it.hold(0, now), Some(v4(expected)));
        it.rotate(0, now);
    }
}

#[test]
fn fewer_addresses_than_slots_are_shared_evenly() {
    let (mut it, now) = allocation(&[&[v4(1)], &[v4(11)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| it.hold(slot, now).unwrap()).collect();
    assert_eq!(held, [v4(1), v4(11), v4(1), v4(11)]);
    assert!((0..SLOTS).all(|slot| !it.is_misplaced(slot, now)));
    let (mut one, now) = allocation(&[&[v4(1), v4(2)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| one.hold(slot, now).unwrap()).collect();
    assert_eq!(held, [v4(1), v4(2), v4(1), v4(2)]);
    let (mut one, now) = allocation(&[&[v4(1), v4(2)]]);
    let held = [0, 2, 1, 3].map(|slot| one.hold(slot, now).unwrap());
    assert_eq!(held, [v4(1), v4(2), v4(2), v4(1)]);
    // One of them fails: better two on the other than one on none.
    it.rotate(0, now);
    assert_eq!(it.hold(0, now), Some(v4(11)));
}

#[test]
fn no_address_is_no_address() {
    let (mut it, now) = allocation(&[]);
    assert_eq!(it.hold(0, now), None);
    it.rotate(0, now);
    it.refresh([vec![], vec![]]);
    assert!(it.is_empty());
    // What two regions list is one address, of the first.
    it.refresh([vec![], vec![v4(1)], vec![v4(1), v4(1), v4(2)]]);
    assert_eq!(it.regions(), [vec![v4(1)], vec![v4(2)]]);
    assert_eq!(it.hold(0, now), Some(v4(1)));
}

#[test]
fn an_address_in_use_stays_with_its_slot_over_a_refresh() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
    for slot in 0..SLOTS {
        it.hold(slot, now);
    }
    // The regions change places, two addresses go, others come.
    it.refresh([vec![v4(13), v4(12)], vec![v4(3), v4(1)]]);
    assert_eq!([it.hold(0, now), it.hold(3, now)], [Some(v4(1)), Some(v4(12))]);
    assert_eq!([it.hold(1, now), it.hold(2, now)], [Some(v4(3)), Some(v4(13))]);
}

#[test]
fn a_region_that_comes_back_gets_a_slot_again() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2), v4(3), v4(4)], &[v4(11), v4(12)]]);
    for slot in 0..SLOTS {
        it.hold(slot, now);
    }
    for failing in [v4(11), v4(12)] {
        it.mark_unreachable(failing, now);
    }
    for slot in [1, 3] {
        it.rotate(slot, now);
        assert!([v4(3), v4(4)].contains(&it.hold(slot, now).unwrap()));
    }
    let later = now + FORGET_FAILURE;
    let misplaced = |it: &Allocation, now| -> Vec<usize> {
        (0..SLOTS).filter(|slot| it.is_misplaced(*slot, now)).collect()
    };
    assert_eq!(misplaced(&it, later - Duration::from_millis(1)), Vec::<usize>::new());
    assert_eq!(misplaced(&it, later), vec![3]);
    it.give_back(3);
    assert!([v4(11), v4(12)].contains(&it.hold(3, later).unwrap()));
    assert_eq!(misplaced(&it, later), Vec::<usize>::new());
}

#[test]
fn the_other_family_is_tried_after_a_failure_and_remembered_for_a_time() {
    let (mut it, now) = allocation(&[&[v6(1), v4(1), v6(2), v4(2)]]);
    assert_eq!(it.hold(0, now), Some(v4(1)));
    it.rotate(0, now);
    assert_eq!(it.hold(0, now), Some(v6(1)));
    // What failed is forgotten sooner than of which family it was.
    let later = now + FORGET_FAILURE;
    assert!(it.hold(1, later).unwrap().is_ipv6());
    it.give_back(1);
    assert!(it.hold(1, now + FORGET_FAMILY).unwrap().is_ipv4());
    // And back, if the other is no better.
    it.give_back(1);
    it.rotate(0, later);
    assert!(it.hold(0, later).unwrap().is_ipv4());
}

#[derive(Debug, Clone)]
enum Event {
    Hold(usize),
    Rotate(usize),
    GiveBack(usize),
    Unreachable(usize),
    /// The region of each address of the pool, or none.
    Refresh(Vec<Option<usize>>),
    Pass(u64),
    /// Every slot that is misplaced moves, until none is.
    Settle,
}

const REGIONS: usize = 3;
const POOL: usize = 12;

/// Every third one is IPv6.
fn pooled(number: usize) -> SocketAddr {
    if number.is_multiple_of(3) { v6(number) } else { v4(number) }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..SLOTS).prop_map(Event::Hold),
        4 => (0..SLOTS).prop_map(Event::Rotate),
        1 => (0..SLOTS).prop_map(Event::GiveBack),
        3 => (0..POOL).prop_map(Event::Unreachable),
        2 => refreshed().prop_map(Event::Refresh),
        2 => (0_u64..30).prop_map(Event::Pass),
        2 => Just(Event::Settle),
    ]
}

fn refreshed() -> impl Strategy<Value = Vec<Option<usize>>> {
    vec(prop_oneof![2 => Just(None), 3 => (0..REGIONS).prop_map(Some)], POOL)
}

/// What a bystander knows: which addresses there are, who was told what, what failed when.
struct Witness {
    region: Vec<Option<usize>>,
    told: [Option<SocketAddr>; SLOTS],
    failed: HashMap<SocketAddr, Instant>,
    now: Instant,
}

impl Witness {
    fn region_of(&self, address: SocketAddr) -> Option<usize> {
        (0..POOL).find(|number| pooled(*number) == address).and_then(|number| self.region[number])
    }

    fn existing(&self) -> Vec<SocketAddr> {
        (0..POOL).filter(|number| self.region[*number].is_some()).map(pooled).collect()
    }

    /// What the other slots hold of it.
    fn others(&self, slot: usize) -> Vec<SocketAddr> {
        let others = (0..SLOTS).filter(|other| *other != slot).filter_map(|other| self.told[other]);
        others.filter(|address| self.region_of(*address).is_some()).collect()
    }

    fn is_failing(&self, address: SocketAddr) -> bool {
        self.failed.get(&address).is_some_and(|at| self.now - *at < FORGET_FAILURE)
    }

    fn check(&mut self, slot: usize, answer: Option<SocketAddr>) -> Result<(), TestCaseError> {
        let existing = self.existing();
        let Some(answer) = answer else {
            prop_assert!(existing.is_empty(), "there was an address");
            self.told[slot] = None;
            return Ok(());
        };
        let Some(region) = self.region_of(answer) else {
            return Err(TestCaseError::fail("an address that does not exist"));
        };
        if let Some(before) = self.told[slot]
            && self.region_of(before).is_some()
        {
            prop_assert_eq!(answer, before, "a slot lost an address that still exists");
            return Ok(());
        }
        self.told[slot] = Some(answer);
        let others = self.others(slot);
        let free: Vec<_> = existing.iter().copied().filter(|address| !others.contains(address)).collect();
        prop_assert!(!others.contains(&answer) || free.is_empty(), "shared while one is free");
        if free.is_empty() {
            return Ok(());
        }
        let good: Vec<_> = free.iter().copied().filter(|address| !self.is_failing(*address)).collect();
        prop_assert!(!self.is_failing(answer) || good.is_empty(), "failing while a good one is free");
        let load = |region: Option<usize>| others.iter().filter(|it| self.region_of(**it) == region).count();
        let pool = if good.is_empty() { &free } else { &good };
        let least = pool.iter().map(|address| load(self.region_of(*address))).min();
        prop_assert_eq!(Some(load(Some(region))), least, "not the emptiest region");
        let elsewhere =
            |address: &&SocketAddr| others.iter().all(|it| self.region_of(*it) != self.region_of(**address));
        if !others.is_empty() && good.iter().any(|address| elsewhere(&address)) {
            let regions: HashSet<_> = others.iter().chain([&answer]).map(|it| self.region_of(*it)).collect();
            prop_assert!(regions.len() > 1, "one region while another is reachable");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_slots_are_spread_over_addresses_and_regions(
        start in refreshed(),
        events in vec(event(), 1..80),
    ) {
        let mut it = Allocation::new(SLOTS);
        let mut witness = Witness {
            region: Vec::new(),
            told: [None; SLOTS],
            failed: HashMap::new(),
            now: Instant::now(),
        };
        for event in std::iter::once(Event::Refresh(start)).chain(events) {
            match event {
                Event::Hold(slot) => witness.check(slot, it.hold(slot, witness.now))?,
                Event::Rotate(slot) => {
                    it.rotate(slot, witness.now);
                    if let Some(address) = witness.told[slot].take()
                        && witness.region_of(address).is_some()
                    {
                        witness.failed.insert(address, witness.now);
                    }
                }
                Event::GiveBack(slot) => {
                    it.give_back(slot);
                    witness.told[slot] = None;
                }
                Event::Unreachable(number) => {
                    it.mark_unreachable(pooled(number), witness.now);
                    if witness.region[number].is_some() {
                        witness.failed.insert(pooled(number), witness.now);
                    }
                }
                Event::Refresh(region) => {
                    it.refresh((0..REGIONS).map(|wanted| {
                        (0..POOL).filter(|number| region[*number] == Some(wanted)).map(pooled).collect()
                    }));
                    witness.region = region;
                    let existing = witness.existing();
                    witness.failed.retain(|address, _| existing.contains(address));
                }
                Event::Pass(seconds) => witness.now += Duration::from_secs(seconds),
                Event::Settle => {
                    for slot in 0..SLOTS {
                        witness.check(slot, it.hold(slot, witness.now))?;
                    }
                    let mut moves = 0;
                    while let Some(slot) = (0..SLOTS).find(|slot| it.is_misplaced(*slot, witness.now)) {
                        it.give_back(slot);
                        witness.told[slot] = None;
                        witness.check(slot, it.hold(slot, witness.now))?;
                        moves += 1;
                        prop_assert!(moves <= 2 * SLOTS, "slots that move for ever");
                    }
                    let good: Vec<_> =
                        witness.existing().into_iter().filter(|address| !witness.is_failing(*address)).collect();
                    let held: HashSet<_> = witness.told.iter().flatten().copied().collect();
                    let regions: HashSet<_> = held.iter().filter_map(|it| witness.region_of(*it)).collect();
                    let reachable: HashSet<_> = good.iter().filter_map(|it| witness.region_of(*it)).collect();
                    prop_assert!(reachable.len() < 2 || regions.len() >= 2, "settled in one region");
                    prop_assert!(good.len() < SLOTS || held.len() == SLOTS, "settled on shared addresses");
                }
            }
        }
    }
}
