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
    use super::IpAllow;
    #[cfg(target_arch = "wasm32")]
    export!(IpAllow with_types_in self);
}

/// The component's exports.
pub struct IpAllow;

static PLAN: OnceLock<Plan> = OnceLock::new();

impl Lifecycle for IpAllow {
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

impl Schema for IpAllow {
    fn config_schema() -> String {
        include_str!("schema.json").to_owned()
    }
}

impl RequestFilter for IpAllow {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        let plan = PLAN.get().ok_or_else(|| Fault {
            code: "not-configured".to_owned(),
            message: "a request came before the configuration".to_owned(),
        })?;
        Ok(decide(plan, &head))
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
