//! Numbers of a process as Prometheus reads them, the same way at both ends of a tunnel: [`Page`] writes the
//! text format, [`Histogram`] counts durations without a lock, [`process`] asks the system about this process.
//! Knows how numbers are written; does not know what they mean, nor who serves them.

mod histogram;
mod page;
pub mod process;

pub use histogram::{BOUNDS, Durations, Histogram};
pub use page::{CONTENT_TYPE, Kind, Page, number};
