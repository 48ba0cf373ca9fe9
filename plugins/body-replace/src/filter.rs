//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::bodies::{Beyond, Limits};
use bindings::adit::plugin::types::{Fault, RequestEdits, RequestHead, ResponseEdits, ResponseHead};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_body_filter::{
    Guest as ResponseBodyFilter, ResponseBodyAction, ResponseBodyEdits,
};

use crate::plan::Plan;

settings::component! {
    BodyReplace: "package adit:shelf; world it { export adit:plugin/lifecycle@0.1.0; export adit:plugin/schema@0.1.0; export adit:plugin/request-filter@0.1.0; export adit:plugin/response-body-filter@0.1.0; }",
    headers: [],
    of answers: ["content-type"],
    state: Plan = Plan::read,
}

impl RequestFilter for BodyReplace {
    /// Leaves a word for the answer where this request is one of those that are meant.
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| {
            if !plan.is_about(&head.path_with_query) {
                return RequestAction::Next;
            }
            RequestAction::Edit(RequestEdits {
                method: None,
                authority: None,
                path_with_query: None,
                headers: Vec::new(),
                carry: MEANT.to_vec(),
            })
        })
    }
}

impl ResponseBodyFilter for BodyReplace {
    fn response_body_limits() -> Limits {
        let (most, passes) = configured(|plan| (plan.most, plan.passes)).unwrap_or((0, false));
        Limits { most, beyond: if passes { Beyond::Pass } else { Beyond::Refuse } }
    }

    fn on_response_body(head: ResponseHead, body: Vec<u8>) -> Result<ResponseBodyAction, Fault> {
        configured(|plan| {
            let content_type = head.headers.first().map_or("", |(_, value)| value.as_str());
            let replaced = if head.carry == MEANT { plan.replaced(content_type, &body) } else { None };
            let Some(body) = replaced else { return ResponseBodyAction::Next };
            let head = ResponseEdits { status: None, headers: Vec::new() };
            ResponseBodyAction::Edit(ResponseBodyEdits { head, body: Some(body) })
        })
    }
}

const MEANT: &[u8] = b"1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_left_where_a_request_is_meant() {
        let config = r#"{"rules": [{"find": "a", "replace": "b"}], "paths": ["/docs"]}"#;
        BodyReplace::configure(config.to_owned()).unwrap();
        let asked = |path: &str| {
            let head = RequestHead {
                id: "1".to_owned(),
                method: "GET".to_owned(),
                scheme: "https".to_owned(),
                authority: "app.example.com".to_owned(),
                path_with_query: path.to_owned(),
                client_ip: "192.0.2.1".to_owned(),
                headers: Vec::new(),
            };
            BodyReplace::on_request(head).unwrap()
        };
        assert!(matches!(asked("/docs/a"), RequestAction::Edit(edits) if edits.carry == MEANT));
        assert!(matches!(asked("/other"), RequestAction::Next));
    }

    use bindings::exports::adit::plugin::lifecycle::Guest as _;
}
