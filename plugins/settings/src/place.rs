//! A value in the configuration together with where it stands, and the list of what is wrong.
//!
//! Reading goes on after a fault, so that one attempt shows all of them. A reading function
//! answers `None` when it has reported a fault; whether the whole is usable is decided once, in
//! [`read`].

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) of the value at fault; empty for the whole document.
    pub pointer: String,
    pub message: String,
}

/// Every fault found so far.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    pub fn add(&mut self, pointer: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault { pointer: pointer.into(), message: message.into() });
    }
}

/// Reads `config`, a JSON object, with `reader`; hands back what it made, or every fault.
///
/// `reader` may answer `None` only after it has reported a fault.
pub fn read<T>(
    config: &str,
    reader: impl FnOnce(Place<'_>, &mut Faults) -> Option<T>,
) -> Result<T, Vec<Fault>> {
    let mut faults = Faults::default();
    let value: Value = match serde_json::from_str(config) {
        Ok(value) => value,
        Err(error) => {
            faults.add("", format!("not JSON: {error}"));
            return Err(faults.0);
        }
    };
    match reader(Place { pointer: String::new(), value: &value }, &mut faults) {
        Some(made) if faults.0.is_empty() => Ok(made),
        Some(_) => Err(faults.0),
        None => {
            if faults.0.is_empty() {
                faults.add("", "not understood");
            }
            Err(faults.0)
        }
    }
}

/// A value and its JSON pointer.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    pointer: String,
    value: &'a Value,
}

impl<'a> Place<'a> {
    pub fn pointer(&self) -> &str {
        &self.pointer
    }

    /// Reports `message` as a fault of this value.
    pub fn fault(&self, faults: &mut Faults, message: impl Into<String>) {
        faults.add(self.pointer.as_str(), message);
    }

    /// An object with no other keys than `known`; each unknown key is a fault of its own and does
    /// not stop the reading.
    pub fn object(&self, known: &[&str], faults: &mut Faults) -> Option<Object<'a>> {
        let object = self.map(faults)?;
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let known = known.iter().map(|key| format!("\"{key}\"")).collect::<Vec<_>>().join(", ");
            faults.add(self.below(key), format!("unknown key; the known ones here are {known}"));
        }
        Some(Object { pointer: self.pointer.clone(), object })
    }

    /// An object whose keys are the writer's own: every key with its value.
    pub fn entries(&self, faults: &mut Faults) -> Option<Vec<(&'a str, Self)>> {
        let object = self.map(faults)?;
        Some(
            object
                .iter()
                .map(|(key, value)| (key.as_str(), Self { pointer: self.below(key), value }))
                .collect(),
        )
    }

    /// A list of anything.
    pub fn list(&self, faults: &mut Faults) -> Option<Vec<Self>> {
        let Value::Array(items) = self.value else {
            self.expected("a list", faults);
            return None;
        };
        let place = |(at, value)| Self { pointer: format!("{}/{at}", self.pointer), value };
        Some(items.iter().enumerate().map(place).collect())
    }

    /// A list, or one value that stands for a list of one.
    pub fn one_or_many(&self, faults: &mut Faults) -> Option<Vec<Self>> {
        match self.value {
            Value::Array(_) => self.list(faults),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => {
                Some(vec![self.clone()])
            }
        }
    }

    pub fn text(&self, faults: &mut Faults) -> Option<&'a str> {
        let Value::String(text) = self.value else {
            self.expected("a string", faults);
            return None;
        };
        Some(text)
    }

    pub fn flag(&self, faults: &mut Faults) -> Option<bool> {
        let Value::Bool(flag) = self.value else {
            self.expected("true or false", faults);
            return None;
        };
        Some(*flag)
    }

    /// A whole number within `range`.
    pub fn number(&self, range: RangeInclusive<u64>, faults: &mut Faults) -> Option<u64> {
        let Value::Number(number) = self.value else {
            self.expected("a whole number", faults);
            return None;
        };
        let number = number.as_u64().filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(faults, format!("expected a whole number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A number, whole or not, within `range`.
    pub fn real(&self, range: RangeInclusive<f64>, faults: &mut Faults) -> Option<f64> {
        let Value::Number(number) = self.value else {
            self.expected("a number", faults);
            return None;
        };
        let number = number.as_f64().filter(|number| range.contains(number));
        if number.is_none() {
            self.fault(faults, format!("expected a number from {} to {}", range.start(), range.end()));
        }
        number
    }

    /// A length of time within `range`: a whole number and one of `ms`, `s`, `m`, `h`, such as "10s".
    pub fn duration(&self, range: RangeInclusive<Duration>, faults: &mut Faults) -> Option<Duration> {
        let text = self.text(faults)?;
        let Some(duration) = duration(text) else {
            self.fault(faults, "expected a whole number and one of ms, s, m, h, such as \"10s\"");
            return None;
        };
        if !range.contains(&duration) {
            self.fault(faults, format!("expected {:?} to {:?}", range.start(), range.end()));
            return None;
        }
        Some(duration)
    }

    /// One of a few words, each with what it means.
    pub fn word<T: Copy>(&self, words: &[(&str, T)], faults: &mut Faults) -> Option<T> {
        let text = self.text(faults)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let words = words.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
            self.fault(faults, format!("expected one of {words}"));
        }
        found
    }

    /// Whether this is that word, for values that may be a word or a list.
    pub fn word_is(&self, word: &str) -> bool {
        self.value.as_str() == Some(word)
    }

    /// Whether this is a table, for values that may be a word or a table.
    pub fn is_table(&self) -> bool {
        self.value.is_object()
    }

    fn map(&self, faults: &mut Faults) -> Option<&'a Map<String, Value>> {
        let Value::Object(object) = self.value else {
            self.expected("a table", faults);
            return None;
        };
        Some(object)
    }

    /// The value itself stays out of the message: it may be a secret in the wrong place.
    fn expected(&self, wanted: &str, faults: &mut Faults) {
        let found = match self.value {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "a table",
        };
        self.fault(faults, format!("expected {wanted}, found {found}"));
    }

    fn below(&self, key: &str) -> String {
        below(&self.pointer, key)
    }
}

/// An object whose keys have been checked.
#[derive(Clone, Debug)]
pub struct Object<'a> {
    pointer: String,
    object: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    pub fn optional(&self, key: &str) -> Option<Place<'a>> {
        self.object.get(key).map(|value| Place { pointer: below(&self.pointer, key), value })
    }

    pub fn required(&self, key: &str, faults: &mut Faults) -> Option<Place<'a>> {
        let found = self.optional(key);
        if found.is_none() {
            faults.add(self.pointer.as_str(), format!("\"{key}\" is missing"));
        }
        found
    }
}

fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(unit)?))
}

/// `pointer` with one more reference token, escaped as RFC 6901 section 3 asks.
fn below(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(config: &str, reader: impl FnOnce(Place<'_>, &mut Faults) -> Option<()>) -> Vec<String> {
        match read(config, reader) {
            Ok(()) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.pointer).collect(),
        }
    }

    #[test]
    fn every_unknown_key_is_reported_with_the_known_ones() {
        let faults = read(r#"{"a": 1, "b/c": 2, "d~e": 3}"#, |place, faults| {
            place.object(&["a", "z"], faults).map(|_| ())
        })
        .unwrap_err();
        assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), ["/b~1c", "/d~0e"]);
        assert!(faults.iter().all(|fault| fault.message.contains(r#""a", "z""#)), "{faults:?}");
    }

    #[test]
    fn a_wrong_type_names_the_place_and_hides_the_value() {
        let faults = read(r#"{"list": ["x", {"secret": "hunter2"}]}"#, |place, faults| {
            let items = place.object(&["list"], faults)?.required("list", faults)?.list(faults)?;
            for item in &items {
                item.text(faults);
            }
            Some(())
        })
        .unwrap_err();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].pointer, "/list/1");
        assert_eq!(faults[0].message, "expected a string, found a table");
    }

    #[test]
    fn numbers_lengths_of_time_and_words_are_checked_where_they_stand() {
        let outcome = |config: &str| {
            read(config, |place, faults| {
                let object = place.object(&["n", "r", "d", "w"], faults)?;
                let second = Duration::from_secs(1);
                Some((
                    object.optional("n").and_then(|place| place.number(1..=10, faults)),
                    object.optional("r").and_then(|place| place.real(0.0..=1.0, faults)),
                    object.optional("d").and_then(|place| place.duration(second..=second * 3600, faults)),
                    object.optional("w").and_then(|place| place.word(&[("a", 1), ("b", 2)], faults)),
                ))
            })
        };
        for (text, length) in [("1s", 1), ("1000ms", 1), ("2m", 120), ("1h", 3600)] {
            let good = outcome(&format!(r#"{{"n": 10, "r": 0.5, "d": "{text}", "w": "b"}}"#));
            assert_eq!(good, Ok((Some(10), Some(0.5), Some(Duration::from_secs(length)), Some(2))));
        }
        for bad in [
            r#"{"n": 0}"#,
            r#"{"n": 1.5}"#,
            r#"{"n": "1"}"#,
            r#"{"n": -1}"#,
            r#"{"r": 2}"#,
            r#"{"r": "x"}"#,
            r#"{"d": 1}"#,
            r#"{"d": "1"}"#,
            r#"{"d": "s"}"#,
            r#"{"d": "2h"}"#,
            r#"{"d": "1 s"}"#,
            r#"{"d": "99999999999999999999s"}"#,
            r#"{"d": "18446744073709551615h"}"#,
            r#"{"w": "c"}"#,
        ] {
            assert_eq!(outcome(bad).map_err(|faults| faults.len()), Err(1), "{bad}");
        }
    }

    #[test]
    fn what_is_not_a_json_object_is_one_fault_of_the_whole() {
        let reader = |place: Place<'_>, faults: &mut Faults| place.object(&[], faults).map(|_| ());
        assert_eq!(pointers("{", reader), [""]);
        assert_eq!(pointers("[]", reader), [""]);
        assert_eq!(pointers("{}", reader), Vec::<String>::new());
    }
}
