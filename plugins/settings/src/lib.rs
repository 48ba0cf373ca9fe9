//! Reads a plugin's configuration and reports every fault at once, each with its place.
//!
//! Knows JSON, the grammar of header fields, networks and paths; knows nothing of WIT but in
//! [`component!`], which writes what all plugins have in common. Read [`place`] first, then [`header`],
//! [`network`] and [`path`].

mod component;
pub mod header;
pub mod network;
pub mod path;
pub mod place;

pub use place::{Fault, Faults, Place, read};

/// The host of an authority as it is compared: lower case, without port and final dot.
pub fn host(authority: &str) -> std::borrow::Cow<'_, str> {
    adit_address::host(authority).unwrap_or_else(|_| authority.to_ascii_lowercase().into())
}
