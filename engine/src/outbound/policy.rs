//! Which requests may go where. Decides from what is granted and known; does no I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use adit_rules::grants::Grants;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, LOCATION, PROXY_AUTHORIZATION};
use http::{Method, Response, StatusCode, Uri, request};

use super::OutboundError;

/// Who is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) tls: bool,
    /// Lower case; an IPv6 address has no brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn of(uri: &Uri) -> Result<Self, OutboundError> {
        let wrong = |what: &str| OutboundError::Invalid(what.to_owned());
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("its URL begins with neither https:// nor http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("its URL has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("its URL has a user name"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host).to_owned();
        if host.is_empty() {
            return Err(wrong("its URL has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        Ok(Self { tls, host, port })
    }

    pub(super) fn check(&self, grants: &Grants) -> Result<(), OutboundError> {
        if grants.http.iter().any(|granted| granted.matches(self.tls, &self.host, self.port)) {
            return Ok(());
        }
        let scheme = if self.tls { "https" } else { "http" };
        Err(OutboundError::Denied(format!("{scheme}://{}:{} is not granted", self.host, self.port)))
    }
}

/// Whether a granted name may be reached at this address.
pub(super) fn may_connect(address: IpAddr, grants: &Grants) -> bool {
    let address = address.to_canonical();
    !is_private(address) || grants.networks.iter().any(|network| network.contains(address))
}

/// Whether an address belongs to this machine, to a network of its own, or to nobody.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => is_private_v6(address),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        // This network, shared address space, protocol assignments, benchmarks, reserved.
        || a == 0
        || (a == 100 && b & 0xc0 == 64)
        || (a, b, c) == (192, 0, 0)
        || (a == 198 && b & 0xfe == 18)
        || a >= 240
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    address.is_loopback()
        || address.is_unspecified()
        || address.is_unique_local()
        || address.is_unicast_link_local()
        || address.is_multicast()
        || parts[..2] == [0x2001, 0x0db8]
        // Teredo, and addresses with an IPv4 address inside: mapped, compatible, NAT64, 6to4.
        || parts[..2] == [0x2001, 0]
        || (parts[..5] == [0; 5] && is_private_v4(embedded(parts[6], parts[7])))
        || (parts[..6] == [0x64, 0xff9b, 0, 0, 0, 0] && is_private_v4(embedded(parts[6], parts[7])))
        || (parts[..2] == [0x64, 0xff9b] && parts[2] == 1)
        || (parts[0] == 0x2002 && is_private_v4(embedded(parts[1], parts[2])))
}

/// The request that a redirect asks for.
pub(super) struct Next {
    pub(super) head: request::Parts,
    pub(super) keeps_body: bool,
}

/// What follows an answer, if it is a redirect that can be followed (RFC 9110, 15.4).
pub(super) fn redirect<B>(head: &request::Parts, answer: &Response<B>) -> Option<Next> {
    let keeps_body = match answer.status() {
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => false,
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        _ => return None,
    };
    let location = answer.headers().get(LOCATION)?.to_str().ok()?;
    let uri = resolve(&head.uri, location)?;
    let mut next = head.clone();
    if !keeps_body && !matches!(head.method, Method::GET | Method::HEAD) {
        next.method = Method::GET;
    }
    if !keeps_body {
        next.headers.remove(CONTENT_TYPE);
        next.headers.remove(CONTENT_LENGTH);
    }
    let origin = |uri: &Uri| Target::of(uri).ok();
    if origin(&uri) != origin(&head.uri) {
        for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
            next.headers.remove(name);
        }
    }
    next.uri = uri;
    Some(Next { head: next, keeps_body })
}

/// An absolute reference, or one that begins with `//`, `/` or `?`; a relative path is replaced from
/// its last slash. Dot segments are left to the server.
fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    if location.contains("://") {
        return location.parse().ok();
    }
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    let path = match location {
        _ if location.starts_with("//") => return format!("{scheme}:{location}").parse().ok(),
        _ if location.starts_with('/') => location.to_owned(),
        _ if location.starts_with('?') => format!("{}{location}", base.path()),
        _ => format!("{}{location}", &base.path()[..=base.path().rfind('/')?]),
    };
    format!("{scheme}://{authority}{path}").parse().ok()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};

    use super::*;

    #[test]
    fn private_addresses_are_known_in_every_disguise() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "192.0.0.8",
            "::1",
            "::",
            "fd00::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "2001::1",
            "64:ff9b:1::1",
        ] {
            assert!(!may_connect(private.parse().unwrap(), &Grants::default()), "{private}");
        }
        for public in
            ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]
        {
            assert!(may_connect(public.parse().unwrap(), &Grants::default()), "{public}");
        }
    }

    #[test]
    fn a_url_is_a_scheme_a_host_and_no_user() {
        let target = |url: &str| Target::of(&url.parse().unwrap());
        let expected = Target { tls: true, host: "api.example.com".to_owned(), port: 443 };
        assert_eq!(target("https://API.example.com./x"), Ok(expected));
        assert_eq!(target("http://[FD00::1]:81").unwrap().host, "fd00::1");
        for wrong in ["ftp://a/", "/path", "https://a@b/"] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }

    fn follow(method: Method, status: u16, location: &'static str) -> Option<(Method, String, bool, bool)> {
        let request = Request::builder()
            .method(method)
            .uri("http://a.example/one/two?three")
            .header(AUTHORIZATION, "secret")
            .body(())
            .unwrap();
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert(LOCATION, HeaderValue::from_static(location));
        let next = redirect(&request.into_parts().0, &answer)?;
        let keeps_secret = next.head.headers.contains_key(AUTHORIZATION);
        Some((next.head.method, next.head.uri.to_string(), next.keeps_body, keeps_secret))
    }

    #[test]
    fn a_redirect_takes_credentials_to_the_same_origin_only() {
        let (get, post) = (Method::GET, Method::POST);
        let to =
            |method: &Method, uri: &str, body, secret| Some((method.clone(), uri.to_owned(), body, secret));
        assert_eq!(follow(post.clone(), 302, "/x"), to(&get, "http://a.example/x", false, true));
        assert_eq!(follow(post.clone(), 307, "/x"), to(&post, "http://a.example/x", true, true));
        assert_eq!(
            follow(get.clone(), 301, "http://b.example/"),
            to(&get, "http://b.example/", false, false)
        );
        assert_eq!(
            follow(get.clone(), 301, "//a.example:81/y"),
            to(&get, "http://a.example:81/y", false, false)
        );
        assert_eq!(follow(get.clone(), 308, "four#f"), to(&get, "http://a.example/one/four", true, true));
        assert_eq!(follow(get.clone(), 303, "?q"), to(&get, "http://a.example/one/two?q", false, true));
        assert_eq!(follow(get.clone(), 200, "/x"), None);
        assert_eq!(follow(get, 304, "/x"), None);
    }
}
