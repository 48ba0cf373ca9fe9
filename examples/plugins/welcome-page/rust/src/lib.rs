//! A service with one page.

wit_bindgen::generate!({ path: "wit", world: "plugin", generate_all });

use exports::wasi::http::incoming_handler::Guest;
use wasi::http::types::{
    Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Service;
export!(Service);

impl Guest for Service {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        match path.split_once('?').unwrap_or((&path, "stranger")) {
            ("/", name) => answer(out, 200, &format!("welcome, {name}\n")),
            _ => answer(out, 404, "nothing is here\n"),
        }
    }
}

fn answer(out: ResponseOutparam, status: u16, text: &str) {
    let kind = ("content-type".to_owned(), b"text/plain; charset=utf-8".to_vec());
    let headers = Fields::from_list(&[kind]).expect("good headers");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).expect("a good status");
    let body = response.body().expect("the only body");
    // The head goes out here; what is written after it streams.
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("the only stream");
    for piece in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(piece).is_err() {
            // Whoever asked has left.
            return;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
