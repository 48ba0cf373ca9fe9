//! Rewrites paths and hosts on their way to the origin, and redirects visitors.
//!
//! ```json
//! {"rules": [
//!   {"scheme": "http", "to-scheme": "https", "status": 308},
//!   {"host": "www.example.com", "to-host": "example.com", "status": 301},
//!   {"prefix": "/old", "to-path": "/new", "status": 301},
//!   {"regex": "^/u/([0-9]+)$", "to-path": "/users/$1"}
//! ]}
//! ```
//!
//! The first rule whose conditions hold is the one; one with a status redirects, one without rewrites.
//! [`plan`] reads the rules, [`target`] applies one, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
pub mod target;
