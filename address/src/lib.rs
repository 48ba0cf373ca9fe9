//! What a request asks for, as the servers on its way may read it. Pure text: knows neither HTTP nor rules,
//! so that edge, host and plugins compare with the same values.

mod host;
mod path;

pub use host::{OddHost, host};
pub use path::{Readings, decoded, plain};
