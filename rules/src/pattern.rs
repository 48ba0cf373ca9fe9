//! The regular expressions of rules, each compiled once however many rules have it.

use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use crate::value::Invalid;

/// Those of one document.
#[derive(Default)]
pub(crate) struct Patterns {
    known: HashMap<String, Regex>,
    /// Bytes that they take at most.
    size: usize,
}

impl Patterns {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(&mut self, pattern: &str) -> Result<Regex, Invalid> {
        if let Some(known) = self.known.get(pattern) {
            return Ok(known.clone());
        }
        // What is too large costs time as well, whether it is refused or not.
        if self.size >= LARGEST_OF_ALL {
            return Err(Invalid::with_help(
                "the regular expressions before this one are too large together",
                "count less far in `{…}`, or write them shorter",
            ));
        }
        let (size, outcome) = compile(pattern);
        self.size += size;
        let regex = outcome.map_err(|error| wrong(&error))?;
        self.known.insert(pattern.to_owned(), regex.clone());
        Ok(regex)
    }
}

/// Compiles it, with the bytes that it takes at most. The engine does not say how large one is, only that it is
/// larger than some limit.
fn compile(pattern: &str) -> (usize, Result<Regex, regex::Error>) {
    // A line break is a letter of a path like any other: `.` must not stop at `%0a`.
    let build = |size| {
        RegexBuilder::new(pattern).dot_matches_new_line(true).size_limit(size).dfa_size_limit(LARGEST).build()
    };
    for size in SIZES {
        match build(size) {
            Err(regex::Error::CompiledTooBig(_)) => {}
            outcome => return (size, outcome),
        }
    }
    (LARGEST, build(LARGEST))
}

fn wrong(error: &regex::Error) -> Invalid {
    if let regex::Error::CompiledTooBig(_) = error {
        return Invalid::with_help(
            "this regular expression is too large",
            "count less far in `{…}`, or write it shorter",
        );
    }
    // Earlier lines of the message draw the pattern with a marker below it.
    let message = error.to_string();
    let reason = message.lines().rev().find_map(|line| line.strip_prefix("error: "));
    Invalid::with_help(
        format!("not a regular expression: {}", reason.unwrap_or("the syntax is wrong")),
        "the syntax is described at https://docs.rs/regex/#syntax",
    )
}

/// Bytes of one that is compiled, and of all of a document.
const LARGEST: usize = 1 << 20;
const LARGEST_OF_ALL: usize = 64 << 20;
/// What smaller ones count as.
const SIZES: [usize; 3] = [4 << 10, 32 << 10, 256 << 10];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_usual_patterns_are_read_and_a_hundred_that_explode_are_not() {
        let mut patterns = Patterns::default();
        for number in 0..10_000 {
            patterns.read(&format!("^/api/v1/customers/{number}(/|$)")).unwrap();
        }
        let mut patterns = Patterns::default();
        let read = (0..10_000)
            .filter(|number| patterns.read(&format!("(x{{{number}}}y{{50}}){{90}}")).is_ok())
            .count();
        assert!((1..200).contains(&read), "{read}");
        assert!(patterns.size < LARGEST_OF_ALL + LARGEST);
    }
}
