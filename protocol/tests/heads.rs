//! What we write at the head of a stream is read as what was meant, and nothing is written that the other side
//! would refuse.

#![allow(clippy::unwrap_used, reason = "a failing helper fails its test")]

use std::net::SocketAddr;

use adit_protocol::framing::MAX_MESSAGE;
use adit_protocol::headers::MAX_HEADERS;
use adit_protocol::stream::{Answer, Connect, DATA_SIGNATURE, DecodeError, EncodeError, MAX_REASON, Opening};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use proptest::prelude::*;

fn send(connect: &Connect) -> Connect {
    let mut buffered = BytesMut::from(connect.encode().unwrap());
    let Ok(Some(Opening::Data(read))) = Opening::decode(&mut buffered) else { panic!("{connect:?}") };
    assert!(buffered.is_empty());
    read
}

fn answer(answer: &Answer) -> Answer {
    let mut buffered = BytesMut::from(answer.encode().unwrap());
    let read = Answer::decode(&mut buffered).unwrap().unwrap();
    assert!(buffered.is_empty());
    read
}

fn request(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

#[test]
fn a_head_is_one_buffer_with_signature_version_and_one_segment() {
    let mut wanted = request("https://app.example.com/path?query=1");
    wanted.headers_mut().append("x-a", HeaderValue::from_static("1234567"));
    wanted.headers_mut().append("x-bc", HeaderValue::from_static("12345678"));
    let heads: [Bytes; 6] = [
        Connect::Http(wanted).encode().unwrap(),
        Connect::Tcp { destination: "[2001:db8::1]:22".parse().unwrap() }.encode().unwrap(),
        Answer::Http(Response::new(())).encode().unwrap(),
        Answer::Accepted.encode().unwrap(),
        Answer::Refused { reason: "no".into(), flow_rate_limited: false }.encode().unwrap(),
        Answer::Refused { reason: "seven b".into(), flow_rate_limited: true }.encode().unwrap(),
    ];
    for head in heads {
        assert_eq!(head[..6], DATA_SIGNATURE);
        assert_eq!(&head[6..8], b"01");
        assert_eq!(head[8..12], [0; 4], "one segment");
        let words = u32::from_le_bytes(head[12..16].try_into().unwrap()) as usize;
        assert_eq!(head.len(), 16 + words * 8);
    }
}

#[test]
fn a_request_without_a_host_header_has_the_host_of_its_url() {
    for (uri, host) in [
        ("http://app.example.com/", "app.example.com"),
        ("https://app.example.com:8443/x?y", "app.example.com:8443"),
        ("http://somebody:password@app.example.com/", "app.example.com"),
        ("http://[2001:db8::1]:8080/", "[2001:db8::1]:8080"),
    ] {
        let Connect::Http(read) = send(&Connect::Http(request(uri))) else { panic!("{uri}") };
        assert_eq!(read.headers()["host"], host);
        assert_eq!(read.uri(), uri);
    }
}

#[test]
fn a_tcp_destination_is_sent_as_it_is() {
    for destination in ["192.0.2.1:22", "[2001:db8::1]:65535"] {
        let destination: SocketAddr = destination.parse().unwrap();
        let Connect::Tcp { destination: read } = send(&Connect::Tcp { destination }) else { panic!() };
        assert_eq!(read, destination);
    }
}

#[test]
fn a_websocket_request_stays_one() {
    assert!(matches!(send(&Connect::WebSocket(request("http://a/"))), Connect::WebSocket(_)));
}

#[test]
fn a_request_that_the_other_side_would_misread_is_not_sent() {
    let encode = |request| Connect::Http(request).encode().unwrap_err();
    assert_eq!(encode(request("/only/a/path")), EncodeError::RelativeUri);
    assert_eq!(encode(request("example.com:80")), EncodeError::RelativeUri);
    assert_eq!(encode(request("http://:80/")), EncodeError::RelativeUri);

    let mut two_hosts = request("http://a/");
    two_hosts.headers_mut().append("host", HeaderValue::from_static("a"));
    two_hosts.headers_mut().append("host", HeaderValue::from_static("b"));
    assert_eq!(encode(two_hosts), EncodeError::RepeatedHost);
}

#[test]
fn a_head_reaches_its_limits_and_does_not_pass_them() {
    let with_headers = |count: usize, length: usize| {
        let mut response = Response::new(());
        for _ in 0..count {
            response.headers_mut().append("x", HeaderValue::from_bytes(&vec![b'v'; length]).unwrap());
        }
        Answer::Http(response)
    };
    let Answer::Http(read) = answer(&with_headers(MAX_HEADERS, 1)) else { panic!() };
    assert_eq!(read.headers().len(), MAX_HEADERS);
    let refused = with_headers(MAX_HEADERS + 1, 1).encode();
    assert_eq!(refused, Err(EncodeError::TooManyHeaders { count: MAX_HEADERS + 1 }));

    // Segment table and root, list tag, two entries, three short texts; the value and its NUL fill the rest.
    let longest = MAX_MESSAGE - 8 * (1 + 3 + 1 + 4 + 2 + 1 + 2) - 1;
    let Answer::Http(read) = answer(&with_headers(1, longest)) else { panic!() };
    assert_eq!(read.headers()["x"].len(), longest);
    let refused = with_headers(1, longest + 1).encode();
    assert_eq!(refused, Err(EncodeError::TooLong { bytes: MAX_MESSAGE + 8 }));
}

#[test]
fn a_refusal_is_always_read_as_one() {
    for flow_rate_limited in [false, true] {
        for (reason, expected) in [
            ("no", "no".to_owned()),
            ("", "refused".into()),
            (&"ü".repeat(MAX_REASON), "ü".repeat(MAX_REASON / 2)),
        ] {
            let refusal = Answer::Refused { reason: reason.to_owned(), flow_rate_limited };
            let Answer::Refused { reason, flow_rate_limited: read } = answer(&refusal) else { panic!() };
            assert_eq!(reason, expected);
            assert_eq!(read, flow_rate_limited);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_survives_the_way_over_the_wire(
        method in "[A-Z]{1,10}",
        path in "/[a-z0-9/]{0,40}(\\?[a-z0-9=&]{0,20})?",
        headers in headers(),
    ) {
        let mut wanted = request(&format!("https://app.example.com{path}"));
        *wanted.method_mut() = Method::from_bytes(method.as_bytes()).unwrap();
        *wanted.headers_mut() = headers;
        wanted.headers_mut().insert("host", HeaderValue::from_static("other.example.com"));
        let Connect::Http(read) = send(&Connect::Http(wanted.clone())) else { panic!() };
        prop_assert_eq!(read.method(), wanted.method());
        prop_assert_eq!(read.uri(), wanted.uri());
        prop_assert_eq!(read.headers(), wanted.headers());
    }

    #[test]
    fn every_response_survives_the_way_over_the_wire(status in 100_u16..1000, headers in headers()) {
        let mut wanted = Response::new(());
        *wanted.status_mut() = StatusCode::from_u16(status).unwrap();
        *wanted.headers_mut() = headers;
        let Answer::Http(read) = answer(&Answer::Http(wanted.clone())) else { panic!() };
        prop_assert_eq!(read.status(), wanted.status());
        prop_assert_eq!(read.headers(), wanted.headers());
    }
}

/// Repeats, empty values and bytes that are not UTF-8 included.
fn headers() -> impl Strategy<Value = HeaderMap> {
    let value = prop::collection::vec(prop_oneof![32_u8..127, 128_u8..=255, Just(b'\t')], 0..40);
    prop::collection::vec(("x-[a-f]{1,9}", value), 0..30).prop_map(|headers| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(&value).unwrap());
        }
        map
    })
}

/// A head with metadata of our choice, which no [`Connect`] could hold.
mod metadata {
    use adit_protocol::schema::quic_metadata_protocol_capnp::{
        ConnectionType, connect_request, connect_response,
    };
    use capnp::message::{Builder, HeapAllocator};

    use super::*;

    fn head(message: &Builder<HeapAllocator>) -> BytesMut {
        let mut bytes = [&DATA_SIGNATURE[..], b"01"].concat();
        capnp::serialize::write_message(&mut bytes, message).unwrap();
        BytesMut::from(&bytes[..])
    }

    fn ask(dest: &str, entries: &[(&str, &[u8])]) -> Result<Connect, DecodeError> {
        let mut message = Builder::new_default();
        let mut root: connect_request::Builder<'_> = message.init_root();
        root.set_dest(dest);
        root.set_type(ConnectionType::Http);
        let mut list = root.init_metadata(entries.len() as u32);
        for (index, (key, value)) in (0..).zip(entries) {
            list.reborrow().get(index).set_key(key);
            list.reborrow().get(index).set_val(capnp::text::Reader(value));
        }
        match Opening::decode(&mut head(&message))? {
            Some(Opening::Data(connect)) => Ok(connect),
            other => panic!("{other:?}"),
        }
    }

    fn read(dest: &str, entries: &[(&str, &[u8])]) -> Request<()> {
        match ask(dest, entries) {
            Ok(Connect::Http(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    fn reply(error: &str, entries: &[(&str, &str)]) -> Result<Answer, DecodeError> {
        let mut message = Builder::new_default();
        let mut root: connect_response::Builder<'_> = message.init_root();
        root.set_error(error);
        let mut list = root.init_metadata(entries.len() as u32);
        for (index, (key, value)) in (0..).zip(entries) {
            list.reborrow().get(index).set_key(key);
            list.reborrow().get(index).set_val(value);
        }
        Answer::decode(&mut head(&message)).map(Option::unwrap)
    }

    #[test]
    fn unknown_keys_are_left_alone_and_known_ones_are_case_sensitive() {
        let request = read(
            "http://a/",
            &[
                ("HttpMethod", b"PUT"),
                ("httpmethod", b"GET"),
                ("FlowID", b"1"),
                ("cf-trace-id", b"\xff"),
                ("", b""),
            ],
        );
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.headers().len(), 1, "only the host of the url");
        assert!(matches!(
            ask("http://a/", &[("httpmethod", b"GET")]),
            Err(DecodeError::Missing { key: "HttpMethod" })
        ));
    }

    #[test]
    fn only_the_one_host_counts() {
        let request = read(
            "http://a/",
            &[
                ("HttpHeader:Host", b"evil"),
                ("HttpMethod", b"GET"),
                ("HttpHost", b"b"),
                ("HttpHeader:host", b"evil"),
            ],
        );
        assert_eq!(request.headers().get_all("host").iter().collect::<Vec<_>>(), ["b"]);
        let request = read("http://a:81/", &[("HttpMethod", b"GET"), ("HttpHeader:Host", b"evil")]);
        assert_eq!(request.headers()["host"], "a:81");
    }

    #[test]
    fn what_may_be_there_once_may_not_be_there_twice() {
        let twice = ask("http://a/", &[("HttpMethod", b"GET"), ("HttpMethod", b"GET")]);
        assert!(matches!(twice, Err(DecodeError::Repeated { key: "HttpMethod" })), "{twice:?}");
        let twice = ask("http://a/", &[("HttpMethod", b"GET"), ("HttpHost", b"a"), ("HttpHost", b"b")]);
        assert!(matches!(twice, Err(DecodeError::Repeated { key: "HttpHost" })), "{twice:?}");
        let twice = reply("", &[("HttpStatus", "200"), ("HttpStatus", "200")]);
        assert!(matches!(twice, Err(DecodeError::Repeated { key: "HttpStatus" })), "{twice:?}");
    }

    #[test]
    fn a_header_key_has_exactly_one_colon_and_a_name() {
        for key in
            ["HttpHeader", "HttpHeader:", "HttpHeader:A:B", "HttpHeader::", "XHttpHeader:A", "HttpHeader A:B"]
        {
            let refused = ask("http://a/", &[("HttpMethod", b"GET"), (key, b"x")]);
            assert!(
                matches!(&refused, Err(DecodeError::HeaderKey { key: named }) if named == key),
                "{key}: {refused:?}"
            );
        }
    }

    #[test]
    fn bytes_that_http_forbids_do_not_get_in() {
        for value in [&b"a\r\nX: y"[..], b"\0", b"\x7f", b"\n"] {
            let refused = ask("http://a/", &[("HttpMethod", b"GET"), ("HttpHeader:X-A", value)]);
            assert!(
                matches!(&refused, Err(DecodeError::HeaderValue { name }) if name == "x-a"),
                "{refused:?}"
            );
            let refused = ask("http://a/", &[("HttpMethod", b"GET"), ("HttpHost", value)]);
            assert!(matches!(refused, Err(DecodeError::Invalid { key: "HttpHost" })), "{refused:?}");
            let refused = ask("http://a/", &[("HttpMethod", value)]);
            assert!(matches!(refused, Err(DecodeError::Invalid { key: "HttpMethod" })), "{refused:?}");
        }
    }

    #[test]
    fn what_has_no_place_in_a_url_and_is_sent_all_the_same_arrives_as_its_escape() {
        let get: &[(&str, &[u8])] = &[("HttpMethod", b"GET")];
        for (written, wanted) in [
            ("http://a/x?q=<b>", "/x?q=%3Cb%3E"),
            ("http://a/x?q={\"k\":1}", "/x?q=%7B%22k%22:1%7D"),
            ("http://a/<x>`?y=%3C", "/%3Cx%3E%60?y=%3C"),
            ("http://a/{x}|^?y={z}`|^", "/{x}|^?y={z}`|^"),
        ] {
            assert_eq!(read(written, get).uri().path_and_query().unwrap(), wanted, "{written}");
        }
        for written in ["http://a<b/", "http://a/\u{1}", "http://a/x y"] {
            assert!(ask(written, get).is_err(), "{written}");
        }
    }

    #[test]
    fn a_destination_is_an_absolute_url() {
        for dest in [
            "",
            "/",
            "a",
            "a:80",
            "*",
            "http://",
            "http:///x",
            "http://a b/",
            "://a/",
            "http://:80/",
            "http://u@/",
        ] {
            let refused = ask(dest, &[("HttpMethod", b"GET")]);
            assert!(matches!(refused, Err(DecodeError::Url)), "{dest}: {refused:?}");
        }
    }

    #[test]
    fn an_answer_is_http_accepted_or_refused() {
        assert!(matches!(reply("", &[]), Ok(Answer::Accepted)));
        assert!(matches!(reply("", &[("Cf-Int-Cloudflared-Tracing", "x")]), Ok(Answer::Accepted)));
        let refused = reply("no", &[("HttpStatus", "200"), ("HttpHeader:A:B", "")]);
        assert!(matches!(refused, Ok(Answer::Refused { flow_rate_limited: false, .. })), "{refused:?}");
        let limited = reply("no", &[("FlowConnectRateLimited", "true")]);
        assert!(matches!(limited, Ok(Answer::Refused { flow_rate_limited: true, .. })), "{limited:?}");
        let no_status = reply("", &[("HttpHeader:A", "")]);
        assert!(matches!(no_status, Err(DecodeError::Missing { key: "HttpStatus" })), "{no_status:?}");
        for status in ["", "99", "1000", "abc", "-1", "20 "] {
            let refused = reply("", &[("HttpStatus", status)]);
            assert!(matches!(refused, Err(DecodeError::Invalid { key: "HttpStatus" })), "{refused:?}");
        }
    }
}
