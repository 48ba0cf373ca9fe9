//! A `wasi:http` 0.2 service as some toolchains make them: an instance that has answered breaks at the next
//! request.

use std::sync::atomic::{AtomicBool, Ordering};

use wasi::exports::http::incoming_handler::Guest;
use wasi::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Service;

#[allow(unsafe_code)]
mod exports {
    use super::Service;

    wasi::http::proxy::export!(Service with_types_in wasi);
}

static HAS_ANSWERED: AtomicBool = AtomicBool::new(false);

impl Guest for Service {
    fn handle(_request: IncomingRequest, out: ResponseOutparam) {
        assert!(!HAS_ANSWERED.swap(true, Ordering::Relaxed), "this instance has answered already");
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().expect("one body");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("one stream");
        stream.blocking_write_and_flush(b"once\n").expect("it is read");
        drop(stream);
        OutgoingBody::finish(body, None).expect("a complete body");
    }
}
