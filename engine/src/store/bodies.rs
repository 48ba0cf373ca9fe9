//! Calls that show a guest bodies, whole or as they pass.

use std::pin::pin;

use super::{HOSTCALL_FUEL, Instance, Parts, begin, trouble};
use crate::bindings::adit::plugin::bodies::Limits;
use crate::bindings::adit::plugin::body_streams::End;
use crate::bindings::adit::plugin::types::{Fault, RequestHead, ResponseHead};
use crate::bindings::exports::adit::plugin::decoding::Messages;
use crate::bindings::exports::adit::plugin::request_body_filter::RequestBodyAction;
use crate::bindings::exports::adit::plugin::request_stream_filter::RequestStreamAction;
use crate::bindings::exports::adit::plugin::response_body_filter::ResponseBodyAction;
use crate::bindings::exports::adit::plugin::response_stream_filter::ResponseStreamAction;
use crate::failure::CallError;
use crate::meter::{CallBudget, drive};

/// Whose body it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

impl Instance {
    /// What it wants to see of the bodies of requests and of answers, where it looks at them.
    pub(crate) async fn body_limits(&mut self, budget: CallBudget) -> Result<[Option<Limits>; 2], CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        begin(store, "");
        let call = async {
            wasmtime::error::Ok([
                match &exports.request_body {
                    Some(phase) => Some(phase.call_request_body_limits(&mut *store).await?),
                    None => None,
                },
                match &exports.response_body {
                    Some(phase) => Some(phase.call_response_body_limits(&mut *store).await?),
                    None => None,
                },
            ])
        };
        let answer = drive(meter, budget, pin!(call)).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(crate) async fn on_request_body(
        &mut self,
        budget: CallBudget,
        head: RequestHead<'_>,
        body: &[u8],
    ) -> Result<Result<RequestBodyAction, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.request_body.as_ref().expect("called only if the component has the phase");
        begin(store, head.id);
        store.set_hostcall_fuel(HOSTCALL_FUEL + 2 * body.len());
        let answer = drive(meter, budget, pin!(phase.call_on_request_body(&mut *store, head, body))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(crate) async fn on_response_body(
        &mut self,
        budget: CallBudget,
        head: ResponseHead<'_>,
        body: &[u8],
    ) -> Result<Result<ResponseBodyAction, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.response_body.as_ref().expect("called only if the component has the phase");
        begin(store, head.id);
        store.set_hostcall_fuel(HOSTCALL_FUEL + 2 * body.len());
        let answer = drive(meter, budget, pin!(phase.call_on_response_body(&mut *store, head, body))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Which compressed bodies it wants to see undone; none if it does not say.
    pub(crate) async fn decoded(&mut self, budget: CallBudget) -> Result<Messages, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let Some(decoding) = &exports.decoding else {
            return Ok(Messages { requests: false, responses: false });
        };
        begin(store, "");
        let answer = drive(meter, budget, pin!(decoding.call_decoded(&mut *store))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(crate) async fn begin_request(
        &mut self,
        budget: CallBudget,
        head: RequestHead<'_>,
    ) -> Result<Result<RequestStreamAction, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.request_stream.as_ref().expect(STREAMS);
        begin(store, head.id);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let answer = drive(meter, budget, pin!(phase.call_begin_request(&mut *store, head))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(crate) async fn begin_response(
        &mut self,
        budget: CallBudget,
        head: ResponseHead<'_>,
    ) -> Result<Result<ResponseStreamAction, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.response_stream.as_ref().expect(STREAMS);
        begin(store, head.id);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let answer = drive(meter, budget, pin!(phase.call_begin_response(&mut *store, head))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(crate) async fn on_piece(
        &mut self,
        side: Side,
        budget: CallBudget,
        id: &str,
        piece: &[u8],
    ) -> Result<Result<Option<Vec<u8>>, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        begin(store, id);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let call = async {
            match side {
                Side::Request => {
                    let phase = exports.request_stream.as_ref().expect(STREAMS);
                    phase.call_on_request_piece(&mut *store, piece).await
                }
                Side::Response => {
                    let phase = exports.response_stream.as_ref().expect(STREAMS);
                    phase.call_on_response_piece(&mut *store, piece).await
                }
            }
        };
        let answer = drive(meter, budget, pin!(call)).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(crate) async fn on_end(
        &mut self,
        side: Side,
        budget: CallBudget,
        id: &str,
        trailers: &[(&str, &str)],
    ) -> Result<Result<End, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        begin(store, id);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        let call = async {
            match side {
                Side::Request => {
                    let phase = exports.request_stream.as_ref().expect(STREAMS);
                    phase.call_end_request(&mut *store, trailers).await
                }
                Side::Response => {
                    let phase = exports.response_stream.as_ref().expect(STREAMS);
                    phase.call_end_response(&mut *store, trailers).await
                }
            }
        };
        let answer = drive(meter, budget, pin!(call)).await;
        answer.map_err(|stop| trouble(store, stop))
    }
}

const STREAMS: &str = "called only if the component has the phase";
