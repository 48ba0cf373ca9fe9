//! Requests that can be told apart: each says its mark, and the answer proves that it belongs to it.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Body, Error, empty, lock};
use crate::bulk::{Bulk, Digest};

/// The header that tells requests apart; the answer repeats it.
pub const MARK: &str = "x-mark";
/// The answer's header with the digest of the request's body: its bytes, a hyphen, its hash.
pub const DIGEST: &str = "x-digest";

/// The answer's header with the names of headers that were no business of the origin.
pub const LEAKED: &str = "x-leaked";
/// How the headers begin that the product's own ends send each other.
pub const INTERNAL: &str = "adit-";

/// `/load/BYTES/MILLISECONDS`.
pub(super) async fn answer(
    request: Request<Incoming>,
    arrivals: &Mutex<HashMap<String, usize>>,
) -> Result<Response<Body>, Error> {
    let mut numbers = request.uri().path().split('/').skip(2).map(str::parse::<u64>);
    let (Some(Ok(bytes)), Some(Ok(milliseconds))) = (numbers.next(), numbers.next()) else {
        return Ok(Response::builder().status(StatusCode::BAD_REQUEST).body(empty())?);
    };
    let mark = request.headers().get(MARK).cloned().unwrap_or(HeaderValue::from_static("none"));
    if !request.method().is_idempotent() {
        let mark = String::from_utf8_lossy(mark.as_bytes()).into_owned();
        *lock(arrivals).entry(mark).or_default() += 1;
    }
    let internal =
        request.headers().keys().map(|name| name.as_str()).filter(|name| name.starts_with(INTERNAL));
    let leaked = internal.collect::<Vec<_>>().join(" ");
    let mut body = request.into_body();
    let mut digest = Digest::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            digest.add(&data);
        }
    }
    if milliseconds > 0 {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
    }
    let body = Bulk::new(bytes).map_err(Into::into).boxed_unsync();
    let response = Response::builder().header(MARK, mark).header(DIGEST, digest.to_string());
    let response = if leaked.is_empty() { response } else { response.header(LEAKED, leaked) };
    Ok(response.body(body)?)
}
