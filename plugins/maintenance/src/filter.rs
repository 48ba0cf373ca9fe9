//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use std::sync::OnceLock;

use bindings::adit::plugin::types::{Fault, Reply, RequestHead};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use bindings::exports::adit::plugin::schema::Guest as Schema;

use crate::plan::Plan;

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
        world: "adit:shelf/it",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::Maintenance;
    #[cfg(target_arch = "wasm32")]
    export!(Maintenance with_types_in self);
}

/// The component's exports.
pub struct Maintenance;

static PLAN: OnceLock<Plan> = OnceLock::new();

impl Lifecycle for Maintenance {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let fault = |fault: settings::Fault| Fault { code: fault.pointer, message: fault.message };
        let plan = Plan::read(&config).map_err(|faults| faults.into_iter().map(fault).collect::<Vec<_>>())?;
        // An instance is configured once.
        let _ = PLAN.set(plan);
        Ok(())
    }
}

impl Schema for Maintenance {
    fn config_schema() -> String {
        include_str!("schema.json").to_owned()
    }
}

impl RequestFilter for Maintenance {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        Ok(decide(plan()?, &head))
    }
}

fn plan() -> Result<&'static Plan, Fault> {
    PLAN.get().ok_or_else(|| Fault {
        code: "not-configured".to_owned(),
        message: "a request came before the configuration".to_owned(),
    })
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
