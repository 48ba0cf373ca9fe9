//! The plugin as the host sees it: WIT on the outside, [`Plan`] inside.

use bindings::adit::plugin::types::{
    Fault, HeaderOp, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::request_filter::{Guest as RequestFilter, RequestAction};
use bindings::exports::adit::plugin::response_filter::{Guest as ResponseFilter, ResponseAction};

use crate::plan::{Edit, Plan};

settings::component! {
    Headers: "package adit:shelf; world it { include adit:plugin/filter@0.1.0; export adit:plugin/schema@0.1.0; }",
    headers: [],
    state: Ready = Ready::read,
}

/// Both phases in the form in which they go to the host.
struct Ready {
    request: Vec<HeaderOp>,
    response: Vec<HeaderOp>,
}

impl Ready {
    fn read(config: &str) -> Result<Self, Vec<settings::Fault>> {
        let Plan { request, response } = Plan::read(config)?;
        Ok(Self { request: operations(request), response: operations(response) })
    }
}

impl RequestFilter for Headers {
    fn on_request(_head: RequestHead) -> Result<RequestAction, Fault> {
        let headers = configured(|ready| ready.request.clone())?;
        if headers.is_empty() {
            return Ok(RequestAction::Next);
        }
        Ok(RequestAction::Edit(RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers,
            carry: Vec::new(),
        }))
    }
}

impl ResponseFilter for Headers {
    fn on_response(_head: ResponseHead) -> Result<ResponseAction, Fault> {
        let headers = configured(|ready| ready.response.clone())?;
        if headers.is_empty() {
            return Ok(ResponseAction::Next);
        }
        Ok(ResponseAction::Edit(ResponseEdits { status: None, headers }))
    }
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
