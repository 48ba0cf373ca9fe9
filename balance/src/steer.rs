//! Steering: which pool serves a request, and which endpoint of it. [`Ballot`] draws by weight, load, latency or by
//! who asks, among pools as among endpoints; [`order`] takes pools in an order: as they are written, by latency,
//! by distance, or as [`Atlas`] has them for a place. [`Ewma`] and [`Peak`] are the latencies they look at.
//!
//! Pure: a snapshot goes in, a place in it comes out; time and chance are handed in. No choice takes a lock or
//! memory. Does not know monitors, requests or what an endpoint is.

mod atlas;
mod ballot;
mod latency;
pub mod order;

pub use atlas::{Atlas, Place};
pub use ballot::{Ballot, Candidate, ONE};
pub use latency::{Ewma, Peak};
pub use order::Point;

/// What is known of a pool or an endpoint, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    Up,
    /// Nothing is known yet: worse than one that is known to be well, better than one that is known not to be.
    Unknown,
    /// Only where nothing else is left, and nobody asks for health.
    Down,
}

#[cfg(test)]
mod tests;
