//! Reads the fields of an object and takes note of everything that is wrong with them, each with its place. Knows
//! kinds of values; does not know which object it is.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

/// What was sent, and of it what is kept.
pub(super) struct Fields<'f> {
    said: &'f Map<String, Value>,
    /// In front of the name of each field: empty, or such as `origins[2].`.
    at: String,
    faults: &'f mut Vec<String>,
    kept: Map<String, Value>,
}

impl<'f> Fields<'f> {
    pub(super) fn of(said: &'f Map<String, Value>, faults: &'f mut Vec<String>) -> Self {
        Self { said, at: String::new(), faults, kept: Map::new() }
    }

    /// What is kept: the fields that were read, word for word.
    pub(super) fn kept(self) -> Map<String, Value> {
        self.kept
    }

    pub(super) fn keep(&mut self, name: &str, value: impl Into<Value>) {
        self.kept.insert(name.to_owned(), value.into());
    }

    /// What was kept is not.
    pub(super) fn leave(&mut self, name: &str) {
        self.kept.remove(name);
    }

    /// Everything that was sent.
    pub(super) fn all(&self) -> impl Iterator<Item = (&'f String, &'f Value)> + use<'f> {
        self.said.iter()
    }

    /// What stands under a name; `null` is as good as nothing.
    pub(super) fn value(&self, name: &str) -> Option<&'f Value> {
        self.said.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn wrong(&mut self, name: &str, what: &str) {
        if self.faults.len() < MOST_FAULTS {
            self.faults.push(format!("`{}{name}` {what}: validation failed", self.at));
        }
    }

    pub(super) fn wanted(&mut self, name: &str) {
        if self.value(name).is_none() {
            self.wrong(name, "is missing");
        }
    }

    pub(super) fn text(&mut self, name: &str, longest: usize) -> Option<&'f str> {
        let Some(text) = self.value(name)?.as_str() else {
            self.wrong(name, "is a text");
            return None;
        };
        if text.chars().count() > longest {
            self.wrong(name, &format!("has at most {longest} characters"));
            return None;
        }
        self.keep(name, text);
        Some(text)
    }

    /// The same, with what it is where nothing is said.
    pub(super) fn text_or(&mut self, name: &str, longest: usize, usual: &'static str) -> Option<&'f str> {
        if self.value(name).is_none() {
            self.keep(name, usual);
            return Some(usual);
        }
        self.text(name, longest)
    }

    pub(super) fn one_of(&mut self, name: &str, known: &[&str]) -> Option<&'f str> {
        let value = self.value(name)?;
        match value.as_str().filter(|text| known.contains(text)) {
            Some(text) => {
                self.keep(name, text);
                Some(text)
            }
            None => {
                let known: Vec<_> = known.iter().map(|word| format!("`{word}`")).collect();
                self.wrong(name, &format!("is one of {}", known.join(", ")));
                None
            }
        }
    }

    pub(super) fn one_of_or(&mut self, name: &str, known: &[&str], usual: &'static str) -> Option<&'f str> {
        if self.value(name).is_none() {
            self.keep(name, usual);
            return Some(usual);
        }
        self.one_of(name, known)
    }

    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        let Some(flag) = self.value(name)?.as_bool() else {
            self.wrong(name, "is true or false");
            return None;
        };
        self.keep(name, flag);
        Some(flag)
    }

    pub(super) fn flag_or(&mut self, name: &str, usual: bool) -> Option<bool> {
        if self.value(name).is_none() {
            self.keep(name, usual);
            return Some(usual);
        }
        self.flag(name)
    }

    /// A whole number; `5.0` is one too.
    pub(super) fn number(&mut self, name: &str, fits: RangeInclusive<u32>) -> Option<u32> {
        let value = self.value(name)?;
        let whole = value.as_f64().filter(|number| number.fract() == 0.0);
        let whole =
            whole.filter(|number| (f64::from(*fits.start())..=f64::from(*fits.end())).contains(number));
        match whole {
            Some(whole) => {
                self.keep(name, value.clone());
                #[allow(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "whole, and within the bounds above"
                )]
                Some(whole as u32)
            }
            None => {
                self.wrong(name, &format!("is a whole number from {} to {}", fits.start(), fits.end()));
                None
            }
        }
    }

    pub(super) fn number_or(&mut self, name: &str, fits: RangeInclusive<u32>, usual: u32) -> Option<u32> {
        if self.value(name).is_none() {
            self.keep(name, usual);
            return Some(usual);
        }
        self.number(name, fits)
    }

    /// A number that may have a fraction.
    pub(super) fn decimal(&mut self, name: &str, fits: RangeInclusive<f64>) -> Option<f64> {
        let value = self.value(name)?;
        match value.as_f64().filter(|number| fits.contains(number)) {
            Some(number) => {
                self.keep(name, value.clone());
                Some(number)
            }
            None => {
                self.wrong(name, &format!("is a number from {} to {}", fits.start(), fits.end()));
                None
            }
        }
    }

    /// From 0 to 1 in steps of a hundredth.
    pub(super) fn weight(&mut self, name: &str) {
        if let Some(weight) = self.decimal(name, 0.0..=1.0)
            && !is_hundredth(weight)
        {
            self.wrong(name, "is a number from 0 to 1 in steps of 0.01");
        }
    }

    /// A list of texts; those that are kept.
    pub(super) fn texts(&mut self, name: &str, most: usize, longest: usize) -> Vec<&'f str> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let texts: Option<Vec<&str>> =
            value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        let Some(texts) = texts else {
            self.wrong(name, "is a list of texts");
            return Vec::new();
        };
        if texts.len() > most || texts.iter().any(|text| text.chars().count() > longest) {
            let what = format!("is a list of at most {most} texts with at most {longest} characters each");
            self.wrong(name, &what);
            return Vec::new();
        }
        self.keep(name, value.clone());
        texts
    }

    /// An object within, whose fields are read by `read`.
    pub(super) fn object(&mut self, name: &str, read: impl FnOnce(&mut Fields<'_>)) {
        let Some(value) = self.value(name) else { return };
        let Some(said) = value.as_object() else { return self.wrong(name, "is an object") };
        let at = format!("{}{name}.", self.at);
        let mut inner = Fields { said, at, faults: self.faults, kept: Map::new() };
        read(&mut inner);
        let kept = inner.kept;
        self.keep(name, kept);
    }

    /// A list of objects; says how many there are.
    pub(super) fn objects(
        &mut self,
        name: &str,
        most: usize,
        mut read: impl FnMut(&mut Fields<'_>),
    ) -> Option<usize> {
        let value = self.value(name)?;
        let Some(list) = value.as_array() else {
            self.wrong(name, "is a list of objects");
            return None;
        };
        if list.len() > most {
            self.wrong(name, &format!("has at most {most} entries"));
            return None;
        }
        let mut kept = Vec::with_capacity(list.len());
        for (place, one) in list.iter().enumerate() {
            let Some(said) = one.as_object() else {
                self.wrong(&format!("{name}[{place}]"), "is an object");
                continue;
            };
            let at = format!("{}{name}[{place}].", self.at);
            let mut inner = Fields { said, at, faults: self.faults, kept: Map::new() };
            read(&mut inner);
            kept.push(Value::Object(inner.kept));
        }
        self.keep(name, kept);
        Some(list.len())
    }

    /// The names and values of a map.
    pub(super) fn map(&mut self, name: &str, most: usize) -> Vec<(&'f String, &'f Value)> {
        let Some(value) = self.value(name) else { return Vec::new() };
        let Some(map) = value.as_object().filter(|map| map.len() <= most) else {
            self.wrong(name, &format!("is a map with at most {most} entries"));
            return Vec::new();
        };
        self.keep(name, value.clone());
        map.iter().collect()
    }
}

/// Whether a number is so many hundredths, as near as numbers in JSON are.
fn is_hundredth(number: f64) -> bool {
    let hundredths = number * 100.0;
    (hundredths - hundredths.round()).abs() < 1e-6
}

/// In one answer.
const MOST_FAULTS: usize = 100;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_that_is_wrong_is_said_with_its_place_and_what_is_right_is_kept_word_for_word() {
        let said = json!({
            "name": "a", "count": 5.0, "share": 0.07, "odd": 0.005, "flag": "yes", "gone": null,
            "list": [{ "word": "x" }, 7, { "word": "b", "count": -1 }], "other": true,
        });
        let mut faults = Vec::new();
        let mut fields = Fields::of(said.as_object().unwrap(), &mut faults);
        assert_eq!(fields.text("name", 9), Some("a"));
        assert_eq!((fields.number("count", 0..=9), fields.number_or("most", 0..=9, 3)), (Some(5), Some(3)));
        fields.weight("share");
        fields.weight("odd");
        assert_eq!((fields.flag("flag"), fields.flag_or("gone", true)), (None, Some(true)));
        fields.objects("list", 3, |one| {
            one.one_of("word", &["a", "b"]);
            one.number("count", 0..=9);
        });
        fields.wanted("missing");
        let kept = Value::Object(fields.kept());
        let wanted = json!({
            "name": "a", "count": 5.0, "most": 3, "share": 0.07, "odd": 0.005, "gone": true,
            "list": [{}, { "word": "b" }],
        });
        assert_eq!(kept, wanted);
        let places: Vec<_> = faults.iter().map(|fault| fault.split('`').nth(1).unwrap()).collect();
        assert_eq!(places, ["odd", "flag", "list[0].word", "list[1]", "list[2].count", "missing"]);
        assert!(faults.iter().all(|fault| fault.ends_with("validation failed")), "{faults:?}");
    }
}
