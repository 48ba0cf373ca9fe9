//! What a plugin's answer changes: checked as a whole, then applied as a whole, so that an answer
//! with a mistake changes nothing.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    HeaderValue, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, StatusCode, request, response};

use super::bindings::adit::plugin::types as wit;
use super::failure::FailureKind;

/// Most changes to headers in one answer, and most headers of one reply.
const HEADER_OPS: usize = 128;
/// Most bytes of names and values in them.
const HEADER_BYTES: usize = 32 * 1024;
/// Most headers that a head may have after a plugin has added to it.
const HEADERS: usize = 512;
/// Longest body of a reply, bytes. Less than a guest may hand over in one answer at all.
const REPLY_BODY: usize = 768 * 1024;
/// Most that a plugin may leave for its response phase, bytes.
const CARRY: usize = 64 * 1024;

/// Headers that belong to one connection, or that the host derives from something else: a plugin
/// that could set them could make two parties disagree about where a message ends.
const RESERVED: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    CONTENT_LENGTH,
    HOST,
];

/// What says how a message is to be read (RFC 9110, 6.5.1).
const NOT_IN_TRAILERS: [HeaderName; 4] = [CONTENT_ENCODING, CONTENT_TYPE, CONTENT_RANGE, SET_COOKIE];

/// A complete answer made by a plugin. Has no header that describes the body or the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub status: u16,
    pub headers: HeaderMap,
    /// Empty for a status that has no body.
    pub body: Bytes,
}

impl Reply {
    pub(super) fn check(reply: wit::Reply) -> Result<Self, FailureKind> {
        let status = status(reply.status)?;
        if reply.body.len() > REPLY_BODY {
            let length = reply.body.len();
            return Err(FailureKind::invalid(format!(
                "its reply has a body of {length} bytes, {REPLY_BODY} are allowed"
            )));
        }
        if is_bodiless(status) && !reply.body.is_empty() {
            return Err(FailureKind::invalid(format!("its reply with status {status} has a body")));
        }
        let ops = reply.headers.into_iter().map(wit::HeaderOp::Append).collect();
        let mut headers = HeaderMap::new();
        let ops = check(&headers, ops)?;
        apply(&mut headers, ops);
        Ok(Self { status: status.as_u16(), headers, body: reply.body.into() })
    }
}

/// Applies a plugin's changes to a request and returns what it leaves for its response phase.
/// `scheme` is used for a URI that has none. A failed edit leaves the head as it was.
pub(super) fn request(
    head: &mut request::Parts,
    edits: wit::RequestEdits,
    scheme: &str,
) -> Result<Vec<u8>, FailureKind> {
    let method = edits.method.map(method).transpose()?;
    let authority = edits.authority.map(authority).transpose()?;
    let path = edits.path_with_query.map(path).transpose()?;
    let host = authority.as_ref().map(|authority| HeaderValue::from_str(authority.as_str()));
    let host = host.transpose().map_err(|_| FailureKind::invalid("its authority is not a header value"))?;
    let uri = if authority.is_some() || path.is_some() {
        Some(uri(head.uri.clone(), authority, path, scheme)?)
    } else {
        None
    };
    if edits.carry.len() > CARRY {
        let length = edits.carry.len();
        return Err(FailureKind::invalid(format!("it carries {length} bytes, {CARRY} are allowed")));
    }
    let ops = check(&head.headers, edits.headers)?;

    cut_other_spellings(&mut head.headers, &ops);
    apply(&mut head.headers, ops);
    if let Some(host) = host {
        head.headers.insert(HOST, host);
    }
    if let Some(method) = method {
        head.method = method;
    }
    if let Some(uri) = uri {
        head.uri = uri;
    }
    Ok(edits.carry)
}

/// Applies a plugin's changes to a response. A failed edit leaves the head as it was.
pub(super) fn response(head: &mut response::Parts, edits: wit::ResponseEdits) -> Result<(), FailureKind> {
    let status = edits.status.map(status).transpose()?.filter(|status| *status != head.status);
    if let Some(status) = status {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(FailureKind::invalid("it changes the status of an upgrade"));
        }
        if is_bodiless(status) {
            return Err(FailureKind::invalid(format!(
                "it changes the status to {status}, which has no body: that takes a reply"
            )));
        }
    }
    let ops = check(&head.headers, edits.headers)?;
    apply(&mut head.headers, ops);
    if let Some(status) = status {
        head.status = status;
    }
    Ok(())
}

/// Applies a plugin's changes to trailers, which must not have what is a part of heads alone.
pub(super) fn trailers(trailers: &mut HeaderMap, ops: Vec<wit::HeaderOp>) -> Result<(), FailureKind> {
    let ops = check(trailers, ops)?;
    for op in &ops {
        if let Op::Set(name, _) | Op::Append(name, _) = op
            && NOT_IN_TRAILERS.contains(name)
        {
            return Err(FailureKind::invalid(format!("{name} cannot stand behind a body")));
        }
    }
    apply(trailers, ops);
    Ok(())
}

enum Op {
    Set(HeaderName, HeaderValue),
    Append(HeaderName, HeaderValue),
    Remove(HeaderName),
}

fn check(headers: &HeaderMap, ops: Vec<wit::HeaderOp>) -> Result<Vec<Op>, FailureKind> {
    if ops.len() > HEADER_OPS {
        let count = ops.len();
        return Err(FailureKind::invalid(format!("it changes {count} headers, {HEADER_OPS} are allowed")));
    }
    let size = |op: &wit::HeaderOp| match op {
        wit::HeaderOp::Set((name, value)) | wit::HeaderOp::Append((name, value)) => name.len() + value.len(),
        wit::HeaderOp::Remove(name) => name.len(),
    };
    let bytes: usize = ops.iter().map(size).sum();
    if bytes > HEADER_BYTES {
        return Err(FailureKind::invalid(format!(
            "its headers have {bytes} bytes, {HEADER_BYTES} are allowed"
        )));
    }
    let adds = ops.iter().filter(|op| !matches!(op, wit::HeaderOp::Remove(_))).count();
    if adds > 0 && headers.len() + adds > HEADERS {
        return Err(FailureKind::invalid(format!("the head would have more than {HEADERS} headers")));
    }
    let checked = ops.into_iter().map(|op| {
        Ok(match op {
            wit::HeaderOp::Set((name, text)) => {
                let name = self::name(&name)?;
                let value = value(&name, text)?;
                Op::Set(name, value)
            }
            wit::HeaderOp::Append((name, text)) => {
                let name = self::name(&name)?;
                let value = value(&name, text)?;
                Op::Append(name, value)
            }
            wit::HeaderOp::Remove(name) => Op::Remove(self::name(&name)?),
        })
    });
    checked.collect()
}

/// Cannot exceed what a header map holds: [`check`] has counted.
fn apply(headers: &mut HeaderMap, ops: Vec<Op>) {
    for op in ops {
        match op {
            Op::Set(name, value) => {
                headers.insert(name, value);
            }
            Op::Append(name, value) => {
                headers.append(name, value);
            }
            Op::Remove(name) => {
                headers.remove(name);
            }
        }
    }
}

/// Takes out of a request what a service may take for a header that is set or removed: CGI and what came after it map
/// whatever is no letter or digit to `_`, so that a visitor's `X_User` would stand for `x-user`.
fn cut_other_spellings(headers: &mut HeaderMap, ops: &[Op]) {
    let is_odd =
        |name: &HeaderName| name.as_str().bytes().any(|byte| byte != b'-' && !byte.is_ascii_alphanumeric());
    let decided = ops.iter().filter_map(|op| match op {
        Op::Set(name, _) | Op::Remove(name) => Some(name),
        Op::Append(..) => None,
    });
    if !headers.keys().any(is_odd) && !decided.clone().any(is_odd) {
        return;
    }
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte } else { b'-' };
    let is_other = |one: &HeaderName, other: &HeaderName| {
        one != other && one.as_str().bytes().map(plain).eq(other.as_str().bytes().map(plain))
    };
    let is_meant = |name: &HeaderName| decided.clone().any(|decided| is_other(name, decided));
    let meant: Vec<HeaderName> = headers.keys().filter(|name| is_meant(name)).cloned().collect();
    for name in meant {
        headers.remove(name);
    }
}

fn name(text: &str) -> Result<HeaderName, FailureKind> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        FailureKind::invalid(format!("{:?} is not a header name{}", short(text), instead(text)))
    })?;
    if RESERVED.contains(&name) {
        return Err(FailureKind::invalid(format!(
            "it changes the header {name}, which only the host sets{}",
            instead(text)
        )));
    }
    Ok(name)
}

/// What a plugin changes that wants to change this.
fn instead(name: &str) -> &'static str {
    match name.to_ascii_lowercase().as_str() {
        ":path" => ": set `path-with-query`",
        ":authority" | "host" => ": set `authority`",
        ":method" => ": set `method`",
        ":status" => ": set `status`",
        ":scheme" => ", and the scheme cannot be changed",
        _ => "",
    }
}

// The value itself may be a secret, so that the message names the header only.
fn value(name: &HeaderName, text: String) -> Result<HeaderValue, FailureKind> {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .map_err(|_| FailureKind::invalid(format!("its value for the header {name} has control characters")))
}

fn method(text: String) -> Result<Method, FailureKind> {
    match Method::from_bytes(text.as_bytes()) {
        Ok(Method::CONNECT) => Err(FailureKind::invalid("it changes the method to CONNECT")),
        Ok(method) => Ok(method),
        Err(_) => Err(FailureKind::invalid(format!("{:?} is not a method", short(&text)))),
    }
}

fn authority(text: String) -> Result<Authority, FailureKind> {
    let wrong = || FailureKind::invalid(format!("{:?} is not a host with an optional port", short(&text)));
    if text.contains('@') {
        return Err(wrong());
    }
    let authority: Authority = text.parse().map_err(|_| wrong())?;
    if authority.host().is_empty() { Err(wrong()) } else { Ok(authority) }
}

fn path(text: String) -> Result<PathAndQuery, FailureKind> {
    let wrong = || FailureKind::invalid(format!("{:?} is not a path beginning with \"/\"", short(&text)));
    // The parser accepts bytes outside of ASCII and drops a fragment silently.
    if !text.starts_with('/') || !text.is_ascii() || text.contains('#') {
        return Err(wrong());
    }
    text.parse().map_err(|_| wrong())
}

fn uri(
    old: Uri,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    scheme: &str,
) -> Result<Uri, FailureKind> {
    let mut parts = old.into_parts();
    if let Some(authority) = authority {
        parts.authority = Some(authority);
        parts.scheme.get_or_insert(if scheme == "https" { Scheme::HTTPS } else { Scheme::HTTP });
    }
    if let Some(path) = path {
        parts.path_and_query = Some(path);
    }
    if parts.scheme.is_some() {
        parts.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    }
    Uri::from_parts(parts).map_err(|error| FailureKind::invalid(format!("its URI is not usable: {error}")))
}

fn status(number: u16) -> Result<StatusCode, FailureKind> {
    let status = StatusCode::from_u16(number).ok().filter(|_| (200..=599).contains(&number));
    status.ok_or_else(|| FailureKind::invalid(format!("{number} is not a status from 200 to 599")))
}

fn is_bodiless(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The beginning of a guest's text, for a message. Shown with `{:?}`, which escapes it.
fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    fn request_head() -> request::Parts {
        let request = Request::get("http://a.example/one?two").header(HOST, "a.example").header("x-old", "1");
        request.body(()).expect("a good request").into_parts().0
    }

    fn response_head(status: u16) -> response::Parts {
        Response::builder()
            .status(status)
            .header("x-old", "1")
            .body(())
            .expect("a good response")
            .into_parts()
            .0
    }

    #[test]
    fn what_a_service_may_take_for_a_header_that_a_plugin_decides_is_cut() {
        let mut head = request_head();
        for name in ["x_user", "x.user", "X-USER", "x_other", "x-user-id", "x-secret"] {
            head.headers
                .append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static("forged"));
        }
        let ops = vec![
            set("X-User", "alice"),
            wit::HeaderOp::Remove("x_secret".to_owned()),
            append("x-other", "1"),
        ];
        request(&mut head, wit::RequestEdits { headers: ops, ..edits() }, "http").unwrap();
        let mut left: Vec<_> =
            head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        let wanted = [
            ("host", "a.example"),
            ("x-old", "1"),
            ("x-other", "1"),
            ("x-user", "alice"),
            ("x-user-id", "forged"),
            ("x_other", "forged"),
        ];
        assert_eq!(left, wanted);
    }

    fn edits() -> wit::RequestEdits {
        wit::RequestEdits {
            method: None,
            authority: None,
            path_with_query: None,
            headers: vec![set("x-new", "2")],
            carry: Vec::new(),
        }
    }

    fn set(name: &str, value: &str) -> wit::HeaderOp {
        wit::HeaderOp::Set((name.to_owned(), value.to_owned()))
    }

    fn append(name: &str, value: &str) -> wit::HeaderOp {
        wit::HeaderOp::Append((name.to_owned(), value.to_owned()))
    }

    fn reply(status: u16, headers: &[(&str, &str)], body: usize) -> Result<Reply, FailureKind> {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Reply::check(wit::Reply {
            status,
            headers: headers.iter().map(header).collect(),
            body: vec![0; body],
        })
    }

    #[test]
    fn changes_apply_in_the_order_given() {
        let mut head = request_head();
        let headers = vec![
            append("x-old", "2"),
            set("x-new", "a"),
            append("X-New", "b"),
            wit::HeaderOp::Remove("x-old".to_owned()),
            append("x-old", "3"),
        ];
        request(&mut head, wit::RequestEdits { headers, ..edits() }, "http").expect("good edits");
        let values = |name| head.headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("x-new"), ["a", "b"]);
        assert_eq!(values("x-old"), ["3"]);
    }

    #[test]
    fn a_new_authority_reaches_both_the_uri_and_the_host_header() {
        let mut head = request_head();
        let wanted = wit::RequestEdits {
            method: Some("PUT".to_owned()),
            authority: Some("b.example:81".to_owned()),
            path_with_query: Some("/three".to_owned()),
            ..edits()
        };
        request(&mut head, wanted, "https").expect("good edits");
        assert_eq!(head.uri, "http://b.example:81/three");
        assert_eq!(head.headers[HOST], "b.example:81");
        assert_eq!(head.method, Method::PUT);
        assert_eq!(head.headers["x-new"], "2");
    }

    #[test]
    fn a_forbidden_edit_is_named_and_changes_nothing() {
        let with = |op: wit::HeaderOp| wit::RequestEdits { headers: vec![set("x-new", "2"), op], ..edits() };
        let path = |path: &str| wit::RequestEdits { path_with_query: Some(path.to_owned()), ..edits() };
        let authority = |text: &str| wit::RequestEdits { authority: Some(text.to_owned()), ..edits() };
        let method = |text: &str| wit::RequestEdits { method: Some(text.to_owned()), ..edits() };
        for (wanted, named) in [
            (with(set("content-length", "5")), "content-length"),
            (with(append("Transfer-Encoding", "chunked")), "transfer-encoding"),
            (with(set("host", "b.example")), "host, which only the host sets: set `authority`"),
            (with(set(":path", "/two")), "\":path\" is not a header name: set `path-with-query`"),
            (with(append(":Status", "204")), "is not a header name: set `status`"),
            (with(wit::HeaderOp::Remove("connection".to_owned())), "connection"),
            (with(set("keep-alive", "1")), "keep-alive"),
            (with(set("te", "trailers")), "te"),
            (with(set("upgrade", "h2c")), "upgrade"),
            (with(set("", "1")), "\"\" is not a header name"),
            (with(set("a b", "1")), "\"a b\" is not a header name"),
            (with(set("x-a\r\nx-b", "1")), "is not a header name"),
            (with(set("x-a", "1\r\nx-b: 2")), "the header x-a has control characters"),
            (path("one"), "\"one\" is not a path"),
            (path(""), "\"\" is not a path"),
            (path("/a#b"), "\"/a#b\" is not a path"),
            (path("/a b"), "\"/a b\" is not a path"),
            (path("/ä"), "is not a path"),
            (path("/a\r\nb"), "is not a path"),
            (authority(""), "\"\" is not a host"),
            (authority("me@b.example"), "\"me@b.example\" is not a host"),
            (authority("b.example/x"), "\"b.example/x\" is not a host"),
            (authority("b example"), "\"b example\" is not a host"),
            (authority(":80"), "\":80\" is not a host"),
            (method("CONNECT"), "CONNECT"),
            (method("GET /"), "\"GET /\" is not a method"),
            (wit::RequestEdits { carry: vec![0; CARRY + 1], ..edits() }, "carries 65537 bytes"),
        ] {
            let mut head = request_head();
            let kind = request(&mut head, wanted.clone(), "http").expect_err("a forbidden edit");
            assert!(
                matches!(&kind, FailureKind::Invalid { what } if what.contains(named)),
                "{wanted:?}: {kind}"
            );
            assert!(!head.headers.contains_key("x-new"), "{wanted:?}");
            assert_eq!((head.uri, head.method), (request_head().uri, Method::GET));
        }
    }

    #[test]
    fn a_guest_cannot_add_headers_without_end() {
        let mut head = request_head();
        let mut many = |headers| request(&mut head, wit::RequestEdits { headers, ..edits() }, "http");
        let error = many(vec![append("x", "1"); HEADER_OPS + 1]).expect_err("too many changes");
        assert!(error.to_string().contains("129 headers, 128 are allowed"), "{error}");
        let error = many(vec![append("x", &"1".repeat(HEADER_BYTES))]).expect_err("too many bytes");
        assert!(error.to_string().contains("32769 bytes, 32768 are allowed"), "{error}");
        let refused = (0..10).find(|_| many(vec![append("x", "1"); HEADER_OPS]).is_err());
        assert_eq!(refused, Some(3), "at most {HEADERS} headers in the end");
    }

    #[test]
    fn a_response_edit_keeps_to_what_a_head_can_be() {
        let edit = |from: u16, to: u16| {
            let mut head = response_head(from);
            let edits = wit::ResponseEdits { status: Some(to), headers: vec![set("x-new", "2")] };
            response(&mut head, edits).map(|()| (head.status.as_u16(), head.headers.len()))
        };
        assert_eq!(edit(200, 404), Ok((404, 2)));
        assert_eq!(edit(304, 304).map_err(|_| ()), Ok((304, 2)));
        for (from, to, named) in [
            (200, 199, "199"),
            (200, 600, "600"),
            (200, 204, "204"),
            (200, 304, "304"),
            (101, 200, "upgrade"),
        ] {
            let error = edit(from, to).expect_err("a forbidden status").to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_reply_is_checked_like_an_edit() {
        let good =
            reply(401, &[("www-authenticate", "Basic"), ("x", "1"), ("x", "2")], 5).expect("a good reply");
        assert_eq!((good.status, good.headers.len(), good.body.len()), (401, 3, 5));
        reply(200, &[], REPLY_BODY).expect("a body of the largest size");
        for (bad, named) in [
            (reply(101, &[], 0), "101"),
            (reply(0, &[], 0), "0 is not a status"),
            (reply(1000, &[], 0), "1000"),
            (reply(204, &[], 1), "204"),
            (reply(200, &[("content-length", "7")], 7), "content-length"),
            (reply(200, &[("x-a", "\n")], 7), "x-a"),
            (reply(200, &[], REPLY_BODY + 1), "786433 bytes"),
        ] {
            let error = bad.expect_err("a bad reply").to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
