//! A plugin that looks at whole bodies. A request's header `x-do` says what it does with its body, and the
//! configuration what it does with answers: `{"most": 1000, "pass": true, "response": "shout"}`.
//!
//! `shout` makes capitals of it, `double` repeats it, `drop` leaves none, `reply` answers with it, `fault` fails;
//! all others let it go on. Whatever it was shown, it says how long that was in `x-shown`.

use std::sync::OnceLock;

use bindings::adit::plugin::bodies::{Beyond, Limits};
use bindings::adit::plugin::types::{
    Fault, HeaderOp, Reply, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::decoding::{Guest as Decoding, Messages};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_body_filter::{
    Guest as RequestBodyFilter, RequestBodyAction, RequestBodyEdits,
};
use bindings::exports::adit::plugin::response_body_filter::{
    Guest as ResponseBodyFilter, ResponseBodyAction, ResponseBodyEdits,
};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package test:bodies;
            world guest {
                include adit:plugin/body-filter@0.1.0;
                export adit:plugin/decoding@0.1.0;
            }
        ",
        world: "test:bodies/guest",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::Bodies;
    #[cfg(target_arch = "wasm32")]
    export!(Bodies with_types_in self);
}

/// The component's exports.
pub struct Bodies;

static CONFIG: OnceLock<String> = OnceLock::new();

fn config() -> &'static str {
    CONFIG.get().map_or("", String::as_str)
}

/// The number behind `"most":`.
fn most() -> u32 {
    let digits = config().split("\"most\":").nth(1).unwrap_or("1000");
    let digits: String = digits.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

fn limits() -> Limits {
    let beyond = if config().contains("\"pass\"") { Beyond::Pass } else { Beyond::Refuse };
    Limits { most: most(), beyond }
}

impl Decoding for Bodies {
    /// `"decode": true` in the configuration asks for it.
    fn decoded() -> Messages {
        let is_asked = CONFIG.get().is_some_and(|config| config.contains("\"decode\""));
        Messages { requests: is_asked, responses: is_asked }
    }
}

impl Lifecycle for Bodies {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: vec!["x-do".to_owned(), "content-encoding".to_owned()],
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let _ = CONFIG.set(config);
        Ok(())
    }
}

/// What becomes of a body: nothing, another one, a reply of it, or a fault.
enum Made {
    Same,
    Other(Vec<u8>),
    Reply(Reply),
    Fault(Fault),
}

fn made(told: &str, body: Vec<u8>) -> Made {
    match told {
        "shout" => Made::Other(body.to_ascii_uppercase()),
        "double" => Made::Other(body.repeat(2)),
        "drop" => Made::Other(Vec::new()),
        "reply" => Made::Reply(Reply { status: 418, headers: Vec::new(), body }),
        "fault" => Made::Fault(Fault { code: "told".to_owned(), message: "told to fail".to_owned() }),
        _ => Made::Same,
    }
}

fn shown(length: usize) -> Vec<HeaderOp> {
    vec![HeaderOp::Set(("x-shown".to_owned(), length.to_string()))]
}

impl RequestBodyFilter for Bodies {
    fn request_body_limits() -> Limits {
        limits()
    }

    fn on_request_body(head: RequestHead, body: Vec<u8>) -> Result<RequestBodyAction, Fault> {
        let value =
            |name| head.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let told = value("x-do").unwrap_or("");
        let mut headers = shown(body.len());
        headers.extend(
            value("content-encoding").map(|coding| HeaderOp::Set(("x-coding".to_owned(), coding.to_owned()))),
        );
        let head =
            RequestEdits { method: None, authority: None, path_with_query: None, headers, carry: Vec::new() };
        match made(told, body) {
            Made::Same => Ok(RequestBodyAction::Edit(RequestBodyEdits { head, body: None })),
            Made::Other(body) => Ok(RequestBodyAction::Edit(RequestBodyEdits { head, body: Some(body) })),
            Made::Reply(reply) => Ok(RequestBodyAction::Respond(reply)),
            Made::Fault(fault) => Err(fault),
        }
    }
}

impl ResponseBodyFilter for Bodies {
    fn response_body_limits() -> Limits {
        limits()
    }

    fn on_response_body(_head: ResponseHead, body: Vec<u8>) -> Result<ResponseBodyAction, Fault> {
        let told = config().split("\"response\":").nth(1).and_then(|rest| rest.split('"').nth(1));
        let head = ResponseEdits { status: None, headers: shown(body.len()) };
        match made(told.unwrap_or(""), body) {
            Made::Same => Ok(ResponseBodyAction::Edit(ResponseBodyEdits { head, body: None })),
            Made::Other(body) => Ok(ResponseBodyAction::Edit(ResponseBodyEdits { head, body: Some(body) })),
            Made::Reply(reply) => Ok(ResponseBodyAction::Respond(reply)),
            Made::Fault(fault) => Err(fault),
        }
    }
}
