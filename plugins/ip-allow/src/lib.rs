//! Lets a request pass by the address that it comes from.
//!
//! ```json
//! {"allow": ["10.0.0.0/8", "2001:db8::/32"], "deny": ["10.9.0.0/16"], "unknown": "deny", "status": 403}
//! ```
//!
//! The address is the one that the host states of the visitor, never a header that the visitor sent.
//! [`plan`] reads and decides, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
