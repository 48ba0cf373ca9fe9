//! Lets deliveries of webhooks pass that their service has signed, each once.
//!
//! ```json
//! {"kind": "github", "secret": "webhook", "paths": ["/hooks"], "tolerance": "5m", "most": 1048576, "bucket": "deliveries"}
//! ```
//!
//! [`plan`] reads the configuration, [`delivery`] knows what each service signs and how it writes that, [`filter`]
//! speaks WIT and has the host compute and remember.

pub mod delivery;
pub mod filter;
pub mod plan;
