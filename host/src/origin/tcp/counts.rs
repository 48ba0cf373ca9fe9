//! Circuits counted: how many there are, how many there may be, what they carried and why they ended. Carries
//! nothing.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_net::places::{Place, Places};

use super::Room;

/// The circuits of a process.
#[derive(Debug, Clone)]
pub struct Circuits(Arc<All>);

#[derive(Debug)]
struct All {
    places: Mutex<Places>,
    refused: AtomicU64,
    shards: Box<[Counts]>,
}

// On cache lines of its own: neighbours belong to other threads.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Counts {
    received: AtomicU64,
    sent: AtomicU64,
    ended: [AtomicU64; CircuitEnd::ALL.len()],
}

/// Why a circuit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitEnd {
    /// The visitor said so.
    Visitor,
    /// The service said so.
    Service,
    /// What came from the visitor broke off.
    VisitorLost,
    /// The connection to the service broke off.
    ServiceLost,
    /// Nothing moved for as long as the rule allows.
    Idle,
    /// The visitor did not even answer when it was asked whether it is there.
    Silent,
    /// One direction was over, and nothing moved in the other.
    HalfClosed,
    /// What came from the visitor were no frames.
    Protocol,
    /// There were too many, and its place was given to a visitor who has fewer.
    Displaced,
    /// Its stream was given up: the visitor left, its connection to the edge was lost, or this host ended.
    Dropped,
}

/// What one circuit has carried, and why it ended; for the log.
#[derive(Debug, Default)]
pub struct Trace {
    received: AtomicU64,
    sent: AtomicU64,
    /// One more than the place in [`CircuitEnd::ALL`].
    end: AtomicU8,
}

/// The place of one circuit; free again when dropped.
pub(super) struct Seat {
    circuits: Circuits,
    shard: usize,
    source: IpAddr,
    place: Arc<Place>,
    trace: Arc<Trace>,
}

/// The sum over all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CircuitTotals {
    pub open: usize,
    /// For whom there was no place.
    pub refused: u64,
    /// Bytes of visitors for services.
    pub received: u64,
    /// Bytes of services for visitors.
    pub sent: u64,
    pub ended: Vec<(CircuitEnd, u64)>,
}

impl CircuitEnd {
    pub const ALL: [Self; 10] = [
        Self::Visitor,
        Self::Service,
        Self::VisitorLost,
        Self::ServiceLost,
        Self::Idle,
        Self::Silent,
        Self::HalfClosed,
        Self::Protocol,
        Self::Displaced,
        Self::Dropped,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Visitor => "visitor",
            Self::Service => "service",
            Self::VisitorLost => "visitor-lost",
            Self::ServiceLost => "service-lost",
            Self::Idle => "idle",
            Self::Silent => "silent",
            Self::HalfClosed => "half-closed",
            Self::Protocol => "protocol",
            Self::Displaced => "displaced",
            Self::Dropped => "dropped",
        }
    }

    fn place(self) -> usize {
        Self::ALL.iter().position(|known| *known == self).unwrap_or_default()
    }
}

impl Circuits {
    pub fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Counts::default()).collect();
        Self(Arc::new(All { places: Mutex::default(), refused: AtomicU64::new(0), shards }))
    }

    /// A place, if there is one for such a visitor.
    pub(super) fn take(&self, room: Room<'_>) -> Option<Seat> {
        let Some(place) = self.places().take(room.source, room.most) else {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let (circuits, trace) = (self.clone(), Arc::default());
        Some(Seat { circuits, shard: room.shard, source: room.source, place, trace })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn totals(&self) -> CircuitTotals {
        let All { places: _, refused, shards } = &*self.0;
        let sum = |count: &dyn Fn(&Counts) -> &AtomicU64| {
            shards.iter().map(|shard| count(shard).load(Ordering::Relaxed)).sum()
        };
        CircuitTotals {
            open: self.places().open(),
            refused: refused.load(Ordering::Relaxed),
            received: sum(&|counts| &counts.received),
            sent: sum(&|counts| &counts.sent),
            ended: CircuitEnd::ALL
                .iter()
                .map(|end| (*end, sum(&|counts| &counts.ended[end.place()])))
                .collect(),
        }
    }

    fn shard(&self, shard: usize) -> &Counts {
        &self.0.shards[shard % self.0.shards.len()]
    }
}

impl Trace {
    /// Bytes of the visitor, and bytes of the service.
    pub fn bytes(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.sent.load(Ordering::Relaxed))
    }

    /// Absent while it goes on.
    pub fn end(&self) -> Option<CircuitEnd> {
        let place = usize::from(self.end.load(Ordering::Relaxed));
        CircuitEnd::ALL.get(place.checked_sub(1)?).copied()
    }
}

impl Seat {
    pub(super) fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    pub(super) fn place(&self) -> &Arc<Place> {
        &self.place
    }

    /// So many bytes went to the service.
    pub(super) fn received(&self, bytes: usize) {
        self.trace.received.fetch_add(bytes as u64, Ordering::Relaxed);
        self.circuits.shard(self.shard).received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes came from it.
    pub(super) fn sent(&self, bytes: usize) {
        self.trace.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.circuits.shard(self.shard).sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The first word counts.
    pub(super) fn end(&self, end: CircuitEnd) {
        if self.trace.end().is_none() {
            let place = u8::try_from(end.place() + 1).unwrap_or_default();
            self.trace.end.store(place, Ordering::Relaxed);
            self.circuits.shard(self.shard).ended[end.place()].fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end(CircuitEnd::Dropped);
        self.circuits.places().free(self.source, &self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn there_are_as_many_places_as_are_allowed_and_each_comes_back() {
        let circuits = Circuits::new(2);
        let source = Ipv4Addr::LOCALHOST.into();
        let room = Room { circuits: &circuits, shard: 1, source, most: 2 };
        let (first, second) = (circuits.take(room).unwrap(), circuits.take(room).unwrap());
        assert!(circuits.take(room).is_none());
        first.received(3);
        first.sent(4);
        first.end(CircuitEnd::Idle);
        first.end(CircuitEnd::Service);
        assert_eq!((first.trace().bytes(), first.trace().end()), ((3, 4), Some(CircuitEnd::Idle)));
        drop(first);
        let third = circuits.take(room).unwrap();
        assert_eq!(third.trace().end(), None);
        drop((second, third));
        let totals = circuits.totals();
        assert_eq!((totals.open, totals.refused, totals.received, totals.sent), (0, 1, 3, 4));
        let ended: Vec<_> = totals.ended.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(ended, [(CircuitEnd::Idle, 1), (CircuitEnd::Dropped, 2)]);
    }
}
