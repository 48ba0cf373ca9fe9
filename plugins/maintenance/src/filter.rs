//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{Fault, Reply, RequestHead};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::plan::Plan;

settings::component! {
    Maintenance: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: [],
    state: Plan = Plan::read,
}

impl RequestFilter for Maintenance {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head))
    }
}

fn decide(plan: &Plan, head: &RequestHead) -> RequestAction {
    if plan.admits(&head.client_ip, &head.path_with_query) {
        return RequestAction::Next;
    }
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut headers = vec![header("content-type", &plan.kind), header("cache-control", "no-store")];
    if let Some(after) = plan.retry_after {
        headers.push(header("retry-after", &after.as_secs().to_string()));
    }
    RequestAction::Respond(Reply { status: 503, headers, body: plan.page.clone().into_bytes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_when_to_come_again_and_is_never_kept() {
        let plan = Plan::read(r#"{"page": "later", "type": "text/plain", "retry-after": "2m"}"#).unwrap();
        let head = RequestHead {
            id: "1".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: "192.0.2.1".to_owned(),
            headers: Vec::new(),
        };
        let RequestAction::Respond(reply) = decide(&plan, &head) else { panic!("it passed") };
        let header = |name: &str| reply.headers.iter().find(|(known, _)| known == name).unwrap().1.as_str();
        assert_eq!((reply.status, &reply.body[..]), (503, &b"later"[..]));
        assert_eq!((header("retry-after"), header("content-type")), ("120", "text/plain"));
        assert_eq!(header("cache-control"), "no-store");
    }
}
