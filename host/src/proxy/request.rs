//! A visitor's request as every transport hands it over, and the rule that it is for.

use std::borrow::Cow;
use std::time::Duration;

use adit_address::OddHost;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, header, request};

use super::respond::ProxyError;
use crate::generation::{Generation, Rule};
use crate::origin::Body;

/// One request. The head's URI is absolute, its Host header is what the visitor asked for.
pub struct Request {
    pub kind: Kind,
    pub head: request::Parts,
    /// For a WebSocket: what the visitor sends after the handshake.
    pub body: Body,
    /// Whether the edge takes trailers behind the body of the answer.
    pub takes_trailers: bool,
}

/// How long a request was on its way before it came here, among the extensions of a head while somebody looks at
/// requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    /// At the edge, as it says itself; `None` of an edge that does not say.
    pub edge: Option<Duration>,
    /// Between edge and host: half of the connection's last round trip.
    pub tunnel: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Http,
    WebSocket,
}

/// Headers that belong to one connection and never travel further (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
];

/// In which some services are told another path than that of the request, and believe it.
const PATH_HEADERS: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// The rule that a request is for.
///
/// # Errors
/// Why there is none: nothing matches, or host or path may be taken for what another rule is for.
pub(super) fn route<'g>(generation: &'g Generation, head: &request::Parts) -> Result<&'g Rule, ProxyError> {
    let host = host(head).map_err(|OddHost| ProxyError::OddHost)?;
    match generation.route(&host, head.uri.path()) {
        Ok(Some(rule)) => Ok(rule),
        Ok(None) => Err(ProxyError::NoRule),
        Err(unclear) => {
            let name = |rule: Option<usize>| {
                let rule = rule.and_then(|rule| generation.rules().get(rule));
                rule.map_or("none", |rule| rule.name.as_str()).to_owned()
            };
            let other = unclear.other.map_or_else(|| "too many to look at".to_owned(), name);
            Err(ProxyError::Unclear { rule: name(unclear.rule), other })
        }
    }
}

/// The host that is asked for; empty where none is, which only rules for any host match.
fn host(head: &request::Parts) -> Result<Cow<'_, str>, OddHost> {
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => Ok(Cow::Borrowed("")),
        (Some(host), None) => adit_address::host(host.to_str().map_err(|_| OddHost)?),
        (Some(_), Some(_)) => Err(OddHost),
    }
}

/// Puts the host where rules, plugins and origins look for it, if it stands in the address alone.
pub(super) fn settle(head: &mut request::Parts) {
    if !head.headers.contains_key(HOST)
        && let Some(authority) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        head.headers.insert(HOST, host);
    }
}

/// Drops what names another path than the one that the rule was chosen by. Application servers map `_` and
/// some of them `.` to the same letter as `-`, so all spellings are one name.
pub(super) fn cut_path_headers(headers: &mut HeaderMap) {
    let is_meant = |name: &HeaderName| {
        let name = name.as_str();
        PATH_HEADERS.iter().any(|meant| {
            name.len() == meant.len()
                && name
                    .bytes()
                    .zip(meant.bytes())
                    .all(|(byte, meant)| byte == meant || (meant == b'-' && matches!(byte, b'_' | b'.')))
        })
    };
    while let Some(name) = headers.keys().find(|name| is_meant(name)).cloned() {
        headers.remove(name);
    }
}

/// Drops what concerns one connection only, and whatever its Connection header names. The host is the
/// request's own, whoever names it there.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    // Nothing is collected where there is no such header.
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != HOST)
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn asked(hosts: &[&[u8]]) -> request::Parts {
        let mut request = Request::new(());
        for host in hosts {
            request.headers_mut().append(HOST, HeaderValue::from_bytes(host).unwrap());
        }
        request.into_parts().0
    }

    #[test]
    fn a_host_that_can_be_taken_for_another_is_none() {
        assert_eq!(host(&asked(&[b"App.test.:80"])).as_deref(), Ok("app.test"));
        assert_eq!(host(&asked(&[])).as_deref(), Ok(""));
        assert_eq!(host(&asked(&[b"a.test", b"b.test"])), Err(OddHost));
        for odd in [&b"b\xfccher.test"[..], b"a.test:abc", b"a.test..", b""] {
            assert_eq!(host(&asked(&[odd])), Err(OddHost), "{odd:?}");
        }
    }

    #[test]
    fn a_visitor_cannot_take_the_host_off_its_request() {
        let mut head = asked(&[b"a.test"]);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("close, Host, x-mine"));
        head.headers.insert("x-mine", HeaderValue::from_static("1"));
        remove_hop_by_hop(&mut head.headers);
        assert_eq!(head.headers.keys().collect::<Vec<_>>(), [HOST]);
    }

    #[test]
    fn the_page_names_every_header_that_is_cut() {
        let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
        let page = std::fs::read_to_string(page).unwrap().to_ascii_lowercase();
        let table =
            page.split("\n### ").find(|section| section.starts_with("what becomes of headers")).unwrap();
        for name in HOP_BY_HOP.iter().map(HeaderName::as_str).chain(PATH_HEADERS) {
            assert!(table.contains(&format!("`{name}`")), "{name}");
        }
    }

    #[test]
    fn headers_that_name_another_path_are_cut_in_every_spelling() {
        let mut head = asked(&[b"a.test"]);
        for name in
            ["x-original-url", "X-Rewrite-URL", "x_original_url", "x-rewrite.url", "x-original-urls", "x-url"]
        {
            head.headers.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_static("/private"),
            );
        }
        head.headers.append("x-original-url", HeaderValue::from_static("/again"));
        cut_path_headers(&mut head.headers);
        let mut left: Vec<&str> = head.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-original-urls", "x-url"]);
    }

    #[test]
    fn a_host_that_stands_in_the_address_alone_is_the_one_that_all_see() {
        let mut head = Request::get("http://a.test:80/x").body(()).unwrap().into_parts().0;
        settle(&mut head);
        assert_eq!(head.headers[HOST], "a.test:80");
    }
}
