//! Where a fleet keeps its state: `etcd://HOST:PORT,HOST:PORT/FLEET`. Pure text; opens nothing.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use thiserror::Error;

/// The members of etcd, and the name of the fleet, which keeps its records apart from those of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) fleet: String,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    host: String,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AddressError {
    #[error("it does not begin with etcd://")]
    Scheme,
    #[error("`{0}` is no HOST:PORT")]
    Endpoint(String),
    #[error("it names {0} members of etcd; 1 to {MOST_ENDPOINTS} can be named")]
    Count(usize),
    #[error("it does not end with the name of the fleet: 1 to 63 of a-z, 0-9 and -, beginning with a letter")]
    Fleet,
}

impl Endpoint {
    /// A name or an address, without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    fn is_on_this_machine(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl Address {
    /// Whether what is said to it leaves this machine.
    pub(crate) fn is_on_this_machine(&self) -> bool {
        self.endpoints.iter().all(Endpoint::is_on_this_machine)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let rest = text.strip_prefix("etcd://").ok_or(AddressError::Scheme)?;
        let (hosts, fleet) = rest.split_once('/').ok_or(AddressError::Fleet)?;
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_name = fleet.len() <= 63
            && fleet.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && fleet.bytes().all(letter);
        if !is_name {
            return Err(AddressError::Fleet);
        }
        let endpoints = hosts.split(',').map(Endpoint::from_str).collect::<Result<Vec<_>, _>>()?;
        if endpoints.len() > MOST_ENDPOINTS {
            return Err(AddressError::Count(endpoints.len()));
        }
        Ok(Self { endpoints, fleet: fleet.to_owned() })
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        // A password that was written before it is not said again.
        let shown = text.rsplit('@').next().unwrap_or_default();
        let wrong = || AddressError::Endpoint(shown.chars().take(100).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let is_address = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6() == bracketed.is_some());
        let is_name = bracketed.is_none()
            && !host.is_empty()
            && host.len() <= 253
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
        if !is_address && !is_name {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints: Vec<_> = self.endpoints.iter().map(Endpoint::to_string).collect();
        write!(f, "etcd://{}/{}", endpoints.join(","), self.fleet)
    }
}

const MOST_ENDPOINTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text() {
        for text in [
            "etcd://127.0.0.1:2379/main",
            "etcd://a.example:2379,b.example:2379,10.0.0.3:1/fleet-2",
            "etcd://[::1]:2379,localhost:2379/m",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let local = |text: &str| text.parse::<Address>().unwrap().is_on_this_machine();
        assert!(local("etcd://127.0.0.9:1,[::1]:1,localhost:1/m"));
        assert!(!local("etcd://127.0.0.1:1,10.0.0.1:1/m") && !local("etcd://localhost.test:1/m"));
    }

    #[test]
    fn what_is_no_address_says_why() {
        use AddressError::{Count, Endpoint, Fleet, Scheme};
        let endpoint = |text: &str| Endpoint(text.to_owned());
        for (text, wrong) in [
            ("", Scheme),
            ("http://127.0.0.1:2379/main", Scheme),
            ("etcd://127.0.0.1:2379", Fleet),
            ("etcd://127.0.0.1:2379/", Fleet),
            ("etcd://127.0.0.1:2379/Main", Fleet),
            ("etcd://127.0.0.1:2379/a/b", Fleet),
            ("etcd://127.0.0.1:2379/../b", Fleet),
            ("etcd:///main", endpoint("")),
            ("etcd://127.0.0.1/main", endpoint("127.0.0.1")),
            ("etcd://127.0.0.1:0/main", endpoint("127.0.0.1:0")),
            ("etcd://127.0.0.1:99999/main", endpoint("127.0.0.1:99999")),
            ("etcd://::1:2379/main", endpoint("::1:2379")),
            ("etcd://[a.test]:2379/main", endpoint("[a.test]:2379")),
            ("etcd://user:pass@a.test:2379/main", endpoint("a.test:2379")),
            ("etcd://a:1,,b:1/main", endpoint("")),
        ] {
            assert_eq!(text.parse::<Address>(), Err(wrong), "{text}");
        }
        let many = format!("etcd://{}/main", ["a:1"; 17].join(","));
        assert_eq!(many.parse::<Address>(), Err(Count(17)));
    }
}
