//! The rules of a load balancer: conditions, and what they say otherwise for the requests that meet them. Knows
//! requests as conditions see them; does not know pools.

use adit_balance::condition::{Condition, View};
use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

/// Those that are switched on, in the order in which they are looked at.
pub(super) struct Rules(Vec<Rule>);

struct Rule {
    name: String,
    condition: Condition,
    overrides: Map<String, Value>,
    fixed: Option<FixedResponse>,
    /// Whether those behind it are not looked at.
    terminates: bool,
}

/// An answer in the place of an endpoint's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FixedResponse {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<HeaderValue>,
    pub(crate) location: Option<HeaderValue>,
    pub(crate) body: Bytes,
}

/// What the rules make of a request.
#[derive(Debug)]
pub(super) enum Found<'r> {
    Fixed(&'r FixedResponse),
    /// A bit for each rule that has something to say.
    Overrides(u64),
}

impl Rules {
    pub(super) fn of(said: &Map<String, Value>) -> Self {
        let rules = said.get("rules").and_then(Value::as_array).into_iter().flatten();
        let rules = rules.filter_map(Value::as_object).enumerate().filter_map(|(place, said)| {
            if said.get("disabled") == Some(&Value::Bool(true)) {
                return None;
            }
            // As many as have no number keep their order before the others.
            let priority = said.get("priority").and_then(Value::as_f64).unwrap_or(0.0);
            Some((priority, place, Rule::of(said)?))
        });
        let mut rules: Vec<_> = rules.take(MOST_RULES).collect();
        rules.sort_by(|(one, place, _), (other, others, _)| one.total_cmp(other).then(place.cmp(others)));
        Self(rules.into_iter().map(|(.., rule)| rule).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn look(&self, view: &View<'_>) -> Found<'_> {
        let mut found = 0;
        for (at, rule) in self.0.iter().enumerate() {
            if !rule.condition.matches(view) {
                continue;
            }
            if let Some(fixed) = &rule.fixed {
                return Found::Fixed(fixed);
            }
            if !rule.overrides.is_empty() {
                found |= 1 << at;
            }
            if rule.terminates {
                break;
            }
        }
        Found::Overrides(found)
    }

    /// Which of them have something to say.
    pub(super) fn names(&self, found: &Found<'_>) -> Vec<String> {
        let says = |(at, rule): (usize, &Rule)| match found {
            Found::Fixed(fixed) => rule.fixed.as_ref().is_some_and(|own| std::ptr::eq(own, *fixed)),
            Found::Overrides(found) => found & (1 << at) != 0,
        };
        let rules = self.0.iter().enumerate().filter(|(at, rule)| says((*at, rule)));
        rules.map(|(_, rule)| rule.name.clone()).collect()
    }

    /// What a load balancer says together with some of its rules; the last of them counts.
    pub(super) fn merged(&self, said: &Map<String, Value>, found: u64) -> Map<String, Value> {
        let mut said = said.clone();
        for (at, rule) in self.0.iter().enumerate() {
            if found & (1 << at) != 0 {
                said.extend(rule.overrides.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
        }
        said
    }
}

impl Rule {
    fn of(said: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| said.get(name).and_then(Value::as_str).unwrap_or_default();
        let overrides = said.get("overrides").and_then(Value::as_object).cloned().unwrap_or_default();
        Some(Self {
            name: text("name").to_owned(),
            condition: Condition::parse(text("condition")).ok()?,
            overrides,
            fixed: said.get("fixed_response").and_then(Value::as_object).map(FixedResponse::of),
            terminates: said.get("terminates") == Some(&Value::Bool(true)),
        })
    }
}

impl FixedResponse {
    fn of(said: &Map<String, Value>) -> Self {
        let text = |name: &str| said.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let value = |name: &str| text(name).and_then(|text| HeaderValue::from_str(text).ok());
        let status = said.get("status_code").and_then(Value::as_f64).unwrap_or(200.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "out of bounds is none")]
        let status = StatusCode::from_u16(status as u16).unwrap_or(StatusCode::OK);
        Self {
            status,
            content_type: value("content_type"),
            location: value("location"),
            body: Bytes::copy_from_slice(text("message_body").unwrap_or_default().as_bytes()),
        }
    }
}

/// The headers of a request as conditions see them.
pub(super) struct Fields<'h>(pub(super) &'h HeaderMap);

impl adit_balance::condition::Headers for Fields<'_> {
    fn each<'a>(&'a self, see: &mut dyn FnMut(&'a str, &'a [u8]) -> bool) {
        let _ = self.0.iter().any(|(name, value)| see(name.as_str(), value.as_bytes()));
    }
}

/// A bit for each.
const MOST_RULES: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules(said: Value) -> (Map<String, Value>, Rules) {
        let said = json!({ "default_pools": ["a"], "ttl": 30, "rules": said });
        let said = said.as_object().unwrap().clone();
        let rules = Rules::of(&said);
        (said, rules)
    }

    fn view<'v>(path: &'v str, headers: &'v Fields<'v>) -> View<'v> {
        View {
            host: "app.example.com",
            method: "GET",
            path,
            query: "",
            version: "HTTP/1.1",
            headers,
            client: [192, 0, 2, 7].into(),
            seconds: 1,
            balancer: "app.example.com",
            region: "WEU",
        }
    }

    #[test]
    fn rules_are_looked_at_by_priority_and_the_last_word_counts() {
        let (said, rules) = rules(json!([
            { "name": "last", "priority": 9, "overrides": { "default_pools": ["c"] } },
            { "name": "first", "condition": "http.request.uri.path eq \"/x\"",
              "overrides": { "default_pools": ["b"], "ttl": 60 } },
            { "name": "off", "disabled": true, "fixed_response": { "status_code": 500 } },
            { "name": "end", "priority": 20, "condition": "http.request.uri.path eq \"/end\"",
              "terminates": true, "overrides": { "ttl": 1 } },
            { "name": "fixed", "priority": 30, "condition": "starts_with(http.request.uri.path, \"/end\")",
              "fixed_response": { "status_code": 302, "location": "/else", "message_body": "x" } },
        ]));
        let headers = HeaderMap::new();
        let headers = Fields(&headers);
        let names = |path: &str| rules.names(&rules.look(&view(path, &headers)));
        assert_eq!(names("/x"), ["first", "last"]);
        assert_eq!(names("/ending"), ["fixed"]);
        let merged = |path: &str| match rules.look(&view(path, &headers)) {
            Found::Overrides(found) => {
                let merged = rules.merged(&said, found);
                Some((merged["default_pools"][0].clone(), merged["ttl"].clone()))
            }
            Found::Fixed(fixed) => {
                assert_eq!((fixed.status.as_u16(), &fixed.body[..]), (302, &b"x"[..]));
                assert_eq!(fixed.location.as_ref().unwrap(), "/else");
                None
            }
        };
        assert_eq!(merged("/"), Some((json!("c"), json!(30))));
        assert_eq!(merged("/x"), Some((json!("c"), json!(60))));
        assert_eq!(merged("/end"), Some((json!("c"), json!(1))), "it terminates");
        assert_eq!(merged("/ending"), None);
    }
}
