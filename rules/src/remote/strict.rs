//! JSON in which nothing stands twice and nothing that could carry protection is passed over: what a reader would
//! choose among, or not see, may be what closes a service. Knows the reference's names for protection.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Where, and what.
type Mistake = (String, String);

/// Everything of that kind in a configuration of the reference's form.
pub(super) fn mistakes(json: &[u8]) -> Vec<Mistake> {
    let mut reasons = Vec::new();
    let mut text = serde_json::Deserializer::from_slice(json);
    // What is no JSON is for whoever reads it to say.
    let _ = Node { path: String::new(), reasons: &mut reasons }.deserialize(&mut text);
    let Ok(Value::Object(top)) = serde_json::from_slice(json) else { return reasons };
    keys(&top, "", &["ingress", ORIGIN], &mut reasons);
    origin(&top, "", &mut reasons);
    let rules = top.get("ingress").and_then(Value::as_array);
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        if let Value::Object(rule) = rule {
            let at = format!("ingress[{index}].");
            keys(rule, &at, &[ORIGIN], &mut reasons);
            origin(rule, &at, &mut reasons);
        }
    }
    reasons
}

fn origin(holder: &Map<String, Value>, at: &str, reasons: &mut Vec<Mistake>) {
    let Some(Value::Object(origin)) = holder.get(ORIGIN) else { return };
    let at = format!("{at}{ORIGIN}.");
    keys(origin, &at, &[ACCESS], reasons);
    let Some(Value::Object(access)) = origin.get(ACCESS) else { return };
    for key in access.keys().filter(|key| !OF_ACCESS.contains(&key.as_str())) {
        let at = format!("{at}{ACCESS}.{}", key.escape_debug());
        reasons.push((at, "not known, and it may be what protects this".to_owned()));
    }
}

/// Keys that are near to one of `known`: some readers would take them for it. One of them stands for protection
/// in a place where it has no meaning.
fn keys(object: &Map<String, Value>, at: &str, known: &[&str], reasons: &mut Vec<Mistake>) {
    for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
        let shown = key.escape_debug();
        match known.iter().find(|known| plain(known) == plain(key)) {
            Some(meant) => {
                reasons.push((format!("{at}{shown}"), format!("not known; did you mean `{meant}`?")))
            }
            None if plain(key) == ACCESS => {
                reasons.push((format!("{at}{shown}"), format!("`{ACCESS}` stands in `{ORIGIN}`")));
            }
            None => {}
        }
    }
}

fn plain(word: &str) -> String {
    word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// Walks through everything and remembers what stands twice.
struct Node<'r> {
    path: String,
    reasons: &'r mut Vec<Mistake>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut known = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let dot = if self.path.is_empty() { "" } else { "." };
            let path = format!("{}{dot}{}", self.path, key.escape_debug());
            if !known.insert(key) && self.reasons.len() < MOST {
                self.reasons.push((path.clone(), "stands here twice".to_owned()));
            }
            map.next_value_seed(Node { path, reasons: &mut *self.reasons })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while list
            .next_element_seed(Node { path: format!("{}[{index}]", self.path), reasons: &mut *self.reasons })?
            .is_some()
        {
            index += 1;
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

const ORIGIN: &str = "originRequest";
const ACCESS: &str = "access";
const OF_ACCESS: [&str; 4] = ["required", "teamName", "audTag", "environment"];
/// Said of one document.
const MOST: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_twice_or_may_protect_is_said_with_its_place() {
        for (json, wanted) in [
            (r#"{"ingress":[],"ingress":[]}"#, "ingress: stands here twice"),
            (
                r#"{"ingress":[{"originRequest":{"access":{"required":true},"access":{"required":false}}}]}"#,
                "ingress[0].originRequest.access: stands here twice",
            ),
            (
                r#"{"originRequest":{"access":{"required":false,"policy":1}}}"#,
                "originRequest.access.policy: not known",
            ),
            (
                r#"{"originRequest":{"Access":{"required":true}}}"#,
                "originRequest.Access: not known; did you mean `access`",
            ),
            (
                r#"{"ingress":[{"originrequest":{}}]}"#,
                "ingress[0].originrequest: not known; did you mean `originRequest`",
            ),
            (
                r#"{"ingress":[{"access":{"required":true}}]}"#,
                "ingress[0].access: `access` stands in `originRequest`",
            ),
            (r#"{"Ingress":[]}"#, "Ingress: not known; did you mean `ingress`"),
        ] {
            let found = mistakes(json.as_bytes());
            let reasons: Vec<String> = found.iter().map(|(at, what)| format!("{at}: {what}")).collect();
            assert!(reasons.len() == 1 && reasons[0].starts_with(wanted), "{json}: {reasons:?}");
        }
        for json in [
            r#"{"ingress":[{"service":"a","id":1},{"service":"b","id":1}],"warp-routing":{"enabled":true}}"#,
            r#"{"originRequest":{"access":{"required":false,"teamName":"t","audTag":["a"]},"new":[1.5,null,true,-1]}}"#,
            "[",
            "7",
        ] {
            assert_eq!(mistakes(json.as_bytes()), [], "{json}");
        }
    }
}
