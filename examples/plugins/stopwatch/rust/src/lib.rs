//! Says in a header how long the service took.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use adit::plugin::clock;
use exports::wasi::http::handler::Guest;
use wasi::http::handler;
use wasi::http::types::{ErrorCode, Request, Response};

struct Middleware;
export!(Middleware);

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let begun = clock::now();
        // The plugins after this one, and the service.
        let response = handler::handle(request).await?;
        let took = format!("{} ms", clock::now().saturating_sub(begun));
        // The headers of an answer that came cannot be changed, so that they are copied; the body streams
        // past and never enters the memory of this plugin.
        let status = response.get_status_code();
        let headers = response.get_headers().clone();
        let _ = headers.append("x-took", took.as_bytes());
        let (body, trailers) = Response::consume_body(response, wit_future::new(|| Ok(())).1);
        let (response, _) = Response::new(headers, Some(body), trailers);
        let _ = response.set_status_code(status);
        Ok(response)
    }
}
