//! By what a visitor is known again, for tunnels that send it to the same replica each time. Knows heads
//! and addresses; does not know replicas.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use adit_balance::Key;
use http::header::{COOKIE, HeaderMap, HeaderName};
use thiserror::Error;

/// What makes two requests belong together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Stickiness {
    #[default]
    None,
    /// The visitor's address; of IPv6 the first 64 bits, because a visitor changes the others.
    ClientIp,
    /// The value of a cookie of this name. The edge sets none.
    Cookie(String),
    /// The first value of this header.
    Header(HeaderName),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum StickinessError {
    #[error("`{0}` is no stickiness")]
    Unknown(String),
    #[error("`{0}` cannot be the name of a cookie")]
    Cookie(String),
    #[error("`{0}` cannot be the name of a header")]
    Header(String),
}

impl Stickiness {
    /// The key of a request; `None` where the tunnel or the request has none.
    pub(crate) fn key(&self, visitor: IpAddr, headers: &HeaderMap) -> Option<Key> {
        match self {
            Self::None => None,
            Self::ClientIp => Some(of_address(visitor)),
            Self::Cookie(name) => cookie(headers, name.as_bytes()).map(Key::of),
            Self::Header(name) => headers.get(name).map(|value| Key::of(value.as_bytes())),
        }
    }
}

/// The key of everybody who asks from an address, see [`Stickiness::ClientIp`].
pub(crate) fn of_address(visitor: IpAddr) -> Key {
    match visitor.to_canonical() {
        IpAddr::V4(address) => Key::of(&address.octets()),
        IpAddr::V6(address) => Key::of(&address.octets()[..8]),
    }
}

/// As it is written in a document.
impl fmt::Display for Stickiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::ClientIp => f.write_str("client-ip"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
        }
    }
}

impl FromStr for Stickiness {
    type Err = StickinessError;

    fn from_str(text: &str) -> Result<Self, StickinessError> {
        let fits = |name: &str| (1..=LONGEST_NAME).contains(&name.len());
        match (text, text.split_once(':')) {
            ("none", _) => Ok(Self::None),
            ("client-ip", _) => Ok(Self::ClientIp),
            (_, Some(("cookie", name))) if fits(name) && name.bytes().all(is_token) => {
                Ok(Self::Cookie(name.to_owned()))
            }
            (_, Some(("cookie", name))) => Err(StickinessError::Cookie(name.to_owned())),
            (_, Some(("header", name))) => match HeaderName::from_str(name) {
                Ok(parsed) if fits(name) => Ok(Self::Header(parsed)),
                Ok(_) | Err(_) => Err(StickinessError::Header(name.to_owned())),
            },
            _ => Err(StickinessError::Unknown(text.to_owned())),
        }
    }
}

/// The first cookie of this name that is not empty (RFC 6265 4.2.1).
fn cookie<'a>(headers: &'a HeaderMap, name: &[u8]) -> Option<&'a [u8]> {
    let mut pairs =
        headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

/// RFC 9110 5.6.2
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

const LONGEST_NAME: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(stickiness: &str, visitor: &str, headers: &[(&'static str, &'static str)]) -> Option<Key> {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        stickiness.parse::<Stickiness>().unwrap().key(visitor.parse().unwrap(), &map)
    }

    #[test]
    fn what_belongs_together_has_the_same_key() {
        let ip = |visitor| key("client-ip", visitor, &[]);
        assert_eq!(ip("192.0.2.1"), ip("::ffff:192.0.2.1"));
        assert_ne!(ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!(ip("2001:db8::1"), ip("2001:db8::2"));
        assert_ne!(ip("2001:db8::1"), ip("2001:db8:0:1::1"));
        let cookie = |value| key("cookie:sid", "192.0.2.1", &[("cookie", value)]);
        assert_eq!(cookie("sid=abc"), Some(Key::of(b"abc")));
        assert_eq!(cookie("other=1;  sid=abc; sid=later"), Some(Key::of(b"abc")));
        for none in ["", "sid", "sid=", "xsid=abc", "sidx=abc", "other=sid"] {
            assert_eq!(cookie(none), None, "{none}");
        }
        let crumbs = key("cookie:sid", "::1", &[("cookie", "a=b"), ("cookie", "sid=abc")]);
        assert_eq!(crumbs, Some(Key::of(b"abc")));
        assert_eq!(key("header:X-User", "::1", &[("x-user", "abc")]), Some(Key::of(b"abc")));
        assert_eq!(key("header:X-User", "::1", &[]), None);
        assert_eq!(key("none", "::1", &[("cookie", "sid=abc")]), None);
    }

    #[test]
    fn what_is_no_stickiness_is_an_error() {
        for wrong in ["", "ip", "cookie", "cookie:", "cookie:a b", "header:", "header:a b", "Client-IP"] {
            assert!(wrong.parse::<Stickiness>().is_err(), "{wrong}");
        }
        assert!(format!("header:{}", "x".repeat(LONGEST_NAME + 1)).parse::<Stickiness>().is_err());
    }
}
