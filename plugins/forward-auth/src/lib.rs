//! Asks another service about each request before it goes on.
//!
//! ```json
//! {"url": "https://auth.example.com/verify", "send": ["authorization", "cookie"], "take": ["x-user"]}
//! ```
//!
//! [`plan`] reads the configuration, [`ask`] says what is asked and what the answer means, [`filter`] speaks WIT.

pub mod ask;
pub mod filter;
pub mod plan;
