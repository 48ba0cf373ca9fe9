//! The instances of one plugin at rest, in each shard its own, and how many calls run there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::counters::{Counters, Tally};
use super::service::Guest;
use super::store::Instance;

/// Instances that a shard keeps for later calls. A call runs to its end without giving way in all
/// but rare cases, so that a shard seldom has use for a second one.
const AT_REST: usize = 4;
/// The same of a service, which may wait long for others and so serve several at a time.
const GUESTS_AT_REST: usize = 16;

pub(super) struct Pool {
    shards: Box<[Shard]>,
    /// Calls at once in one shard.
    concurrency: usize,
}

// On cache lines of its own: neighbours belong to other threads.
#[derive(Default)]
#[repr(align(128))]
struct Shard {
    // One thread uses it, so that nobody ever waits for it.
    rooms: Mutex<ShardPool>,
    tally: Tally,
}

#[derive(Default)]
struct ShardPool {
    at_rest: Vec<Instance>,
    guests: Vec<Guest>,
    running: usize,
}

/// The right to run one call in a shard. Gives the place back when dropped.
pub(super) struct Permit<'a>(&'a Shard);

/// The same for a call that outlives whoever began it.
pub(super) struct OwnedPermit {
    pool: Arc<Pool>,
    shard: usize,
}

impl Pool {
    pub(super) fn new(shards: usize, concurrency: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard::default()).collect();
        Self { shards, concurrency: concurrency.max(1) }
    }

    /// A place, and an instance if one is at rest; `None` if all places are taken.
    pub(super) fn enter(&self, shard: usize) -> Option<(Permit<'_>, Option<Instance>)> {
        let shard = self.shard(shard);
        let mut rooms = shard.rooms();
        if rooms.running >= self.concurrency {
            return None;
        }
        rooms.running += 1;
        let instance = rooms.at_rest.pop();
        drop(rooms);
        Some((Permit(shard), instance))
    }

    /// A place for a call with an instance of its own; `None` if all are taken.
    pub(super) fn sit(self: &Arc<Self>, shard: usize) -> Option<OwnedPermit> {
        let mut rooms = self.shard(shard).rooms();
        if rooms.running >= self.concurrency {
            return None;
        }
        rooms.running += 1;
        drop(rooms);
        Some(OwnedPermit { pool: self.clone(), shard })
    }

    /// An instance that is at rest.
    pub(super) fn take(&self, shard: usize) -> Option<Instance> {
        self.shard(shard).rooms().at_rest.pop()
    }

    /// An instance of a service that is at rest.
    pub(super) fn guest(&self, shard: usize) -> Option<Guest> {
        self.shard(shard).rooms().guests.pop()
    }

    /// Keeps an instance of a service whose answer is complete.
    pub(super) fn keep_guest(&self, shard: usize, guest: Guest) {
        let mut rooms = self.shard(shard).rooms();
        if rooms.guests.len() < GUESTS_AT_REST {
            rooms.guests.push(guest);
        } else {
            drop(rooms);
            drop(guest);
        }
    }

    /// Puts a new instance to rest.
    pub(super) fn settle(&self, shard: usize, instance: Instance) {
        self.shard(shard).rest(instance);
    }

    pub(super) fn tally(&self, shard: usize) -> &Tally {
        &self.shard(shard).tally
    }

    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    pub(super) fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        for shard in &self.shards {
            shard.tally.add_to(&mut sum);
        }
        sum
    }

    /// Calls that run now, in all shards.
    #[cfg(test)]
    pub(super) fn running(&self) -> usize {
        self.shards.iter().map(|shard| shard.rooms().running).sum()
    }

    /// Instances at rest, in all shards.
    #[cfg(test)]
    pub(super) fn at_rest(&self) -> usize {
        self.shards.iter().map(|shard| shard.rooms().at_rest.len()).sum()
    }

    fn shard(&self, shard: usize) -> &Shard {
        &self.shards[shard % self.shards.len()]
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.rooms().running -= 1;
    }
}

impl Drop for OwnedPermit {
    fn drop(&mut self) {
        self.pool.shard(self.shard).rooms().running -= 1;
    }
}

impl Shard {
    fn rest(&self, instance: Instance) {
        let mut rooms = self.rooms();
        if rooms.at_rest.len() < AT_REST {
            rooms.at_rest.push(instance);
        } else {
            // An instance takes its time to drop: not while the lock is held.
            drop(rooms);
            drop(instance);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, ShardPool> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
