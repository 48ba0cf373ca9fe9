//! Keeps out the networks of a list that it fetches.
//!
//! ```json
//! {"url": "https://lists.example.com/bad.txt", "exempt": ["10.0.0.0/8"], "unknown": "deny", "status": 403}
//! ```
//!
//! [`list`] reads a list and looks addresses up, [`plan`] the configuration, [`filter`] speaks WIT. The list is in a bucket:
//! one instance fetches it, and all others see there when it has changed.

pub mod filter;
pub mod list;
pub mod plan;
