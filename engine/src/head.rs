//! What a plugin is shown of a head: the parts that every plugin gets, and the headers that its
//! manifest asks for.

use std::str;

use http::header::HOST;
use http::{HeaderMap, HeaderName, request, response};

use crate::bindings::adit::plugin::types::{RequestHead, ResponseHead};
use crate::chain::Facts;

/// Most header names in one list of a manifest.
const DECLARED: usize = 64;

/// The headers that one phase of a plugin wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Declared {
    All,
    Only(Box<[HeaderName]>),
}

impl Declared {
    /// Reads a manifest's list.
    pub(super) fn parse(list: &str, names: &[String]) -> Result<Self, String> {
        if names.len() > DECLARED {
            return Err(format!("{list} has {} names, {DECLARED} are allowed", names.len()));
        }
        if names.iter().any(|name| name == "*") {
            return if names.len() == 1 {
                Ok(Self::All)
            } else {
                Err(format!("{list} has \"*\" and other names"))
            };
        }
        let parsed = names.iter().map(|name| {
            HeaderName::from_lowercase(name.as_bytes())
                .map_err(|_| format!("{list} has {name:?}, which is not a lower-case header name"))
        });
        parsed.collect::<Result<_, _>>().map(Self::Only)
    }

    /// The declared headers in the order of the head. A value that is not UTF-8, which hardly ever comes, is
    /// shown with U+FFFD in the bad places; `repaired` then keeps what is shown of it.
    pub(super) fn pairs<'a>(
        &self,
        headers: &'a HeaderMap,
        repaired: &'a mut Vec<String>,
    ) -> Vec<(&'a str, &'a str)> {
        let mut pairs = Vec::with_capacity(match self {
            Self::All => headers.len(),
            Self::Only(names) => names.len(),
        });
        for (name, value) in self.select(headers) {
            match str::from_utf8(value) {
                Ok(value) => pairs.push((name, value)),
                Err(_) => return self.repaired(headers, repaired),
            }
        }
        pairs
    }

    fn repaired<'a>(&self, headers: &'a HeaderMap, repaired: &'a mut Vec<String>) -> Vec<(&'a str, &'a str)> {
        let text = |(_, value): (_, &[u8])| String::from_utf8_lossy(value).into_owned();
        repaired.extend(self.select(headers).map(text));
        let names = self.select(headers).map(|(name, _)| name);
        names.zip(repaired.iter().map(String::as_str)).collect()
    }

    fn select<'a>(&self, headers: &'a HeaderMap) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        let shown = |name: &HeaderName| match self {
            Self::All => true,
            Self::Only(names) => names.contains(name),
        };
        let nothing = matches!(self, Self::Only(names) if names.is_empty());
        let headers = (!nothing).then(|| headers.iter()).into_iter().flatten();
        headers.filter(move |(name, _)| shown(name)).map(|(name, value)| (name.as_str(), value.as_bytes()))
    }
}

/// A request as a plugin sees it, with those of its headers that it asked for.
pub(super) fn of_request<'a>(
    facts: &Facts<'a>,
    head: &'a request::Parts,
    headers: &'a [(&'a str, &'a str)],
) -> RequestHead<'a> {
    RequestHead {
        id: facts.id,
        method: head.method.as_str(),
        scheme: facts.scheme,
        authority: authority(head),
        path_with_query: path_with_query(head),
        client_ip: facts.client_ip,
        headers,
    }
}

/// The same of an answer; `carry` is what the plugin left for it.
pub(super) fn of_response<'a>(
    facts: &Facts<'a>,
    head: &'a response::Parts,
    headers: &'a [(&'a str, &'a str)],
    carry: &'a [u8],
) -> ResponseHead<'a> {
    ResponseHead { id: facts.id, status: head.status.as_u16(), headers, carry }
}

/// The host that the visitor asked for.
pub(super) fn authority(head: &request::Parts) -> &str {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default()
}

/// Path and query, "/" if the URI has none.
fn path_with_query(head: &request::Parts) -> &str {
    head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.append("x-b", HeaderValue::from_static("1"));
        headers.append("cookie", HeaderValue::from_bytes(b"caf\xe9").expect("obsolete text is allowed"));
        headers.append("x-b", HeaderValue::from_static("2"));
        headers.append("accept", HeaderValue::from_bytes("käse".as_bytes()).expect("UTF-8 is allowed"));
        headers
    }

    fn shown(names: &[&str]) -> Vec<(String, String)> {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let declared = Declared::parse("request-headers", &names).expect("a good list");
        let headers = headers();
        let mut repaired = Vec::new();
        let pairs = declared.pairs(&headers, &mut repaired);
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn only_declared_headers_are_shown_and_bad_utf_8_is_repaired() {
        assert_eq!(shown(&[]), []);
        assert_eq!(shown(&["x-other"]), []);
        assert_eq!(shown(&["accept", "x-b"]), [pair("x-b", "1"), pair("x-b", "2"), pair("accept", "käse")]);
        assert_eq!(shown(&["cookie"]), [pair("cookie", "caf\u{fffd}")]);
        assert_eq!(shown(&["*"]).len(), 4);
    }

    #[test]
    fn a_manifest_with_bad_header_names_is_refused() {
        let parse = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            Declared::parse("request-headers", &names).expect_err("a bad list")
        };
        for (names, reason) in [
            (&["Accept"][..], "\"Accept\""),
            (&["a b"], "\"a b\""),
            (&[""], "\"\""),
            (&["*", "accept"], "\"*\" and other names"),
            (&["x"; DECLARED + 1], "65 names, 64 are allowed"),
        ] {
            let error = parse(names);
            assert!(error.contains(reason) && error.starts_with("request-headers"), "{error}");
        }
    }

    #[test]
    fn the_host_header_is_what_the_visitor_asked_for() {
        let head = |host: Option<&str>| {
            let request = Request::get("http://uri.example:81/a?b=c");
            let request = if let Some(host) = host { request.header(HOST, host) } else { request };
            request.body(()).expect("a good request").into_parts().0
        };
        assert_eq!(authority(&head(Some("asked.example"))), "asked.example");
        assert_eq!(authority(&head(None)), "uri.example:81");
        assert_eq!(path_with_query(&head(None)), "/a?b=c");
    }
}
