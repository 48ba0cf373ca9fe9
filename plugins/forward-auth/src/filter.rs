//! The plugin as the host sees it: WIT on the outside, [`ask`] inside.

use bindings::adit::plugin::types::{Fault, HeaderOp, Reply, RequestEdits, RequestHead};
use bindings::adit::plugin::{http_client, log, metrics};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::ask::{Asked, Verdict, question, verdict};
use crate::plan::Plan;

settings::component! {
    ForwardAuth: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
    // Before the configuration is there, and it may name any header.
    headers: ["*"],
    state: Plan = Plan::read,
}

impl RequestFilter for ForwardAuth {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head))
    }
}

fn decide(plan: &Plan, head: &RequestHead) -> RequestAction {
    // Whoever is not asked about has no name; what the visitor says of one does not go on.
    if plan.is_open(&head.path_with_query) {
        return passes(plan.take.iter().map(|name| (name.clone(), None)).collect());
    }
    let RequestHead { method, scheme, authority, path_with_query, client_ip, headers, .. } = head;
    let asked = Asked { method, scheme, authority, path_with_query, client_ip, headers };
    let answer = http_client::send(&http_client::Request {
        method: "GET".to_owned(),
        url: plan.url.clone(),
        headers: question(plan, &asked),
        body: Vec::new(),
        timeout_ms: u32::try_from(plan.timeout.as_millis()).ok(),
        // One that sends elsewhere sends the visitor there.
        redirects: 0,
    });
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => {
            log::write(log::Level::Warn, &format!("{}: {error:?}", plan.url));
            return unanswered();
        }
    };
    match verdict(plan, answer.status, &answer.headers) {
        Verdict::Passes(headers) => passes(headers),
        Verdict::Refused(status, headers) => {
            metrics::add("refused", 1);
            RequestAction::Respond(Reply { status, headers, body: answer.body })
        }
        Verdict::Unanswered => {
            log::write(log::Level::Warn, &format!("{}: status {}", plan.url, answer.status));
            unanswered()
        }
    }
}

fn passes(headers: Vec<(String, Option<String>)>) -> RequestAction {
    if headers.is_empty() {
        return RequestAction::Next;
    }
    let op = |(name, value): (String, Option<String>)| match value {
        Some(value) => HeaderOp::Set((name, value)),
        None => HeaderOp::Remove(name),
    };
    RequestAction::Edit(RequestEdits {
        method: None,
        authority: None,
        path_with_query: None,
        headers: headers.into_iter().map(op).collect(),
        carry: Vec::new(),
    })
}

/// Nobody passes of whom nothing is known.
fn unanswered() -> RequestAction {
    metrics::add("unanswered", 1);
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    RequestAction::Respond(Reply {
        status: 503,
        headers: vec![
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
            header("retry-after", "5"),
        ],
        body: b"who may come in cannot be found out at the moment\n".to_vec(),
    })
}
