//! Heads as they stand in HTTP/2 (wire.md section 6): a request in plain headers, an answer wrapped into
//! one header. Knows names and values; does not know streams.

use adit_protocol::extensions;
use adit_protocol::headers::serialized::{
    RESPONSE_HEADERS, RESPONSE_META, ResponseMeta, ResponseMetaError, SerializedHeadersError, Source,
    TCP_SOURCE, UPGRADE, deserialize,
};
use adit_protocol::stream::{Answer, Connect};
use h2::ext::Protocol;
use http::header::{self, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Request, Response, StatusCode, response};
use thiserror::Error;

use crate::transport::peer::{Errand, FLEET, NOT_SWITCHED, OUTCOME, Outcome};

/// An answer that a host must not give.
#[derive(Debug, Error)]
pub(crate) enum AnswerError {
    #[error("{name} is missing")]
    Missing { name: HeaderName },
    #[error(transparent)]
    Headers(#[from] SerializedHeadersError),
    #[error(transparent)]
    Meta(#[from] ResponseMetaError),
}

/// What is asked, as an HTTP/2 request.
pub(crate) fn request(connect: &Connect) -> Request<()> {
    let mut asked = Request::new(());
    match connect {
        Connect::Http(request) | Connect::WebSocket(request) => {
            *asked.method_mut() = request.method().clone();
            *asked.uri_mut() = request.uri().clone();
            *asked.headers_mut() = request.headers().clone();
            // `:authority` is the host, and the frames say where a body ends.
            asked.headers_mut().remove(HOST);
            asked.headers_mut().remove(TRANSFER_ENCODING);
        }
        Connect::Tcp { destination } => {
            let uri = http::Uri::try_from(format!("http://{destination}/"));
            *asked.uri_mut() = uri.expect("a socket address is an authority");
            asked.headers_mut().insert(TCP_SOURCE, HeaderValue::from_static("adit"));
        }
    }
    if matches!(connect, Connect::WebSocket(_)) {
        asked.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    asked
}

/// What another node is asked: the request as it is, and what it is about. A WebSocket is an extended CONNECT
/// (RFC 8441).
pub(crate) fn to_peer(connect: &Connect, errand: &Errand) -> Request<()> {
    let mut asked = request(connect);
    let headers = asked.headers_mut();
    // HTTP/2 has none of these.
    for name in [CONNECTION, header::UPGRADE, UPGRADE] {
        headers.remove(name);
    }
    headers.insert(FLEET, errand.header());
    if matches!(connect, Connect::WebSocket(_)) {
        *asked.method_mut() = Method::CONNECT;
        asked.extensions_mut().insert(Protocol::from_static("websocket"));
    }
    asked
}

/// What another node answered, or what became of its attempt.
pub(crate) fn of_peer(mut head: response::Parts, is_websocket: bool) -> Result<Answer, Outcome> {
    if let Some(outcome) = head.headers.get(OUTCOME) {
        return Err(Outcome::of(outcome));
    }
    let mut response = Response::new(());
    let mut headers = std::mem::take(&mut head.headers);
    let not_switched = headers.remove(NOT_SWITCHED).filter(|_| is_websocket);
    *response.status_mut() = match not_switched {
        Some(status) => StatusCode::from_bytes(status.as_bytes()).map_err(|_| Outcome::Failed)?,
        None if is_websocket && head.status == StatusCode::OK => StatusCode::SWITCHING_PROTOCOLS,
        None => head.status,
    };
    *response.headers_mut() = headers;
    Ok(Answer::Http(response))
}

/// What a host answered. The headers around the wrapped ones are not the origin's.
pub(crate) fn answer(head: &response::Parts, is_websocket: bool) -> Result<Answer, AnswerError> {
    let value = |name: HeaderName| head.headers.get(&name).ok_or(AnswerError::Missing { name });
    let meta = ResponseMeta::from_header(value(RESPONSE_META)?)?;
    if meta.source == Source::Connector {
        // Said as it is said over QUIC.
        let is_not_here = head.headers.contains_key(extensions::NOT_HERE);
        let here = if is_not_here { extensions::NOT_HERE_REASON } else { "" };
        let reason = format!("{here}the host answered {} itself", head.status);
        return Ok(Answer::Refused { reason, flow_rate_limited: meta.flow_rate_limited });
    }
    let mut headers = deserialize(value(RESPONSE_HEADERS)?.as_bytes())?;
    // Connectors of the reference say their spans beside the wrapped ones, over QUIC among them.
    if let Some(spans) = head.headers.get(SPANS) {
        headers.insert(SPANS, spans.clone());
    }
    let mut response = Response::new(());
    // HTTP/2 has no 101: it crosses as 200, and the origin's headers show what it was. Nobody else than a
    // WebSocket's server accepts one, so that one that was not asked for is seen here too.
    let is_accepted = is_websocket || headers.contains_key(header::SEC_WEBSOCKET_ACCEPT);
    let has_switched = is_accepted && head.status == StatusCode::OK && is_upgrade(&headers);
    *response.status_mut() = if has_switched { StatusCode::SWITCHING_PROTOCOLS } else { head.status };
    *response.headers_mut() = headers;
    Ok(Answer::Http(response))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What a connector of the reference tells of a trace.
const SPANS: HeaderName = HeaderName::from_static("cf-int-cloudflared-tracing");

#[cfg(test)]
mod tests {
    use adit_protocol::headers::serialized::serialize;

    use super::*;

    fn head(status: u16, meta: &'static str, wrapped: &HeaderMap) -> response::Parts {
        let response = Response::builder()
            .status(status)
            .header("date", "today")
            .header("content-type", "text/guessed")
            .header(RESPONSE_META, meta)
            .header(RESPONSE_HEADERS, serialize(wrapped));
        response.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_request_is_plain_headers_and_says_what_it_is_for() {
        let request = Request::post("https://app.example.com/x?y")
            .header("host", "app.example.com")
            .header("transfer-encoding", "chunked")
            .header("x-many", "1")
            .header("x-many", "2");
        let request = request.body(()).unwrap();
        let asked = super::request(&Connect::Http(request.clone()));
        assert_eq!(asked.uri(), "https://app.example.com/x?y");
        assert_eq!(asked.headers().len(), 2);
        let asked = super::request(&Connect::WebSocket(request));
        assert_eq!(asked.headers()[UPGRADE], "websocket");
        let asked = super::request(&Connect::Tcp { destination: "[::1]:22".parse().unwrap() });
        assert_eq!(asked.uri().authority().unwrap(), "[::1]:22");
        assert!(!asked.headers()[TCP_SOURCE].is_empty());
    }

    #[test]
    fn an_answer_is_what_was_wrapped_and_nothing_else() {
        let mut wrapped = HeaderMap::new();
        wrapped.append("set-cookie", HeaderValue::from_static("a=1"));
        wrapped.append("set-cookie", HeaderValue::from_static("b=2"));
        let Ok(Answer::Http(response)) = answer(&head(404, r#"{"src":"origin"}"#, &wrapped), false) else {
            panic!("not an answer of the origin");
        };
        assert_eq!((response.status(), response.headers()), (StatusCode::NOT_FOUND, &wrapped));
    }

    #[test]
    fn spans_of_a_connector_are_beside_what_its_origin_says() {
        let mut head = head(200, r#"{"src":"origin"}"#, &HeaderMap::new());
        head.headers.insert(SPANS, HeaderValue::from_static("spans"));
        let Answer::Http(response) = answer(&head, false).unwrap() else { panic!("it is one of the origin") };
        assert_eq!(response.headers()[SPANS], "spans");
    }

    #[test]
    fn only_an_upgraded_websocket_is_a_101() {
        let mut upgraded = HeaderMap::new();
        upgraded.insert("upgrade", HeaderValue::from_static("WebSocket"));
        let mut unasked = upgraded.clone();
        unasked.insert("sec-websocket-accept", HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        for (is_websocket, wrapped, status) in [
            (true, &upgraded, StatusCode::SWITCHING_PROTOCOLS),
            (true, &HeaderMap::new(), StatusCode::OK),
            (false, &upgraded, StatusCode::OK),
            (false, &unasked, StatusCode::SWITCHING_PROTOCOLS),
        ] {
            let answer = answer(&head(200, r#"{"src":"origin"}"#, wrapped), is_websocket).unwrap();
            assert!(matches!(answer, Answer::Http(response) if response.status() == status));
        }
    }

    #[test]
    fn what_the_host_answers_itself_is_a_refusal() {
        let limited = r#"{"src":"cloudflared","flow_rate_limited":true}"#;
        for (meta, limited) in [(r#"{"src":"cloudflared"}"#, false), (limited, true)] {
            let answer = answer(&head(502, meta, &HeaderMap::new()), false).unwrap();
            assert!(
                matches!(answer, Answer::Refused { flow_rate_limited, .. } if flow_rate_limited == limited)
            );
        }
    }

    #[test]
    fn an_answer_without_its_two_headers_is_none() {
        let bare = Response::new(()).into_parts().0;
        assert!(matches!(answer(&bare, false), Err(AnswerError::Missing { name }) if name == RESPONSE_META));
        let mut bare = bare;
        bare.headers.insert(RESPONSE_META, HeaderValue::from_static(r#"{"src":"origin"}"#));
        assert!(
            matches!(answer(&bare, false), Err(AnswerError::Missing { name }) if name == RESPONSE_HEADERS)
        );
    }
}
