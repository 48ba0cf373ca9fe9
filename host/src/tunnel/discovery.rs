//! Which edge server a slot dials. Two slots never share an address while a free one exists.

use std::net::SocketAddr;
use std::sync::Mutex;

use tokio::net::lookup_host;

/// Edge addresses from the configuration, resolved when a slot needs one. Entries alternate between
/// two regions as the reference client has it: first, third, … and second, fourth, … (wire.md, 1).
pub struct Addresses {
    entries: Vec<String>,
    held: Mutex<Vec<Option<usize>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("edge address {entry} cannot be resolved")]
pub struct Unresolvable {
    entry: String,
    source: std::io::Error,
}

impl Addresses {
    pub fn new(entries: Vec<String>, slots: usize) -> Self {
        Self { entries, held: Mutex::new(vec![None; slots]) }
    }

    /// The address that this slot holds or, if it holds none, one that the others do not; resolved anew each time.
    pub async fn pick(&self, slot: usize) -> Result<SocketAddr, Unresolvable> {
        let entry = self.entries[self.hold(slot)].clone();
        let found = lookup_host(&entry).await.and_then(|mut found| {
            found.next().ok_or_else(|| std::io::Error::other("the name has no address"))
        });
        found.map_err(|source| Unresolvable { entry, source })
    }

    /// Moves this slot to the next address that no other slot holds; where there is none, it keeps its own.
    pub fn rotate(&self, slot: usize) {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(now) = held[slot] else { return };
        let free = (1..self.entries.len())
            .map(|step| (now + step) % self.entries.len())
            .find(|entry| !held.contains(&Some(*entry)));
        if free.is_some() {
            held[slot] = free;
        }
    }

    fn hold(&self, slot: usize) -> usize {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(entry) = held[slot] {
            return entry;
        }
        let mut wanted = (0..self.entries.len()).map(|step| (slot + step) % self.entries.len());
        let entry = wanted.find(|entry| !held.contains(&Some(*entry))).unwrap_or(slot % self.entries.len());
        held[slot] = Some(entry);
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(count: usize, slots: usize) -> Addresses {
        Addresses::new((0..count).map(|port| format!("127.0.0.1:{}", 1000 + port)).collect(), slots)
    }

    #[tokio::test]
    async fn four_slots_hold_four_different_addresses() {
        let addresses = addresses(5, 4);
        let mut seen = Vec::new();
        for slot in 0..4 {
            seen.push(addresses.pick(slot).await.unwrap().port());
        }
        assert_eq!(seen, [1000, 1001, 1002, 1003]);
    }

    #[tokio::test]
    async fn a_failing_slot_moves_to_the_free_address_and_others_stay() {
        let addresses = addresses(3, 2);
        addresses.pick(0).await.unwrap();
        addresses.pick(1).await.unwrap();
        addresses.rotate(0);
        assert_eq!(addresses.pick(0).await.unwrap().port(), 1002);
        assert_eq!(addresses.pick(1).await.unwrap().port(), 1001);
    }

    #[tokio::test]
    async fn with_fewer_addresses_than_slots_they_are_shared() {
        let addresses = addresses(1, 4);
        for slot in 0..4 {
            assert_eq!(addresses.pick(slot).await.unwrap().port(), 1000);
            addresses.rotate(slot);
        }
        assert_eq!(addresses.pick(3).await.unwrap().port(), 1000);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_is_named_in_the_error() {
        let addresses = Addresses::new(vec!["nowhere.invalid:7844".into()], 1);
        assert!(addresses.pick(0).await.unwrap_err().to_string().contains("nowhere.invalid:7844"));
    }
}
