//! Asks another service about each request before it goes on.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use adit::plugin::http_client::{self, Request};
use adit::plugin::types::{Fault, HeaderOp, Reply, RequestEdits, RequestHead};
use exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use std::sync::OnceLock;

static URL: OnceLock<String> = OnceLock::new();
const SHOWN: [&str; 4] = ["content-type", "location", "set-cookie", "www-authenticate"];

struct Plugin;
export!(Plugin);

impl Lifecycle for Plugin {
    fn describe() -> Manifest {
        let request_headers = vec!["authorization".to_owned(), "cookie".to_owned()];
        let (name, version) = ("forward-auth".to_owned(), "0.1.0".to_owned());
        Manifest { name, version, request_headers, response_headers: vec![] }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let config: serde_json::Value = serde_json::from_str(&config).unwrap_or_default();
        let fault = || Fault { code: "/url".to_owned(), message: "an address is needed".to_owned() };
        let url = config["url"].as_str().ok_or_else(|| vec![fault()])?;
        URL.set(url.to_owned()).map_err(|_| vec![])
    }
}

impl RequestFilter for Plugin {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        let named = |name: &str, value: String| (format!("x-forwarded-{name}"), value);
        let about = [named("method", head.method), named("proto", head.scheme)];
        let about = about.into_iter().chain([named("host", head.authority), named("uri", head.path_with_query)]);
        let (headers, body) = (about.chain(head.headers).collect(), vec![]);
        let (method, url) = ("GET".to_owned(), URL.get().cloned().unwrap_or_default());
        let request = Request { method, url, headers, body, timeout_ms: Some(5000), redirects: 0 };
        let respond = |status, headers, body| RequestAction::Respond(Reply { status, headers, body });
        let answer = match http_client::send(&request) {
            Ok(answer) if answer.status < 500 => answer,
            Ok(_) | Err(_) => return Ok(respond(503, vec![], vec![])),
        };
        let mut headers = answer.headers.into_iter();
        if answer.status >= 300 {
            let shown = headers.filter(|(name, _)| SHOWN.contains(&name.as_str())).collect();
            return Ok(respond(answer.status, shown, answer.body));
        }
        let user = headers.find(|(name, _)| name == "x-user");
        let op = user.map_or_else(|| HeaderOp::Remove("x-user".to_owned()), HeaderOp::Set);
        let (method, authority, path_with_query) = (None, None, None);
        let edits = RequestEdits { method, authority, path_with_query, headers: vec![op], carry: vec![] };
        Ok(RequestAction::Edit(edits))
    }
}
