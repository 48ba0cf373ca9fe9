//! The `http-client` interface: one whole request and its whole answer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{Method, Request, Uri};

use super::super::bindings::adit::plugin::http_client as bound;
use super::super::store::State;
use super::super::text::printable;
use crate::outbound::{LONGEST, OutboundError, is_sendable};
use bound::Error;

/// Largest body of a request, bytes.
const LARGEST_BODY: usize = 512 * 1024;
const MOST_HEADERS: usize = 128;
const LONGEST_REASON: usize = 256;

/// What the client sets itself.
const RESERVED: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HOST,
    CONTENT_LENGTH,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

impl bound::Host for State {
    async fn send(&mut self, request: bound::Request) -> Result<bound::Response, Error> {
        let Some(outbound) = self.sandbox.outbound.clone() else {
            self.sandbox.deny();
            return Err(Error::Denied("no destination is granted".to_owned()));
        };
        let timeout = request.timeout_ms.map_or(LONGEST, |ms| Duration::from_millis(ms.into()));
        let redirects = request.redirects;
        let answer = outbound.send(check(request)?, redirects, timeout).await.map_err(|error| {
            if let OutboundError::Denied(_) = error {
                self.sandbox.deny();
            }
            translate(error)
        })?;
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        Ok(bound::Response {
            status: answer.status().as_u16(),
            headers: answer.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
            body: answer.into_body().into(),
        })
    }
}

fn check(request: bound::Request) -> Result<Request<Bytes>, Error> {
    let invalid = |what: &str| Error::Invalid(what.to_owned());
    if request.body.len() > LARGEST_BODY {
        return Err(invalid("its body is over 512 KiB"));
    }
    if request.headers.len() > MOST_HEADERS {
        return Err(invalid("it has too many headers"));
    }
    let method = Method::from_bytes(request.method.as_bytes()).ok().filter(is_sendable);
    let method = method.ok_or_else(|| invalid("its method cannot be sent"))?;
    let uri: Uri = request.url.parse().map_err(|_| invalid("its URL cannot be read"))?;
    let mut checked = Request::new(Bytes::from(request.body));
    (*checked.method_mut(), *checked.uri_mut()) = (method, uri);
    for (name, value) in request.headers {
        let name: HeaderName = name.parse().map_err(|_| invalid("one of its headers has no good name"))?;
        if RESERVED.contains(&name) {
            return Err(Error::Invalid(format!("the header {name} is set by the host")));
        }
        let value = HeaderValue::from_maybe_shared(Bytes::from(value));
        let value =
            value.map_err(|_| Error::Invalid(format!("the value of its header {name} is not one")))?;
        checked.headers_mut().append(name, value);
    }
    Ok(checked)
}

fn translate(error: OutboundError) -> Error {
    let short = |reason: &str| printable(reason, LONGEST_REASON).into_owned();
    match error {
        OutboundError::Denied(reason) => Error::Denied(short(&reason)),
        OutboundError::Invalid(reason) => Error::Invalid(short(&reason)),
        OutboundError::Timeout => Error::Timeout,
        OutboundError::TooLarge => Error::TooLarge,
        OutboundError::Failed(reason) => Error::Failed(short(&reason)),
    }
}
