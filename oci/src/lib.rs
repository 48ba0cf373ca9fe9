//! Components that lie in OCI registries: pulled before anything serves, pinned by digest, kept.
//!
//! Knows registries, the lock beside a document and a folder of what was pulled; does not know what a
//! component is or who runs it. Read [`mod@reference`] and [`digest`] (names), [`mod@resolve`] (how a reference
//! becomes a file), then what that uses: [`lock`], `store`, [`signature`] with `bundle`, [`client`] with
//! [`manifest`], `auth` and `transport`.
//!
//! A thin client of its own: the existing one gathers whatever a registry sends without a limit.

pub use adit_rules::{digest, reference};

mod auth;
mod bundle;
pub mod client;
pub mod lock;
pub mod manifest;
pub mod resolve;
pub mod signature;
pub mod signing;
mod store;
mod transport;
