//! What became of a request, a response or a piece of work, and where that is not what a test expects. Knows
//! no plugin.

use std::fmt::Write as _;

use adit_engine::FailureKind;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};

use super::cases::{Decision, Expected};

/// What became of a request or a response.
#[derive(Debug)]
pub(super) struct Outcome {
    decision: Decision,
    method: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    status: Option<u16>,
    headers: HeaderMap,
    body: Option<String>,
    codes: Vec<String>,
    /// In words, where something went wrong.
    said: Option<String>,
}

impl Outcome {
    pub(super) fn of(decision: Decision, said: Option<String>) -> Self {
        Self {
            decision,
            method: None,
            authority: None,
            path: None,
            status: None,
            headers: HeaderMap::new(),
            body: None,
            codes: Vec::new(),
            said,
        }
    }

    pub(super) fn refused(codes: Vec<String>, said: String) -> Self {
        Self { codes, ..Self::of(Decision::Refuse, Some(said)) }
    }

    pub(super) fn failed(kind: FailureKind) -> Self {
        let said = Some(kind.to_string());
        match kind {
            FailureKind::Fault { code, .. } => Self { codes: vec![code], ..Self::of(Decision::Fault, said) },
            FailureKind::Trap { .. }
            | FailureKind::Timeout
            | FailureKind::Busy
            | FailureKind::Resting
            | FailureKind::Away(_)
            | FailureKind::Invalid { .. } => Self::of(Decision::Break, said),
        }
    }

    pub(super) fn replied(status: u16, headers: HeaderMap, body: &[u8]) -> Self {
        let body = Some(String::from_utf8_lossy(body).into_owned());
        Self { status: Some(status), headers, body, ..Self::of(Decision::Respond, None) }
    }

    pub(super) fn asked(before: &Request<Bytes>, head: request::Parts, body: &Bytes) -> Self {
        let same = *before.method() == head.method
            && *before.uri() == head.uri
            && *before.headers() == head.headers
            && before.body() == body;
        let authority = head.uri.authority().map(ToString::to_string);
        Self {
            method: Some(head.method.to_string()),
            authority,
            path: head.uri.path_and_query().map(ToString::to_string),
            headers: head.headers,
            body: Some(String::from_utf8_lossy(body).into_owned()),
            ..Self::of(if same { Decision::Next } else { Decision::Edit }, None)
        }
    }

    pub(super) fn answered(before: &Response<Bytes>, after: Response<Bytes>) -> Self {
        let same = before.status() == after.status()
            && before.headers() == after.headers()
            && before.body() == after.body();
        let (head, body) = after.into_parts();
        let replied = Self::replied(head.status.as_u16(), head.headers, &body);
        Self { decision: if same { Decision::Next } else { Decision::Edit }, ..replied }
    }
}

/// What of `found` is not as expected, line by line; empty if all is well.
pub(super) fn compare(phase: &str, expected: &Expected, found: &Outcome) -> String {
    let mut text = String::new();
    if expected.decision != found.decision {
        let said = found.said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default();
        let found = format!("{}{said}", word(found.decision));
        differ(&mut text, &format!("{phase} decision"), word(expected.decision), &found);
        return text;
    }
    let mut field = |name: &str, expected: Option<&str>, found: Option<&str>| {
        if expected.is_some() {
            differ_maybe(&mut text, &format!("{phase} {name}"), expected, found);
        }
    };
    field("method", expected.method.as_deref(), found.method.as_deref());
    field("authority", expected.authority.as_deref(), found.authority.as_deref());
    field("path", expected.path.as_deref(), found.path.as_deref());
    let number = |status: Option<u16>| status.map(|status| status.to_string());
    field("status", number(expected.status).as_deref(), number(found.status).as_deref());
    for (name, values) in &expected.headers.0 {
        let values = values.all().join("\n");
        let there = all(&found.headers, name);
        field(&format!("header {name}"), Some(&values), there.as_deref());
    }
    field("body", expected.body.as_deref(), found.body.as_deref());
    field("fault", expected.code.as_deref(), found.codes.first().map(String::as_str));
    if let Some(faults) = &expected.faults {
        let sorted = |codes: &[String]| {
            let mut codes = codes.to_vec();
            codes.sort();
            codes.join("\n")
        };
        field("faults", Some(&sorted(faults)), Some(&sorted(&found.codes)));
    }
    for name in &expected.absent {
        if let Some(there) = all(&found.headers, name) {
            differ_maybe(&mut text, &format!("{phase} header {name}"), None, Some(&there));
        }
    }
    text
}

/// All values of a header, a line each.
fn all(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| values.join("\n"))
}

fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Next => "next",
        Decision::Edit => "edit",
        Decision::Respond => "respond",
        Decision::Fault => "fault",
        Decision::Break => "break",
        Decision::Refuse => "refuse",
    }
}

pub(super) fn differ_maybe(text: &mut String, place: &str, expected: Option<&str>, found: Option<&str>) {
    match (expected, found) {
        (None, None) => {}
        (Some(expected), Some(found)) => differ(text, place, expected, found),
        (Some(expected), None) => {
            let _ = writeln!(text, "  {place}: there is none, expected {expected:?}");
        }
        (None, Some(found)) => {
            let _ = writeln!(text, "  {place}: expected none, there is {found:?}");
        }
    }
}

pub(super) fn differ(text: &mut String, place: &str, expected: &str, found: &str) {
    if expected == found {
        return;
    }
    if !expected.trim_end().contains('\n') && !found.trim_end().contains('\n') {
        let _ = writeln!(text, "  {place}:\n    - {expected:?}\n    + {found:?}");
        return;
    }
    let _ = writeln!(text, "  {place}:");
    for change in similar::TextDiff::from_lines(expected, found).iter_all_changes() {
        let _ = writeln!(text, "    {} {}", change.tag(), change.value().trim_end_matches('\n'));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn expected(text: &str) -> Expected {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_as_expected_says_nothing_and_what_is_not_is_shown_from_both_sides() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let found = Outcome::replied(200, headers, b"one\ntwo\n");
        let good = "decision = \"respond\"\nstatus = 200\nheaders = { x-a = [\"1\", \"2\"] }\nabsent = [\"x-b\"]\n\
                    body = \"one\\ntwo\\n\"";
        assert_eq!(compare("request", &expected(good), &found), "");
        let bad = "decision = \"respond\"\nstatus = 201\nheaders = { x-b = \"1\" }\nabsent = [\"x-a\"]\n\
                   body = \"one\\nthree\\n\"";
        assert_eq!(
            compare("request", &expected(bad), &found),
            "  request status:\n    - \"201\"\n    + \"200\"\n  request header x-b: there is none, expected \
             \"1\"\n  request body:\n      one\n    - three\n    + two\n  request header x-a: expected none, there is \
             \"1\\n2\"\n"
        );
    }

    #[test]
    fn a_plugin_that_broke_says_why() {
        let found = Outcome::failed(FailureKind::Trap { reason: "unreachable".to_owned() });
        let text = compare("request", &expected("decision = \"next\""), &found);
        assert!(text.contains("- \"next\"") && text.contains("unreachable"), "{text}");
    }
}
