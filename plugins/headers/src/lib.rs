//! Sets, appends and removes headers of requests and responses.
//!
//! ```json
//! {
//!   "request":  {"remove": ["x-debug"], "set": {"x-team": "blue"}, "append": {"via": ["adit"]}},
//!   "response": {"set": {"x-frame-options": "DENY"}}
//! }
//! ```
//!
//! Within a phase `remove` comes first, then `set`, then `append`. A value is a string or a list
//! of strings; a list gives one header line each. [`plan`] decides, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
