//! Gives each request an id that the visitor, the origin and the logs share.
//!
//! ```json
//! {"header": "x-request-id", "accept": false, "form": "ray", "echo": true}
//! ```
//!
//! [`plan`] reads the configuration and judges what visitors send, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
