//! How HTTP headers cross the tunnel: as metadata of a data stream here, as one wrapped header over HTTP/2 in
//! [`serialized`].
//!
//! Keys are case-sensitive; names of headers are not (wire.md section 4). Header values are bytes: a Cap'n
//! Proto text should be UTF-8, but HTTP allows any byte from 0x80 up, the reference passes them on, and so do
//! we, in both directions.

pub mod serialized;

use bytes::Bytes;
use capnp::struct_list;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::framing::text_words;
use crate::schema::quic_metadata_protocol_capnp::metadata;
use crate::stream::{DecodeError, EncodeError};

/// Most headers in one head, each repeat counted. Ten times what common proxies let through, which leaves
/// room for a `Cookie` that HTTP/2 split into crumbs.
pub const MAX_HEADERS: usize = 1024;

pub(crate) const METHOD: &str = "HttpMethod";
pub(crate) const STATUS: &str = "HttpStatus";
const REQUESTED_HOST: &str = "HttpHost";
const FLOW_RATE_LIMITED: &str = "FlowConnectRateLimited";
/// A header's key: this, one colon, the name.
const HEADER: &str = "HttpHeader";
const HEADER_PREFIX: &str = "HttpHeader:";

/// Entries beside the headers: the known keys, and some that we do not know.
const MAX_ENTRIES: usize = MAX_HEADERS + 16;

pub(crate) struct RequestMetadata {
    pub(crate) method: Option<Method>,
    pub(crate) headers: HeaderMap,
}

pub(crate) struct ResponseMetadata {
    pub(crate) status: Option<StatusCode>,
    pub(crate) headers: HeaderMap,
}

/// Space that a metadata list takes in a message.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) entries: u32,
    pub(crate) words: usize,
}

/// Reads the metadata of a request; values share the memory of `message`.
///
/// A `HttpHeader:Host` does not count, as in the reference: the host is `HttpHost`, so that nobody can show
/// one host to the router and another to the origin.
pub(crate) fn read_request(
    list: struct_list::Reader<'_, metadata::Owned>,
    message: &Bytes,
) -> Result<RequestMetadata, DecodeError> {
    let mut headers = sized(list)?;
    let mut method = None;
    for entry in list {
        let key = entry.get_key()?.as_bytes();
        let value = entry.get_val()?.as_bytes();
        if let Some(name) = header_name(key)? {
            if name != HOST {
                append(&mut headers, name, message.slice_ref(value))?;
            }
        } else if key == METHOD.as_bytes() {
            let new = Method::from_bytes(value).map_err(|_| DecodeError::Invalid { key: METHOD })?;
            once(METHOD, method.replace(new))?;
        } else if key == REQUESTED_HOST.as_bytes() {
            let new = HeaderValue::from_maybe_shared(message.slice_ref(value))
                .map_err(|_| DecodeError::Invalid { key: REQUESTED_HOST })?;
            once(REQUESTED_HOST, headers.insert(HOST, new))?;
        }
    }
    Ok(RequestMetadata { method, headers })
}

/// Reads the metadata of a response; values share the memory of `message`.
pub(crate) fn read_response(
    list: struct_list::Reader<'_, metadata::Owned>,
    message: &Bytes,
) -> Result<ResponseMetadata, DecodeError> {
    let mut headers = sized(list)?;
    let mut status = None;
    for entry in list {
        let key = entry.get_key()?.as_bytes();
        let value = entry.get_val()?.as_bytes();
        if let Some(name) = header_name(key)? {
            append(&mut headers, name, message.slice_ref(value))?;
        } else if key == STATUS.as_bytes() {
            let new = StatusCode::from_bytes(value).map_err(|_| DecodeError::Invalid { key: STATUS })?;
            once(STATUS, status.replace(new))?;
        }
    }
    Ok(ResponseMetadata { status, headers })
}

/// Whether the metadata of a refusal says that the host's limit of flows was the reason.
pub(crate) fn is_flow_rate_limited(
    list: struct_list::Reader<'_, metadata::Owned>,
) -> Result<bool, DecodeError> {
    checked_length(list)?;
    for entry in list {
        if entry.get_key()?.as_bytes() == FLOW_RATE_LIMITED.as_bytes() {
            return Ok(entry.get_val()?.as_bytes() == b"true");
        }
    }
    Ok(false)
}

/// Space for the metadata of a request, which writes `host` where it has no `Host` header.
pub(crate) fn request_size(request: &Request<()>, host: &str) -> Result<Size, EncodeError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().map_or(host.len(), HeaderValue::len);
    if hosts.next().is_some() {
        return Err(EncodeError::RepeatedHost);
    }
    let mut size = Size::default();
    size.add(METHOD.len(), request.method().as_str().len());
    size.add(REQUESTED_HOST.len(), host);
    size.add_headers(request.headers().iter().filter(|(name, _)| *name != HOST))
}

/// Fills a list of [`request_size`] entries.
pub(crate) fn write_request(
    request: &Request<()>,
    host: &str,
    mut list: struct_list::Builder<'_, metadata::Owned>,
) {
    write(list.reborrow().get(0), METHOD, request.method().as_str().as_bytes());
    let host = request.headers().get(HOST).map_or(host.as_bytes(), HeaderValue::as_bytes);
    write(list.reborrow().get(1), REQUESTED_HOST, host);
    write_headers(request.headers().iter().filter(|(name, _)| *name != HOST), 2, list);
}

/// Space for the metadata of a response.
pub(crate) fn response_size(response: &Response<()>) -> Result<Size, EncodeError> {
    let mut size = Size::default();
    size.add(STATUS.len(), response.status().as_str().len());
    size.add_headers(response.headers().iter())
}

/// Fills a list of [`response_size`] entries.
pub(crate) fn write_response(response: &Response<()>, mut list: struct_list::Builder<'_, metadata::Owned>) {
    write(list.reborrow().get(0), STATUS, response.status().as_str().as_bytes());
    write_headers(response.headers().iter(), 1, list);
}

/// Space for the metadata of a refusal; there is no list at all when there is nothing to say.
pub(crate) fn refusal_size(flow_rate_limited: bool) -> Size {
    if !flow_rate_limited {
        return Size { entries: 0, words: 0 };
    }
    let mut size = Size::default();
    size.add(FLOW_RATE_LIMITED.len(), "true".len());
    size
}

pub(crate) fn write_flow_rate_limited(mut list: struct_list::Builder<'_, metadata::Owned>) {
    write(list.reborrow().get(0), FLOW_RATE_LIMITED, b"true");
}

impl Default for Size {
    /// An empty list: only its tag.
    fn default() -> Self {
        Self { entries: 0, words: 1 }
    }
}

impl Size {
    fn add(&mut self, key: usize, value: usize) {
        self.entries += 1;
        self.words += 2 + text_words(key) + text_words(value);
    }

    fn add_headers<'h>(
        mut self,
        headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    ) -> Result<Self, EncodeError> {
        let mut count = 0;
        for (name, value) in headers {
            count += 1;
            self.add(HEADER_PREFIX.len() + name.as_str().len(), value.len());
        }
        if count > MAX_HEADERS {
            return Err(EncodeError::TooManyHeaders { count });
        }
        Ok(self)
    }
}

fn write_headers<'h>(
    headers: impl Iterator<Item = (&'h HeaderName, &'h HeaderValue)>,
    first: u32,
    mut list: struct_list::Builder<'_, metadata::Owned>,
) {
    for (index, (name, value)) in (first..).zip(headers) {
        let mut entry = list.reborrow().get(index);
        let name = name.as_str();
        let mut key = entry.reborrow().init_key((HEADER_PREFIX.len() + name.len()) as u32);
        key.push_str(HEADER_PREFIX);
        key.push_str(name);
        entry.set_val(capnp::text::Reader(value.as_bytes()));
    }
}

fn write(mut entry: metadata::Builder<'_>, key: &str, value: &[u8]) {
    entry.set_key(key);
    entry.set_val(capnp::text::Reader(value));
}

/// An empty map with room for what the list can hold.
fn sized(list: struct_list::Reader<'_, metadata::Owned>) -> Result<HeaderMap, DecodeError> {
    Ok(HeaderMap::with_capacity(checked_length(list)?))
}

fn checked_length(list: struct_list::Reader<'_, metadata::Owned>) -> Result<usize, DecodeError> {
    let count = list.len();
    if count as usize > MAX_ENTRIES {
        return Err(DecodeError::TooManyHeaders { count });
    }
    Ok(count as usize)
}

/// The header that a key names; `None` for every other key.
///
/// The reference takes any key with `HttpHeader` in it for a header and fails the request unless there is
/// exactly one colon. We refuse the same keys, and those where something stands before `HttpHeader`.
fn header_name(key: &[u8]) -> Result<Option<HeaderName>, DecodeError> {
    if let Some(name) = key.strip_prefix(HEADER_PREFIX.as_bytes()) {
        if let Some(known) = usual(name) {
            return Ok(Some(known));
        }
        // A second colon is not a character of a name, nor is anything that HTTP forbids.
        return HeaderName::from_bytes(name).map(Some).map_err(|_| refused(key));
    }
    if key.windows(HEADER.len()).any(|part| part == HEADER.as_bytes()) {
        return Err(refused(key));
    }
    Ok(None)
}

/// Names that every request of an edge has and the library does not know: without a copy of each.
fn usual(name: &[u8]) -> Option<HeaderName> {
    Some(match name {
        b"cf-ray" | b"Cf-Ray" => HeaderName::from_static("cf-ray"),
        b"cf-connecting-ip" | b"Cf-Connecting-Ip" => HeaderName::from_static("cf-connecting-ip"),
        b"cf-visitor" | b"Cf-Visitor" => HeaderName::from_static("cf-visitor"),
        b"cf-ipcountry" | b"Cf-Ipcountry" => HeaderName::from_static("cf-ipcountry"),
        b"cf-warp-tag-id" | b"Cf-Warp-Tag-Id" => HeaderName::from_static("cf-warp-tag-id"),
        b"cdn-loop" | b"Cdn-Loop" => HeaderName::from_static("cdn-loop"),
        b"x-forwarded-for" | b"X-Forwarded-For" => HeaderName::from_static("x-forwarded-for"),
        b"x-forwarded-proto" | b"X-Forwarded-Proto" => HeaderName::from_static("x-forwarded-proto"),
        _ => return None,
    })
}

fn refused(key: &[u8]) -> DecodeError {
    const SHOWN: usize = 128;
    DecodeError::HeaderKey { key: String::from_utf8_lossy(&key[..key.len().min(SHOWN)]).into_owned() }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: Bytes) -> Result<(), DecodeError> {
    let Ok(value) = HeaderValue::from_maybe_shared(value) else {
        return Err(DecodeError::HeaderValue { name });
    };
    match headers.try_append(name, value) {
        Ok(_) => Ok(()),
        Err(_) => Err(DecodeError::TooManyHeaders { count: headers.len() as u32 }),
    }
}

fn once<T>(key: &'static str, earlier: Option<T>) -> Result<(), DecodeError> {
    match earlier {
        None => Ok(()),
        Some(_) => Err(DecodeError::Repeated { key }),
    }
}
