//! Choosing one of several endpoints that could do the same work: by weight and by load ([`selection`], with what is
//! laid out beforehand in [`Lots`]), or by who asks ([`Key`]). For the pools and endpoints of a load balancer
//! [`steer`] does so, by what [`health`] makes of probes,
//! whom [`eject`] leaves out for a while, who is in a [`slow_start`],
//! which rules' [`condition`] a request meets, and where its session is kept ([`affinity`]).
//!
//! Pure: numbers go in, a place in the list comes out; time and chance are handed in. It takes no lock and no memory
//! for a choice, and does not know what an endpoint is. The edge chooses replicas and their connections by it.

pub mod affinity;
pub mod condition;
pub mod eject;
mod hash;
pub mod health;
mod lots;
pub mod selection;
pub mod slow_start;
pub mod steer;
mod window;

pub use hash::Key;
pub use lots::Lots;
pub use window::{Minute, Recent, Window};

/// The weight of an endpoint that nothing else was said about; no weight is larger.
pub const MOST_WEIGHT: u8 = 100;

/// `chance`, its lower 32 bits, as a number below `count`.
fn part(chance: u64, count: usize) -> usize {
    ((chance & 0xffff_ffff).wrapping_mul(count as u64) >> 32) as usize
}

/// `chance` as a number from 0 to 1, without 1.
fn unit(chance: u64) -> f64 {
    (chance >> 11) as f64 / (1_u64 << 53) as f64
}

/// A new chance made of one that was used (Knuth's linear congruential generator). Its upper bits are the good ones.
fn next(chance: &mut u64) -> u64 {
    *chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    *chance >> 32
}
