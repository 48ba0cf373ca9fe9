//! JSON, whole or cut off, one value or many: every string is looked at, and whatever is below a secret name is
//! taken out. What is no JSON at all passes through the same hands and loses at least as much.

use std::fmt::Write as _;

use super::{Writer, is_secret_name};

impl Writer<'_> {
    pub(super) fn json(&mut self, text: &str) {
        let mut open = vec![Open { is_secret: false, is_array: false }];
        let (mut rest, mut is_named) = (text, false);
        // Whether the value that comes says what the one beside it is: `{"name": "password", "value": "…"}`. In
        // arrays each may: `["password", "…"]`.
        let mut says_name = false;
        while let Some(letter) = rest.chars().next() {
            let is_secret = is_named || open.last().is_some_and(|open| open.is_secret);
            match letter {
                '"' => {
                    let (inner, length) = string(rest);
                    let behind = &rest[length..];
                    let is_name = behind.trim_start().starts_with(':');
                    let meant = unescaped(inner);
                    self.push("\"");
                    if is_secret && !is_name {
                        self.mark(&meant);
                    } else {
                        let mut redacted = self.redactor.writer();
                        redacted.value(&meant);
                        if redacted.done.marks == 0 {
                            self.push(inner);
                        } else {
                            let written = serde_json::Value::from(redacted.done.text).to_string();
                            self.push(written.trim_matches('"'));
                            self.done.marks += redacted.done.marks;
                        }
                    }
                    if length > inner.len() + 1 {
                        self.push("\"");
                    }
                    is_named = is_name && is_secret_name(&meant);
                    if let Some(within) = open.last_mut()
                        && !is_name
                        && (says_name || within.is_array)
                        && meant.len() <= LONGEST_NAME
                        && is_secret_name(&meant)
                    {
                        within.is_secret = true;
                    }
                    says_name = is_name && NAMES.contains(&meant.as_str());
                    rest = behind;
                    continue;
                }
                '{' | '[' => {
                    open.push(Open { is_secret, is_array: letter == '[' });
                    // As deep as nobody writes: all of it is secret from here on.
                    if open.len() > DEEPEST {
                        self.push(&rest[..1]);
                        self.mark(&rest[1..]);
                        return;
                    }
                    is_named = false;
                }
                '}' | ']' => {
                    if open.len() > 1 {
                        open.pop();
                    }
                    is_named = false;
                }
                ',' => is_named = false,
                ':' | ' ' | '\t' | '\r' | '\n' => {}
                _ => {
                    // A number, a word, or what is no JSON.
                    let end = rest
                        .find([',', '}', ']', '{', '[', '"', '\n'])
                        .unwrap_or(rest.len())
                        .max(letter.len_utf8());
                    let scalar = rest[..end].trim_end();
                    match scalar {
                        "true" | "false" | "null" => self.push(scalar),
                        _ if is_secret => self.mark(scalar),
                        _ => self.plain(scalar),
                    }
                    rest = &rest[scalar.len()..];
                    continue;
                }
            }
            let width = letter.len_utf8();
            self.push(&rest[..width]);
            rest = &rest[width..];
        }
    }
}

/// An object or an array that is open.
struct Open {
    /// All in it is secret from here on.
    is_secret: bool,
    is_array: bool,
}

/// What is in the string that a text begins with, and how long that is with its quotes.
fn string(text: &str) -> (&str, usize) {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return (&text[1..at], at + 1),
            _ => {}
        }
    }
    (&text[1..], text.len())
}

/// What a string means. One that is cut off within an escape means what is before it.
fn unescaped(inner: &str) -> String {
    if !inner.contains('\\') {
        return inner.to_owned();
    }
    let mut quoted = String::with_capacity(inner.len() + 2);
    let _ = write!(quoted, "\"{inner}\"");
    serde_json::from_str(&quoted).unwrap_or_else(|_| inner.replace('\\', ""))
}

/// Longer texts are no names.
const LONGEST_NAME: usize = 64;
/// Fields that say what the value beside them is.
const NAMES: [&str; 4] = ["name", "field", "header", "label"];
/// Objects and arrays within one another.
const DEEPEST: usize = 128;
