//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use std::sync::OnceLock;

use bindings::adit::plugin::types::{Fault, Reply, RequestEdits, RequestHead};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use bindings::exports::adit::plugin::schema::Guest as Schema;

use crate::plan::Plan;
use crate::target::{Asked, Outcome};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; }",
        world: "adit:shelf/it",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::RewriteRedirect;
    #[cfg(target_arch = "wasm32")]
    export!(RewriteRedirect with_types_in self);
}

/// The component's exports.
pub struct RewriteRedirect;

static PLAN: OnceLock<Plan> = OnceLock::new();

impl Lifecycle for RewriteRedirect {
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

impl Schema for RewriteRedirect {
    fn config_schema() -> String {
        include_str!("schema.json").to_owned()
    }
}

impl RequestFilter for RewriteRedirect {
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
