//! The plugin as the host sees it: WIT on the outside, [`Guard`] inside.

use std::cell::RefCell;

use bindings::adit::plugin::types::{Fault, HeaderOp, Reply, RequestEdits, RequestHead};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::guard::Guard;
use crate::plan::Plan;

settings::component! {
    BasicAuth: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: [AUTHORIZATION],
    state: RefCell<Guard> = |config| Plan::read(config).map(|plan| RefCell::new(Guard::new(plan))),
}

impl RequestFilter for BasicAuth {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|guard| decide(&mut guard.borrow_mut(), &head))
    }
}

fn decide(guard: &mut Guard, head: &RequestHead) -> RequestAction {
    let authorizations =
        head.headers.iter().filter(|(name, _)| name == AUTHORIZATION).map(|(_, value)| value.as_str());
    let Some(user) = guard.admit(authorizations).map(str::to_owned) else {
        return RequestAction::Respond(refusal(&guard.plan().challenge));
    };

    let mut headers = Vec::new();
    if !guard.plan().forward {
        headers.push(HeaderOp::Remove(AUTHORIZATION.to_owned()));
    }
    if let Some(name) = &guard.plan().user_header {
        // Replaces every value that the visitor may have sent.
        headers.push(HeaderOp::Set((name.clone(), user)));
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

fn refusal(challenge: &str) -> Reply {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Reply {
        status: 401,
        headers: vec![
            header("www-authenticate", challenge),
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
        ],
        body: b"this page asks for a name and a password\n".to_vec(),
    }
}

const AUTHORIZATION: &str = "authorization";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::tests::phc;

    fn guard(more: &str) -> Guard {
        let hash = phc("open sesame", 1000);
        let config =
            format!(r#"{{"realm": "r", "users": [{{"name": "Aladdin", "password": "{hash}"}}]{more}}}"#);
        Guard::new(Plan::read(&config).unwrap())
    }

    fn head(authorizations: &[&str]) -> RequestHead {
        RequestHead {
            id: "1".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: String::new(),
            headers: authorizations
                .iter()
                .map(|value| (AUTHORIZATION.to_owned(), (*value).to_owned()))
                .collect(),
        }
    }

    /// The edits as text; `None` where the request goes on unchanged.
    fn edits(action: RequestAction) -> Option<Vec<String>> {
        match action {
            RequestAction::Next => None,
            RequestAction::Edit(edits) => Some(edits.headers.iter().map(|op| format!("{op:?}")).collect()),
            RequestAction::Respond(reply) => panic!("refused with {}", reply.status),
        }
    }

    const GOOD: &str = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";

    #[test]
    fn a_refusal_asks_for_credentials() {
        for authorizations in [&[][..], &["Basic bm86bm8="], &["Bearer x"], &[GOOD, GOOD]] {
            let RequestAction::Respond(reply) = decide(&mut guard(""), &head(authorizations)) else {
                panic!("{authorizations:?} passed");
            };
            assert_eq!(reply.status, 401);
            assert!(reply.headers.contains(&(
                "www-authenticate".to_owned(),
                r#"Basic realm="r", charset="UTF-8""#.to_owned()
            )));
        }
    }

    #[test]
    fn the_origin_sees_the_credentials_only_when_told_so() {
        let passed = edits(decide(&mut guard(""), &head(&[GOOD])));
        assert_eq!(passed, Some(vec![r#"HeaderOp::Remove("authorization")"#.to_owned()]));
        assert_eq!(edits(decide(&mut guard(r#", "forward": true"#), &head(&[GOOD]))), None);
    }

    #[test]
    fn the_origin_learns_the_name_and_never_the_visitors_own_claim() {
        let mut guard = guard(r#", "forward": true, "user-header": "X-User""#);
        let passed = edits(decide(&mut guard, &head(&[GOOD])));
        // "set" drops every value that came with the request.
        assert_eq!(passed, Some(vec![r#"HeaderOp::Set(("x-user", "Aladdin"))"#.to_owned()]));
    }
}
