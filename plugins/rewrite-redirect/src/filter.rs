//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{Fault, Reply, RequestEdits, RequestHead};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::plan::Plan;
use crate::target::{Asked, Outcome};

settings::component! {
    RewriteRedirect: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: [],
    state: Plan = Plan::read,
}

impl RequestFilter for RewriteRedirect {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head))
    }
}

fn decide(plan: &Plan, head: &RequestHead) -> RequestAction {
    let RequestHead { scheme, authority, path_with_query, .. } = head;
    match plan.apply(Asked { scheme, authority, path_with_query }) {
        Outcome::Stays => RequestAction::Next,
        Outcome::Goes { authority, path_with_query } => RequestAction::Edit(RequestEdits {
            method: None,
            authority,
            path_with_query,
            headers: Vec::new(),
            carry: Vec::new(),
        }),
        Outcome::Redirect { status, location } => RequestAction::Respond(Reply {
            status,
            headers: vec![("location".to_owned(), location)],
            body: Vec::new(),
        }),
    }
}
