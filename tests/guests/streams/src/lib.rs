//! A plugin that sees bodies pass by. A request's header `x-do` says what it does with its body, and the configuration
//! what it does with answers: `{"response": "shout"}`.
//!
//! `read` looks on and says at the end, in the trailer `x-read`, how many bytes in how many pieces there were;
//! `shout` makes capitals; `swell` gives each piece eight times; `hold` gives all at the end; `swallow` gives nothing
//! and `ends` at the end; `lie` reads and gives something; `refuse` fails at the end if `secret` was in the body;
//! `break` fails at the second piece; `loop` never comes back from the first, `keep` takes memory without end, `flood`
//! gives two MiB for it; `fail` fails at once; `reply` answers; all others let it go on unseen.

use std::sync::{Mutex, OnceLock, PoisonError};

use bindings::adit::plugin::body_streams::End;
use bindings::adit::plugin::types::{
    Fault, Header, HeaderOp, Reply, RequestEdits, RequestHead, ResponseEdits, ResponseHead,
};
use bindings::exports::adit::plugin::decoding::{Guest as Decoding, Messages};
use bindings::exports::adit::plugin::lifecycle::{Guest as Lifecycle, Manifest};
use bindings::exports::adit::plugin::request_stream_filter::{
    Guest as RequestStreamFilter, RequestStreamAction,
};
use bindings::exports::adit::plugin::response_stream_filter::{
    Guest as ResponseStreamFilter, ResponseStreamAction,
};

#[allow(unsafe_code)]
mod bindings {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "
            package test:streams;
            world guest {
                include adit:plugin/stream-filter@0.1.0;
                export adit:plugin/decoding@0.1.0;
            }
        ",
        world: "test:streams/guest",
        generate_all,
    });

    #[cfg(target_arch = "wasm32")]
    use super::Streams;
    #[cfg(target_arch = "wasm32")]
    export!(Streams with_types_in self);
}

/// The component's exports.
pub struct Streams;

static CONFIG: OnceLock<String> = OnceLock::new();
static BODY: Mutex<Body> = Mutex::new(Body { told: String::new(), pieces: 0, bytes: 0, held: Vec::new() });

/// The body that passes.
struct Body {
    told: String,
    pieces: u64,
    bytes: usize,
    held: Vec<u8>,
}

fn body() -> std::sync::MutexGuard<'static, Body> {
    BODY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Decoding for Streams {
    /// `"decode": true` in the configuration asks for it.
    fn decoded() -> Messages {
        let is_asked = CONFIG.get().is_some_and(|config| config.contains("\"decode\""));
        Messages { requests: is_asked, responses: is_asked }
    }
}

impl Lifecycle for Streams {
    fn describe() -> Manifest {
        Manifest {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            request_headers: vec!["x-do".to_owned(), "content-encoding".to_owned()],
            response_headers: Vec::new(),
        }
    }

    fn configure(config: String) -> Result<(), Vec<Fault>> {
        let _ = CONFIG.set(config);
        Ok(())
    }
}

/// What becomes of a body.
enum Begun {
    Next,
    Read,
    Rewrite,
    Reply(Reply),
}

fn fault(message: &str) -> Fault {
    Fault { code: "told".to_owned(), message: message.to_owned() }
}

fn begin(told: &str) -> Result<Begun, Fault> {
    *body() = Body { told: told.to_owned(), pieces: 0, bytes: 0, held: Vec::new() };
    match told {
        "read" | "lie" | "refuse" => Ok(Begun::Read),
        "shout" | "swell" | "hold" | "swallow" | "break" | "loop" | "keep" | "flood" => Ok(Begun::Rewrite),
        "reply" => Ok(Begun::Reply(Reply { status: 418, headers: Vec::new(), body: b"tea".to_vec() })),
        "fail" => Err(fault("told to fail")),
        _ => Ok(Begun::Next),
    }
}

fn piece(piece: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
    let mut body = body();
    body.pieces += 1;
    body.bytes += piece.len();
    match body.told.as_str() {
        "shout" => Ok(Some(piece.to_ascii_uppercase())),
        "swell" => Ok(Some(piece.repeat(8))),
        "hold" | "swallow" => {
            body.held.extend_from_slice(&piece);
            Ok(Some(Vec::new()))
        }
        "refuse" => {
            body.held.extend_from_slice(&piece);
            Ok(None)
        }
        "lie" => Ok(Some(piece)),
        "loop" => loop {
            std::hint::spin_loop();
        },
        "keep" => loop {
            body.held.extend_from_slice(&[0; 1 << 16]);
        },
        "flood" => Ok(Some(vec![0; 2 << 20])),
        "break" if body.pieces == 2 => Err(fault("told to break")),
        _ => Ok(None),
    }
}

fn end(trailers: &[Header]) -> Result<End, Fault> {
    let mut body = body();
    let held = std::mem::take(&mut body.held);
    let found = trailers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",");
    let read = format!("{} in {}; {found}", body.bytes, body.pieces);
    match body.told.as_str() {
        "refuse" if held.windows(6).any(|window| window == b"secret") => Err(fault("a secret is in it")),
        "hold" => Ok(End { rest: held, trailers: Vec::new() }),
        "swallow" => Ok(End { rest: b"ends".to_vec(), trailers: Vec::new() }),
        "read" => {
            let trailers = vec![HeaderOp::Set(("x-read".to_owned(), read))];
            Ok(End { rest: Vec::new(), trailers })
        }
        _ => Ok(End { rest: Vec::new(), trailers: Vec::new() }),
    }
}

fn begun() -> Vec<HeaderOp> {
    vec![HeaderOp::Set(("x-begun".to_owned(), "1".to_owned()))]
}

impl RequestStreamFilter for Streams {
    fn begin_request(head: RequestHead) -> Result<RequestStreamAction, Fault> {
        let value =
            |name| head.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let told = value("x-do").unwrap_or("");
        let mut headers = begun();
        headers.extend(
            value("content-encoding").map(|coding| HeaderOp::Set(("x-coding".to_owned(), coding.to_owned()))),
        );
        let edits =
            RequestEdits { method: None, authority: None, path_with_query: None, headers, carry: Vec::new() };
        Ok(match begin(told)? {
            Begun::Next => RequestStreamAction::Next,
            Begun::Read => RequestStreamAction::Read(edits),
            Begun::Rewrite => RequestStreamAction::Rewrite(edits),
            Begun::Reply(reply) => RequestStreamAction::Respond(reply),
        })
    }

    fn on_request_piece(bytes: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        piece(bytes)
    }

    fn end_request(trailers: Vec<Header>) -> Result<End, Fault> {
        end(&trailers)
    }
}

impl ResponseStreamFilter for Streams {
    fn begin_response(_head: ResponseHead) -> Result<ResponseStreamAction, Fault> {
        let told = CONFIG.get().and_then(|config| config.split("\"response\":").nth(1));
        let told = told.and_then(|rest| rest.split('"').nth(1)).unwrap_or("");
        let edits = ResponseEdits { status: None, headers: begun() };
        Ok(match begin(told)? {
            Begun::Next => ResponseStreamAction::Next,
            Begun::Read => ResponseStreamAction::Read(edits),
            Begun::Rewrite => ResponseStreamAction::Rewrite(edits),
            Begun::Reply(reply) => ResponseStreamAction::Respond(reply),
        })
    }

    fn on_response_piece(bytes: Vec<u8>) -> Result<Option<Vec<u8>>, Fault> {
        piece(bytes)
    }

    fn end_response(trailers: Vec<Header>) -> Result<End, Fault> {
        end(&trailers)
    }
}
