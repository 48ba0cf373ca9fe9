//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use std::cell::RefCell;

use bindings::adit::plugin::types::{Fault, HeaderOp, Reply, RequestEdits, RequestHead};
use bindings::adit::plugin::{clock, http_client, key_value, log};
use bindings::exports::adit::plugin::probe::Guest as Probe;
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::ticker::Guest as Ticker;

use crate::guard::Pass;
use crate::keeper::{Decision, Keeper, Surroundings};
use crate::plan::{From, Plan};
use crate::token::{Found, find};

settings::component! {
    Jwt: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; export adit:plugin/probe@0.1.0; export adit:plugin/ticker@0.1.0; }",
    // Before the configuration is there, and it may name any header.
    headers: ["*"],
    state: RefCell<Keeper> = |config| Plan::read(config).map(|plan| RefCell::new(Keeper::new(plan))),
}

impl Probe for Jwt {
    /// So that the keys are there before the first request. That they cannot be had is no reason not to
    /// serve: nobody passes then, and the ticker goes on asking.
    fn probe() -> Result<(), Fault> {
        refresh()
    }
}

impl Ticker for Jwt {
    fn on_tick() {
        // It is configured before it ticks.
        let _ = refresh();
    }
}

impl RequestFilter for Jwt {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|keeper| {
            let mut keeper = keeper.borrow_mut();
            let found = find(&keeper.plan().from, &head.headers);
            let decision = match found {
                Found::One(token) => {
                    let bucket = keeper.plan().bucket.clone();
                    keeper.admit(&Host(&bucket), token)
                }
                Found::Nothing | Found::Several => Decision::Refused,
            };
            act(keeper.plan(), &head, &found, decision)
        })
    }
}

fn refresh() -> Result<(), Fault> {
    configured(|keeper| {
        let keeper = keeper.borrow();
        keeper.refresh(&Host(&keeper.plan().bucket));
    })
}

/// The host, with the name of the granted bucket.
struct Host<'a>(&'a str);

impl Surroundings for Host<'_> {
    fn now(&self) -> u64 {
        clock::now()
    }

    fn read(&self, key: &str) -> Option<Vec<u8>> {
        key_value::get(self.0, key).unwrap_or_else(|error| {
            self.complain(error);
            None
        })
    }

    fn write(&self, key: &str, value: &[u8], for_ms: u64) {
        if let Err(error) = key_value::set(self.0, key, value, Some(for_ms)) {
            self.complain(error);
        }
    }

    fn is_first(&self, key: &str, within_ms: u64) -> bool {
        match key_value::increment(self.0, key, 1, Some(within_ms)) {
            Ok(count) => count == 1,
            Err(error) => {
                self.complain(error);
                false
            }
        }
    }

    fn fetch(&self, url: &str) -> Result<Vec<u8>, String> {
        let request = http_client::Request {
            method: "GET".to_owned(),
            url: url.to_owned(),
            headers: vec![("accept".to_owned(), "application/json".to_owned())],
            body: Vec::new(),
            timeout_ms: Some(FETCH_MS),
            redirects: 0,
        };
        match http_client::send(&request) {
            Ok(answer) if answer.status == 200 && answer.body.len() <= LARGEST_SET => Ok(answer.body),
            Ok(answer) if answer.status == 200 => Err("the key set is over 128 KiB".to_owned()),
            Ok(answer) => Err(format!("status {}", answer.status)),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    fn warn(&self, message: &str) {
        log::write(log::Level::Warn, message);
    }
}

impl Host<'_> {
    fn complain(&self, error: key_value::Error) {
        self.warn(&format!("the bucket `{}`: {}", self.0, error.name()));
    }
}

fn act(plan: &Plan, head: &RequestHead, found: &Found<'_>, decision: Decision) -> RequestAction {
    match decision {
        Decision::Passes(pass) => go_on(plan, head, pass),
        Decision::NoKeys => RequestAction::Respond(reply(
            503,
            ("retry-after", "5"),
            "the keys that would prove who you are cannot be had\n",
        )),
        Decision::Refused => {
            let challenge = match found {
                Found::Nothing => "Bearer",
                Found::One(_) | Found::Several => "Bearer error=\"invalid_token\"",
            };
            RequestAction::Respond(reply(
                plan.status,
                ("www-authenticate", challenge),
                "this page asks for a token\n",
            ))
        }
    }
}

fn go_on(plan: &Plan, head: &RequestHead, pass: Pass) -> RequestAction {
    let mut headers = Vec::new();
    if !plan.forward {
        for place in &plan.from {
            match place {
                From::Bearer => headers.push(HeaderOp::Remove("authorization".to_owned())),
                From::Header(name) => headers.push(HeaderOp::Remove(name.clone())),
                From::Cookie(name) => headers.push(without_cookie(head, name)),
            }
        }
    }
    for ((name, _), value) in plan.headers.iter().zip(pass.values) {
        // Replaces or drops whatever the visitor may have sent.
        headers.push(match value {
            Some(value) => HeaderOp::Set((name.clone(), value)),
            None => HeaderOp::Remove(name.clone()),
        });
    }
    if headers.is_empty() {
        return RequestAction::Next;
    }
    RequestAction::Edit(RequestEdits {
        method: None,
        authority: None,
        path_with_query: None,
        headers,
        carry: Vec::new(),
    })
}

fn without_cookie(head: &RequestHead, name: &str) -> HeaderOp {
    let lines = head.headers.iter().filter(|(known, _)| known == "cookie");
    let pairs = lines.flat_map(|(_, line)| line.split(';').map(str::trim));
    let others: Vec<&str> = pairs
        .filter(|pair| !pair.is_empty() && pair.split_once('=').is_none_or(|(known, _)| known != name))
        .collect();
    if others.is_empty() {
        return HeaderOp::Remove("cookie".to_owned());
    }
    HeaderOp::Set(("cookie".to_owned(), others.join("; ")))
}

fn reply(status: u16, more: (&str, &str), body: &str) -> Reply {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Reply {
        status,
        headers: vec![
            header(more.0, more.1),
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
        ],
        body: body.into(),
    }
}

const FETCH_MS: u32 = 5_000;
/// Of a key set, bytes; what a bucket takes as one value is twice that.
const LARGEST_SET: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            id: "1".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: String::new(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn status(plan: &Plan, found: &Found<'_>, decision: Decision) -> u16 {
        match act(plan, &head(&[]), found, decision) {
            RequestAction::Respond(reply) => reply.status,
            RequestAction::Next | RequestAction::Edit(_) => panic!("it passed"),
        }
    }

    #[test]
    fn whatever_is_not_a_pass_is_refused() {
        let plan = Plan::read(r#"{"team": "acme", "audience": "tag"}"#).unwrap();
        assert_eq!(status(&plan, &Found::Nothing, Decision::Refused), 403);
        assert_eq!(status(&plan, &Found::One("x"), Decision::Refused), 403);
        assert_eq!(status(&plan, &Found::One("x"), Decision::NoKeys), 503);
        let plan = Plan::read(r#"{"issuer": "i", "jwks": "https://i/", "audience": "a"}"#).unwrap();
        assert_eq!(status(&plan, &Found::Several, Decision::Refused), 401);
    }

    #[test]
    fn a_cookie_can_be_kept_from_the_origin_without_the_others() {
        for (sent, goes_on) in [
            (&[("cookie", "a=1; token=x; b=2"), ("cookie", "token=y; c")][..], Some("a=1; b=2; c")),
            (&[("cookie", "token=x")], None),
        ] {
            match (without_cookie(&head(sent), "token"), goes_on) {
                (HeaderOp::Set((_, value)), Some(expected)) => assert_eq!(value, expected),
                (HeaderOp::Remove(_), None) => {}
                (op, _) => panic!("{op:?}"),
            }
        }
    }
}
