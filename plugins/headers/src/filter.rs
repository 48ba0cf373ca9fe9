//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use std::sync::OnceLock;

use bindings::adit::plugin::types::{
    Fault, HeaderOp, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};
use bindings::exports::adit::plugin::schema::Guest as Schema;

use crate::plan::{Edit, Plan};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "package adit:shelf; world it { include adit:plugin/filter@0.1.0; export adit:plugin/schema@0.1.0; }",
        world: "adit:shelf/it",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::Headers;
    #[cfg(target_arch = "wasm32")]
    export!(Headers with_types_in self);
}

/// The component's exports.
pub struct Headers;

static READY: OnceLock<Ready> = OnceLock::new();

/// Both phases in the form in which they go to the host.
struct Ready {
    request: Vec<HeaderOp>,
    response: Vec<HeaderOp>,
}

impl Lifecycle for Headers {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let plan = Plan::read(&config).map_err(|faults| {
            faults
                .into_iter()
                .map(|fault| Fault { code: fault.pointer, message: fault.message })
                .collect::<Vec<_>>()
        })?;
        let ready = Ready { request: operations(plan.request), response: operations(plan.response) };
        READY.set(ready).map_err(|_| {
            vec![Fault { code: String::new(), message: "this instance is configured already".to_owned() }]
        })
    }
}

impl Schema for Headers {
    fn config_schema() -> String {
        include_str!("schema.json").to_owned()
    }
}

impl RequestFilter for Headers {
    fn on_request(_head: RequestHead) -> Result<RequestAction, Fault> {
        let headers = &ready()?.request;
        if headers.is_empty() {
            return Ok(RequestAction::Next);
        }
        Ok(RequestAction::Edit(RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: headers.clone(),
            carry: Vec::new(),
        }))
    }
}

impl ResponseFilter for Headers {
    fn on_response(_head: ResponseHead) -> Result<ResponseAction, Fault> {
        let headers = &ready()?.response;
        if headers.is_empty() {
            return Ok(ResponseAction::Next);
        }
        Ok(ResponseAction::Edit(ResponseEdits { status: None, headers: headers.clone() }))
    }
}

fn ready() -> Result<&'static Ready, Fault> {
    READY.get().ok_or_else(|| Fault {
        code: "not-configured".to_owned(),
        message: "a request came before the configuration".to_owned(),
    })
}

fn operations(edits: Vec<Edit>) -> Vec<HeaderOp> {
    edits
        .into_iter()
        .map(|edit| match edit {
            Edit::Remove(name) => HeaderOp::Remove(name),
            Edit::Set(name, value) => HeaderOp::Set((name, value)),
            Edit::Append(name, value) => HeaderOp::Append((name, value)),
        })
        .collect()
}
