//! Lets a request pass by the country that it comes from, as the edge says.
//!
//! ```json
//! {"allow": ["DE", "FR"], "unknown": "deny", "status": 451}
//! ```
//!
//! [`plan`] reads and decides, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
