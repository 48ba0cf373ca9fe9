//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{
    Fault, HeaderOp, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::plan::{Form, Plan, uuid};

settings::component! {
    RequestId: "package adit:shelf; world it { include adit:plugin/filter@0.1.0; export adit:plugin/schema@0.1.0; }",
    // Before the configuration is there, and it may name any header.
    headers: ["*"],
    state: Plan = Plan::read,
}

impl RequestFilter for RequestId {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head, random))
    }
}

impl ResponseFilter for RequestId {
    fn on_response(head: ResponseHead) -> Result<ResponseAction, Fault> {
        configured(|plan| tell(plan, &head))
    }
}

fn decide(plan: &Plan, head: &RequestHead, random: fn() -> [u8; 16]) -> RequestAction {
    let brought =
        head.headers.iter().filter(|(name, _)| *name == plan.header).map(|(_, value)| value.as_str());
    let id = match (plan.accepted(brought), plan.form) {
        (Some(id), _) => id.to_owned(),
        (None, Form::Ray) => head.id.clone(),
        (None, Form::Uuid) => uuid(random()),
    };
    let carry = if plan.echo { id.clone().into_bytes() } else { Vec::new() };
    RequestAction::Edit(RequestEdits {
        method: None,
        authority: None,
        path_with_query: None,
        headers: vec![HeaderOp::Set((plan.header.clone(), id))],
        carry,
    })
}

fn tell(plan: &Plan, head: &ResponseHead) -> ResponseAction {
    match std::str::from_utf8(&head.carry) {
        Ok(id) if !id.is_empty() => ResponseAction::Edit(ResponseEdits {
            status: None,
            headers: vec![HeaderOp::Set((plan.header.clone(), id.to_owned()))],
        }),
        _ => ResponseAction::Next,
    }
}

#[cfg(target_arch = "wasm32")]
fn random() -> [u8; 16] {
    let (high, low) = (wasi::random::random::get_random_u64(), wasi::random::random::get_random_u64());
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

/// Only the component has a source of random numbers.
#[cfg(not(target_arch = "wasm32"))]
fn random() -> [u8; 16] {
    [0; 16]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(config: &str, brought: &[&str]) -> (String, Vec<u8>) {
        let head = RequestHead {
            id: "8f2a-ray".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: String::new(),
            headers: brought.iter().map(|id| ("x-request-id".to_owned(), (*id).to_owned())).collect(),
        };
        let RequestAction::Edit(edits) = decide(&Plan::read(config).unwrap(), &head, || [7; 16]) else {
            panic!("the request goes on with an id");
        };
        let [HeaderOp::Set((name, id))] = &edits.headers[..] else { panic!("{:?}", edits.headers) };
        assert_eq!(name, "x-request-id");
        (id.clone(), edits.carry)
    }

    #[test]
    fn the_origin_and_the_visitor_get_the_same_id() {
        let plan = Plan::read("{}").unwrap();
        let (id, carry) = passed("{}", &["mine"]);
        assert_eq!(id, "8f2a-ray");
        let head = ResponseHead { id: String::new(), status: 200, headers: Vec::new(), carry };
        let ResponseAction::Edit(edits) = tell(&plan, &head) else { panic!("it is told") };
        assert!(matches!(&edits.headers[..], [HeaderOp::Set((_, told))] if *told == id));
    }

    #[test]
    fn a_visitor_keeps_its_id_where_that_is_accepted_and_is_not_told_where_that_is_off() {
        assert_eq!(passed(r#"{"accept": true, "echo": false}"#, &["mine"]), ("mine".to_owned(), Vec::new()));
        assert_eq!(passed(r#"{"accept": true, "form": "uuid"}"#, &["a", "b"]).0, uuid([7; 16]));
        let quiet = ResponseHead { id: String::new(), status: 200, headers: Vec::new(), carry: Vec::new() };
        assert!(matches!(tell(&Plan::read("{}").unwrap(), &quiet), ResponseAction::Next));
    }
}
