//! A plugin without a response phase: marks every request with `x-request-only: seen`.

use bindings::adit::plugin::types::{Fault, HeaderOp, RequestEdits, RequestHead};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "request-only" });

    #[cfg(target_arch = "wasm32")]
    use super::RequestOnly;
    #[cfg(target_arch = "wasm32")]
    export!(RequestOnly with_types_in self);
}

/// The component's exports.
pub struct RequestOnly;

impl Lifecycle for RequestOnly {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }

    fn configure(_config: String) -> Result<(), Vec<Fault>> {
        Ok(())
    }
}

impl RequestFilter for RequestOnly {
    fn on_request(_head: RequestHead) -> Result<RequestAction, Fault> {
        Ok(RequestAction::Edit(RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: vec![HeaderOp::Set(("x-request-only".to_owned(), "seen".to_owned()))],
            carry: Vec::new(),
        }))
    }
}
