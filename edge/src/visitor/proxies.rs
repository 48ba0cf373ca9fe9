//! What proxies in front of the edge say about visitors, and which of them are believed. Knows addresses and
//! headers; does not know connections.

use std::net::{IpAddr, SocketAddr};

use adit_net::network::Network;
use http::{HeaderMap, HeaderName, HeaderValue};

/// Who is believed.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    pub(crate) trusted: Vec<Network>,
    /// The trusted ones begin each connection with a header of the PROXY protocol.
    pub(crate) announce: bool,
}

/// Who sends a request, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) address: IpAddr,
    pub(crate) is_secure: bool,
    /// The caller and the proxies behind it, if there are any.
    pub(crate) chain: Option<HeaderValue>,
}

impl Proxies {
    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }

    /// Who sends a request with these headers on a connection that `peer` has opened, and over TLS or not.
    ///
    /// Each proxy adds at the end of the list who has spoken to it, so the list is true from its end up to
    /// the first address that is no trusted proxy; what stands before that one is its own word.
    pub(super) fn caller(&self, headers: &HeaderMap, peer: IpAddr, is_secure: bool) -> Caller {
        let mut caller = Caller { address: peer, is_secure, chain: None };
        if !self.trusts(peer) {
            return caller;
        }
        let lists: Vec<&HeaderValue> = headers.get_all(FORWARDED_FOR).iter().collect();
        let entries = lists.iter().rev().flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
        let mut chain = Vec::new();
        for entry in entries.take(MOST_PROXIES) {
            let Some(address) = address(entry) else { break };
            chain.push(address.to_string());
            caller.address = address;
            if !self.trusts(address) {
                break;
            }
        }
        chain.reverse();
        if !chain.is_empty() {
            caller.chain = HeaderValue::try_from(chain.join(", ")).ok();
        }
        let mut schemes = headers.get_all(FORWARDED_PROTO).iter();
        if let (Some(scheme), None) = (schemes.next(), schemes.next()) {
            let scheme = scheme.as_bytes().trim_ascii();
            let is = |name: &[u8]| scheme.eq_ignore_ascii_case(name);
            caller.is_secure = is(b"https") || (is_secure && !is(b"http"));
        }
        caller
    }
}

/// An entry of `X-Forwarded-For`, which may have a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let entry = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let address = bare.parse().ok().or_else(|| Some(entry.parse::<SocketAddr>().ok()?.ip()))?;
    Some(address.to_canonical())
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Further ones are not believed.
const MOST_PROXIES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(peer: &str, headers: &[(&'static str, &str)], is_secure: bool) -> (String, bool, String) {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap()).into();
        let proxies = Proxies { trusted, announce: false };
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let Caller { address, is_secure, chain } = proxies.caller(&map, peer.parse().unwrap(), is_secure);
        let chain = chain.map(|chain| chain.to_str().unwrap().to_owned());
        (address.to_string(), is_secure, chain.unwrap_or_default())
    }

    #[test]
    fn the_last_address_that_is_no_trusted_proxy_is_the_visitor() {
        for (peer, lists, visitor, chain) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1", ""),
            ("10.0.0.1", &[], "10.0.0.1", ""),
            ("10.0.0.1", &["198.51.100.7"], "198.51.100.7", "198.51.100.7"),
            ("2001:db8::9", &["198.51.100.7"], "198.51.100.7", "198.51.100.7"),
            // What stands before the visitor is the visitor's own word.
            ("10.0.0.1", &["6.6.6.6, 198.51.100.7"], "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", &["6.6.6.6", "198.51.100.7"], "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", &["6.6.6.6,198.51.100.7 , 10.2.3.4"], "198.51.100.7", "198.51.100.7, 10.2.3.4"),
            ("10.0.0.1", &["10.9.9.9, 10.2.3.4"], "10.9.9.9", "10.9.9.9, 10.2.3.4"),
            ("10.0.0.1", &["198.51.100.7:4711"], "198.51.100.7", "198.51.100.7"),
            ("10.0.0.1", &["[2001:bad::1]:4711"], "2001:bad::1", "2001:bad::1"),
            ("10.0.0.1", &["[2001:bad::1]"], "2001:bad::1", "2001:bad::1"),
            ("10.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7", "198.51.100.7"),
            // What is no address ends what is known.
            ("10.0.0.1", &["198.51.100.7, unknown"], "10.0.0.1", ""),
            ("10.0.0.1", &["198.51.100.7, _hidden, 10.2.3.4"], "10.2.3.4", "10.2.3.4"),
            ("10.0.0.1", &[""], "10.0.0.1", ""),
        ] {
            let headers: Vec<_> = lists.iter().map(|list| ("x-forwarded-for", *list)).collect();
            let (found, _, told) = caller(peer, &headers, false);
            assert_eq!((found.as_str(), told.as_str()), (visitor, chain), "{peer} {lists:?}");
        }
        let long = vec!["10.0.0.2"; 2 * MOST_PROXIES].join(",");
        let (found, _, chain) = caller("10.0.0.1", &[("x-forwarded-for", &format!("1.1.1.1,{long}"))], false);
        assert_eq!((found.as_str(), chain.split(',').count()), ("10.0.0.2", MOST_PROXIES));
    }

    #[test]
    fn only_a_trusted_proxy_says_how_the_visitor_came() {
        let proto = |peer, values: &[&str], is_secure| {
            let headers: Vec<_> = values.iter().map(|value| ("x-forwarded-proto", *value)).collect();
            caller(peer, &headers, is_secure).1
        };
        for (peer, values, is_secure, wanted) in [
            ("10.0.0.1", &["https"][..], false, true),
            ("10.0.0.1", &["HTTPS "], false, true),
            ("10.0.0.1", &["http"], true, false),
            ("10.0.0.1", &["gopher"], true, true),
            ("10.0.0.1", &["gopher"], false, false),
            ("10.0.0.1", &["http", "https"], false, false),
            ("10.0.0.1", &[], true, true),
            ("192.0.2.1", &["https"], false, false),
            ("192.0.2.1", &["http"], true, true),
        ] {
            assert_eq!(proto(peer, values, is_secure), wanted, "{peer} {values:?} {is_secure}");
        }
    }
}
