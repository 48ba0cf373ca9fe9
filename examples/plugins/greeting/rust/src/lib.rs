//! Greets at /hello, and says hello in a header everywhere else.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use std::sync::OnceLock;

use adit::plugin::types::{
    Fault, HeaderOp, Reply, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};
use serde_json::{Map, Value};

// An instance is configured once, before its first request.
static TEXT: OnceLock<String> = OnceLock::new();

fn text() -> &'static str {
    TEXT.get().map_or("hello", String::as_str)
}

struct Plugin;
export!(Plugin);

impl Lifecycle for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "greeting".to_owned(),
            version: "0.1.0".to_owned(),
            request_headers: vec!["x-name".to_owned()],
            response_headers: vec![],
        }
    }

    /// Takes the `config` table of the host's document, as JSON.
    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let settings: Map<String, Value> =
            serde_json::from_str(&config).map_err(|error| vec![fault("", &error.to_string())])?;
        let mut faults = Vec::new();
        for (key, value) in &settings {
            match (key.as_str(), value) {
                ("text", Value::String(text)) => {
                    let _ = TEXT.set(text.clone());
                }
                ("text", _) => faults.push(fault("text", "is not a string")),
                (key, _) => faults.push(fault(key, "is not known")),
            }
        }
        if faults.is_empty() {
            Ok(())
        } else {
            Err(faults)
        }
    }
}

fn fault(key: &str, message: &str) -> Fault {
    Fault {
        code: format!("/{key}"),
        message: message.to_owned(),
    }
}

impl RequestFilter for Plugin {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        if head.path_with_query.split('?').next() == Some("/hello") {
            let name = head.headers.first().map_or("world", |(_, value)| value);
            return Ok(RequestAction::Respond(Reply {
                status: 200,
                headers: vec![(
                    "content-type".to_owned(),
                    "text/plain; charset=utf-8".to_owned(),
                )],
                body: format!("{}, {name}!\n", text()).into_bytes(),
            }));
        }
        Ok(RequestAction::Edit(RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: vec![set_header()],
            carry: vec![],
        }))
    }
}

impl ResponseFilter for Plugin {
    fn on_response(_head: ResponseHead) -> Result<ResponseAction, Fault> {
        Ok(ResponseAction::Edit(ResponseEdits {
            status: None,
            headers: vec![set_header()],
        }))
    }
}

fn set_header() -> HeaderOp {
    HeaderOp::Set(("x-greeting".to_owned(), text().to_owned()))
}
