//! What crosses between visitor and origin besides the body: hop-by-hop headers are cut first, then
//! everything a visitor may not say about itself, and only then the edge adds what it knows. The order
//! matters: a visitor names headers in `Connection`, and a header that the edge has added must not be
//! cut because of it.

mod trailers;

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, Entry, HOST, HeaderMap, HeaderName,
    HeaderValue, SEC_WEBSOCKET_KEY, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme, Uri};
use http::{Method, Version};
use thiserror::Error;

use crate::forward::ray::Ray;

pub(crate) use trailers::{Trailers, trailers_for_origin, trailers_for_visitor};

/// What the edge itself knows about a request.
pub(crate) struct Facts<'a> {
    pub(crate) visitor: IpAddr,
    /// The visitor, and trusted proxies behind it, where there are any.
    pub(crate) chain: Option<&'a HeaderValue>,
    /// The visitor came over TLS, to this edge or to a trusted proxy in front.
    pub(crate) is_secure: bool,
    /// What is known by the visitor's certificate.
    pub(crate) certificate: &'a [(HeaderName, HeaderValue)],
    /// Where the visitor is, if the edge knows.
    pub(crate) country: Option<&'a str>,
    pub(crate) ray: &'a Ray,
}

/// How long a request body is, as the HTTP library understood the head. What crosses to the origin
/// is made from this and never from what the head said, which may say it twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Upload {
    None,
    /// None either: what follows the head is another protocol.
    Upgrade,
    Sized(u64),
    Chunked,
}

/// A request that means two things, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unacceptable {
    #[error("the request has no Host header")]
    NoHost,
    #[error("the request has more than one Host header")]
    SeveralHosts,
    #[error("the Host header is not a host name")]
    InvalidHost,
    #[error("the Host header and the address of the request name different hosts")]
    HostsDiffer,
    #[error("the address of the request is not a path")]
    NoPath,
}

/// The host that the visitor asks for. Routing and what the origin is told both come from this one
/// value, so that they cannot disagree.
pub(crate) fn authority(parts: &Parts) -> Result<Authority, Unacceptable> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let header = hosts.next();
    if hosts.next().is_some() {
        return Err(Unacceptable::SeveralHosts);
    }
    let header = match header {
        Some(value) => Some(Authority::try_from(value.as_bytes()).map_err(|_| Unacceptable::InvalidHost)?),
        // RFC 9112 3.2: also a request in absolute form has a Host header; HTTP/2 has `:authority`.
        None if parts.version < Version::HTTP_2 => return Err(Unacceptable::NoHost),
        None => None,
    };
    let authority = match (parts.uri.authority(), header) {
        // RFC 9112 3.2.2 lets the address win; two names in one request are an attack on somebody.
        (Some(address), Some(header)) if !is_same(address, &header, parts.uri.scheme()) => {
            return Err(Unacceptable::HostsDiffer);
        }
        (Some(address), _) => address.clone(),
        (None, Some(header)) => header,
        (None, None) => return Err(Unacceptable::NoHost),
    };
    // What servers may take for two names is none: the one behind would serve another than was looked up.
    adit_address::host(authority.as_str()).map_err(|_| Unacceptable::InvalidHost)?;
    Ok(authority)
}

/// Whether both name the same host and port. What is no port leaves nothing to compare but the words.
fn is_same(address: &Authority, header: &Authority, scheme: Option<&Scheme>) -> bool {
    let usual = if scheme == Some(&Scheme::HTTPS) { 443 } else { 80 };
    let port = |authority: &Authority| match authority.port_u16() {
        None if authority.as_str().len() == authority.host().len() => Some(usual),
        port => port,
    };
    let is_port_same = port(address).is_some() && port(address) == port(header);
    address == header || (is_port_same && address.host().eq_ignore_ascii_case(header.host()))
}

/// Whether this asks what the server as a whole can do (RFC 9110 9.3.7).
pub(crate) fn is_about_server(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS && parts.uri.path() == "*"
}

/// Whether the body has a transfer coding that ends here and is not undone (RFC 9112 6.1).
pub(crate) fn has_other_coding(headers: &HeaderMap) -> bool {
    let codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings =
        codings.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked"))
}

/// Whether the visitor sends its body only when it is asked for it (RFC 9110 10.1.1).
pub(crate) fn waits_to_be_asked(headers: &HeaderMap) -> bool {
    has_token(headers, &EXPECT, "100-continue")
}

/// Whether this asks for a WebSocket in the way of HTTP/1.1 (RFC 6455 4.1).
pub(crate) fn is_websocket(parts: &Parts) -> bool {
    parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && parts.headers.contains_key(SEC_WEBSOCKET_KEY)
        && has_token(&parts.headers, &UPGRADE, "websocket")
        && has_token(&parts.headers, &CONNECTION, "upgrade")
}

/// Turns what the visitor sent into what the origin gets.
pub(crate) fn for_origin(
    parts: Parts,
    authority: Authority,
    upload: Upload,
    facts: &Facts<'_>,
) -> Result<http::Request<()>, Unacceptable> {
    let Parts { method, uri, mut headers, .. } = parts;
    let path = match uri.into_parts().path_and_query {
        Some(path) if path.as_str().starts_with('/') => path,
        None => PathAndQuery::from_static("/"),
        Some(path) if path.as_str().starts_with('?') => {
            PathAndQuery::try_from(format!("/{}", path.as_str())).map_err(|_| Unacceptable::NoPath)?
        }
        Some(_) => return Err(Unacceptable::NoPath),
    };
    let scheme = if facts.is_secure { Scheme::HTTPS } else { Scheme::HTTP };

    cut_hop_by_hop(&mut headers);
    cut_forgeries(&mut headers);
    // The authority of the address says it, see `authority`.
    headers.remove(HOST);
    // hyper asks the visitor to continue once its body is read, which is when a host takes the request; an
    // origin that is asked again would wait.
    headers.remove(EXPECT);
    join_cookies(&mut headers);
    add_facts(&mut headers, &scheme, facts);
    frame(&mut headers, upload);

    let mut target = http::uri::Parts::default();
    target.scheme = Some(scheme);
    target.authority = Some(authority);
    target.path_and_query = Some(path);
    let mut request = http::Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| Unacceptable::NoPath)?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Turns what another node has made for the origin into what a request from here has: what nodes say to each other is
/// cut, and the framing is that of this hop.
pub(crate) fn from_node(headers: &mut HeaderMap, upload: Upload) {
    cut_hop_by_hop(headers);
    cut(headers, |name| name.starts_with("adit-"));
    headers.remove(HOST);
    frame(headers, upload);
}

/// Turns what the origin sent into what the visitor gets. What it announces of trailers is only true if
/// they can cross.
pub(crate) fn for_visitor(headers: &mut HeaderMap, ray: &Ray, has_trailers: bool) {
    // RFC 9112 6.3: Transfer-Encoding overrides Content-Length, and only one of the two is true.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    let announced: Vec<HeaderValue> =
        if has_trailers { headers.get_all(TRAILER).iter().cloned().collect() } else { Vec::new() };
    cut_hop_by_hop(headers);
    for names in announced {
        headers.append(TRAILER, names);
    }
    cut(headers, |name| INTERNAL_TO_TUNNEL.iter().any(|prefix| name.starts_with(prefix)));
    headers.insert(CF_RAY, ray.header());
}

/// Says how many attempts an answer took, if it was not the first.
pub(crate) fn add_tries(headers: &mut HeaderMap, tries: u32) {
    if tries > 1 {
        headers.insert(TRIES, HeaderValue::from(tries));
    }
}

/// RFC 9110 7.6.1: what `Connection` names, and the headers that are always about one hop.
fn cut_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn cut_forgeries(headers: &mut HeaderMap) {
    cut(headers, is_forgery);
}

fn is_forgery(name: &str) -> bool {
    // Application servers map whatever is no letter or digit to `_`, so that all spellings are one name.
    let is_odd = |byte: u8| byte != b'-' && !byte.is_ascii_alphanumeric();
    let dashed;
    let name = if name.bytes().any(is_odd) {
        dashed = name.replace(|letter: char| letter.is_ascii() && is_odd(letter as u8), "-");
        dashed.as_str()
    } else {
        name
    };
    let says_address = || SAYS_ADDRESS.contains(&name);
    match name.as_bytes().first() {
        // What edge and host say to each other (extensions.rs), now and in future.
        Some(b'a') => name.starts_with("adit-"),
        Some(b'c') => (name.starts_with("cf-") && !SAID_BY_VISITORS.contains(&name)) || says_address(),
        Some(b'x') => name.starts_with("x-forwarded-") || says_address(),
        Some(b'f' | b'r' | b't') => says_address(),
        // httpoxy: CGI turns it into the environment variable HTTP_PROXY.
        Some(b'p') => name == "proxy",
        _ => false,
    }
}

fn cut(headers: &mut HeaderMap, is_cut: impl Fn(&str) -> bool) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| is_cut(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// RFC 9113 8.2.3: cookies that HTTP/2 split are one header again before they leave HTTP/2.
fn join_cookies(headers: &mut HeaderMap) {
    let Entry::Occupied(mut cookies) = headers.entry(COOKIE) else { return };
    if cookies.iter().nth(1).is_none() {
        return;
    }
    let joined = cookies.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    let joined = HeaderValue::from_bytes(&joined).expect("values joined by `; ` are a header value");
    cookies.insert(joined);
}

/// wire.md 4.3: a body without either of the two headers is lost.
fn frame(headers: &mut HeaderMap, upload: Upload) {
    match upload {
        // Zero is worth saying, but only where the visitor said it.
        Upload::None if !headers.contains_key(CONTENT_LENGTH) => {}
        Upload::None => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(0))),
        // Over HTTP/2 it would count the bytes of the other protocol.
        Upload::Upgrade => drop(headers.remove(CONTENT_LENGTH)),
        Upload::Sized(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        Upload::Chunked => {
            headers.remove(CONTENT_LENGTH);
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
}

fn add_facts(headers: &mut HeaderMap, scheme: &Scheme, facts: &Facts<'_>) {
    let visitor = HeaderValue::try_from(facts.visitor.to_canonical().to_string())
        .expect("an IP address is a header value");
    headers.insert(X_FORWARDED_FOR, facts.chain.unwrap_or(&visitor).clone());
    headers.insert(CF_CONNECTING_IP, visitor);
    let (proto, cf_visitor) = if *scheme == Scheme::HTTPS {
        ("https", r#"{"scheme":"https"}"#)
    } else {
        ("http", r#"{"scheme":"http"}"#)
    };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
    headers.insert(CF_VISITOR, HeaderValue::from_static(cf_visitor));
    for (name, value) in facts.certificate {
        headers.insert(name, value.clone());
    }
    headers.insert(CF_RAY, facts.ray.header());
    if let Some(country) = facts.country.and_then(|country| HeaderValue::from_str(country).ok()) {
        headers.insert(CF_IPCOUNTRY, country);
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|part| part.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

pub(crate) const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
/// Of an answer: how many attempts it took.
const TRIES: HeaderName = HeaderName::from_static("adit-tries");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(crate) const CF_CONNECTING_IP: HeaderName = HeaderName::from_static("cf-connecting-ip");
const CF_IPCOUNTRY: HeaderName = HeaderName::from_static("cf-ipcountry");
const CF_VISITOR: HeaderName = HeaderName::from_static("cf-visitor");

const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    TE,
    TRAILER,
    http::header::PROXY_AUTHORIZATION,
    http::header::PROXY_AUTHENTICATE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// All `Cf-` headers are the edge's own, but for those by which a visitor proves who it is, or says what it wants.
const SAID_BY_VISITORS: [&str; 5] = [
    "cf-access-client-id",
    "cf-access-client-secret",
    // Where it wants a bastion to lead.
    "cf-access-jump-destination",
    "cf-access-jwt-assertion",
    "cf-access-token",
];

/// By which proxies and services of others say who a visitor is; applications believe some of them.
const SAYS_ADDRESS: [&str; 18] = [
    "client-cert",
    "client-cert-chain",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "forwarded-for-ip",
    "remote-addr",
    "true-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-original-forwarded-for",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-true-client-ip",
];

/// What a host says to the edge and not to a visitor (wire.md section 6, "left out of it", and extensions.rs).
const INTERNAL_TO_TUNNEL: [&str; 4] = ["cf-int-", "cf-cloudflared-", "cf-proxy-", "adit-"];

#[cfg(test)]
mod tests;
