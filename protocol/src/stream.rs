//! The head of a data stream in both directions: what is asked, and what is answered (wire.md section 4).
//!
//! Knows the signatures, the version and the two messages; how headers become metadata is in
//! [`crate::headers`]. The body behind a head is raw bytes and none of its business.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use capnp::message::{Builder, HeapAllocator};
use http::header::{HOST, HeaderValue};
use http::{Request, Response, Uri};

use crate::framing::{self, FramingError, MAX_MESSAGE};
use crate::headers::{self, MAX_HEADERS};
use crate::schema::quic_metadata_protocol_capnp::{ConnectionType, connect_request, connect_response};

/// First bytes of a data stream, in both directions.
pub const DATA_SIGNATURE: [u8; 6] = [0x0a, 0x36, 0xcd, 0x12, 0xa1, 0x3e];

/// First bytes of a stream that carries RPC; everything behind them belongs to the RPC system.
pub const RPC_SIGNATURE: [u8; 6] = [0x52, 0xbb, 0x82, 0x5c, 0xdb, 0x65];

/// Longest text of [`Answer::Refused`] that is kept, in bytes: it ends up in logs.
pub const MAX_REASON: usize = 4096;

/// The version is read and not looked at, as the reference does.
const VERSION: [u8; 2] = *b"01";
const PREFACE: usize = DATA_SIGNATURE.len() + VERSION.len();

/// What an edge opens towards a host.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are data: a box would cost an allocation per request"
)]
pub enum Opening {
    Data(Connect),
    Rpc,
}

/// What a data stream is for.
///
/// The `uri` of a request is absolute. `Host` in its headers is the host the visitor asked for and there is
/// always exactly one after decoding; the other headers are as they were sent, repeats in their order.
#[derive(Debug)]
pub enum Connect {
    Http(Request<()>),
    /// A request whose answer, if the status is 101, turns the stream into websocket frames.
    WebSocket(Request<()>),
    Tcp {
        destination: SocketAddr,
    },
}

/// How a host answers a [`Connect`].
#[derive(Debug)]
pub enum Answer {
    Http(Response<()>),
    /// The TCP connection stands.
    Accepted,
    /// There is no answer of an origin; the visitor gets a bad gateway.
    Refused {
        reason: String,
        flow_rate_limited: bool,
    },
}

/// The head of a stream says something that we do not accept.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("stream starts with {found:02x?}, which is not a known signature")]
    Signature { found: [u8; 6] },
    #[error(transparent)]
    Framing(#[from] FramingError),
    #[error("malformed message")]
    Message(#[from] capnp::Error),
    #[error("unknown connection type {0}")]
    ConnectionType(u16),
    #[error("destination is not an absolute URL")]
    Url,
    #[error("destination is not an IP address with a port")]
    SocketAddress,
    #[error("metadata has {count} entries, more than {MAX_HEADERS} headers can need")]
    TooManyHeaders { count: u32 },
    #[error("metadata key {key:?} is not `HttpHeader:` and a header name")]
    HeaderKey { key: String },
    #[error("value of header {name} has bytes that HTTP forbids")]
    HeaderValue { name: http::HeaderName },
    #[error("{key} is missing")]
    Missing { key: &'static str },
    #[error("{key} is there more than once")]
    Repeated { key: &'static str },
    #[error("value of {key} is not valid")]
    Invalid { key: &'static str },
}

/// A head that the other side could not read, or would refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("uri of the request is not absolute")]
    RelativeUri,
    #[error("request has more than one Host header")]
    RepeatedHost,
    #[error("{count} headers are more than {MAX_HEADERS}")]
    TooManyHeaders { count: usize },
    #[error("head is {bytes} bytes long, more than {MAX_MESSAGE}")]
    TooLong { bytes: usize },
}

impl Opening {
    /// Takes the head off the front of `buffered` as soon as all of it is there, and leaves the body.
    ///
    /// `None` asks for more bytes; asking again is cheap. After an error the buffer is of no more use.
    /// Values in the result share memory with the buffer instead of being copied.
    pub fn decode(buffered: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        let Some(signature) = signature(buffered) else { return Ok(None) };
        if signature == RPC_SIGNATURE {
            buffered.advance(RPC_SIGNATURE.len());
            return Ok(Some(Self::Rpc));
        }
        let Some(message) = take_message(signature, buffered)? else { return Ok(None) };
        Ok(Some(Self::Data(Connect::read(&message)?)))
    }
}

impl Connect {
    /// Signature, version and message in one buffer, because the reference breaks when the version is split.
    ///
    /// A request without a `Host` header gets the host of its uri.
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Http(request) => encode_request(ConnectionType::Http, request),
            Self::WebSocket(request) => encode_request(ConnectionType::Websocket, request),
            Self::Tcp { destination } => {
                let destination = destination.to_string();
                let words = REQUEST_WORDS + framing::text_words(destination.len());
                let mut message = builder(words)?;
                let mut root = message.init_root::<connect_request::Builder<'_>>();
                root.set_dest(&destination);
                root.set_type(ConnectionType::Tcp);
                Ok(enclose(&message))
            }
        }
    }

    fn read(message: &Bytes) -> Result<Self, DecodeError> {
        let reader = framing::open(message)?;
        let root = reader.get_root::<connect_request::Reader<'_>>()?;
        let kind = root.get_type().map_err(|unknown| DecodeError::ConnectionType(unknown.0))?;
        let destination = root.get_dest()?;
        if kind == ConnectionType::Tcp {
            let destination = destination.to_str().ok().and_then(|text| text.parse().ok());
            return Ok(Self::Tcp { destination: destination.ok_or(DecodeError::SocketAddress)? });
        }

        let uri = url(message.slice_ref(destination.as_bytes()))?;
        if !is_absolute(&uri) {
            return Err(DecodeError::Url);
        }
        let metadata = headers::read_request(root.get_metadata()?, message)?;
        let mut request = Request::new(());
        *request.method_mut() = metadata.method.ok_or(DecodeError::Missing { key: headers::METHOD })?;
        *request.headers_mut() = metadata.headers;
        if !request.headers().contains_key(HOST) {
            let host = HeaderValue::from_str(host(&uri)).map_err(|_| DecodeError::Url)?;
            request.headers_mut().insert(HOST, host);
        }
        *request.uri_mut() = uri;
        Ok(if kind == ConnectionType::Http { Self::Http(request) } else { Self::WebSocket(request) })
    }
}

impl Answer {
    /// Signature, version and message in one buffer.
    ///
    /// A refusal without a reason would be read as an acceptance, so an empty reason is sent as "refused".
    pub fn encode(&self) -> Result<Bytes, EncodeError> {
        match self {
            Self::Http(response) => {
                let size = headers::response_size(response)?;
                let mut message = builder(RESPONSE_WORDS + size.words)?;
                let root = message.init_root::<connect_response::Builder<'_>>();
                headers::write_response(response, root.init_metadata(size.entries));
                Ok(enclose(&message))
            }
            Self::Accepted => {
                let mut message = builder(RESPONSE_WORDS)?;
                message.init_root::<connect_response::Builder<'_>>();
                Ok(enclose(&message))
            }
            Self::Refused { reason, flow_rate_limited } => {
                let reason = if reason.is_empty() { "refused" } else { reason };
                let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
                let size = headers::refusal_size(*flow_rate_limited);
                let mut message = builder(RESPONSE_WORDS + framing::text_words(reason.len()) + size.words)?;
                let mut root = message.init_root::<connect_response::Builder<'_>>();
                root.set_error(reason);
                if *flow_rate_limited {
                    headers::write_flow_rate_limited(root.init_metadata(size.entries));
                }
                Ok(enclose(&message))
            }
        }
    }

    /// Takes the head off the front of `buffered`, as [`Opening::decode`] does.
    ///
    /// A non-empty error wins over everything else that may be there. Without an error and without a status
    /// the answer is [`Answer::Accepted`], unless there are headers, which only an HTTP answer has.
    pub fn decode(buffered: &mut BytesMut) -> Result<Option<Self>, DecodeError> {
        let Some(signature) = signature(buffered) else { return Ok(None) };
        let Some(message) = take_message(signature, buffered)? else { return Ok(None) };

        let reader = framing::open(&message)?;
        let root = reader.get_root::<connect_response::Reader<'_>>()?;
        let error = root.get_error()?;
        if !error.is_empty() {
            return Ok(Some(Self::Refused {
                reason: framing::excerpt(error.as_bytes(), MAX_REASON),
                flow_rate_limited: headers::is_flow_rate_limited(root.get_metadata()?)?,
            }));
        }
        let metadata = headers::read_response(root.get_metadata()?, &message)?;
        let Some(status) = metadata.status else {
            if metadata.headers.is_empty() {
                return Ok(Some(Self::Accepted));
            }
            return Err(DecodeError::Missing { key: headers::STATUS });
        };
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = metadata.headers;
        Ok(Some(Self::Http(response)))
    }
}

/// Root pointer, one word of data, two pointers.
const REQUEST_WORDS: usize = 4;
/// Root pointer, two pointers.
const RESPONSE_WORDS: usize = 3;

fn encode_request(kind: ConnectionType, request: &Request<()>) -> Result<Bytes, EncodeError> {
    let uri = request.uri();
    if !is_absolute(uri) {
        return Err(EncodeError::RelativeUri);
    }
    let scheme = uri.scheme_str().unwrap_or("");
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let parts = [scheme, "://", authority, path];
    let length: usize = parts.iter().map(|part| part.len()).sum();

    let size = headers::request_size(request, host(uri))?;
    let mut message = builder(REQUEST_WORDS + framing::text_words(length) + size.words)?;
    let mut root = message.init_root::<connect_request::Builder<'_>>();
    root.set_type(kind);
    let mut destination = root.reborrow().init_dest(length as u32);
    for part in parts {
        destination.push_str(part);
    }
    headers::write_request(request, host(uri), root.init_metadata(size.entries));
    Ok(enclose(&message))
}

fn builder(words: usize) -> Result<Builder<HeapAllocator>, EncodeError> {
    let bytes = framing::framed_length(words);
    if bytes > MAX_MESSAGE {
        return Err(EncodeError::TooLong { bytes });
    }
    Ok(framing::builder(words))
}

fn enclose(message: &Builder<HeapAllocator>) -> Bytes {
    let [a, b, c, d, e, f] = DATA_SIGNATURE;
    let [major, minor] = VERSION;
    framing::enclose(&[a, b, c, d, e, f, major, minor], message)
}

fn signature(buffered: &[u8]) -> Option<[u8; 6]> {
    buffered.first_chunk().copied()
}

/// The whole message behind signature and version, once it is there.
fn take_message(found: [u8; 6], buffered: &mut BytesMut) -> Result<Option<Bytes>, DecodeError> {
    if found != DATA_SIGNATURE {
        return Err(DecodeError::Signature { found });
    }
    let Some(message) = buffered.get(PREFACE..) else { return Ok(None) };
    let Some(length) = framing::message_length(message)? else { return Ok(None) };
    if message.len() < length {
        return Ok(None);
    }
    buffered.advance(PREFACE);
    Ok(Some(buffered.split_to(length).freeze()))
}

/// The reference passes on what visitors write into a path or a query without an escape, as many programs do. What
/// [`Uri`] has no place for goes on as its escape, which means the same.
fn url(written: Bytes) -> Result<Uri, DecodeError> {
    let escaped = || {
        let mut escaped = Vec::with_capacity(written.len() + 2 * ESCAPED.len());
        for byte in &written {
            if ESCAPED.contains(byte) {
                escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                escaped.push(*byte);
            }
        }
        Bytes::from(escaped)
    };
    Uri::from_maybe_shared(written.clone())
        .or_else(|_| Uri::from_maybe_shared(escaped()))
        .map_err(|_| DecodeError::Url)
}

/// What RFC 3986 has no place for and [`Uri`] takes in neither a path nor a query, or in one of them only.
const ESCAPED: &[u8] = b"\"<>`{}";

/// The `http` crate also takes `://host/` and `http://:80/` for absolute.
fn is_absolute(uri: &Uri) -> bool {
    let filled = |part: Option<&str>| part.is_some_and(|part| !part.is_empty());
    filled(uri.scheme_str()) && filled(uri.host())
}

/// Host and port of an absolute uri, without the user that may stand before them.
fn host(uri: &Uri) -> &str {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}
