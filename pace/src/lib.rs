//! Bodies that wait for a peer who does not take them: how long each may wait, and how much all of them
//! together may make a process hold. Both ends of a tunnel keep such an account. Knows bytes, sources and
//! time that it is told; does not know transports, tasks or clocks.
//!
//! Read [`Limits`], then [`Account`] (the whole process), then [`Flow`] (one direction of one exchange);
//! `judge` is what an account makes of one flow between two looks.

mod account;
mod flow;
mod judge;
mod limits;

pub use account::{Account, Swept};
pub use flow::{Cut, Flow, Group, Owner, Release};
pub use limits::{Limits, source};
