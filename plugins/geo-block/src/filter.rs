//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{Fault, Reply, RequestHead};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::plan::Plan;

settings::component! {
    GeoBlock: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: [COUNTRY],
    state: Plan = Plan::read,
}

impl RequestFilter for GeoBlock {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|plan| decide(plan, &head))
    }
}

fn decide(plan: &Plan, head: &RequestHead) -> RequestAction {
    let mut told = head.headers.iter().filter(|(name, _)| name == COUNTRY).map(|(_, value)| value.as_str());
    // Two of them are none: one is not the edge's.
    let country = told.next().filter(|_| told.next().is_none());
    if plan.admits(country, &head.path_with_query) {
        return RequestAction::Next;
    }
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let body = match plan.status {
        404 => "nothing is here\n",
        451 => "this is not available where you are, for legal reasons\n",
        _ => "this is not available where you are\n",
    };
    RequestAction::Respond(Reply {
        status: plan.status,
        headers: vec![
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
        ],
        body: body.into(),
    })
}

/// Where an edge says it; what visitors send of it an edge drops.
const COUNTRY: &str = "cf-ipcountry";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_says_it_twice_says_nothing() {
        let plan = Plan::read(r#"{"allow": ["DE"], "status": 451}"#).unwrap();
        let head = |countries: &[&str]| RequestHead {
            id: "1".to_owned(),
            method: "GET".to_owned(),
            scheme: "https".to_owned(),
            authority: "app.example.com".to_owned(),
            path_with_query: "/".to_owned(),
            client_ip: "192.0.2.1".to_owned(),
            headers: countries.iter().map(|country| (COUNTRY.to_owned(), (*country).to_owned())).collect(),
        };
        assert!(matches!(decide(&plan, &head(&["DE"])), RequestAction::Next));
        for refused in [&["US"][..], &[], &["DE", "DE"], &["DE", "US"]] {
            assert!(
                matches!(decide(&plan, &head(refused)), RequestAction::Respond(reply) if reply.status == 451),
                "{refused:?}"
            );
        }
    }
}
