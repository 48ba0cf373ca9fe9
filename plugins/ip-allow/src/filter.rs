//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{Fault, Reply, RequestHead};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::plan::Plan;

settings::component! {
    IpAllow: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: [],
    state: Plan = Plan::read,
}

impl RequestFilter for IpAllow {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head))
    }
}

fn decide(plan: &Plan, head: &RequestHead) -> RequestAction {
    if plan.admits(&head.client_ip) {
        return RequestAction::Next;
    }
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let body = if plan.status == 404 { "nothing is here\n" } else { "this address may not pass\n" };
    RequestAction::Respond(Reply {
        status: plan.status,
        headers: vec![
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
        ],
        body: body.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_host_states_decides() {
        let plan = Plan::read(r#"{"allow": ["192.0.2.0/24"], "status": 404}"#).unwrap();
        let head = |client_ip: &str| RequestHead {
            id: "1".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: client_ip.to_owned(),
            headers: vec![("x-forwarded-for".to_owned(), "192.0.2.1".to_owned())],
        };
        assert!(matches!(decide(&plan, &head("192.0.2.1")), RequestAction::Next));
        for refused in ["198.51.100.1", ""] {
            assert!(
                matches!(decide(&plan, &head(refused)), RequestAction::Respond(reply) if reply.status == 404)
            );
        }
    }
}
