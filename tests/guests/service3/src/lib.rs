//! A `wasi:http` 0.3 service with generated bindings and nothing else. The path says what it does; see
//! [`Service::handle`].

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../plugins/wasi3/clocks.wit", "../../../plugins/wasi3/http.wit"],
        inline: "
            package test:service;
            world service {
                import wasi:clocks/monotonic-clock@0.3.0;
                import wasi:http/client@0.3.0;
                export wasi:http/handler@0.3.0;
            }
        ",
        world: "test:service/service",
        generate_all,
    });

    export!(Service);

    use super::Service;
}

use bindings::exports::wasi::http::handler::Guest;
use bindings::wasi::clocks::monotonic_clock;
use bindings::wasi::http::client;
use bindings::wasi::http::types::{ErrorCode, Fields, Request, Response, Scheme, Trailers};
use bindings::{wit_future, wit_stream};
use wit_bindgen::{FutureReader, StreamReader, StreamResult};

struct Service;

type Ending = FutureReader<Result<Option<Trailers>, ErrorCode>>;

/// One read or write, bytes.
const CHUNK: usize = 4096;

impl Guest for Service {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        match path {
            // The body as it is, and what is behind it.
            "/echo" => {
                let (body, trailers) = consume(request);
                Ok(respond(200, Some(body), trailers))
            }
            // The same by way of this guest's memory.
            "/shout" => {
                let (mut body, _) = consume(request);
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
                Ok(respond(200, Some(reader), nothing()))
            }
            "/headers" => {
                let pairs = request.get_headers().copy_all();
                let lines =
                    pairs.iter().map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)));
                Ok(text(lines.collect()))
            }
            "/about" => Ok(text(format!(
                "{:?} {} {query}\n",
                request.get_method(),
                request.get_authority().unwrap_or_default()
            ))),
            "/trailers" => {
                let (trailers, future) = wit_future::new(|| Ok(None));
                wit_bindgen::spawn_local(async move {
                    let fields = Fields::from_list(&[("x-sum".to_owned(), b"42".to_vec())]);
                    let _ = trailers.write(Ok(Some(fields.expect("good trailers")))).await;
                });
                Ok(respond(200, Some(written(b"summed\n".to_vec())), future))
            }
            "/big" => {
                let megabytes = query.parse::<usize>().unwrap_or(1);
                let (mut writer, reader) = wit_stream::new();
                wit_bindgen::spawn_local(async move {
                    for _ in 0..megabytes * 256 {
                        if !writer.write_all(vec![b'x'; CHUNK]).await.is_empty() {
                            return;
                        }
                    }
                });
                Ok(respond(200, Some(reader), nothing()))
            }
            "/endless" => {
                let (mut writer, reader) = wit_stream::new();
                wit_bindgen::spawn_local(async move {
                    while writer.write_all(vec![b'.'; CHUNK]).await.is_empty() {}
                });
                Ok(respond(200, Some(reader), nothing()))
            }
            "/torn" => {
                let (mut writer, reader) = wit_stream::new();
                wit_bindgen::spawn_local(async move {
                    writer.write_all(b"the first half".to_vec()).await;
                    monotonic_clock::wait_for(50_000_000).await;
                    panic!("asked to break in the middle");
                });
                Ok(respond(200, Some(reader), nothing()))
            }
            "/fetch" => Ok(match fetch(query).await {
                Ok((status, body)) => respond(status, Some(body), nothing()),
                Err(code) => respond(502, Some(written(format!("{code:?}").into_bytes())), nothing()),
            }),
            "/wait" => {
                monotonic_clock::wait_for(3_600_000_000_000).await;
                Ok(text(String::new()))
            }
            "/error" => Err(ErrorCode::ConfigurationError),
            "/trap" => panic!("asked to break"),
            "/loop" => loop {
                std::hint::black_box(());
            },
            "/eat" => loop {
                std::mem::forget(std::hint::black_box(vec![7_u8; 1 << 20]));
            },
            _ => Ok(text("hello from wasi:http 0.3\n".to_owned())),
        }
    }
}

fn text(text: String) -> Response {
    respond(200, Some(written(text.into_bytes())), nothing())
}

fn respond(status: u16, body: Option<StreamReader<u8>>, trailers: Ending) -> Response {
    let headers = Fields::from_list(&[("x-service".to_owned(), b"wasi3".to_vec())]);
    let (response, _) = Response::new(headers.expect("good headers"), body, trailers);
    response.set_status_code(status).expect("a good status");
    response
}

/// A body of these bytes.
fn written(bytes: Vec<u8>) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        writer.write_all(bytes).await;
    });
    reader
}

/// No trailers.
fn nothing() -> Ending {
    wit_future::new(|| Ok(None)).1
}

fn consume(request: Request) -> (StreamReader<u8>, Ending) {
    Request::consume_body(request, wit_future::new(|| Ok(())).1)
}

/// Asks `http://AUTHORITY/PATH`.
async fn fetch(url: &str) -> Result<(u16, StreamReader<u8>), ErrorCode> {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (request, _) = Request::new(Fields::new(), None, nothing(), None);
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    let response = client::send(request).await?;
    let status = response.get_status_code();
    let (body, _) = Response::consume_body(response, wit_future::new(|| Ok(())).1);
    Ok((status, body))
}
