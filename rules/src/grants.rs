//! What a document grants a plugin: `[plugin.grants]`. Knows how grants are written and what they
//! mean; reads no secret, resolves no name.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use adit_config_reader::Spanned;
use http::uri::Authority;

use crate::document;
use crate::value::{Invalid, Reader};

/// What a plugin may reach besides its own memory. Empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// Destinations of outbound HTTP.
    pub http: Vec<Destination>,
    /// Private networks in which a granted name may lie.
    pub networks: Vec<Network>,
    pub secrets: BTreeMap<String, SecretSource>,
    /// Key-value buckets with how many bytes each may hold.
    pub buckets: BTreeMap<String, usize>,
    /// Those of them that are on disk too.
    pub kept: BTreeSet<String>,
    /// Those of them that are at the server that hosts share.
    pub shared: BTreeSet<String>,
}

/// Where a plugin may send requests: written as `https://api.example.com`, `http://10.0.0.5:8080` or
/// `https://*.example.com`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub tls: bool,
    pub host: DestinationHost,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DestinationHost {
    /// An address; naming it grants it even if it is private.
    Address(IpAddr),
    /// Lower case.
    Name(String),
    /// Every name that ends in this and is longer; begins with a dot.
    Below(String),
}

/// A block of addresses, written as `10.1.0.0/16` or as one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    File(PathBuf),
    /// The name of an environment variable.
    Environment(String),
}

impl Destination {
    /// Whether a request to this host (lower case, an IPv6 address without brackets) is granted.
    pub fn matches(&self, tls: bool, host: &str, port: u16) -> bool {
        let fits = match &self.host {
            DestinationHost::Address(address) => host.parse::<IpAddr>().is_ok_and(|host| host == *address),
            DestinationHost::Name(name) => name == host,
            DestinationHost::Below(suffix) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
        };
        fits && self.tls == tls && self.port == port
    }

    fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = |message: &str| {
            Invalid::with_help(message, "write \"https://api.example.com\" or \"http://10.0.0.5:8080\"")
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => return Err(wrong("a destination begins with https:// or http://")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(wrong("a destination is a scheme, a host and a port, and nothing else"));
        }
        let below = rest.starts_with("*.");
        let rest = if below { &rest[2..] } else { rest };
        let authority = rest.parse::<Authority>().map_err(|_| wrong("this is not a host"))?;
        let host = authority.host().to_ascii_lowercase();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || host.contains('*') {
            return Err(wrong("this is not a host; `*` may stand for whole names in front only, as in `*.`"));
        }
        let port = match authority.port_u16() {
            Some(0) => return Err(wrong("the port of this destination is not a number from 1 to 65535")),
            Some(port) => port,
            None if authority.as_str().len() > authority.host().len() => {
                return Err(wrong("the port of this destination is not a number from 1 to 65535"));
            }
            None if tls => 443,
            None => 80,
        };
        let host = match (host.parse::<IpAddr>(), below) {
            (Ok(_), true) => return Err(wrong("there is nothing below an address")),
            (Ok(address), false) => DestinationHost::Address(address),
            (Err(_), true) => DestinationHost::Below(format!(".{host}")),
            (Err(_), false) => DestinationHost::Name(host.to_owned()),
        };
        Ok(Self { tls, host, port })
    }
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        let (network, address) = match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (u128::from(u32::from(network)) << 96, u128::from(u32::from(address)) << 96)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => (u128::from(network), u128::from(address)),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let shift = 128 - u32::from(self.prefix);
        network.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    }

    /// Whether it lies within what is private, and is not merely so wide that it holds some of that.
    pub(crate) fn is_own(&self, is_private: fn(IpAddr) -> bool) -> bool {
        let narrowest = if self.address.is_ipv4() { 8 } else { 7 };
        self.prefix >= narrowest && is_private(self.address)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let wrong = || {
            Invalid::with_help("this is not a network", "write \"10.1.0.0/16\", \"fd00::/8\" or one address")
        };
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(longest), |prefix| prefix.parse().map_err(|_| wrong()))?;
        if prefix > longest { Err(wrong()) } else { Ok(Self { address, prefix }) }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// `has_server` says that the document names a server of shared buckets.
pub(super) fn lower(
    written: Option<&Spanned<document::Grants>>,
    has_server: bool,
    reading: &mut Reader<'_>,
) -> Grants {
    let Some(written) = written.map(Spanned::get_ref) else { return Grants::default() };
    let mut grants = Grants::default();
    for destination in written.http.iter().flat_map(Spanned::get_ref) {
        grants.http.extend(reading.take(destination, Destination::parse(destination.get_ref())));
    }
    if let Some(http) = written.http.as_ref().filter(|http| http.get_ref().len() > MOST_GRANTS) {
        reading.refuse(http, too_many("destinations"));
    }
    for network in written.private_networks.iter().flat_map(Spanned::get_ref) {
        grants.networks.extend(reading.take(network, Network::parse(network.get_ref())));
    }
    if let Some(secrets) = &written.secrets {
        for (name, source) in secrets.get_ref() {
            let outcome = check_name(name, NAME).and_then(|()| secret(source.get_ref(), reading));
            if let Some(source) = reading.take(source, outcome) {
                grants.secrets.insert(name.clone(), source);
            }
        }
        if secrets.get_ref().len() > MOST_GRANTS {
            reading.refuse(secrets, too_many("secrets"));
        }
    }
    if let Some(buckets) = &written.buckets {
        for (name, quota) in buckets.get_ref() {
            reading.take(quota, check_name(name, NAME));
            let quota = reading.size(Some(quota), DEFAULT_BUCKET, BUCKET);
            grants.buckets.insert(name.clone(), quota);
        }
        if buckets.get_ref().len() > MOST_GRANTS {
            reading.refuse(buckets, too_many("buckets"));
        }
    }
    for name in written.kept_buckets.iter().flat_map(Spanned::get_ref) {
        let outcome = match grants.buckets.get(name.get_ref()) {
            None => Err(no_bucket(name.get_ref())),
            Some(quota) if *quota > LARGEST_KEPT => Err(Invalid::with_help(
                "this bucket is too large to be kept: all of it is written when something in it has changed",
                format!("give it at most {} MiB in `buckets`", LARGEST_KEPT >> 20),
            )),
            Some(_) => Ok(name.get_ref().clone()),
        };
        grants.kept.extend(reading.take(name, outcome));
    }
    for name in written.shared_buckets.iter().flat_map(Spanned::get_ref) {
        let outcome = if !grants.buckets.contains_key(name.get_ref()) {
            Err(no_bucket(name.get_ref()))
        } else if grants.kept.contains(name.get_ref()) {
            let help =
                "name it in `kept-buckets` for a file of this host, or in `shared-buckets` for the server";
            Err(Invalid::with_help("a bucket is in one place", help))
        } else if !has_server {
            let help = "write [bucket-server] with url = \"redis://10.0.0.5\"";
            Err(Invalid::with_help("there is no server to share this bucket at", help))
        } else {
            Ok(name.get_ref().clone())
        };
        grants.shared.extend(reading.take(name, outcome));
    }
    grants
}

fn no_bucket(name: &str) -> Invalid {
    let help = "name a bucket of this plugin, and its size in `buckets`";
    Invalid::with_help(format!("{name:?} is not among `buckets`"), help)
}

pub(super) fn secret(written: &document::Secret, reading: &Reader<'_>) -> Result<SecretSource, Invalid> {
    match (&written.file, &written.env) {
        (Some(file), None) => Ok(SecretSource::File(reading.folder.join(file))),
        (None, Some(name)) if !name.is_empty() && !name.contains(['=', '\0']) => {
            Ok(SecretSource::Environment(name.clone()))
        }
        (None, Some(_)) => Err(Invalid::new("this is not the name of an environment variable")),
        _ => Err(Invalid::with_help(
            "a secret is kept either in a file or in an environment variable",
            "write { file = \"PATH\" } or { env = \"NAME\" }",
        )),
    }
}

/// `what` it would be the name of.
pub(super) fn check_name(name: &str, what: &str) -> Result<(), Invalid> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(is_plain) {
        let help = format!("use 1 to {LONGEST_NAME} letters, digits, `-`, `_` and `.`");
        return Err(Invalid::with_help(format!("{name:?} cannot be {what}"), help));
    }
    Ok(())
}

fn too_many(what: &str) -> Invalid {
    Invalid::new(format!("a plugin has at most {MOST_GRANTS} {what}"))
}

/// Largest secret, bytes.
pub const LARGEST_SECRET: usize = 64 * 1024;

const NAME: &str = "the name of a secret or bucket";
const LONGEST_NAME: usize = 64;
const MOST_GRANTS: usize = 64;
const DEFAULT_BUCKET: usize = 1 << 20;
const BUCKET: RangeInclusive<usize> = 1 << 10..=1 << 30;
const LARGEST_KEPT: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_grants_its_scheme_host_and_port_and_nothing_else() {
        for (written, granted, refused) in [
            (
                "https://api.example.com",
                vec![(true, "api.example.com", 443)],
                vec![
                    (false, "api.example.com", 443),
                    (true, "api.example.com", 8443),
                    (true, "x.api.example.com", 443),
                    (true, "example.com", 443),
                ],
            ),
            (
                "http://*.example.com:8080/",
                vec![(false, "a.example.com", 8080), (false, "a.b.example.com", 8080)],
                vec![
                    (false, "example.com", 8080),
                    (false, ".example.com", 8080),
                    (false, "aexample.com", 8080),
                ],
            ),
            ("http://10.0.0.5", vec![(false, "10.0.0.5", 80)], vec![(false, "10.0.0.6", 80)]),
            ("https://[FD00::1]:8443", vec![(true, "fd00::1", 8443), (true, "fd00:0::1", 8443)], vec![]),
        ] {
            let destination = Destination::parse(written).unwrap();
            for (tls, host, port) in granted {
                assert!(destination.matches(tls, host, port), "{written}: {host}:{port}");
            }
            for (tls, host, port) in refused {
                assert!(!destination.matches(tls, host, port), "{written}: {host}:{port}");
            }
        }
        for wrong in [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https://a/b",
            "https://u@a",
            "http://a:0",
            "http://*",
            "http://a.*.b",
            "http://*.10.0.0.1",
        ] {
            assert!(Destination::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_network_contains_what_shares_its_prefix() {
        let contains = |network: &str, address: &str| {
            Network::parse(network).unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.1.0.0/16", "10.1.255.255"));
        assert!(!contains("10.1.0.0/16", "10.2.0.0"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "192.0.2.1") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("fd00::/8", "fdff::1") && !contains("fd00::/8", "fe80::1"));
        for wrong in ["10.0.0.0/33", "10.0.0", "fd00::/129", "a/8", "10.0.0.0/x"] {
            assert!(Network::parse(wrong).is_err(), "{wrong}");
        }
    }
}
