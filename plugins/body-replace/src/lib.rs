//! Replaces texts in the bodies of answers.
//!
//! ```json
//! {"rules": [{"find": "http://intranet/", "replace": "https://app.example.com/"}, {"regex": "v(\\d+)", "replace": "version $1"}]}
//! ```
//!
//! [`plan`] reads and replaces, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
