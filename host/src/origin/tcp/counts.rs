//! Circuits counted: how many there are, how many there may be, what they carried and why they ended. Carries
//! nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use super::Room;

/// The circuits of a process.
#[derive(Debug, Clone)]
pub struct Circuits(Arc<All>);

#[derive(Debug)]
struct All {
    open: AtomicUsize,
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
    pub const ALL: [Self; 9] = [
        Self::Visitor,
        Self::Service,
        Self::VisitorLost,
        Self::ServiceLost,
        Self::Idle,
        Self::Silent,
        Self::HalfClosed,
        Self::Protocol,
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
        Self(Arc::new(All { open: AtomicUsize::new(0), refused: AtomicU64::new(0), shards }))
    }

    /// A place, if one is free.
    pub(super) fn take(&self, room: Room<'_>) -> Option<Seat> {
        let more = |open: usize| (open < room.most).then_some(open + 1);
        if self.0.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(Seat { circuits: self.clone(), shard: room.shard, trace: Arc::default() })
    }

    pub fn totals(&self) -> CircuitTotals {
        let All { open, refused, shards } = &*self.0;
        let sum = |count: &dyn Fn(&Counts) -> &AtomicU64| {
            shards.iter().map(|shard| count(shard).load(Ordering::Relaxed)).sum()
        };
        CircuitTotals {
            open: open.load(Ordering::Relaxed),
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
        self.circuits.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_places_as_are_allowed_and_each_comes_back() {
        let circuits = Circuits::new(2);
        let room = Room { circuits: &circuits, shard: 1, most: 2 };
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
