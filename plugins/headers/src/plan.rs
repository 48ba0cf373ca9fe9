//! What the configuration means: for each phase a list of edits in the order they apply.

use settings::{Fault, Faults, Place, header};

/// The edits of both phases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub request: Vec<Edit>,
    pub response: Vec<Edit>,
}

/// One change to a list of headers; names are in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    Remove(String),
    Set(String, String),
    Append(String, String),
}

impl Plan {
    /// Reads the configuration, a JSON object, and reports everything that is wrong with it.
    pub fn read(config: &str) -> Result<Self, Vec<Fault>> {
        settings::read(config, |place, faults| {
            let object = place.object(&["request", "response"], faults)?;
            let mut phase = |key| object.optional(key).map(|place| edits(&place, faults));
            Some(Self {
                request: phase("request").unwrap_or_default(),
                response: phase("response").unwrap_or_default(),
            })
        })
    }
}

fn edits(place: &Place<'_>, faults: &mut Faults) -> Vec<Edit> {
    let Some(object) = place.object(&["set", "append", "remove"], faults) else { return Vec::new() };
    let removed = object.optional("remove").map(|place| names(&place, faults)).unwrap_or_default();
    let mut edits: Vec<Edit> = removed.iter().cloned().map(Edit::Remove).collect();

    for (place, name, values) in object.optional("set").map(|place| lines(&place, faults)).unwrap_or_default()
    {
        if removed.contains(&name) {
            place.fault(faults, format!("\"{name}\" stands in \"remove\" too; \"set\" alone replaces it"));
        }
        // The first value replaces whatever was there, the others join it.
        let mut values = values.into_iter();
        edits.extend(values.next().map(|value| Edit::Set(name.clone(), value)));
        edits.extend(values.map(|value| Edit::Append(name.clone(), value)));
    }
    for (_, name, values) in object.optional("append").map(|place| lines(&place, faults)).unwrap_or_default()
    {
        edits.extend(values.into_iter().map(|value| Edit::Append(name.clone(), value)));
    }
    edits
}

/// Header names in a list, each once.
fn names(place: &Place<'_>, faults: &mut Faults) -> Vec<String> {
    let mut names = Vec::new();
    for place in place.list(faults).unwrap_or_default() {
        let Some(text) = place.text(faults) else { continue };
        note_name(text, &place, &mut names, faults);
    }
    names
}

/// Header names with their values; a name may stand there once, whatever its case.
fn lines<'a>(place: &Place<'a>, faults: &mut Faults) -> Vec<(Place<'a>, String, Vec<String>)> {
    let mut seen = Vec::new();
    let mut lines = Vec::new();
    for (key, place) in place.entries(faults).unwrap_or_default() {
        let values = values(&place, faults);
        if let Some(name) = note_name(key, &place, &mut seen, faults) {
            lines.push((place, name, values));
        }
    }
    lines
}

fn values(place: &Place<'_>, faults: &mut Faults) -> Vec<String> {
    let Some(places) = place.one_or_many(faults) else { return Vec::new() };
    if places.is_empty() {
        place.fault(faults, "no value; list the header under \"remove\" to drop it");
    }
    let mut values = Vec::new();
    for place in places {
        let Some(text) = place.text(faults) else { continue };
        match header::value(text) {
            Ok(()) => values.push(text.to_owned()),
            Err(unfit) => place.fault(faults, unfit.to_string()),
        }
    }
    values
}

fn note_name(text: &str, place: &Place<'_>, seen: &mut Vec<String>, faults: &mut Faults) -> Option<String> {
    match header::name(text) {
        Ok(name) if seen.contains(&name) => {
            place.fault(faults, format!("\"{name}\" stands here twice (case does not matter)"));
            None
        }
        Ok(name) => {
            seen.push(name.clone());
            Some(name)
        }
        Err(unfit) => {
            place.fault(faults, unfit.to_string());
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(config: &str) -> Vec<String> {
        Plan::read(config).unwrap_err().into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn removals_come_first_then_sets_then_appends() {
        let plan = Plan::read(
            r#"{"request": {
                "append": {"Via": ["one", "two"]},
                "set": {"X-Team": "blue", "x-list": ["a", "b"]},
                "remove": ["X-Debug"]
            }}"#,
        )
        .unwrap();
        let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let set = |(name, value)| Edit::Set(name, value);
        let append = |(name, value)| Edit::Append(name, value);
        assert_eq!(
            plan.request,
            [
                Edit::Remove("x-debug".to_owned()),
                set(text("x-team", "blue")),
                set(text("x-list", "a")),
                append(text("x-list", "b")),
                append(text("via", "one")),
                append(text("via", "two")),
            ]
        );
        assert_eq!(plan.response, []);
    }

    #[test]
    fn an_empty_configuration_changes_nothing() {
        assert_eq!(Plan::read("{}"), Ok(Plan::default()));
        assert_eq!(Plan::read(r#"{"request": {}, "response": {"set": {}}}"#), Ok(Plan::default()));
    }

    #[test]
    fn every_fault_is_reported_at_once() {
        let found = pointers(
            r#"{
                "requests": {},
                "request": {"sett": {}, "set": {"bad name": "x", "ok": "a\r\nb", "empty": []}},
                "response": {"remove": ["a b", 7, "fine", "FINE"], "append": {"x": ["ok", " padded"], "host": "h"}}
            }"#,
        );
        for wanted in [
            "/requests",
            "/request/sett",
            "/request/set/bad name",
            "/request/set/ok",
            "/request/set/empty",
            "/response/remove/0",
            "/response/remove/1",
            "/response/remove/3",
            "/response/append/x/1",
            "/response/append/host",
        ] {
            assert!(found.iter().any(|pointer| pointer == wanted), "{wanted} is not in {found:?}");
        }
        assert_eq!(found.len(), 10, "{found:?}");
    }

    #[test]
    fn a_name_cannot_be_both_set_and_removed() {
        assert_eq!(
            pointers(r#"{"response": {"set": {"X-A": "1"}, "remove": ["x-a"]}}"#),
            ["/response/set/X-A"]
        );
    }

    #[test]
    fn names_that_differ_only_in_case_are_the_same_name() {
        assert_eq!(pointers(r#"{"request": {"set": {"X-A": "1", "x-a": "2"}}}"#), ["/request/set/x-a"]);
    }
}
