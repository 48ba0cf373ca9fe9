//! What the pages of docs/ say, held against the sources.

// Every line here is part of a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// The forms of Rust are an open set in the library that reads them.
#![allow(clippy::wildcard_enum_match_arm)]

mod constants;
mod limits;
mod links;
mod names;
mod no_limits;
mod value;
