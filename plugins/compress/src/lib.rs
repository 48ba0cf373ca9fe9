//! Compresses answers on their way, piece by piece.
//!
//! ```json
//! {"types": ["text/*", "application/json", "*+json"], "min-size": 1024, "codings": ["br", "gzip"], "level": 6}
//! ```
//!
//! [`plan`] reads the configuration, [`accept`] what the visitor takes, [`head`] decides and edits heads,
//! [`encoder`] makes bytes of bytes, and [`middleware`] speaks WIT.

pub mod accept;
pub mod encoder;
pub mod head;
pub mod media;
pub mod middleware;
pub mod plan;
