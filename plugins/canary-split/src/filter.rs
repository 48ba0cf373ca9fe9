//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{
    Fault, HeaderOp, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::plan::{By, Plan, Ticket, Variant};

settings::component! {
    CanarySplit: "package adit:shelf; world it { include adit:plugin/filter@0.1.0; export adit:plugin/schema@0.1.0; }",
    // Before the configuration is there, and it may name any header.
    headers: ["*"],
    state: Plan = Plan::read,
}

impl RequestFilter for CanarySplit {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head))
    }
}

impl ResponseFilter for CanarySplit {
    fn on_response(head: ResponseHead) -> Result<ResponseAction, Fault> {
        configured(|plan| tell(plan, &head.carry))
    }
}

fn decide(plan: &Plan, head: &RequestHead) -> RequestAction {
    let (variant, given) = match plan.forced(&head.headers) {
        Some(variant) => (variant, None),
        None => {
            let Ticket { text, is_new } = plan.ticket(&head.client_ip, &head.headers, &head.id);
            (plan.draw(&text), is_new.then_some(text))
        }
    };
    let mut headers = Vec::new();
    if let Some(name) = &plan.header {
        // A visitor does not choose by what the origin is told.
        headers.push(match variant {
            Some(variant) => HeaderOp::Set((name.clone(), variant.name.clone())),
            None => HeaderOp::Remove(name.clone()),
        });
    }
    for (name, value) in variant.map_or(&[][..], |variant| &variant.headers) {
        headers.push(HeaderOp::Set((name.clone(), value.clone())));
    }
    let prefix = variant.and_then(|variant| variant.path_prefix.as_ref());
    RequestAction::Edit(RequestEdits {
        method: None,
        authority: variant.and_then(|variant| variant.authority.clone()),
        path_with_query: prefix.map(|prefix| format!("{prefix}{}", head.path_with_query)),
        headers,
        carry: carry(plan, variant, given),
    })
}

/// The name of the variant, if it is to be told, and behind a space the cookie that is given.
fn carry(plan: &Plan, variant: Option<&Variant>, given: Option<String>) -> Vec<u8> {
    let told = variant.filter(|_| plan.echo).map_or("", |variant| &variant.name);
    match given {
        None => told.into(),
        Some(given) => format!("{told} {given}").into(),
    }
}

fn tell(plan: &Plan, carry: &[u8]) -> ResponseAction {
    let text = String::from_utf8_lossy(carry);
    let (told, given) = text.split_once(' ').map_or((&*text, None), |(told, given)| (told, Some(given)));
    let mut headers = Vec::new();
    if let (Some(name), false) = (&plan.header, told.is_empty()) {
        headers.push(HeaderOp::Set((name.clone(), told.to_owned())));
    }
    if let (By::Cookie(name), Some(given)) = (&plan.by, given) {
        let cookie = format!("{name}={given}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax");
        headers.push(HeaderOp::Append(("set-cookie".to_owned(), cookie)));
    }
    if headers.is_empty() {
        return ResponseAction::Next;
    }
    ResponseAction::Edit(ResponseEdits { status: None, headers })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> RequestHead {
        RequestHead {
            id: "1".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/a?b".to_owned(),
            client_ip: "192.0.2.1".to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn edits(plan: &Plan, headers: &[(&str, &str)]) -> RequestEdits {
        match decide(plan, &head(headers)) {
            RequestAction::Edit(edits) => edits,
            RequestAction::Next | RequestAction::Respond(_) => panic!("it goes on, marked"),
        }
    }

    const ALL: &str = r#""variants": [{"name": "v2", "weight": 100, "headers": {"x-backend": "two"}, "authority": "v2.internal", "path-prefix": "/v2"}]"#;

    #[test]
    fn a_variant_changes_headers_host_and_path() {
        let plan = Plan::read(&format!("{{{ALL}}}")).unwrap();
        let edits = edits(&plan, &[]);
        assert_eq!(edits.authority.as_deref(), Some("v2.internal"));
        assert_eq!(edits.path_with_query.as_deref(), Some("/v2/a?b"));
        let [HeaderOp::Set((_, name)), HeaderOp::Set((_, backend))] = &edits.headers[..] else {
            panic!("{:?}", edits.headers)
        };
        assert_eq!((name.as_str(), backend.as_str()), ("v2", "two"));
        assert!(edits.carry.is_empty() && matches!(tell(&plan, &edits.carry), ResponseAction::Next));
    }

    #[test]
    fn whoever_is_left_over_goes_on_without_what_it_claimed() {
        let plan = Plan::read(r#"{"variants": [{"name": "v2", "weight": 0}]}"#).unwrap();
        let edits = edits(&plan, &[("x-variant", "v2")]);
        assert!(matches!(&edits.headers[..], [HeaderOp::Remove(name)] if name == "x-variant"));
        assert_eq!((edits.authority, edits.path_with_query), (None, None));
    }

    #[test]
    fn a_visitor_may_choose_where_that_is_allowed() {
        let plan = Plan::read(r#"{"force": "x-choose", "variants": [{"name": "v2", "weight": 0}]}"#).unwrap();
        let marked = |headers| matches!(&edits(&plan, headers).headers[..], [HeaderOp::Set(_)]);
        assert!(marked(&[("x-choose", "v2")]) && !marked(&[("x-choose", "v3")]) && !marked(&[]));
        // Who names none of them is not drawn either.
        let all = r#"{"force": "x-choose", "by": {"cookie": "split"}, "variants": [{"name": "v2", "weight": 100}]}"#;
        let edits = edits(&Plan::read(all).unwrap(), &[("x-choose", "v3")]);
        assert!(edits.carry.is_empty() && matches!(&edits.headers[..], [HeaderOp::Remove(_)]));
    }

    #[test]
    fn a_cookie_is_given_once_and_the_variant_told() {
        let plan = Plan::read(&format!(r#"{{"by": {{"cookie": "split"}}, "echo": true, {ALL}}}"#)).unwrap();
        let given = edits(&plan, &[]).carry;
        let ResponseAction::Edit(answer) = tell(&plan, &given) else { panic!("it is told") };
        let [HeaderOp::Set((_, told)), HeaderOp::Append((_, cookie))] = &answer.headers[..] else {
            panic!("{:?}", answer.headers)
        };
        assert_eq!(told, "v2");
        let pair = cookie.split(';').next().unwrap();
        let again = edits(&plan, &[("cookie", pair)]).carry;
        assert_eq!(again, b"v2");
    }
}
