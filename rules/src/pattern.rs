//! The regular expressions of rules, each compiled once however many rules have it.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use crate::value::Wrong;

/// Those of one document.
#[derive(Default)]
pub(crate) struct Patterns(HashMap<String, Regex>);

impl Patterns {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(&mut self, pattern: &str) -> Result<Regex, Wrong> {
        if let Some(known) = self.0.get(pattern) {
            return Ok(known.clone());
        }
        let regex = compile(pattern)?;
        self.0.insert(pattern.to_owned(), regex.clone());
        Ok(regex)
    }
}

fn compile(pattern: &str) -> Result<Regex, Wrong> {
    // A line break is a letter of a path like any other: `.` must not stop at `%0a`.
    let regex = RegexBuilder::new(pattern)
        .dot_matches_new_line(true)
        .size_limit(LARGEST)
        .dfa_size_limit(LARGEST)
        .build();
    regex.map_err(|error| {
        if let regex::Error::CompiledTooBig(_) = error {
            return Wrong::with_help(
                "this regular expression is too large",
                "count less far in `{…}`, or write it shorter",
            );
        }
        // Earlier lines of the message draw the pattern with a marker below it.
        let message = error.to_string();
        let reason = message.lines().rev().find_map(|line| line.strip_prefix("error: "));
        Wrong::with_help(
            format!("not a regular expression: {}", reason.unwrap_or("the syntax is wrong")),
            "the syntax is described at https://docs.rs/regex/#syntax",
        )
    })
}

/// Bytes of one that is compiled.
const LARGEST: usize = 1 << 20;
