//! Which address each slot holds: pure bookkeeping over regions, slots and failures. Performs no
//! I/O and has no clock; where the addresses come from is the business of its neighbours.
//!
//! An address is chosen by the first of these that tells two apart:
//!
//! 1. one that no other slot holds;
//! 2. one that has not failed within [`FORGET_FAILURE`];
//! 3. one in the region that the fewest other slots are in, so that two regions are in use whenever
//!    two have such addresses;
//! 4. one of the family that did not fail last in its region, within [`FORGET_FAMILY`]; IPv4 at first;
//! 5. the one that fewer slots hold, then the one whose failure is the longest ago;
//! 6. the slot's own place: slot 0 is at home with the first address of the first region, slot 1 with
//!    that of the second, slot 2 with the second of the first, and so on around.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// For how long a failing address is passed over while another one is free. A region that comes back
/// is used again after this time.
pub const FORGET_FAILURE: Duration = Duration::from_secs(20);
/// For how long a region prefers the family that did not fail (wire.md, 1: family switch).
pub const FORGET_FAMILY: Duration = Duration::from_secs(600);

/// Who holds what. Slots are numbered from 0.
#[derive(Debug, Clone)]
pub struct Allocation {
    regions: Vec<Vec<SocketAddr>>,
    /// What each slot holds; over a refresh it may be an address that is no longer in any region.
    slots: Vec<Option<SocketAddr>>,
    /// The last failure of each address that is in a region.
    failures: HashMap<SocketAddr, Instant>,
}

impl Allocation {
    /// Nothing is known yet and nothing held.
    pub fn new(slots: usize) -> Self {
        Self { regions: Vec::new(), slots: vec![None; slots], failures: HashMap::new() }
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
        self.failures.retain(|address, _| seen.contains(address));
        self.regions = regions;
    }

    /// The address that this slot holds, if it is still in a region; else a newly chosen one, which it
    /// holds from now on. `None` only if there is no address at all.
    pub fn hold(&mut self, slot: usize, now: Instant) -> Option<SocketAddr> {
        if let Some(held) = self.held(slot) {
            return Some(held);
        }
        self.slots[slot] = self.choose(slot, now);
        self.slots[slot]
    }

    /// The address of this slot failed: it is marked and given back.
    pub fn rotate(&mut self, slot: usize, now: Instant) {
        if let Some(held) = self.held(slot) {
            self.mark_unreachable(held, now);
        }
        self.give_back(slot);
    }

    /// This slot holds nothing any more.
    pub fn give_back(&mut self, slot: usize) {
        self.slots[slot] = None;
    }

    /// This address failed. Whoever holds it keeps it.
    pub fn mark_unreachable(&mut self, address: SocketAddr, now: Instant) {
        if self.region_of(address).is_some() {
            self.failures.insert(address, now);
        }
    }

    /// Whether this slot should give its address back and hold another: it shares its address while one
    /// is free, or all slots are in one region while another has a free address; and that address
    /// has not failed lately. Of several slots that could move, only the last is told so.
    pub fn is_misplaced(&self, slot: usize, now: Instant) -> bool {
        let held = |slot: &usize| self.held(*slot);
        let region = |slot: &usize| held(slot).and_then(|address| self.region_of(address));
        let holding: Vec<usize> = (0..self.slots.len()).filter(|slot| held(slot).is_some()).collect();
        let free = self.all().filter(|(.., address)| {
            !self.is_failing(*address, now) && !holding.iter().any(|slot| held(slot) == Some(*address))
        });
        let free: Vec<usize> = free.map(|(region, ..)| region).collect();
        let sharing = |slot: &&usize| holding.iter().filter(|other| held(other) == held(slot)).count() > 1;
        let last_sharing = holding.iter().rev().find(sharing).filter(|_| !free.is_empty());
        let only_region = holding.first().and_then(region).filter(|only| {
            holding.len() > 1
                && holding.iter().all(|slot| region(slot) == Some(*only))
                && free.iter().any(|region| region != only)
        });
        let moves = last_sharing.or(only_region.and(holding.last()));
        moves == Some(&slot)
    }

    /// What this slot holds of the addresses that there are.
    fn held(&self, slot: usize) -> Option<SocketAddr> {
        self.slots[slot].filter(|address| self.region_of(*address).is_some())
    }

    fn choose(&self, slot: usize, now: Instant) -> Option<SocketAddr> {
        let others = (0..self.slots.len()).filter(|other| *other != slot);
        let others: Vec<SocketAddr> = others.filter_map(|other| self.held(other)).collect();
        let load = |region| others.iter().filter(|it| self.region_of(**it) == Some(region)).count();
        let regions: Vec<(usize, bool)> =
            (0..self.regions.len()).map(|region| (load(region), self.prefers_ipv6(region, now))).collect();
        let rank = |&(region, place, address): &(usize, usize, SocketAddr)| {
            let holders = others.iter().filter(|other| **other == address).count();
            let (load, prefers_ipv6) = regions[region];
            // `None` is less than any time: an address that never failed comes first.
            let failed = self.failures.get(&address).copied();
            (
                holders > 0,
                self.is_failing(address, now),
                load,
                address.is_ipv6() != prefers_ipv6,
                holders,
                failed,
                distance(region, slot, regions.len()),
                distance(place, slot / regions.len(), self.regions[region].len()),
            )
        };
        self.all().min_by_key(rank).map(|(.., address)| address)
    }

    fn prefers_ipv6(&self, region: usize, now: Instant) -> bool {
        let failed = self.regions[region].iter().filter_map(|address| {
            let at = *self.failures.get(address)?;
            (now.saturating_duration_since(at) < FORGET_FAMILY).then_some((at, Reverse(address.is_ipv6())))
        });
        failed.max().is_some_and(|(_, Reverse(is_ipv6))| !is_ipv6)
    }

    fn is_failing(&self, address: SocketAddr, now: Instant) -> bool {
        let failed = self.failures.get(&address);
        failed.is_some_and(|at| now.saturating_duration_since(*at) < FORGET_FAILURE)
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
