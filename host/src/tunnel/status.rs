//! What the slots are doing, for people and probes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

/// How often it is looked whether anything serves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The state of a slot that serves.
pub const SERVING: &str = "connected";

/// The state of every slot. Written by the slots on every change, read by the admin API.
#[derive(Debug)]
pub struct Status {
    slots: Mutex<Vec<SlotStatus>>,
    /// The most requests at once that a connection of each slot had.
    peaks: Box<[AtomicU64]>,
    counts: Counts,
}

/// What happened on control streams; counts only up.
#[derive(Debug, Default)]
pub struct Counts {
    pub registered: AtomicU64,
    /// Registrations that the edge refused.
    pub refused: AtomicU64,
    /// Registrations that got no answer.
    pub unanswered: AtomicU64,
    pub reported: AtomicU64,
    pub unreported: AtomicU64,
    /// Connections over QUIC that served.
    pub quic: AtomicU64,
}

/// What QUIC tells of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuicPath {
    pub round_trip: Duration,
    /// Of UDP payloads.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub lost_packets: u64,
    /// Bytes.
    pub congestion_window: u64,
    pub mtu: u16,
}

#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    pub index: usize,
    /// `dialing`, `registering`, `connected`, `waiting`, `draining` or `ended`.
    pub state: &'static str,
    pub edge: Option<SocketAddr>,
    /// The name that the edge server gives itself.
    pub location: Option<String>,
    pub protocol: Option<&'static str>,
    /// Why the last connection or attempt ended.
    pub last_error: Option<String>,
    /// The last probe that the edge sent over the connection that serves.
    #[serde(skip)]
    pub probed: Option<Probed>,
    /// How the connection that serves is, if it tells.
    #[serde(skip)]
    pub path: Option<QuicPath>,
}

/// A probe of the edge, and what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probed {
    pub at: Instant,
    pub ready: bool,
}

impl Status {
    pub fn new(slots: usize) -> Self {
        let peaks = (0..slots).map(|_| AtomicU64::new(0)).collect();
        let slots = (0..slots).map(|index| SlotStatus { index, state: "dialing", ..SlotStatus::default() });
        Self { slots: Mutex::new(slots.collect()), peaks, counts: Counts::default() }
    }

    pub fn update(&self, slot: usize, change: impl FnOnce(&mut SlotStatus)) {
        change(&mut self.slots.lock().unwrap_or_else(PoisonError::into_inner)[slot]);
    }

    /// A connection of a slot has so many requests under way.
    pub fn busy(&self, slot: usize, requests: u64) {
        // Nearly always it had more before, and then the number only is read.
        if self.peaks[slot].load(Ordering::Relaxed) < requests {
            self.peaks[slot].fetch_max(requests, Ordering::Relaxed);
        }
    }

    /// The most requests at once that a connection of each slot had.
    pub fn peaks(&self) -> impl Iterator<Item = u64> {
        self.peaks.iter().map(|peak| peak.load(Ordering::Relaxed))
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    pub fn slots(&self) -> Vec<SlotStatus> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Done when no slot has served for `limit`, with what was wrong last.
    pub async fn unconnected(&self, limit: Duration) -> String {
        let mut since = tokio::time::Instant::now();
        while since.elapsed() < limit {
            tokio::time::sleep(LOOK_EVERY.min(limit)).await;
            if self.connected() > 0 {
                since = tokio::time::Instant::now();
            }
        }
        let errors: Vec<String> = self.slots().into_iter().filter_map(|slot| slot.last_error).collect();
        let limit = humantime::format_duration(limit);
        match errors.last() {
            Some(error) => format!("no connection to the edge for {limit}: {error}"),
            None => format!("no connection to the edge for {limit}"),
        }
    }

    /// How many slots hold a connection that serves.
    pub fn connected(&self) -> usize {
        self.slots().iter().filter(|slot| slot.state == SERVING).count()
    }
}
