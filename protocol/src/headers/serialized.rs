//! Headers of a response over HTTP/2: the origin's own are wrapped into one header, a second one says who
//! answered (wire.md section 6).
//!
//! Knows the two values and the names around them; does not know HTTP/2.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::StatusCode;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::MAX_HEADERS;
use crate::framing::MAX_MESSAGE;

/// What a request of the edge is for, if not plain HTTP: `update-configuration`, `websocket` or
/// `control-stream`.
pub const UPGRADE: HeaderName = HeaderName::from_static("cf-cloudflared-proxy-connection-upgrade");
/// There and not empty: the request is a TCP flow to `:authority`.
pub const TCP_SOURCE: HeaderName = HeaderName::from_static("cf-cloudflared-proxy-src");
/// Holds what [`serialize`] makes.
pub const RESPONSE_HEADERS: HeaderName = HeaderName::from_static("cf-cloudflared-response-headers");
/// Holds a [`ResponseMeta`].
pub const RESPONSE_META: HeaderName = HeaderName::from_static("cf-cloudflared-response-meta");

/// The status that goes with [`Source::Connector`].
pub const REFUSED: StatusCode = StatusCode::BAD_GATEWAY;

/// Names that begin so belong to the tunnel and never come from an origin.
const RESERVED: [&str; 3] = ["cf-int-", "cf-cloudflared-", "cf-proxy-"];

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    #[serde(rename = "origin")]
    Origin,
    /// The connector itself, because it could not ask the origin.
    #[serde(rename = "cloudflared")]
    Connector,
}

/// Value of [`RESPONSE_META`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseMeta {
    #[serde(rename = "src")]
    pub source: Source,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flow_rate_limited: bool,
}

/// A wrapped list that is not one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SerializedHeadersError {
    #[error("wrapped headers are {bytes} bytes long, more than {MAX_MESSAGE}")]
    TooLong { bytes: usize },
    #[error("more than {MAX_HEADERS} wrapped headers")]
    TooMany,
    #[error("wrapped header {index} is not two base64 texts with a colon between")]
    Pair { index: usize },
    #[error("wrapped header {index} has a name or a value that HTTP forbids")]
    Header { index: usize },
}

/// A meta value that is not the JSON it should be.
#[derive(Debug, thiserror::Error)]
#[error("value of {RESPONSE_META} is not valid")]
pub struct ResponseMetaError(#[from] serde_json::Error);

/// `name:value` with both parts in base64 (standard alphabet, no padding), pairs joined with `;`.
///
/// Names that belong to the tunnel are left out. Empty for no headers.
pub fn serialize(headers: &HeaderMap) -> HeaderValue {
    let mut wrapped = String::new();
    for (name, value) in headers {
        if RESERVED.iter().any(|reserved| name.as_str().starts_with(reserved)) {
            continue;
        }
        if !wrapped.is_empty() {
            wrapped.push(';');
        }
        STANDARD_NO_PAD.encode_string(name, &mut wrapped);
        wrapped.push(':');
        STANDARD_NO_PAD.encode_string(value, &mut wrapped);
    }
    HeaderValue::from_maybe_shared(bytes::Bytes::from(wrapped)).expect("base64, `:` and `;` are printable")
}

/// The headers that [`serialize`] wrapped, in their order.
pub fn deserialize(wrapped: &[u8]) -> Result<HeaderMap, SerializedHeadersError> {
    if wrapped.len() > MAX_MESSAGE {
        return Err(SerializedHeadersError::TooLong { bytes: wrapped.len() });
    }
    let mut headers = HeaderMap::new();
    if wrapped.is_empty() {
        return Ok(headers);
    }
    for (index, pair) in wrapped.split(|byte| *byte == b';').enumerate() {
        if index == MAX_HEADERS {
            return Err(SerializedHeadersError::TooMany);
        }
        let (name, value) = decode_pair(pair).ok_or(SerializedHeadersError::Pair { index })?;
        let name = HeaderName::from_bytes(&name).map_err(|_| SerializedHeadersError::Header { index })?;
        let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(value))
            .map_err(|_| SerializedHeadersError::Header { index })?;
        headers.try_append(name, value).map_err(|_| SerializedHeadersError::TooMany)?;
    }
    Ok(headers)
}

impl ResponseMeta {
    pub fn to_header(self) -> HeaderValue {
        HeaderValue::from_static(match (self.source, self.flow_rate_limited) {
            (Source::Origin, false) => r#"{"src":"origin"}"#,
            (Source::Origin, true) => r#"{"src":"origin","flow_rate_limited":true}"#,
            (Source::Connector, false) => r#"{"src":"cloudflared"}"#,
            (Source::Connector, true) => r#"{"src":"cloudflared","flow_rate_limited":true}"#,
        })
    }

    pub fn from_header(value: &HeaderValue) -> Result<Self, ResponseMetaError> {
        Ok(serde_json::from_slice(value.as_bytes())?)
    }
}

fn decode_pair(pair: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&pair[..colon], &pair[colon + 1..]);
    Some((STANDARD_NO_PAD.decode(name).ok()?, STANDARD_NO_PAD.decode(value).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_headers_keep_order_repeats_and_bytes() {
        let mut headers = HeaderMap::new();
        headers.append("set-cookie", HeaderValue::from_static("a=1"));
        headers.append("set-cookie", HeaderValue::from_static("b=2"));
        headers.append("x-latin", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        headers.append("x-empty", HeaderValue::from_static(""));
        let wrapped = serialize(&headers);
        assert_eq!(wrapped, "c2V0LWNvb2tpZQ:YT0x;c2V0LWNvb2tpZQ:Yj0y;eC1sYXRpbg:Y2Fm6Q;eC1lbXB0eQ:");
        assert_eq!(deserialize(wrapped.as_bytes()), Ok(headers));
        assert_eq!(serialize(&HeaderMap::new()), "");
        assert_eq!(deserialize(b""), Ok(HeaderMap::new()));
    }

    #[test]
    fn headers_of_the_tunnel_are_not_wrapped() {
        let mut headers = HeaderMap::new();
        for name in ["cf-int-x", "cf-cloudflared-x", "cf-proxy-x"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        headers.append("cf-ray", HeaderValue::from_static("1"));
        let unwrapped = deserialize(serialize(&headers).as_bytes()).unwrap();
        assert_eq!(unwrapped.keys().collect::<Vec<_>>(), ["cf-ray"]);
    }

    #[test]
    fn a_broken_list_says_which_pair_is_broken() {
        assert_eq!(deserialize(b"YQ:YQ;YQ"), Err(SerializedHeadersError::Pair { index: 1 }));
        assert_eq!(deserialize(b"YQ:YQ;"), Err(SerializedHeadersError::Pair { index: 1 }));
        assert_eq!(deserialize(b"YQ==:YQ"), Err(SerializedHeadersError::Pair { index: 0 }));
        assert_eq!(deserialize(b":YQ"), Err(SerializedHeadersError::Header { index: 0 }));
        assert_eq!(deserialize(b"YQ:DQo"), Err(SerializedHeadersError::Header { index: 0 }));
        let many = vec!["YQ:YQ"; MAX_HEADERS + 1].join(";");
        assert_eq!(deserialize(many.as_bytes()), Err(SerializedHeadersError::TooMany));
        let long = vec![b'x'; MAX_MESSAGE + 1];
        assert_eq!(deserialize(&long), Err(SerializedHeadersError::TooLong { bytes: long.len() }));
    }

    #[test]
    fn the_meta_value_is_the_json_of_the_reference() {
        for source in [Source::Origin, Source::Connector] {
            for flow_rate_limited in [false, true] {
                let meta = ResponseMeta { source, flow_rate_limited };
                assert_eq!(ResponseMeta::from_header(&meta.to_header()).unwrap(), meta);
                assert_eq!(meta.to_header(), serde_json::to_string(&meta).unwrap());
            }
        }
        assert!(ResponseMeta::from_header(&HeaderValue::from_static("{}")).is_err());
    }
}
