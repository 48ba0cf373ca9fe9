//! Sends a share of the visitors, always the same ones, another way.
//!
//! ```json
//! {"by": {"cookie": "variant"}, "salt": "spring", "header": "x-variant", "echo": true,
//!  "variants": [{"name": "canary", "weight": 5, "headers": {"x-backend": "v2"}, "authority": "v2.internal"}],
//!  "force": {"header": "x-canary"}}
//! ```
//!
//! [`plan`] reads the configuration and chooses, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
