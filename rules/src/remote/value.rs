//! Single values of pushed JSON, each with its place, and what is wrong with them. Knows no key.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::value::Invalid;

/// What was found wrong, and what is only doubtful, each with its place.
#[derive(Default)]
pub(super) struct Reasons {
    reasons: Vec<String>,
    /// Past the limit, counted and not kept.
    more: usize,
    doubts: Vec<String>,
}

impl Reasons {
    /// What is doubtful.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn into_result(mut self) -> Result<Vec<String>, Vec<String>> {
        if self.more > 0 {
            self.reasons.push(format!("and {} more", self.more));
        }
        if self.reasons.is_empty() { Ok(self.doubts) } else { Err(self.reasons) }
    }

    pub(super) fn count(&self) -> usize {
        self.reasons.len() + self.more
    }

    /// Says what is wrong, and gives back nothing.
    pub(super) fn wrong<T: Default>(&mut self, at: &str, message: &str) -> T {
        if self.reasons.len() < MOST {
            self.reasons.push(format!("{at}: {message}"))
        } else {
            self.more += 1
        }
        T::default()
    }

    pub(super) fn doubt(&mut self, at: &str, message: &str) {
        if self.doubts.len() < MOST {
            self.doubts.push(format!("{at}: {message}"));
        }
    }

    pub(super) fn take<T>(&mut self, at: &str, outcome: Result<T, Invalid>) -> Option<T> {
        outcome
            .map_err(|wrong| {
                let help = wrong.help.map(|help| format!("; {help}")).unwrap_or_default();
                self.wrong::<()>(at, &format!("{}{help}", wrong.message));
            })
            .ok()
    }

    /// A text that is there and not empty. `None` if there is something else.
    pub(super) fn text<'v>(
        &mut self,
        at: &str,
        table: &'v Map<String, Value>,
        key: &str,
    ) -> Option<Option<&'v str>> {
        match table.get(key) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => Some(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => self.wrong(&place(at, key), &expected("a string", other)),
        }
    }

    /// A word of ours; `default` where there is none.
    pub(super) fn word<T: DeserializeOwned + Default>(
        &mut self,
        at: &str,
        table: &Map<String, Value>,
        key: &str,
        default: T,
    ) -> T {
        match table.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => match serde_json::from_value(value.clone()) {
                Ok(word) => word,
                Err(error) => self.wrong(&place(at, key), &error.to_string()),
            },
        }
    }

    pub(super) fn object<'v>(
        &mut self,
        at: &str,
        table: &'v Map<String, Value>,
        key: &str,
    ) -> Option<&'v Map<String, Value>> {
        match table.get(key) {
            None | Some(Value::Null) => None,
            Some(Value::Object(object)) => Some(object),
            Some(other) => self.wrong(&place(at, key), &expected("an object", other)),
        }
    }
}

/// The keys of one rule, with those of all rules behind them.
pub(super) struct Layers<'a> {
    pub(super) at: &'a str,
    pub(super) one: &'a Map<String, Value>,
    pub(super) all: &'a Map<String, Value>,
    pub(super) said: &'a mut Reasons,
}

impl<'a> Layers<'a> {
    pub(super) fn wrong(&mut self, key: &str, message: &str) {
        self.said.wrong(&place(self.at, key), message)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        let written = |table: &'a Map<String, Value>| table.get(key).filter(|value| !value.is_null());
        written(self.one).or_else(|| written(self.all))
    }

    pub(super) fn is_set(&mut self, key: &str) -> bool {
        match self.get(key) {
            None => false,
            Some(Value::Bool(is_set)) => *is_set,
            Some(other) => self.said.wrong(&place(self.at, key), &expected("true or false", other)),
        }
    }

    /// One that is empty for a rule leaves what is said for all.
    pub(super) fn text(&mut self, key: &str) -> Option<&'a str> {
        for table in [self.one, self.all] {
            if let Some(text) = self.said.text(self.at, table, key)? {
                return Some(text);
            }
        }
        None
    }

    pub(super) fn checked(
        &mut self,
        key: &str,
        check: fn(&str) -> Result<String, Invalid>,
    ) -> Option<String> {
        let text = self.text(key)?;
        self.said.take(&place(self.at, key), check(text))
    }

    /// To the reference no time is no limit.
    pub(super) fn time(&mut self, key: &str) -> Option<Duration> {
        self.seconds(key).map(|time| if time.is_zero() { LONGEST } else { time })
    }

    pub(super) fn seconds(&mut self, key: &str) -> Option<Duration> {
        let written = self.get(key)?;
        let at = place(self.at, key);
        let time = written.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let Some(time) = time else {
            return self.said.wrong(&at, &expected("a number of seconds that is not negative", written));
        };
        if time > LONGEST {
            let longest = LONGEST.as_secs();
            self.said.doubt(
                &at,
                &format!("{written} s is more than {longest} s, the longest, and counts as that"),
            );
        }
        Some(time.min(LONGEST))
    }

    /// A number of things to be kept. The reference keeps none where it is negative, and its tools write -1 for that.
    pub(super) fn count(&mut self, key: &str, most: usize) -> Option<usize> {
        let written = self.get(key)?;
        let at = place(self.at, key);
        let count = match (written.as_u64(), written.as_i64()) {
            (Some(count), _) => usize::try_from(count).unwrap_or(usize::MAX),
            (None, Some(_)) => 0,
            (None, None) => return self.said.wrong(&at, &expected("a whole number", written)),
        };
        if count > most {
            self.said.doubt(&at, &format!("{written} is more than {most}, the most, and counts as that"));
        }
        Some(count.min(most))
    }

    /// What is written and cannot be understood might protect something.
    pub(super) fn requires_access(&mut self) -> bool {
        let Some(access) = self.get("access") else { return false };
        let Value::Object(access) = access else {
            self.wrong("access", &expected("an object", access));
            return false;
        };
        match access.get("required") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(is_required)) => *is_required,
            Some(other) => {
                self.wrong("access.required", &expected("true or false", other));
                false
            }
        }
    }
}

/// Says what was found in place of what was expected, without the text of a string: it may be a secret.
pub(super) fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("expected {what}, found {found}")
}

fn place(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// Reasons that are said; the rest is counted.
const MOST: usize = 200;
const LONGEST: Duration = Duration::from_secs(3600);
