//! Which servers a TLS client of ours believes: those of the system's roots, those of a file, or any. Knows
//! certificates; opens no connection and does not know what is asked of a server.
//!
//! Read `roots` first, then `verifier`, then `groups` and `words`.

mod groups;
mod roots;
mod verifier;
mod words;

pub use groups::provider;
pub use roots::{add, of_file, of_system};
pub use verifier::{any, by_roots};
pub use words::advice;

/// What is in no library that speaks TLS here, as people who have such a server are told.
pub const LIMITS: &str = "servers that know only TLS 1.0 or 1.1, CBC ciphers, or RSA or finite-field key exchange \
                          cannot be reached";
