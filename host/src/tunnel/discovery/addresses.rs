//! Which address each slot holds and which it tries: pure bookkeeping over regions, slots and failures.
//! Performs no I/O and has no clock; where the addresses come from is the business of its neighbours.
//!
//! A slot has at most one address that serves and one that it tries; the latter counts as where it is, so
//! that no two slots go for the same free one. An address is chosen by the first of these that tells two
//! apart:
//!
//! 1. one that did not fail when it was last tried; then one that has rested since, in turn; see
//!    `Standing`;
//! 2. one where no other slot is;
//! 3. one in the region where the fewest other slots are, so that two regions are in use whenever two have
//!    such addresses;
//! 4. one of the family that did not fail last in its region, within [`FORGET_FAMILY`]; IPv4 at first;
//! 5. the one where fewer slots are, then the one whose failure is the longest ago;
//! 6. the slot's own place: slot 0 is at home with the first address of the first region, slot 1 with
//!    that of the second, slot 2 with the second of the first, and so on around.
//!
//! An address rests after a failure for 2 s to 8 s, so that one that is back is used again soon; one that
//! takes connections and then refuses or loses them rests longer each time, so that no slot bounces.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::tunnel::state::pace::doubled;
use crate::tunnel::state::{Action, Event, Goal, State, Verdict};

/// How long an address rests after it could not be reached, at first and at most.
pub const FIRST_REST: Duration = Duration::from_secs(2);
pub const LONGEST_REST: Duration = Duration::from_secs(8);
/// The same after it took a connection and refused or lost it soon.
pub const FIRST_QUARANTINE: Duration = Duration::from_secs(4);
pub const LONGEST_QUARANTINE: Duration = Duration::from_secs(12);
/// A connection that was lost sooner counts as one that the address refused.
pub const SHORT: Duration = Duration::from_secs(1);
/// A connection that lasted so long clears an address of what it did before.
pub const TRUSTED: Duration = Duration::from_secs(20);
/// For how long an address that failed comes behind those that did not.
pub const FORGET_FAILURE: Duration = Duration::from_secs(120);
/// For how long a region prefers the family that did not fail (wire.md, 1: family switch).
pub const FORGET_FAMILY: Duration = Duration::from_secs(600);

/// Who is where. Slots are numbered from 0.
#[derive(Debug, Clone)]
pub struct Allocation {
    regions: Vec<Vec<SocketAddr>>,
    slots: Vec<Place>,
    /// What is known against each address that is in a region.
    records: HashMap<SocketAddr, Record>,
}

/// Where one slot is. Over a refresh it may be at an address that is no longer in any region.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The address that serves, and since when.
    held: Option<(SocketAddr, Instant)>,
    tried: Option<SocketAddr>,
    /// Since when what serves is silent or goes away.
    doubted: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    failed: Instant,
    rests_until: Instant,
    /// Dials in a row that failed.
    dials: u32,
    /// Registrations that were refused, or lost soon, since the last that was trusted.
    losses: u32,
}

/// What to expect of an address, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Nothing is known against it, or it serves all the same.
    Good,
    /// It failed, or a slot that is served there began to doubt it, and has rested since.
    Rested,
    /// It rests after that.
    Bad,
}

impl Allocation {
    /// Nothing is known yet and nothing held.
    pub fn new(slots: usize) -> Self {
        Self { regions: Vec::new(), slots: vec![Place::default(); slots], records: HashMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.regions.is_empty()
    }

    /// The regions as they were last refreshed, without empty ones and without repetitions.
    pub fn regions(&self) -> &[Vec<SocketAddr>] {
        &self.regions
    }

    /// Takes over a new set of addresses. A slot whose address is still in it keeps it. An address that
    /// several regions list belongs to the first.
    pub fn refresh(&mut self, regions: impl IntoIterator<Item = Vec<SocketAddr>>) {
        let mut seen = HashSet::new();
        let mut regions: Vec<Vec<SocketAddr>> = regions.into_iter().collect();
        for region in &mut regions {
            region.retain(|address| seen.insert(*address));
        }
        regions.retain(|region| !region.is_empty());
        self.records.retain(|address, _| seen.contains(address));
        self.regions = regions;
    }

    /// The address that this slot tries for `goal`, until the state table says what became of it. One that
    /// it was told to keep is taken again. `None`: there is none.
    pub fn seek(&mut self, slot: usize, goal: Goal, now: Instant) -> Option<SocketAddr> {
        let kept = self.slots[slot].tried.take().filter(|address| self.region_of(*address).is_some());
        let held = self.held(slot);
        let sought = match goal {
            Goal::Connect => kept.or_else(|| self.choose(slot, now, None)),
            Goal::Rescue => self.choose(slot, now, held).or(held),
            Goal::Leave => self.choose(slot, now, held),
            Goal::Return => self.better(slot, now),
            Goal::Upgrade => held,
        };
        self.slots[slot].tried = sought;
        sought
    }

    /// A slot went on: on this event into this state with this action.
    pub fn follow(&mut self, slot: usize, event: Event, state: &State, action: &Action, now: Instant) {
        match (event, *action) {
            (_, Action::Promote { .. }) => self.settle(slot, now),
            (Event::Lost { .. }, Action::ReportLoss { verdict }) => self.lose(slot, verdict, now),
            (Event::Lost { .. }, Action::Wait { verdict, .. } | Action::Rest { verdict, .. }) => {
                self.slots[slot].tried = None;
                self.lose(slot, verdict, now);
            }
            (_, Action::Wait { verdict, .. } | Action::Rest { verdict, .. }) => {
                self.judge(slot, verdict, now);
            }
            (_, Action::End { .. }) => self.slots[slot] = Place::default(),
            (_, Action::Drain) => self.slots[slot].tried = None,
            (_, Action::Dial { .. } | Action::Register | Action::Continue | Action::ReportLoss { .. }) => {}
        }
        let doubted = &mut self.slots[slot].doubted;
        *doubted = state.is_in_trouble().then(|| doubted.unwrap_or(now));
    }

    /// What the slot tried serves now; what served before is free.
    fn settle(&mut self, slot: usize, now: Instant) {
        let Place { held, tried: Some(tried), doubted } = self.slots[slot] else { return };
        if let Some((left, _)) = held
            && doubted.is_some()
            && left != tried
        {
            // Not a place to come back to at once.
            self.rest(left, now, false);
        }
        self.slots[slot] = Place { held: Some((tried, now)), tried: None, doubted: None };
        if let Some(record) = self.records.get_mut(&tried) {
            record.rests_until = now;
            record.dials = 0;
        }
    }

    /// What the slot tried came to nothing.
    pub(super) fn judge(&mut self, slot: usize, verdict: Verdict, now: Instant) {
        if verdict != Verdict::Keep
            && let Some(tried) = self.slots[slot].tried.take()
        {
            self.blame(tried, verdict, now);
        }
    }

    /// What served is gone.
    fn lose(&mut self, slot: usize, verdict: Verdict, now: Instant) {
        let place = &mut self.slots[slot];
        let Some((held, since)) = place.held.take() else { return };
        if verdict == Verdict::Keep {
            place.tried = place.tried.or(Some(held));
            return;
        }
        let lasted = now.saturating_duration_since(since);
        if lasted >= TRUSTED
            && let Some(record) = self.records.get_mut(&held)
        {
            record.losses = 0;
        }
        let was_short = verdict == Verdict::Unreachable && lasted < SHORT;
        self.blame(held, if was_short { Verdict::Unfit } else { verdict }, now);
    }

    /// Whether this slot should try another address though its own serves: it shares its own while one is
    /// free or shared by fewer, and came last; or its region has two slots more than another one with room.
    pub fn is_misplaced(&self, slot: usize, now: Instant) -> bool {
        let Place { tried, doubted, .. } = self.slots[slot];
        tried.is_none() && doubted.is_none() && self.better(slot, now).is_some()
    }

    /// Each move to such an address makes the sum of the squares of how many slots share an address smaller
    /// or, if that stays the same, that of how many share a region. So moves come to an end.
    fn better(&self, slot: usize, now: Instant) -> Option<SocketAddr> {
        let held = self.held(slot)?;
        let others = self.others(slot);
        let mine = self.load(&others, self.region_of(held)?);
        let sharing = others.iter().filter(|other| **other == held).count();
        // Who came last leaves first.
        let since = self.slots[slot].held.map(|(_, since)| since);
        let is_last = !self.slots.iter().any(|place| {
            place.held.is_some_and(|(other, _)| other == held)
                && place.held.map(|(_, since)| since) > since
                && place.tried.is_none()
                && place.doubted.is_none()
        });
        self.best(slot, now, |region, address, holders| {
            let is_better =
                (holders < sharing && is_last) || (holders == sharing && self.load(&others, region) < mine);
            let is_fit = || self.standing(address, now) < Standing::Bad && self.doubted(address).is_none();
            is_better && address != held && is_fit()
        })
    }

    fn choose(&self, slot: usize, now: Instant, except: Option<SocketAddr>) -> Option<SocketAddr> {
        self.best(slot, now, |_, address, _| Some(address) != except)
    }

    /// The best of the addresses that fit: by region, address, and how many others are there.
    fn best(
        &self,
        slot: usize,
        now: Instant,
        fits: impl Fn(usize, SocketAddr, usize) -> bool,
    ) -> Option<SocketAddr> {
        let others = self.others(slot);
        let regions: Vec<(usize, bool)> = (0..self.regions.len())
            .map(|region| (self.load(&others, region), self.prefers_ipv6(region, now)))
            .collect();
        let holders = |address| others.iter().filter(|other| **other == address).count();
        let rank = |&(region, place, address): &(usize, usize, SocketAddr)| {
            let holders = holders(address);
            let (load, prefers_ipv6) = regions[region];
            // `None` is less than any time: an address that never failed comes first.
            let failed = self.records.get(&address).map(|record| record.failed).max(self.doubted(address));
            let standing = self.standing(address, now);
            (
                standing,
                // In turn, whatever else: one of them may be back.
                failed.filter(|_| standing == Standing::Rested),
                holders > 0,
                load,
                address.is_ipv6() != prefers_ipv6,
                holders,
                failed,
                distance(region, slot, regions.len()),
                distance(place, slot / regions.len(), self.regions[region].len()),
            )
        };
        let fitting = self.all().filter(|(region, _, address)| fits(*region, *address, holders(*address)));
        fitting.min_by_key(rank).map(|(.., address)| address)
    }

    fn blame(&mut self, address: SocketAddr, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Free | Verdict::Keep => {}
            Verdict::Unreachable => self.rest(address, now, false),
            Verdict::Unfit => self.rest(address, now, true),
        }
    }

    fn rest(&mut self, address: SocketAddr, now: Instant, is_unfit: bool) {
        if self.region_of(address).is_none() {
            return;
        }
        let fresh = Record { failed: now, rests_until: now, dials: 0, losses: 0 };
        let record = self.records.entry(address).or_insert(fresh);
        let pause = if is_unfit {
            record.losses = record.losses.saturating_add(1);
            doubled(FIRST_QUARANTINE, record.losses - 1, LONGEST_QUARANTINE)
        } else {
            record.dials = record.dials.saturating_add(1);
            doubled(FIRST_REST, record.dials - 1, LONGEST_REST)
        };
        record.failed = now;
        record.rests_until = record.rests_until.max(now + pause);
    }

    /// What serves this slot, of the addresses that there are.
    fn held(&self, slot: usize) -> Option<SocketAddr> {
        let (held, _) = self.slots[slot].held?;
        self.region_of(held).map(|_| held)
    }

    /// Where the other slots are or are about to be.
    fn others(&self, slot: usize) -> Vec<SocketAddr> {
        let others = (0..self.slots.len()).filter(|other| *other != slot);
        let places = others.filter_map(|other| {
            let Place { held, tried, .. } = self.slots[other];
            tried.or(held.map(|(held, _)| held))
        });
        places.filter(|address| self.region_of(*address).is_some()).collect()
    }

    fn load(&self, places: &[SocketAddr], region: usize) -> usize {
        places.iter().filter(|place| self.region_of(**place) == Some(region)).count()
    }

    fn standing(&self, address: SocketAddr, now: Instant) -> Standing {
        let (record, doubted) = (self.records.get(&address), self.doubted(address));
        let rests = record.is_some_and(|record| now < record.rests_until);
        // Told to leave, a slot may stay for long where it is, and the edge server be well again.
        if rests || doubted.is_some_and(|doubted| now.saturating_duration_since(doubted) < LONGEST_REST) {
            return Standing::Bad;
        }
        let has_failed = record.is_some_and(|record| {
            record.dials.max(record.losses) > 0
                && now.saturating_duration_since(record.failed) < FORGET_FAILURE
        });
        let is_rested = doubted.is_some() || has_failed && !self.serves(address, now);
        if is_rested { Standing::Rested } else { Standing::Good }
    }

    /// Since when a slot that is served there has doubts.
    fn doubted(&self, address: SocketAddr) -> Option<Instant> {
        self.served(address).filter_map(|(_, doubted)| doubted).max()
    }

    fn serves(&self, address: SocketAddr, now: Instant) -> bool {
        self.served(address).any(|(since, _)| now.saturating_duration_since(since) >= SHORT)
    }

    /// For each slot that is served there, since when and since when it has doubts.
    fn served(&self, address: SocketAddr) -> impl Iterator<Item = (Instant, Option<Instant>)> {
        let held = self.slots.iter().filter_map(|place| Some((place.held?, place.doubted)));
        held.filter_map(move |((held, since), doubted)| (held == address).then_some((since, doubted)))
    }

    fn prefers_ipv6(&self, region: usize, now: Instant) -> bool {
        let failed = self.regions[region].iter().filter_map(|address| {
            let at = self.records.get(address)?.failed;
            (now.saturating_duration_since(at) < FORGET_FAMILY).then_some((at, Reverse(address.is_ipv6())))
        });
        failed.max().is_some_and(|(_, Reverse(is_ipv6))| !is_ipv6)
    }

    fn region_of(&self, address: SocketAddr) -> Option<usize> {
        self.regions.iter().position(|region| region.contains(&address))
    }

    /// Each address with its region and its place there.
    fn all(&self) -> impl Iterator<Item = (usize, usize, SocketAddr)> {
        self.regions.iter().enumerate().flat_map(|(region, addresses)| {
            addresses.iter().enumerate().map(move |(place, address)| (region, place, *address))
        })
    }
}

/// Steps forward from `home` to `place` on a circle of `count` places.
fn distance(place: usize, home: usize, count: usize) -> usize {
    (place + count - home % count) % count
}

#[cfg(test)]
mod tests;
