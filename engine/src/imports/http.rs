//! `wasi:http`, in both versions: what a guest sends goes through the same gate as the `http-client` interface,
//! body by body.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use wasmtime_wasi_http::{
    Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

use super::super::sandbox::Sandbox;
use super::super::store::State;
use crate::outbound::{Exchange, LONGEST, OutboundError, is_sendable};

/// Largest head of a request or answer that a guest may build or get, bytes in memory.
const FIELDS: usize = 128 * 1024;
/// Largest piece of a body that a guest may write at once, bytes.
const CHUNK: usize = 64 * 1024;

/// What one instance needs for `wasi:http`; made when it is first used.
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    sandbox: Arc<Sandbox>,
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let Http { context, hooks } = &mut **self.http.get_or_insert_with(|| {
            let mut context = WasiHttpCtx::new();
            context.set_field_size_limit(FIELDS);
            Box::new(Http { context, hooks: Hooks { sandbox: self.sandbox.clone() } })
        });
        WasiHttpCtxView { ctx: context, table: &mut self.resources, hooks }
    }
}

type Sent = Result<(http::Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _read: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let sandbox = self.sandbox.clone();
        Box::new(async move {
            let Some(outbound) = sandbox.outbound.clone().filter(|_| is_sendable(request.method())) else {
                sandbox.deny();
                return Err(Error::HttpRequestDenied);
            };
            let patience = options.and_then(|options| options.first_byte_timeout).unwrap_or(LONGEST);
            let exchange =
                outbound.exchange(request, patience.clamp(Duration::from_millis(1), LONGEST)).await;
            let Exchange { response, connection } = exchange.map_err(|error| {
                if let OutboundError::Denied(_) = error {
                    sandbox.deny();
                }
                translate(error)
            })?;
            // The connection lives in the body, which the guest may read or drop.
            let response = response.map(|body| {
                let body = body.map_err(move |_| {
                    let _ = &connection;
                    Error::ConnectionTerminated
                });
                body.boxed_unsync()
            });
            Ok((response, Box::new(async { Ok(()) }) as Box<dyn Future<Output = _> + Send>))
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

fn translate(error: OutboundError) -> Error {
    match error {
        OutboundError::Denied(_) => Error::HttpRequestDenied,
        OutboundError::Invalid(_) => Error::HttpRequestUriInvalid,
        OutboundError::Timeout => Error::ConnectionTimeout,
        OutboundError::TooLarge => Error::HttpResponseHeaderSectionSize(None),
        OutboundError::Failed(_) => Error::ConnectionRefused,
    }
}
