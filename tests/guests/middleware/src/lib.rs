//! A `wasi:http` 0.3 middleware with generated bindings and nothing else. It marks what passes it; the
//! header `x-do` says what it does besides, see [`Middleware::handle`].

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../plugins/wasi3/clocks.wit", "../../../plugins/wasi3/http.wit"],
        inline: "
            package test:middleware;
            world middleware {
                import wasi:http/handler@0.3.0;
                export wasi:http/handler@0.3.0;
            }
        ",
        world: "test:middleware/middleware",
        generate_all,
    });

    export!(Middleware);

    use super::Middleware;
}

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::http::handler;
use bindings::wasi::http::types::{ErrorCode, Fields, Request, Response};
use bindings::{wit_future, wit_stream};
use wit_bindgen::{StreamReader, StreamResult};

struct Middleware;

/// One read or write, bytes.
const CHUNK: usize = 4096;

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let told = request.get_headers().get("x-do");
        let told = told.first().map(|value| String::from_utf8_lossy(value).into_owned());
        let told = told.as_deref().unwrap_or_default();
        match told {
            "trap" => panic!("asked to break"),
            "loop" => loop {
                std::hint::black_box(());
            },
            "deny" => {
                let (response, _) = Response::new(Fields::new(), None, wit_future::new(|| Ok(None)).1);
                response.set_status_code(403).expect("a good status");
                return Ok(response);
            }
            // What stands behind is asked twice; the second answer counts.
            "twice" => {
                let (first, _) =
                    Request::new(request.get_headers().clone(), None, wit_future::new(|| Ok(None)).1, None);
                address(&first, &request);
                handler::handle(first).await?;
            }
            _ => {}
        }
        let response = handler::handle(forward(request, told == "shout")).await?;
        if told == "late" {
            panic!("asked to break after the fact");
        }
        Ok(back(response, told == "shout"))
    }
}

/// The same request with another header; its body as it is, or by way of this guest's memory.
fn forward(request: Request, shout: bool) -> Request {
    let headers = request.get_headers().clone();
    headers.append("x-through", b"middleware").expect("a good header");
    let about = Request::new(Fields::new(), None, wit_future::new(|| Ok(None)).1, None).0;
    address(&about, &request);
    let (body, trailers) = Request::consume_body(request, wit_future::new(|| Ok(())).1);
    let body = if shout { shouted(body) } else { body };
    let (next, _) = Request::new(headers, Some(body), trailers, None);
    address(&next, &about);
    next
}

fn back(response: Response, shout: bool) -> Response {
    let headers = response.get_headers().clone();
    headers.append("x-passed", b"middleware").expect("a good header");
    let status = response.get_status_code();
    let (body, trailers) = Response::consume_body(response, wit_future::new(|| Ok(())).1);
    let body = if shout { shouted(body) } else { body };
    let (next, _) = Response::new(headers, Some(body), trailers);
    next.set_status_code(status).expect("a status that came");
    next
}

/// Copies method, scheme, authority and path.
fn address(to: &Request, from: &Request) {
    to.set_method(&from.get_method()).expect("a method that came");
    to.set_scheme(from.get_scheme().as_ref()).expect("a scheme that came");
    to.set_authority(from.get_authority().as_deref()).expect("an authority that came");
    to.set_path_with_query(from.get_path_with_query().as_deref()).expect("a path that came");
}

fn shouted(mut body: StreamReader<u8>) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        loop {
            let (result, mut bytes) = body.read(Vec::with_capacity(CHUNK)).await;
            bytes.make_ascii_uppercase();
            if !writer.write_all(bytes).await.is_empty() || result == StreamResult::Dropped {
                return;
            }
        }
    });
    reader
}
