//! Limits how many requests come from one address, header or path in a time.
//!
//! ```json
//! {"limit": 100, "window": "1m", "kind": "sliding", "by": ["address", {"header": "x-api-key"}, {"path": 1}],
//!  "only": ["/api"], "exempt": ["10.0.0.0/8"], "bucket": "limits", "headers": true}
//! ```
//!
//! [`plan`] reads the configuration and says who is counted together, [`window`] decides, [`overflow`]
//! counts those for whom the bucket has no place, [`filter`] speaks WIT.

pub mod filter;
pub mod overflow;
pub mod plan;
pub mod window;
