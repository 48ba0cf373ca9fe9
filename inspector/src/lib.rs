//! What is kept of exchanges so that people can look at them: a ring of each shard with an end by bytes and by
//! number, redacted before anything is kept, and what is made of one exchange for other tools.
//!
//! Knows heads, bytes and times that it is handed. Knows no tunnel, no page and no configuration; opens nothing.

mod again;
mod exchange;
mod export;
mod filter;
mod keeper;
mod redact;
mod ring;

pub use again::{CannotRepeat, repeat, wanted};
pub use exchange::{Body, Exchange, Message, Stage};
pub use export::{curl, plugin_case};
pub use filter::{Filter, FilterError};
pub use keeper::{BodyHeaders, Keeper, LONGEST, MOST_BODY, Setting, Standing};
pub use redact::{Redacted, Redactor};
