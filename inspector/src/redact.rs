//! Takes secrets out of what is kept. A secret is known by where it stands (the name of a header, a parameter, a
//! field, an element), by what stands before it (`Bearer`) or by its shape. What is no secret may be taken for one;
//! that costs a look, the other way round would cost more.
//!
//! In its place stands `‹redacted 43 bytes, 1f3a09c2›`: the same secret has the same mark while the process runs,
//! and the mark is keyed, so that nobody finds the secret by trying.
//!
//! Knows texts; does not know where they come from or go.

mod form;
mod json;
mod multipart;
mod names;
mod plain;

use hmac::{Hmac, Mac};
use http::HeaderName;
use sha2::Sha256;

use crate::exchange::Body;
use names::{is_secret_header, is_secret_name};

/// Takes secrets out; one for each process.
pub struct Redactor {
    key: [u8; 32],
}

/// A text without its secrets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Redacted {
    pub text: String,
    /// How many marks are in it.
    pub marks: usize,
}

/// A text that is written anew without its secrets.
struct Writer<'r> {
    redactor: &'r Redactor,
    done: Redacted,
}

impl Redactor {
    /// With a key that nobody knows.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { key })
    }

    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &HeaderName, value: &str) -> Redacted {
        let mut writer = self.writer();
        match name.as_str() {
            "cookie" => writer.cookies(value, ';'),
            "set-cookie" => writer.set_cookie(value),
            // Made by an edge or by machines of the visitor's: an id, and no more than that.
            "cf-ray" | "traceparent" if is_id(value) => writer.push(value),
            name if is_secret_header(name) => match value.trim().split_once(' ') {
                Some((scheme, rest)) if is_scheme(scheme) => {
                    writer.push(scheme);
                    writer.push(" ");
                    writer.mark(rest.trim());
                }
                _ => writer.mark(value),
            },
            _ => writer.plain(value),
        }
        writer.done
    }

    /// Path and query as they were asked for.
    #[must_use]
    pub fn target(&self, target: &str) -> Redacted {
        let mut writer = self.writer();
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        for (number, segment) in path.split('/').enumerate() {
            if number > 0 {
                writer.push("/");
            }
            writer.encoded(segment, false);
        }
        if let Some(query) = query {
            writer.push("?");
            writer.pairs(query, false);
        }
        writer.done
    }

    /// Any text.
    #[must_use]
    pub fn text(&self, text: &str) -> Redacted {
        let mut writer = self.writer();
        writer.plain(text);
        writer.done
    }

    /// The beginning of a body that has `length` bytes, or all of it. `kind` is its Content-Type, `coding` its
    /// Content-Encoding.
    #[must_use]
    pub fn body(&self, kind: &str, coding: &str, begin: &[u8], length: u64) -> (Body, usize) {
        if length == 0 {
            return (Body::Empty, 0);
        }
        let left_out = |why: &'static str| (Body::LeftOut { bytes: length, why }, 0);
        if !matches!(coding.trim().to_ascii_lowercase().as_str(), "" | "identity") {
            return left_out("it is compressed");
        }
        // A piece of a letter at the cut is no reason to keep nothing.
        let text = match str::from_utf8(begin) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() && (begin.len() as u64) < length => {
                str::from_utf8(&begin[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return left_out("it is not text"),
        };
        if text.contains('\0') {
            return left_out("it is not text");
        }
        let is_whole = begin.len() as u64 == length;
        let text = if is_whole { text } else { whole_words(text) };
        let mut writer = self.writer();
        let kind = kind.to_ascii_lowercase();
        let essence = kind.split(';').next().unwrap_or_default().trim();
        if essence == "application/x-www-form-urlencoded" {
            writer.pairs(text, true);
        } else if essence.starts_with("multipart/") {
            writer.multipart(text);
        } else if essence.ends_with("json") || text.trim_start().starts_with(['{', '[']) {
            writer.json(text);
        } else {
            writer.plain(text);
        }
        let Redacted { text, marks } = writer.done;
        (Body::Text { text, bytes: length, is_whole }, marks)
    }

    /// What stands in the place of a secret.
    fn mark(&self, secret: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("any key does");
        mac.update(secret.as_bytes());
        let sum = mac.finalize().into_bytes();
        format!("{MARK}{} bytes, {:02x}{:02x}{:02x}{:02x}›", secret.len(), sum[0], sum[1], sum[2], sum[3])
    }

    fn writer(&self) -> Writer<'_> {
        Writer { redactor: self, done: Redacted::default() }
    }
}

impl Writer<'_> {
    fn push(&mut self, text: &str) {
        self.done.text.push_str(text);
    }

    fn mark(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        let mark = self.redactor.mark(secret);
        self.push(&mark);
        self.done.marks += 1;
    }

    /// Of a text that stands within another in some coding: `written` if there is no secret in it.
    fn within(&mut self, written: &str, meant: &str, redact: impl FnOnce(&mut Self, &str)) {
        let mut inner = self.redactor.writer();
        // The closure writes to the inner one in the place of this.
        std::mem::swap(self, &mut inner);
        redact(self, meant);
        std::mem::swap(self, &mut inner);
        if inner.done.marks == 0 {
            self.push(written);
        } else {
            self.push(&inner.done.text);
            self.done.marks += inner.done.marks;
        }
    }

    /// `name=value` pairs, of which only the names are kept.
    fn cookies(&mut self, value: &str, separator: char) {
        for (number, pair) in value.split(separator).enumerate() {
            if number > 0 {
                self.push("; ");
            }
            match pair.trim().split_once('=') {
                Some((name, value)) => {
                    self.plain(name);
                    self.push("=");
                    self.mark(value);
                }
                None => self.mark(pair.trim()),
            }
        }
    }

    /// One cookie; what follows it says how long it lives, and where.
    fn set_cookie(&mut self, value: &str) {
        let (cookie, rest) = value.split_once(';').unwrap_or((value, ""));
        self.cookies(cookie, '\0');
        for attribute in rest.split(';').map(str::trim).filter(|attribute| !attribute.is_empty()) {
            let name = attribute.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            self.push("; ");
            if ATTRIBUTES.contains(&name.as_str()) {
                self.plain(attribute);
            } else {
                self.mark(attribute);
            }
        }
    }
}

/// A text that was cut off, without the word at the cut: half a secret does not look like one.
pub(crate) fn whole_words(text: &str) -> &str {
    let end = text.rfind([' ', '\t', '\r', '\n', '&', ';', ',', '"', '\'', '<', '>', '(', '[', '{', ':']);
    &text[..end.map_or(0, |end| end + 1)]
}

/// Whether a word says what kind of proof follows.
fn is_scheme(word: &str) -> bool {
    SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme))
}

fn is_id(value: &str) -> bool {
    value.len() <= LONGEST_ID
        && value.split('-').next().is_some_and(|begin| begin.len() == 2 || begin.len() == 16)
        && value.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || byte.is_ascii_uppercase())
}

/// How a mark begins.
pub(crate) const MARK: &str = "‹redacted ";
/// In `Authorization`, and in texts before a secret.
const SCHEMES: [&str; 9] =
    ["bearer", "basic", "digest", "negotiate", "ntlm", "apikey", "dpop", "gnap", "aws4-hmac-sha256"];
/// Of a cookie (RFC 6265bis 4.1.2).
const ATTRIBUTES: [&str; 9] =
    ["expires", "max-age", "domain", "path", "secure", "httponly", "samesite", "partitioned", "priority"];
/// Of a `traceparent`, characters.
const LONGEST_ID: usize = 55;

#[cfg(test)]
mod tests;
