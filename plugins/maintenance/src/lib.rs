//! Answers 503 with a page while work is done.
//!
//! ```json
//! {"on": true, "page": "<h1>Back at noon</h1>", "type": "text/html; charset=utf-8", "retry-after": "10m",
//!  "allow": ["192.0.2.0/24"], "paths": ["/health"]}
//! ```
//!
//! [`plan`] reads and decides, [`filter`] speaks WIT.

pub mod filter;
pub mod plan;
