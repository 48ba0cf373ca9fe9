//! Fetches a text every now and then, and puts it into a header of each request.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use std::sync::OnceLock;

use adit::plugin::types::{Fault, HeaderOp, RequestEdits, RequestHead};
use adit::plugin::{http_client, key_value, log};
use exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::adit::plugin::refresher::Guest as Refresher;
use exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use serde_json::Value;

// An instance is configured once, before its first call.
static URL: OnceLock<String> = OnceLock::new();

struct Plugin;
export!(Plugin);

impl Lifecycle for Plugin {
    fn describe() -> Manifest {
        Manifest {
            name: "heartbeat".to_owned(),
            version: "0.1.0".to_owned(),
            request_headers: vec![],
            response_headers: vec![],
        }
    }

    /// Takes the `config` table of the host's document, as JSON.
    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let config: Value = serde_json::from_str(&config).unwrap_or_default();
        let Some(url) = config["url"].as_str() else {
            return Err(vec![fault("/url", "an address is needed")]);
        };
        let _ = URL.set(url.to_owned());
        Ok(())
    }
}

impl Refresher for Plugin {
    /// Called before anything is served, and then every `tick` of the host's document.
    fn on_refresh() -> Result<(), Fault> {
        let answer = http_client::send(&http_client::Request {
            method: "GET".to_owned(),
            url: URL.get().cloned().unwrap_or_default(),
            headers: vec![],
            body: vec![],
            timeout_ms: Some(5000),
            redirects: 0,
        });
        let answer = answer.map_err(|error| fault("fetch", &format!("{error:?}")))?;
        if answer.status != 200 {
            return Err(fault("status", &answer.status.to_string()));
        }
        log::write(log::Level::Debug, "fetched");
        key_value::set("state", "heartbeat", &answer.body, None)
            .map_err(|error| fault("store", error.name()))
    }
}

impl RequestFilter for Plugin {
    fn on_request(_head: RequestHead) -> Result<RequestAction, Fault> {
        let text = key_value::get("state", "heartbeat").ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(RequestAction::Edit(RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: vec![HeaderOp::Set(("x-heartbeat".to_owned(), text))],
            carry: vec![],
        }))
    }
}

fn fault(code: &str, message: &str) -> Fault {
    Fault { code: code.to_owned(), message: message.to_owned() }
}
