//! What a process allows. Knows numbers and their bounds.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that may be held for peers who do not take them, in the whole process.
    pub held: u64,
    /// How long a body may wait for a peer who takes nothing of it.
    pub grace: Duration,
    /// Bytes each second that a peer has to take of what waits for it, once the grace is used up; 0 asks for
    /// nothing.
    pub rate: u64,
}

impl Limits {
    /// What [`held`](Self::held) may be.
    pub const HELD: RangeInclusive<usize> = 1 << 20..=1 << 30;
    /// What [`grace`](Self::grace) may be.
    pub const GRACE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
    /// What [`rate`](Self::rate) may be.
    pub const RATE: RangeInclusive<usize> = 0..=1 << 30;

    /// The receive window of a connection that many streams share. Unread bytes of a stream are taken from
    /// it until they are read; since it is larger than all that slow readers may hold, there is always room
    /// for the others.
    pub fn connection_window(&self) -> u32 {
        u32::try_from(self.held + ROOM).unwrap_or(LARGEST_WINDOW).min(LARGEST_WINDOW)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { held: USUAL_HELD, grace: USUAL_GRACE, rate: USUAL_RATE }
    }
}

/// The address whose share a visitor's traffic counts for. A subscriber has all IPv6 addresses that begin with
/// the same 64 bits.
pub fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
        address @ IpAddr::V4(_) => address,
    }
}

const USUAL_HELD: u64 = 256 << 20;
const USUAL_GRACE: Duration = Duration::from_secs(60);
const USUAL_RATE: u64 = 1 << 10;
/// What streams that are read may have under way on one connection, and what slow ones may gather between
/// two looks.
const ROOM: u64 = 512 << 20;
/// RFC 9113 6.9.1
const LARGEST_WINDOW: u32 = (1 << 31) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_more_room_than_slow_readers_may_hold() {
        for held in [*Limits::HELD.start() as u64, Limits::default().held, *Limits::HELD.end() as u64] {
            let window = Limits { held, ..Limits::default() }.connection_window();
            assert_eq!(u64::from(window), held + ROOM);
        }
    }
}
