//! A plugin whose regular work fails where its configuration says so: `{"refresh": "fail"}`. With `later` only from its
//! second call on.

use std::cell::Cell;
use std::sync::OnceLock;

use bindings::adit::plugin::types::{Fault, RequestHead};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::refresher::Guest as Refresher;
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package test:feeder;
            world feeder {
                export adit:plugin/lifecycle@0.1.0;
                export adit:plugin/request-filter@0.1.0;
                export adit:plugin/refresher@0.1.0;
            }
        ",
        world: "test:feeder/feeder",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::Feeder;
    #[cfg(target_arch = "wasm32")]
    export!(Feeder with_types_in self);
}

/// The component's exports.
pub struct Feeder;

static CONFIG: OnceLock<String> = OnceLock::new();

thread_local! {
    static CALLS: Cell<u32> = const { Cell::new(0) };
}

impl Lifecycle for Feeder {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let _ = CONFIG.set(config);
        Ok(())
    }
}

impl Refresher for Feeder {
    fn on_refresh() -> Result<(), Fault> {
        let calls = CALLS.get() + 1;
        CALLS.set(calls);
        let config = CONFIG.get().map_or("", String::as_str);
        if config.contains("fail") || (config.contains("later") && calls > 1) {
            return Err(Fault { code: "upstream".to_owned(), message: "nobody has the list".to_owned() });
        }
        Ok(())
    }
}

impl RequestFilter for Feeder {
    fn on_request(_head: RequestHead) -> Result<RequestAction, Fault> {
        Ok(RequestAction::Next)
    }
}
