//! A `wasi:http` 0.2 service with the standard bindings and nothing else. The path says what it does;
//! see [`Service::handle`].

use wasi::clocks::monotonic_clock;
use wasi::exports::http::incoming_handler::Guest;
use wasi::http::outgoing_handler;
use wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasi::io::streams::{InputStream, OutputStream, StreamError};

struct Service;

#[allow(unsafe_code)]
mod exports {
    use super::Service;

    wasi::http::proxy::export!(Service with_types_in wasi);
}

/// One read or write, bytes; a stream takes at most this much at once.
const CHUNK: u64 = 4096;

impl Guest for Service {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (path, query) = path.split_once('?').unwrap_or((&path, ""));
        match path {
            "/echo" => respond(out, 200, |body| {
                let incoming = request.consume().expect("consumed once");
                let stream = incoming.stream().expect("one stream");
                copy(&stream, body);
            }),
            "/headers" => respond(out, 200, |body| {
                for (name, value) in request.headers().entries() {
                    write(body, format!("{name}: {}\n", String::from_utf8_lossy(&value)).as_bytes());
                }
            }),
            "/about" => respond(out, 200, |body| {
                let environment = wasi::cli::environment::get_environment().len();
                let folders = wasi::filesystem::preopens::get_directories().len();
                let authority = request.authority().unwrap_or_default();
                write(body, format!("{environment} {folders} {authority} {query}\n").as_bytes());
            }),
            "/big" => respond(out, 200, |body| {
                for _ in 0..query.parse::<u64>().unwrap_or(1) * 256 {
                    write(body, &[b'x'; CHUNK as usize]);
                }
            }),
            "/steps" => respond(out, 200, |body| {
                for step in 0..3 {
                    write(body, format!("step {step}\n").as_bytes());
                    monotonic_clock::subscribe_duration(200_000_000).block();
                }
            }),
            "/fetch" => {
                let (status, text) = fetch(query);
                respond(out, status, |body| write(body, text.as_bytes()));
            }
            "/torn" => respond(out, 200, |body| {
                write(body, b"the first half");
                monotonic_clock::subscribe_duration(50_000_000).block();
                panic!("asked to break in the middle");
            }),
            "/trap" => panic!("asked to break"),
            "/loop" => loop {
                std::hint::black_box(());
            },
            "/silent" => {}
            "/late" => {
                respond(out, 200, |body| write(body, b"not done yet\n"));
                monotonic_clock::subscribe_duration(20_000_000).block();
            }
            "/teapot" => respond(out, 418, |_| {}),
            _ => respond(out, 200, |body| write(body, b"hello from wasi:http\n")),
        }
    }
}

/// Answers with a body that `fill` writes.
fn respond(out: ResponseOutparam, status: u16, fill: impl FnOnce(&OutputStream)) {
    let headers = Fields::new();
    headers.append(&"x-service".to_owned(), &b"wasi".to_vec()).expect("a good header");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a good status");
    let body = response.body().expect("one body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("one stream");
    fill(&stream);
    drop(stream);
    OutgoingBody::finish(body, None).expect("a complete body");
}

fn copy(from: &InputStream, to: &OutputStream) {
    loop {
        match from.blocking_read(CHUNK) {
            Ok(bytes) => write(to, &bytes),
            Err(StreamError::Closed) => return,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn write(to: &OutputStream, bytes: &[u8]) {
    for part in bytes.chunks(CHUNK as usize) {
        // The visitor has gone: nothing to do about it.
        if to.blocking_write_and_flush(part).is_err() {
            return;
        }
    }
}

/// Asks `http://AUTHORITY/PATH`; the status and what was answered, or 502 and the error.
fn fetch(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").unwrap_or(url);
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(path)).expect("a path");
    let answer = match outgoing_handler::handle(request, None) {
        Ok(answer) => answer,
        Err(error) => return (502, format!("{error:?}")),
    };
    answer.subscribe().block();
    let response = match answer.get().expect("ready").expect("taken once") {
        Ok(response) => response,
        Err(error) => return (502, format!("{error:?}")),
    };
    let incoming = response.consume().expect("one body");
    let stream = incoming.stream().expect("one stream");
    let mut text = Vec::new();
    while let Ok(bytes) = stream.blocking_read(CHUNK) {
        text.extend(bytes);
    }
    (response.status(), String::from_utf8_lossy(&text).into_owned())
}
