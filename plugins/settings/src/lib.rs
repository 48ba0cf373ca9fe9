//! Reads a plugin's configuration and reports every fault at once, each with its place.
//!
//! Knows JSON and the grammar of header fields; knows nothing of WIT. Read [`place`] first, then
//! [`header`].

pub mod header;
pub mod place;

pub use place::{Fault, Faults, Place, read};
