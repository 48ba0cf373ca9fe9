//! Reads a TOML document strictly and reports every mistake at once, with its place and a suggestion.
//!
//! It knows TOML and places in a text; it does not know any rule of any document: whoever reads one
//! adds its own rule mistakes to the [`Mistakes`] that [`read()`] hands back.
//!
//! Read in this order: [`read()`], [`Mistakes`], then `outline` (which dotted path a place has),
//! `value` (the tree as serde sees it), `refusal` (why serde would not take a value), `wording`, and `remark`
//! (where a translated document is from); [`size`] beside them.

mod mistakes;
mod outline;
mod read;
mod refusal;
mod remark;
pub mod size;
mod value;
mod wording;

pub use mistakes::{Mistake, Mistakes, Place};
pub use read::{glimpse, read};
pub use remark::{TRANSLATED, remark};
/// A value together with its byte range in the text it was read from.
pub use toml::Spanned;
pub use wording::closest;
