//! What is replaced, and in which answers.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use regex_lite::Regex;
use settings::{Fault, Faults, Place, path};

#[derive(Clone, Debug)]
pub struct Plan {
    rules: Vec<Rule>,
    /// Media types, in lower case; one that ends with `/` is all that begin so.
    types: Vec<String>,
    paths: Vec<String>,
    /// The longest body, bytes.
    pub most: u32,
    /// Whether an answer whose body cannot be looked at goes on as it is.
    pub passes: bool,
}

#[derive(Clone, Debug)]
enum Rule {
    Text { find: String, replace: String },
    Regex { find: Regex, replace: String },
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["rules", "types", "paths", "most", "beyond"], faults)?;
            let rules = object.required("rules", faults).and_then(|place| rules(&place, faults));
            let types = object
                .optional("types")
                .map_or_else(|| Some(TYPES.map(str::to_owned).to_vec()), |place| types(&place, faults));
            let paths = object
                .optional("paths")
                .map_or_else(|| Some(Vec::new()), |place| path::prefixes(&place, faults));
            let most = object.optional("most").map_or(Some(MOST), |place| place.number(SIZES, faults));
            let words = [("pass", true), ("refuse", false)];
            let passes = object.optional("beyond").map_or(Some(true), |place| place.word(&words, faults));
            Some(Self {
                rules: rules?,
                types: types?,
                paths: paths?,
                most: u32::try_from(most?).ok()?,
                passes: passes?,
            })
        })
    }

    /// Whether an answer to a request for this path is looked at.
    pub fn is_about(&self, path_with_query: &str) -> bool {
        self.paths.is_empty() || path::may_be_below(path_with_query, &self.paths)
    }

    /// What stands in place of a body; none if it stays as it is. Only text is looked at, in UTF-8.
    pub fn replaced(&self, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
        if !self.has_type(content_type) {
            return None;
        }
        let text = std::str::from_utf8(body).ok()?;
        let replaced = self.rules.iter().fold(Cow::Borrowed(text), |text, rule| match rule.applied(&text) {
            Some(replaced) => Cow::Owned(replaced),
            None => text,
        });
        match replaced {
            Cow::Owned(text) if text.as_bytes() != body => Some(text.into_bytes()),
            Cow::Owned(_) | Cow::Borrowed(_) => None,
        }
    }

    fn has_type(&self, content_type: &str) -> bool {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        !kind.is_empty()
            && self
                .types
                .iter()
                .any(|known| *known == kind || (known.ends_with('/') && kind.starts_with(known.as_str())))
    }
}

impl Rule {
    fn applied(&self, text: &str) -> Option<String> {
        match self {
            Self::Text { find, replace } => {
                text.contains(find.as_str()).then(|| text.replace(find.as_str(), replace))
            }
            Self::Regex { find, replace } => match find.replace_all(text, replace.as_str()) {
                Cow::Borrowed(_) => None,
                Cow::Owned(text) => Some(text),
            },
        }
    }
}

fn rules(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<Rule>> {
    let places = place.list(faults)?;
    if places.is_empty() || places.len() > MOST_RULES {
        place.fault(faults, format!("expected 1 to {MOST_RULES} rules"));
        return None;
    }
    let rules: Vec<_> = places.iter().map(|place| rule(place, faults)).collect();
    rules.into_iter().collect()
}

fn rule(place: &Place<'_>, faults: &mut Faults) -> Option<Rule> {
    let object = place.object(&["find", "regex", "replace"], faults)?;
    let replace = object.required("replace", faults).and_then(|place| place.text(faults));
    match (object.optional("find"), object.optional("regex")) {
        (Some(find), None) => {
            let text = find.text(faults)?;
            if text.is_empty() {
                find.fault(faults, "this is empty, and would be found everywhere");
                return None;
            }
            Some(Rule::Text { find: text.to_owned(), replace: replace?.to_owned() })
        }
        (None, Some(regex)) => match Regex::new(regex.text(faults)?) {
            Ok(find) if find.is_match("") => {
                regex.fault(faults, "this fits nothing at all, and would be found everywhere");
                None
            }
            Ok(find) => Some(Rule::Regex { find, replace: replace?.to_owned() }),
            Err(error) => {
                regex.fault(faults, format!("no regular expression: {error}"));
                None
            }
        },
        (Some(_), Some(_)) | (None, None) => {
            place.fault(faults, "expected one of \"find\" and \"regex\"");
            None
        }
    }
}

fn types(place: &Place<'_>, faults: &mut Faults) -> Option<Vec<String>> {
    let mut types = Vec::new();
    let places = place.list(faults)?;
    for place in &places {
        match place.text(faults) {
            Some(text)
                if text.split_once('/').is_some_and(|(kind, _)| !kind.is_empty())
                    && !text.contains([';', ' ', '*']) =>
            {
                types.push(text.to_ascii_lowercase());
            }
            Some(_) => place
                .fault(faults, "expected a media type such as \"text/html\", or \"text/\" for all of them"),
            None => {}
        }
    }
    (types.len() == places.len()).then_some(types)
}

const TYPES: [&str; 5] =
    ["text/", "application/json", "application/javascript", "application/xhtml+xml", "application/xml"];
const MOST_RULES: usize = 64;
const MOST: u64 = 1024 * 1024;
/// What the host shows of a body.
const SIZES: RangeInclusive<u64> = 1..=16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(rules: &str) -> Plan {
        Plan::read(&format!(r#"{{"rules": {rules}}}"#)).unwrap()
    }

    #[test]
    fn rules_apply_one_after_the_other() {
        let plan = plan(
            r#"[{"find": "http://intranet/", "replace": "https://app/"}, {"regex": "v(\\d+)", "replace": "version $1"}, {"find": "app", "replace": "site"}]"#,
        );
        let replaced = |body: &str| plan.replaced("text/html; charset=utf-8", body.as_bytes());
        assert_eq!(
            replaced("<a href=\"http://intranet/\">v12</a>").unwrap(),
            b"<a href=\"https://site/\">version 12</a>"
        );
        assert_eq!(replaced("nothing of it"), None);
        assert_eq!(replaced(""), None);
        assert_eq!(plan.replaced("text/plain", b"\xffv1"), None, "no text");
    }

    #[test]
    fn only_text_is_looked_at_or_what_the_document_names() {
        let plan = plan(r#"[{"find": "a", "replace": "b"}]"#);
        for (kind, looked_at) in [
            ("text/css", true),
            ("Text/HTML;charset=utf-8", true),
            ("application/json", true),
            ("application/jsonl", false),
            ("image/svg+xml", false),
            ("", false),
        ] {
            assert_eq!(plan.replaced(kind, b"a").is_some(), looked_at, "{kind}");
        }
        let named = r#"{"rules": [{"find": "a", "replace": "b"}], "types": ["image/svg+xml"]}"#;
        let named = Plan::read(named).unwrap();
        assert!(
            named.replaced("image/svg+xml", b"a").is_some() && named.replaced("text/css", b"a").is_none()
        );
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found: Vec<_> = Plan::read(
            r#"{"rules": [{"find": ""}, {"regex": "(", "replace": ""}, {"regex": "a*", "replace": ""}, {"find": "a", "regex": "b", "replace": "c"}, 7], "types": ["html", "*/*"], "paths": ["x"], "most": 0, "beyond": "x", "more": 1}"#,
        )
        .unwrap_err()
        .into_iter()
        .map(|fault| fault.pointer)
        .collect();
        assert_eq!(
            found,
            [
                "/more",
                "/rules/0",
                "/rules/0/find",
                "/rules/1/regex",
                "/rules/2/regex",
                "/rules/3",
                "/rules/4",
                "/types/0",
                "/types/1",
                "/paths/0",
                "/most",
                "/beyond"
            ]
        );
        assert_eq!(Plan::read("{}").unwrap_err()[0].pointer, "");
    }
}
