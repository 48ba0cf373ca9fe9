//! Heads as they stand in HTTP/2 (wire.md, section 6): a request in plain headers, an answer wrapped into
//! one header. Knows names and values; does not know streams.

use adit_protocol::headers::serialized::{
    REFUSED, RESPONSE_HEADERS, RESPONSE_META, ResponseMeta, Source, TCP_SOURCE, UPGRADE, serialize,
};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, Entry, HOST, HeaderMap, HeaderValue, TE};
use http::{Response, StatusCode, request, response};

use crate::proxy::Kind;

/// What a request of the edge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    UpdateConfiguration,
    Tcp,
    Request(Kind),
}

/// What this is for, in the order in which the reference looks. Takes the header off that says it, and
/// puts the host where the proxy looks for it.
pub(super) fn read(head: &mut request::Parts) -> Purpose {
    let upgrade = head.headers.remove(UPGRADE);
    let is_tcp = head.headers.remove(TCP_SOURCE).is_some_and(|source| !source.is_empty());
    if let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
    join_cookies(&mut head.headers);
    match upgrade.as_ref().map(HeaderValue::as_bytes) {
        Some(b"update-configuration") => Purpose::UpdateConfiguration,
        Some(b"websocket") => Purpose::Request(Kind::WebSocket),
        Some(_) | None if is_tcp => Purpose::Tcp,
        Some(_) | None => Purpose::Request(Kind::Http),
    }
}

/// RFC 9113 8.2.3: what HTTP/2 has split is one header again before it leaves HTTP/2.
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(mut cookies) = headers.entry(COOKIE) else { return };
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let joined = cookies.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let joined = HeaderValue::from_bytes(&joined).expect("values joined by `; ` are a header value");
    cookies.insert(joined);
}

/// Whether whoever asks takes trailers in the answer (RFC 9110 10.1.4).
pub(super) fn asks_for_trailers(headers: &HeaderMap) -> bool {
    let mut words = headers.get_all(TE).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    words.any(|word| word.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// The answer of an origin, or one that this host makes in its place.
pub(super) fn answer(head: &response::Parts) -> Response<()> {
    let mut answer = Response::new(());
    // HTTP/2 has no 101; the wrapped headers show what it was.
    *answer.status_mut() =
        if head.status == StatusCode::SWITCHING_PROTOCOLS { StatusCode::OK } else { head.status };
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    // What follows a 101 is another protocol, whose bytes it does not count.
    if head.status != StatusCode::SWITCHING_PROTOCOLS
        && let (Some(length), None) = (lengths.next(), lengths.next())
    {
        answer.headers_mut().insert(CONTENT_LENGTH, length.clone());
    }
    describe(answer.headers_mut(), &head.headers, Source::Origin);
    answer
}

/// Says that no origin was reached; the edge shows its own page for it.
pub(super) fn refusal() -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = REFUSED;
    describe(answer.headers_mut(), &HeaderMap::new(), Source::Connector);
    answer
}

/// Says that a stream leads nowhere, and whether that is because there are too many.
pub(super) fn refused_stream(flow_rate_limited: bool) -> Response<()> {
    let mut answer = refusal();
    let meta = ResponseMeta { source: Source::Connector, flow_rate_limited };
    answer.headers_mut().insert(RESPONSE_META, meta.to_header());
    answer
}

/// Says that what was asked is no request.
pub(super) fn bad_request() -> Response<()> {
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::BAD_REQUEST;
    describe(answer.headers_mut(), &HeaderMap::new(), Source::Connector);
    answer
}

/// Opens the host's direction of the control stream.
pub(super) fn control() -> Response<()> {
    let mut answer = Response::new(());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    answer
}

fn describe(around: &mut HeaderMap, wrapped: &HeaderMap, source: Source) {
    around.insert(RESPONSE_HEADERS, serialize(wrapped));
    around.insert(RESPONSE_META, ResponseMeta { source, flow_rate_limited: false }.to_header());
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(headers: &[(&str, &str)]) -> request::Parts {
        let mut request = Request::get("https://app.example.com/x").header("host", "other.example.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_purpose_of_a_request_is_found_in_the_order_of_the_reference() {
        const UPGRADE: &str = "cf-cloudflared-proxy-connection-upgrade";
        const TCP: &str = "cf-cloudflared-proxy-src";
        for (headers, purpose) in [
            (vec![], Purpose::Request(Kind::Http)),
            (vec![(UPGRADE, "something")], Purpose::Request(Kind::Http)),
            (vec![(TCP, "")], Purpose::Request(Kind::Http)),
            (vec![(TCP, "x")], Purpose::Tcp),
            (vec![(TCP, "x"), (UPGRADE, "websocket")], Purpose::Request(Kind::WebSocket)),
            (vec![(TCP, "x"), (UPGRADE, "update-configuration")], Purpose::UpdateConfiguration),
        ] {
            let mut head = asked(&headers);
            assert_eq!(read(&mut head), purpose, "{headers:?}");
            // Neither an origin nor a plugin sees how it travelled.
            assert_eq!(head.headers.len(), 1, "{headers:?}");
            assert_eq!(head.headers[HOST], "app.example.com");
        }
    }

    #[test]
    fn an_accepted_websocket_crosses_as_200_with_the_real_headers_wrapped() {
        let head = Response::builder().status(101).header("upgrade", "websocket").body(()).unwrap();
        let answer = answer(&head.into_parts().0);
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()[RESPONSE_HEADERS], "dXBncmFkZQ:d2Vic29ja2V0");
        assert_eq!(answer.headers()[RESPONSE_META], r#"{"src":"origin"}"#);
    }

    #[test]
    fn a_length_of_an_accepted_websocket_does_not_count_its_bytes() {
        for (status, wanted) in [(101, None), (200, Some(HeaderValue::from_static("0")))] {
            let head = Response::builder().status(status).header("content-length", "0").body(()).unwrap();
            let answer = answer(&head.into_parts().0);
            assert_eq!(answer.headers().get(CONTENT_LENGTH), wanted.as_ref(), "{status}");
            assert!(!answer.headers()[RESPONSE_HEADERS].is_empty(), "{status}");
        }
    }

    #[test]
    fn cookies_that_http2_split_are_one_header_again() {
        let mut head = asked(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
        read(&mut head);
        assert_eq!(head.headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=1; b=2; c=3"]);
    }

    #[test]
    fn trailers_are_asked_for_by_their_word() {
        for (te, wanted) in [("trailers", true), ("gzip;q=0.5, Trailers", true), ("gzip", false)] {
            assert_eq!(asks_for_trailers(&asked(&[("te", te)]).headers), wanted, "{te}");
        }
    }

    #[test]
    fn a_refusal_is_the_connectors_502() {
        let answer = refusal();
        assert_eq!(answer.status(), 502);
        assert_eq!(answer.headers()[RESPONSE_META], r#"{"src":"cloudflared"}"#);
        assert_eq!(answer.headers()[RESPONSE_HEADERS], "");
    }
}
