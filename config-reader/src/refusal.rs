//! Why serde would not take a value. Knows serde's complaints and our words for them; no place but a
//! node's number.

use std::fmt::{self, Display};

use serde::de::{Error, Expected, Unexpected};

use crate::wording::closest;

/// One complaint, and the node it is about.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) node: Option<usize>,
    pub(crate) complaint: Complaint,
}

/// What is wrong. Written values are left out unless they are numbers or should have been one of a
/// fixed set of words, since a document may hold secrets.
#[derive(Debug)]
pub(crate) enum Complaint {
    UnknownKey { name: String, known: &'static [&'static str] },
    UnknownWord { name: String, known: &'static [&'static str] },
    OutOfRange { number: i128, wanted: String },
    Unexpected { wanted: String },
    Missing { key: &'static str },
    Other(String),
}

impl Refusal {
    /// Says which node it is about, unless a node inside that one said so before.
    pub(crate) fn at(mut self, node: usize) -> Self {
        self.node.get_or_insert(node);
        self
    }

    /// The known key that an unknown one looks like.
    pub(crate) fn suggestion(&self) -> Option<&'static str> {
        match &self.complaint {
            Complaint::UnknownKey { name, known } => closest(name, known.iter().copied()),
            Complaint::UnknownWord { .. }
            | Complaint::OutOfRange { .. }
            | Complaint::Unexpected { .. }
            | Complaint::Missing { .. }
            | Complaint::Other(_) => None,
        }
    }

    /// The message for a person; `found` is what stands at the place.
    pub(crate) fn message(&self, found: &str) -> String {
        match &self.complaint {
            Complaint::UnknownKey { name, .. } => format!("unknown key `{name}`"),
            Complaint::UnknownWord { name, .. } => format!("unknown value `{name}`"),
            Complaint::OutOfRange { number, wanted } => match bounds(wanted) {
                Some((lowest, highest)) => {
                    format!("{number} is out of range, expected a whole number from {lowest} to {highest}")
                }
                None => format!("expected {}, found {number}", in_words(wanted)),
            },
            Complaint::Unexpected { wanted } => format!("expected {}, found {found}", in_words(wanted)),
            Complaint::Missing { key } => format!("`{key}` is missing"),
            Complaint::Other(message) => message.clone(),
        }
    }

    /// What to do about it.
    pub(crate) fn help(&self) -> Option<String> {
        let (name, known, noun) = match &self.complaint {
            Complaint::UnknownKey { name, known } => (name, *known, "keys"),
            Complaint::UnknownWord { name, known } => (name, *known, "values"),
            Complaint::OutOfRange { .. }
            | Complaint::Unexpected { .. }
            | Complaint::Missing { .. }
            | Complaint::Other(_) => return None,
        };
        match closest(name, known.iter().copied()) {
            Some(meant) => Some(format!("did you mean `{meant}`?")),
            None if known.is_empty() => None,
            None => Some(format!("known {noun}: {}", known.join(", "))),
        }
    }
}

impl From<Complaint> for Refusal {
    fn from(complaint: Complaint) -> Self {
        Self { node: None, complaint }
    }
}

impl Error for Refusal {
    fn custom<T: Display>(message: T) -> Self {
        Complaint::Other(message.to_string()).into()
    }

    fn invalid_type(_found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        Complaint::Unexpected { wanted: wanted.to_string() }.into()
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn Expected) -> Self {
        let wanted = wanted.to_string();
        let number = if let Unexpected::Signed(number) = found {
            Some(number.into())
        } else if let Unexpected::Unsigned(number) = found {
            Some(number.into())
        } else {
            None
        };
        match number {
            Some(number) => Complaint::OutOfRange { number, wanted }.into(),
            None => Complaint::Unexpected { wanted }.into(),
        }
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        Complaint::UnknownWord { name: name.to_owned(), known }.into()
    }

    fn unknown_field(name: &str, known: &'static [&'static str]) -> Self {
        Complaint::UnknownKey { name: name.to_owned(), known }.into()
    }

    fn missing_field(key: &'static str) -> Self {
        Complaint::Missing { key }.into()
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message("something else"))
    }
}

impl std::error::Error for Refusal {}

/// What serde calls a type, in the words of somebody who writes documents.
fn in_words(wanted: &str) -> &str {
    match wanted {
        "a sequence" => "an array",
        "a map" | "map" => "a table",
        "a boolean" => "true or false",
        "path string" => "a string",
        "f32" | "f64" => "a number",
        _ if wanted.starts_with("struct ") => "a table",
        _ if wanted.starts_with("enum ") => "a string",
        _ if bounds(wanted).is_some() => "a whole number",
        _ => wanted,
    }
}

fn bounds(integer: &str) -> Option<(i128, i128)> {
    Some(match integer {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" | "usize" => (0, u64::MAX.into()),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        "i64" | "isize" => (i64::MIN.into(), i64::MAX.into()),
        _ => return None,
    })
}
