//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use std::cell::RefCell;

use bindings::adit::plugin::types::{
    Fault, HeaderOp, Reply, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::adit::plugin::{clock, key_value, metrics};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::overflow::Overflow;
use crate::plan::{Asked, Plan};
use crate::window::{Counts, Verdict, count};

settings::component! {
    RateLimit: "package adit:shelf; world it { include adit:plugin/filter@0.1.0; export adit:plugin/schema@0.1.0; }",
    // Before the configuration is there, and it may name any header.
    headers: ["*"],
    state: Plan = Plan::read,
}

thread_local! {
    // An instance is one thread and its calls never overlap.
    static OVERFLOW: RefCell<Overflow> = RefCell::default();
}

impl RequestFilter for RateLimit {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| limit(plan, &head))?
    }
}

impl ResponseFilter for RateLimit {
    fn on_response(head: ResponseHead) -> Result<ResponseAction, Fault> {
        configured(|plan| tell(plan, &head.carry))
    }
}

fn limit(plan: &Plan, head: &RequestHead) -> Result<RequestAction, Fault> {
    let RequestHead { client_ip, authority, method, path_with_query, headers, .. } = head;
    let asked = Asked { client: client_ip, authority, method, path_with_query, headers };
    let Some(key) = plan.key(&asked) else { return Ok(RequestAction::Next) };
    let now = clock::now();
    let verdict = match count(plan, &key, now, &mut Bucket(&plan.bucket)) {
        Ok(verdict) => verdict,
        Err(key_value::Error::Full) => {
            metrics::add("bucket_full", 1);
            let counted = OVERFLOW.with_borrow_mut(|overflow| count(plan, &key, now, overflow));
            counted.map_err(|()| fault("count", "a key without a number"))?
        }
        Err(error) => return Err(fault("bucket", error.name())),
    };
    Ok(decide(plan, verdict))
}

fn fault(code: &str, message: &str) -> Fault {
    Fault { code: code.to_owned(), message: message.to_owned() }
}

/// The host's bucket of this name.
struct Bucket<'a>(&'a str);

impl Counts for Bucket<'_> {
    type Full = key_value::Error;

    fn add(&mut self, key: &str, by: i64, forget_after: u64) -> Result<u64, Self::Full> {
        let sum = key_value::increment(self.0, key, by, Some(forget_after))?;
        Ok(u64::try_from(sum).unwrap_or(0))
    }

    fn read(&mut self, key: &str) -> u64 {
        let value = key_value::get(self.0, key).ok().flatten();
        value.and_then(|digits| String::from_utf8(digits).ok()?.parse().ok()).unwrap_or(0)
    }
}

fn decide(plan: &Plan, verdict: Verdict) -> RequestAction {
    let mut headers = if plan.headers { headers(plan, verdict) } else { Vec::new() };
    if verdict.passes {
        if headers.is_empty() {
            return RequestAction::Next;
        }
        let Verdict { left, reset, .. } = verdict;
        return RequestAction::Edit(RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: Vec::new(),
            carry: [left.to_be_bytes(), reset.to_be_bytes()].concat(),
        });
    }
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    headers.push(header("retry-after", &seconds(verdict.reset).to_string()));
    headers.push(header("content-type", "text/plain; charset=utf-8"));
    headers.push(header("cache-control", "no-store"));
    RequestAction::Respond(Reply { status: 429, headers, body: b"too many requests\n".to_vec() })
}

fn tell(plan: &Plan, carry: &[u8]) -> ResponseAction {
    let Some((left, reset)) = carry.split_first_chunk::<8>() else { return ResponseAction::Next };
    let Ok(reset) = reset.try_into().map(u64::from_be_bytes) else { return ResponseAction::Next };
    let verdict = Verdict { passes: true, left: u64::from_be_bytes(*left), reset };
    let headers = headers(plan, verdict).into_iter().map(HeaderOp::Set).collect();
    ResponseAction::Edit(ResponseEdits { status: None, headers })
}

/// draft-ietf-httpapi-ratelimit-headers, sections 3 and 4.
fn headers(plan: &Plan, verdict: Verdict) -> Vec<(String, String)> {
    let Plan { name, limit, window, .. } = plan;
    let Verdict { left, reset, .. } = verdict;
    vec![
        ("ratelimit-policy".to_owned(), format!("\"{name}\";q={limit};w={}", window.as_secs())),
        ("ratelimit".to_owned(), format!("\"{name}\";r={left};t={}", seconds(reset))),
    ]
}

/// Rounded up: whoever waits so long is not early.
fn seconds(milliseconds: u64) -> u64 {
    milliseconds.div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(headers: &'a [(String, String)], name: &str) -> &'a str {
        headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn a_refusal_says_when_to_come_again() {
        let plan = Plan::read(r#"{"limit": 5, "window": "1m", "name": "api"}"#).unwrap();
        let refused = decide(&plan, Verdict { passes: false, left: 0, reset: 1_001 });
        let RequestAction::Respond(reply) = refused else { panic!("it passed") };
        assert_eq!((reply.status, header(&reply.headers, "retry-after")), (429, "2"));
        assert_eq!(header(&reply.headers, "ratelimit"), "\"api\";r=0;t=2");
        assert_eq!(header(&reply.headers, "ratelimit-policy"), "\"api\";q=5;w=60");
    }

    #[test]
    fn an_answer_says_what_was_left_when_its_request_came() {
        let plan = Plan::read(r#"{"limit": 5, "window": "1m"}"#).unwrap();
        let RequestAction::Edit(edits) = decide(&plan, Verdict { passes: true, left: 3, reset: 30_000 })
        else {
            panic!("it carries what is left")
        };
        let ResponseAction::Edit(edits) = tell(&plan, &edits.carry) else { panic!("it is told") };
        assert!(
            edits
                .headers
                .iter()
                .any(|op| matches!(op, HeaderOp::Set((_, value)) if value == "\"default\";r=3;t=30")),
            "{:?}",
            edits.headers
        );
        // Whoever is not limited is told nothing.
        assert!(matches!(tell(&plan, &[]), ResponseAction::Next));
        let quiet = Plan::read(r#"{"limit": 5, "window": "1m", "headers": false}"#).unwrap();
        assert!(matches!(decide(&quiet, Verdict { passes: true, left: 3, reset: 1 }), RequestAction::Next));
    }
}
