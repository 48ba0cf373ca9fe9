//! What is asked about a request, and what an answer means.

use crate::plan::Plan;

/// A request, as far as it is told.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub method: &'a str,
    pub scheme: &'a str,
    pub authority: &'a str,
    pub path_with_query: &'a str,
    pub client_ip: &'a str,
    pub headers: &'a [(String, String)],
}

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on; headers with a value take the place of what the visitor sent, those without one are removed.
    Passes(Vec<(String, Option<String>)>),
    /// The visitor gets this answer, with these of its headers.
    Refused(u16, Vec<(String, String)>),
    /// Who is asked cannot answer.
    Unanswered,
}

/// The headers of the question.
pub fn question(plan: &Plan, asked: &Asked<'_>) -> Vec<(String, String)> {
    let sent = asked.headers.iter().filter(|(name, _)| plan.send.contains(name));
    // What says where it is from is ours to say.
    let sent = sent.filter(|(name, _)| !ABOUT.contains(&name.as_str())).cloned();
    let about = [asked.method, asked.scheme, asked.authority, asked.path_with_query, asked.client_ip];
    let about = ABOUT.iter().zip(about).filter(|(_, value)| !value.is_empty());
    about.map(|(name, value)| ((*name).to_owned(), value.to_owned())).chain(sent).collect()
}

/// What its answer means.
pub fn verdict(plan: &Plan, status: u16, headers: &[(String, String)]) -> Verdict {
    match status {
        200..=299 => {
            let value = |name: &String| {
                let mut values =
                    headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.clone());
                values.next()
            };
            Verdict::Passes(plan.take.iter().map(|name| (name.clone(), value(name))).collect())
        }
        300..=499 => {
            let shown = headers.iter().filter(|(name, _)| SHOWN.contains(&name.as_str())).cloned();
            let mut shown: Vec<_> = shown.collect();
            if !shown.iter().any(|(name, _)| name == "cache-control") {
                shown.push(("cache-control".to_owned(), "no-store".to_owned()));
            }
            Verdict::Refused(status, shown)
        }
        _ => Verdict::Unanswered,
    }
}

/// What a question says of the request, as others say it too.
const ABOUT: [&str; 5] =
    ["x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri", "x-forwarded-for"];
/// Headers of a refusal that reach the visitor.
const SHOWN: [&str; 7] =
    ["cache-control", "content-type", "location", "retry-after", "set-cookie", "vary", "www-authenticate"];

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn plan() -> Plan {
        Plan::read(r#"{"url": "https://a.example/", "send": ["cookie", "x-forwarded-for"], "take": ["x-user", "x-groups"]}"#)
            .unwrap()
    }

    #[test]
    fn a_question_says_what_the_host_knows_and_not_what_the_visitor_claims() {
        let sent =
            headers(&[("cookie", "a=b"), ("authorization", "secret"), ("x-forwarded-for", "127.0.0.1")]);
        let asked = Asked {
            method: "POST",
            scheme: "https",
            authority: "app.example.com",
            path_with_query: "/a?b",
            client_ip: "192.0.2.1",
            headers: &sent,
        };
        let told = question(&plan(), &asked);
        assert_eq!(
            told,
            headers(&[
                ("x-forwarded-method", "POST"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "app.example.com"),
                ("x-forwarded-uri", "/a?b"),
                ("x-forwarded-for", "192.0.2.1"),
                ("cookie", "a=b"),
            ])
        );
    }

    #[test]
    fn who_passes_is_named_by_the_answer_alone() {
        let passes = verdict(&plan(), 204, &headers(&[("x-user", "ada"), ("x-other", "x")]));
        let expected = vec![("x-user".to_owned(), Some("ada".to_owned())), ("x-groups".to_owned(), None)];
        assert_eq!(passes, Verdict::Passes(expected));
    }

    #[test]
    fn a_refusal_is_shown_and_what_cannot_answer_refuses_too() {
        let refused = verdict(&plan(), 302, &headers(&[("location", "/login"), ("server", "x")]));
        let shown = headers(&[("location", "/login"), ("cache-control", "no-store")]);
        assert_eq!(refused, Verdict::Refused(302, shown));
        for status in [100, 101, 500, 503, 599] {
            assert_eq!(verdict(&plan(), status, &[]), Verdict::Unanswered, "{status}");
        }
    }
}
