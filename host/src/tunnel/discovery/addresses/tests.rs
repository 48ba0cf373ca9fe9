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

impl Allocation {
    /// The address that serves this slot; if none does, the one that it would dial, at once registered.
    fn hold(&mut self, slot: usize, now: Instant) -> Option<SocketAddr> {
        if let Some(held) = self.held(slot) {
            return Some(held);
        }
        let sought = self.seek(slot, Goal::Connect, now);
        self.settle(slot, now);
        sought
    }

    /// The connection of this slot was lost after a good while.
    fn rotate(&mut self, slot: usize, now: Instant) {
        if let Some((_, since)) = &mut self.slots[slot].held {
            *since = now - SHORT;
        }
        self.lose(slot, Verdict::Unreachable, now);
    }

    fn give_back(&mut self, slot: usize) {
        self.slots[slot] = Place::default();
    }

    fn mark_unreachable(&mut self, address: SocketAddr, now: Instant) {
        self.blame(address, Verdict::Unreachable, now);
    }
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
fn a_slot_whose_address_failed_serves_beside_another_until_it_is_back() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| it.hold(slot, now)).collect();
    it.rotate(2, now);
    // The other of the same region, because both regions have two slots then.
    assert_eq!(it.hold(2, now), Some(v4(1)));
    assert!(!it.is_misplaced(2, now));
    let later = now + FIRST_REST;
    assert_eq!([0, 1, 2, 3].map(|slot| it.is_misplaced(slot, later)), [true, false, true, false]);
    assert_eq!(it.seek(2, Goal::Return, later), held[2]);
    // What it goes for is not for another one, and nobody has a reason to move any more.
    assert_eq!([0, 1, 2, 3].map(|slot| it.is_misplaced(slot, later)), [false; SLOTS]);
    assert_eq!(it.seek(0, Goal::Return, later), None);
    it.judge(2, Verdict::Unreachable, later);
    assert_eq!(it.held(2), Some(v4(1)));
    // Longer each time, but not for ever.
    let mut now = later;
    let mut rests = Vec::new();
    for _ in 0..6 {
        let failed = now;
        while !it.is_misplaced(2, now) {
            now += Duration::from_millis(500);
        }
        rests.push((now - failed).as_secs());
        it.seek(2, Goal::Return, now);
        it.judge(2, Verdict::Unreachable, now);
    }
    assert_eq!(rests, [4, 8, 8, 8, 8, 8]);
    now += LONGEST_REST;
    it.seek(2, Goal::Return, now);
    it.settle(2, now);
    assert_eq!(it.held(2), held[2]);
}

#[test]
fn an_address_that_takes_connections_and_loses_them_is_not_returned_to_in_a_hurry() {
    let (mut it, mut now) = allocation(&[&[v4(1)], &[v4(11)]]);
    it.hold(0, now);
    it.hold(1, now);
    let mut rests = Vec::new();
    for _ in 0..5 {
        it.lose(1, Verdict::Unreachable, now);
        let lost = now;
        assert_eq!(it.hold(1, now), Some(v4(1)));
        while !it.is_misplaced(1, now) {
            now += Duration::from_millis(500);
        }
        rests.push((now - lost).as_secs());
        assert_eq!(it.seek(1, Goal::Return, now), Some(v4(11)));
        it.settle(1, now);
    }
    assert_eq!(rests, [4, 8, 12, 12, 12]);
    now += TRUSTED;
    it.lose(1, Verdict::Unreachable, now);
    assert!(it.standing(v4(11), now + FIRST_REST) < Standing::Bad);
}

#[test]
fn a_rescue_goes_anywhere_but_back_and_avoids_what_others_doubt() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
    for slot in 0..SLOTS {
        it.hold(slot, now);
    }
    // A region is silent.
    for slot in [1, 3] {
        it.slots[slot].doubted = Some(now);
    }
    assert_eq!(it.seek(1, Goal::Rescue, now), Some(v4(1)));
    assert_eq!(it.seek(3, Goal::Rescue, now), Some(v4(2)));
    it.settle(1, now);
    it.settle(3, now);
    assert!((0..SLOTS).all(|slot| !it.is_misplaced(slot, now)));
    assert!((0..SLOTS).any(|slot| it.is_misplaced(slot, now + FIRST_REST)));

    let (mut one, now) = allocation(&[&[v4(1)]]);
    one.hold(0, now);
    assert_eq!(one.seek(0, Goal::Rescue, now), Some(v4(1)));
    assert_eq!(one.seek(0, Goal::Leave, now), None);
    assert_eq!(one.seek(0, Goal::Upgrade, now), Some(v4(1)));
}

#[test]
fn an_edge_that_was_restarted_is_kept_for_its_slot() {
    let (mut it, now) = allocation(&[&[v4(1), v4(2)], &[v4(11), v4(12)]]);
    let held: Vec<_> = (0..SLOTS).map(|slot| it.hold(slot, now)).collect();
    for slot in 0..SLOTS {
        it.lose(slot, Verdict::Keep, now);
    }
    for slot in (0..SLOTS).rev() {
        assert_eq!(it.seek(slot, Goal::Connect, now), held[slot]);
    }
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
    // One of them fails: better all on the other than one on none.
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
    for slot in [1, 3] {
        it.rotate(slot, now);
        assert!([v4(3), v4(4)].contains(&it.hold(slot, now).unwrap()));
    }
    let later = now + FIRST_REST;
    let misplaced =
        |it: &Allocation, now| (0..SLOTS).filter(|slot| it.is_misplaced(*slot, now)).collect::<Vec<_>>();
    assert_eq!(misplaced(&it, later - Duration::from_millis(1)), Vec::<usize>::new());
    // Anyone may move, but when two are on their way the others stay.
    assert_eq!(misplaced(&it, later), vec![0, 1, 2, 3]);
    for slot in [3, 0] {
        assert!([v4(11), v4(12)].contains(&it.seek(slot, Goal::Return, later).unwrap()));
    }
    assert_eq!(misplaced(&it, later), Vec::<usize>::new());
    for slot in [3, 0] {
        it.settle(slot, later);
    }
    assert_eq!(misplaced(&it, later), Vec::<usize>::new());
}

#[test]
fn the_other_family_is_tried_after_a_failure_and_remembered_for_a_time() {
    let (mut it, now) = allocation(&[&[v6(1), v4(1), v6(2), v4(2)]]);
    assert_eq!(it.hold(0, now), Some(v4(1)));
    it.rotate(0, now);
    assert_eq!(it.hold(0, now), Some(v6(1)));
    // What failed is forgotten sooner than of which family it was.
    let later = now + FIRST_REST;
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

    fn check(
        &mut self,
        bad: &HashSet<SocketAddr>,
        best: Option<Standing>,
        slot: usize,
        answer: Option<SocketAddr>,
    ) -> Result<(), TestCaseError> {
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
        let good: Vec<_> = existing.iter().copied().filter(|address| !bad.contains(address)).collect();
        prop_assert!(!bad.contains(&answer) || good.is_empty(), "failing while a good one is there");
        if best == Some(Standing::Rested) {
            // They are tried in turn.
            return Ok(());
        }
        let pool = if good.is_empty() { &existing } else { &good };
        let free: Vec<_> = pool.iter().copied().filter(|address| !others.contains(address)).collect();
        prop_assert!(!others.contains(&answer) || free.is_empty(), "shared while one is free");
        if free.is_empty() {
            return Ok(());
        }
        let load = |region: Option<usize>| others.iter().filter(|it| self.region_of(**it) == region).count();
        let least = free.iter().map(|address| load(self.region_of(*address))).min();
        prop_assert_eq!(Some(load(Some(region))), least, "not the emptiest region");
        let elsewhere =
            |address: &&SocketAddr| others.iter().all(|it| self.region_of(*it) != self.region_of(**address));
        if !others.is_empty() && free.iter().any(|address| elsewhere(&address)) {
            let regions: HashSet<_> = others.iter().chain([&answer]).map(|it| self.region_of(*it)).collect();
            prop_assert!(regions.len() > 1, "one region while another is reachable");
        }
        Ok(())
    }
}

fn hold(it: &mut Allocation, witness: &mut Witness, slot: usize) -> Result<(), TestCaseError> {
    let standing = |address: &SocketAddr| it.standing(*address, witness.now);
    let best = witness.existing().iter().map(standing).min();
    let bad = witness.existing().into_iter().filter(|address| Some(standing(address)) > best).collect();
    let answer = it.hold(slot, witness.now);
    witness.check(&bad, best, slot, answer)
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
            now: Instant::now(),
        };
        for event in std::iter::once(Event::Refresh(start)).chain(events) {
            match event {
                Event::Hold(slot) => hold(&mut it, &mut witness, slot)?,
                Event::Rotate(slot) => {
                    it.rotate(slot, witness.now);
                    witness.told[slot] = None;
                }
                Event::GiveBack(slot) => {
                    it.give_back(slot);
                    witness.told[slot] = None;
                }
                Event::Unreachable(number) => it.mark_unreachable(pooled(number), witness.now),
                Event::Refresh(region) => {
                    it.refresh((0..REGIONS).map(|wanted| {
                        (0..POOL).filter(|number| region[*number] == Some(wanted)).map(pooled).collect()
                    }));
                    witness.region = region;
                }
                Event::Pass(seconds) => witness.now += Duration::from_secs(seconds),
                Event::Settle => {
                    for slot in 0..SLOTS {
                        hold(&mut it, &mut witness, slot)?;
                    }
                    let mut moves = 0;
                    while let Some(slot) = (0..SLOTS).find(|slot| it.is_misplaced(*slot, witness.now)) {
                        let better = it.seek(slot, Goal::Return, witness.now);
                        prop_assert!(better.is_some_and(|address| it.standing(address, witness.now) < Standing::Bad));
                        it.settle(slot, witness.now);
                        witness.told[slot] = better;
                        moves += 1;
                        prop_assert!(moves <= 2 * SLOTS, "slots that move for ever");
                    }
                    let good: Vec<_> =
                        witness.existing().into_iter().filter(|address| it.standing(*address, witness.now) < Standing::Bad).collect();
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
