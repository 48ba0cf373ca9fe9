//! The instances of one plugin at rest, in each shard its own, and how many calls run there. Bodies that pass by hold
//! places for as long as visitors like, so these are shared by source.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;

use adit_net::places::{Lose, Places};
use futures_util::task::AtomicWaker;

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
    /// Bodies that pass by.
    bodies: Places<Seat>,
}

/// The right to run one call in a shard. Gives the place back when dropped.
pub(super) struct Permit<'a>(&'a Shard);

/// The same for a call that outlives whoever began it.
pub(super) struct OwnedPermit {
    pool: Arc<Pool>,
    shard: usize,
}

/// What a body that passes by has of a shard: a place, and in it the instance that sees it while no call runs.
#[derive(Default)]
struct Seat {
    instance: Mutex<Option<Instance>>,
    is_lost: AtomicBool,
    waker: AtomicWaker,
}

/// The right to show a body to an instance, piece by piece, until another source is given the place. Gives it back
/// when dropped.
pub(super) struct BodyPlace {
    pool: Arc<Pool>,
    shard: usize,
    source: IpAddr,
    seat: Arc<Seat>,
}

impl Pool {
    pub(super) fn new(shards: usize, concurrency: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Shard::default()).collect();
        Self { shards, concurrency: concurrency.max(1) }
    }

    /// A place, and an instance if one is at rest; `None` if all places are taken. A body of a source that has more
    /// of them than the caller's gives way.
    pub(super) fn enter(
        &self,
        shard: usize,
        source: impl FnOnce() -> IpAddr,
    ) -> Option<(Permit<'_>, Option<Instance>)> {
        let shard = self.shard(shard);
        let mut rooms = shard.rooms();
        if rooms.taken() >= self.concurrency && !rooms.bodies.make_room(source()) {
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
        if rooms.taken() >= self.concurrency {
            return None;
        }
        rooms.running += 1;
        drop(rooms);
        Some(OwnedPermit { pool: self.clone(), shard })
    }

    /// A place for a body of `source` that passes by; `None` if all are taken, and no source has more than this one.
    pub(super) fn stay(self: &Arc<Self>, shard: usize, source: IpAddr) -> Option<BodyPlace> {
        let mut rooms = self.shard(shard).rooms();
        let most = self.concurrency.saturating_sub(rooms.running);
        let seat = rooms.bodies.take(source, most)?;
        drop(rooms);
        Some(BodyPlace { pool: self.clone(), shard, source, seat })
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
        self.shards.iter().map(|shard| shard.rooms().taken()).sum()
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

impl ShardPool {
    /// Places that are not free.
    fn taken(&self) -> usize {
        self.running + self.bodies.open()
    }
}

impl Seat {
    fn instance(&self) -> MutexGuard<'_, Option<Instance>> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lose for Seat {
    /// Whoever is slow may not be heard of for long, so the instance goes at once.
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
        drop(self.instance().take());
        self.waker.wake();
    }
}

impl BodyPlace {
    /// The instance, for a call; `None` once the place is lost.
    pub(super) fn take(&self) -> Option<Instance> {
        self.seat.instance().take()
    }

    /// Keeps the instance until the next call, unless the place is lost.
    pub(super) fn put(&self, instance: Instance) {
        let mut place = self.seat.instance();
        if !self.seat.is_lost.load(Ordering::Acquire) {
            *place = Some(instance);
        }
    }

    /// Whether another source has it; the task of `context` is woken if that changes.
    pub(super) fn is_lost(&self, context: &Context<'_>) -> bool {
        self.seat.waker.register(context.waker());
        self.seat.is_lost.load(Ordering::Acquire)
    }
}

impl Drop for BodyPlace {
    fn drop(&mut self) {
        self.pool.shard(self.shard).rooms().bodies.free(self.source, &self.seat);
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
