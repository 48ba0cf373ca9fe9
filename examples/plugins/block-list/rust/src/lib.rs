//! Keeps out the addresses of a list that it fetches again and again, one in each line.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use adit::plugin::http_client::{self, Request};
use adit::plugin::key_value;
use adit::plugin::types::{Fault, Reply, RequestHead};
use exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::adit::plugin::refresher::Guest as Refresher;
use exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use std::sync::OnceLock;

static URL: OnceLock<String> = OnceLock::new();

struct Plugin;
export!(Plugin);

impl Lifecycle for Plugin {
    fn describe() -> Manifest {
        let (name, version) = ("block-list".to_owned(), "0.1.0".to_owned());
        Manifest { name, version, request_headers: vec![], response_headers: vec![] }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
        let url = config["url"].as_str().ok_or_else(|| vec![fault("/url", "an address is needed")])?;
        URL.set(url.to_owned()).map_err(|_| vec![])
    }
}

impl Refresher for Plugin {
    /// The first call must succeed before anything is served; later the list of before stays in use.
    fn on_refresh() -> Result<(), Fault> {
        let (method, url) = ("GET".to_owned(), URL.get().cloned().unwrap_or_default());
        let (headers, body) = (vec![], vec![]);
        let request = Request { method, url, headers, body, timeout_ms: Some(5000), redirects: 0 };
        let answer = http_client::send(&request).map_err(|error| fault("fetch", &format!("{error:?}")))?;
        if answer.status != 200 {
            return Err(fault("status", &answer.status.to_string()));
        }
        key_value::set("list", "addresses", &answer.body, None).map_err(|error| fault("store", error.name()))
    }
}

impl RequestFilter for Plugin {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        let list = key_value::get("list", "addresses").map_err(|error| fault("store", error.name()))?;
        let list = list.ok_or_else(|| fault("list", "there is none"))?;
        if list.split(|byte| *byte == b'\n').any(|line| line == head.client_ip.as_bytes()) {
            return Ok(RequestAction::Respond(Reply { status: 403, headers: vec![], body: vec![] }));
        }
        Ok(RequestAction::Next)
    }
}

fn fault(code: &str, message: &str) -> Fault {
    Fault { code: code.to_owned(), message: message.to_owned() }
}
