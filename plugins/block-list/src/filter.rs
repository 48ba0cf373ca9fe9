//! The plugin as the host sees it: WIT on the outside, [`Plan`] and [`List`] inside.

use std::cell::RefCell;
use std::rc::Rc;

use bindings::adit::plugin::types::{Fault, Reply, RequestHead};
use bindings::adit::plugin::{crypto, http_client, key_value, metrics};
use bindings::exports::adit::plugin::refresher::Guest as Refresher;
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};

use crate::list::List;
use crate::plan::Plan;

settings::component! {
    BlockList: "package adit:shelf; world it { include adit:plugin/request-only@0.1.0; export adit:plugin/schema@0.1.0; export adit:plugin/refresher@0.1.0; }",
    headers: [],
    state: State = |config| Plan::read(config).map(|plan| State { plan, known: RefCell::default() }),
}

struct State {
    plan: Plan,
    known: RefCell<Known>,
}

/// The list as this instance has it.
#[derive(Default)]
struct Known {
    version: Vec<u8>,
    list: Rc<List>,
}

impl Refresher for BlockList {
    /// The first call is part of the load: without a list nothing is served. Later the one before stays in use.
    fn on_refresh() -> Result<(), Fault> {
        configured(|state| refresh(&state.plan))?
    }
}

impl RequestFilter for BlockList {
    fn on_request(head: RequestHead) -> Result<RequestAction, Fault> {
        configured(|state| {
            let list = state.list()?;
            if state.plan.admits(&head.client_ip, &list) {
                return Ok(RequestAction::Next);
            }
            Ok(refusal(state.plan.status))
        })?
    }
}

impl State {
    /// The list as it is now. Looked at for each request, and read when it has changed.
    fn list(&self) -> Result<Rc<List>, Fault> {
        let read = |key: &str| {
            let value =
                key_value::get(&self.plan.bucket, key).map_err(|error| fault("bucket", error.name()))?;
            value.ok_or_else(|| fault("list", "there is none"))
        };
        let version = read(VERSION)?;
        let mut known = self.known.borrow_mut();
        if known.version != version {
            let text = String::from_utf8(read(LIST)?).map_err(|_| fault("list", "it is no text"))?;
            // It was a good one when it was put there.
            let list = List::read(&text).map_err(|message| fault("list", &message))?;
            *known = Known { version, list: Rc::new(list) };
        }
        Ok(known.list.clone())
    }
}

fn refresh(plan: &Plan) -> Result<(), Fault> {
    let answer = http_client::send(&http_client::Request {
        method: "GET".to_owned(),
        url: plan.url.clone(),
        headers: vec![("accept".to_owned(), "text/plain".to_owned())],
        body: Vec::new(),
        timeout_ms: None,
        redirects: 3,
    });
    let answer = answer.map_err(|error| fault("fetch", &format!("{}: {error:?}", plan.url)))?;
    if answer.status != 200 {
        return Err(fault("fetch", &format!("{}: status {}", plan.url, answer.status)));
    }
    let text = std::str::from_utf8(&answer.body).map_err(|_| fault("list", "it is no text"))?;
    let list = List::read(text).map_err(|message| fault("list", &format!("{}, {message}", plan.url)))?;
    if list.is_empty() {
        return Err(fault("list", &format!("{}: there is no network in it", plan.url)));
    }
    metrics::set("networks", list.len() as f64);
    let put = |key: &str, value: &[u8]| {
        key_value::set(&plan.bucket, key, value, None).map_err(|error| fault("bucket", error.name()))
    };
    // The list first: who sees the version finds it.
    put(LIST, &answer.body)?;
    put(VERSION, &crypto::digest(crypto::Hash::Sha256, &answer.body))
}

fn refusal(status: u16) -> RequestAction {
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let body = if status == 404 { "nothing is here\n" } else { "this address may not pass\n" };
    RequestAction::Respond(Reply {
        status,
        headers: vec![
            header("content-type", "text/plain; charset=utf-8"),
            header("cache-control", "no-store"),
        ],
        body: body.into(),
    })
}

fn fault(code: &str, message: &str) -> Fault {
    Fault { code: code.to_owned(), message: message.to_owned() }
}

/// Keys in the bucket.
const LIST: &str = "list";
const VERSION: &str = "version";
