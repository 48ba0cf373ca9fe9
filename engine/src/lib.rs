//! WebAssembly plugins: loading them, and calling them for each request, with all that they may reach.
//!
//! Knows the WIT package, its slice of the plan and the destinations that are granted ([`outbound`]); does not know
//! routes, tunnels, files, or which status a failure becomes. Read in this order: [`Engine`] (one per process),
//! [`Plugin`] (one component with its configuration), [`Chain`] (the plugins of a rule).
//!
//! An instance serves one call at a time and is used again for the next. After a trap, a time-out
//! or a call that was dropped midway it is never used again, and the next call gets a fresh one.

mod background;
mod bindings;
mod bodies;
mod body_filter;
mod body_stream;
mod chain;
mod circuit_breaker;
mod clock;
mod compiler;
mod component;
mod concurrent;
mod counters;
mod decode;
mod edit;
mod engine;
mod exchange;
mod failure;
mod filter;
mod filtered_body;
mod head;
mod imports;
mod inspect;
mod member;
mod meter;
pub mod outbound;
mod persistent;
mod pool;
mod sandbox;
mod service;
mod shared;
mod stopwatch;
mod store;
mod test_host;
mod text;
mod yield_policy;

#[cfg(test)]
mod tests;

pub use background::Served;
pub use bodies::{BodyRoom, BodySource, Gathered, NoBody};
pub use body_stream::{BodyFailure, BodyFilter};
pub use chain::{Chain, ChainProgress, Facts, Link, Observers, RequestOutcome, ResponseOutcome};
pub use compiler::{COMPILER, be_compiler};
pub use component::LARGEST_COMPONENT;
pub use counters::Counters;
pub use edit::Reply;
pub use engine::{Engine, EngineSettings};
pub use exchange::{Exchange, RuleNames, VisitorFacts};
pub use failure::{ConfigFault, Failure, FailureKind, LoadError};
pub use filter::Plugin;
pub use filtered_body::FilteredBody;
pub use imports::handler::{NextRequest, NextResponder};
pub use imports::log::{CapturedLogs, GuestLine};
pub use imports::metrics::Number;
pub use inspect::{Description, Inspection, inspect};
pub use persistent::BucketFolder;
pub use sandbox::{Given, Secrets};
pub use service::{MiddlewareOutcome, ServiceBody};
pub use shared::{Away, BucketAnswer, BucketCall, BucketOperation, BucketServer};
pub use stopwatch::{Lap, Stopwatch};
pub use test_host::{BackgroundDriver, Compiled, ManualClock, TestHost};
