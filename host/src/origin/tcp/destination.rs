//! Destinations that somebody else names: resolved once, judged, and connected to as they were judged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use adit_net::judge;
use http::uri::Authority;
use http::{HeaderMap, HeaderName};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::plan::Reach;
use crate::origin::dial::{Dial, MOST_ADDRESSES};

/// Where a client of a bastion says where it wants to go.
const JUMP_DESTINATION: HeaderName = HeaderName::from_static("cf-access-jump-destination");

/// Why there is no connection to a destination.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreached {
    #[error("its ip-rules allow no address of it")]
    NotAllowed,
    #[error("the name has no address")]
    NoAddress(#[source] io::Error),
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("no connection within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// How destinations are connected to, and which may be.
pub(super) struct Outlet<'o> {
    pub(super) reach: &'o Reach,
    pub(super) dial: Dial,
    pub(super) patience: Duration,
}

impl Outlet<'_> {
    /// A name is resolved once: what is connected to are the addresses that were judged.
    pub(super) async fn open(&self, host: &str, port: u16) -> Result<TcpStream, Unreached> {
        // Nobody is to find out names by a host that leads nowhere.
        if self.reach.is_nowhere() {
            return Err(Unreached::NotAllowed);
        }
        timeout(self.patience, async {
            let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
                Ok(address) => vec![SocketAddr::new(address, port)],
                Err(_) => tokio::net::lookup_host((host, port))
                    .await
                    .map_err(Unreached::NoAddress)?
                    .take(MOST_ADDRESSES)
                    .collect(),
            };
            let allowed = self.allowed(addresses);
            if allowed.is_empty() {
                return Err(Unreached::NotAllowed);
            }
            self.dial.connect(&allowed).await.map_err(Unreached::Connect)
        })
        .await
        .unwrap_or(Err(Unreached::Timeout(self.patience)))
    }

    fn allowed(&self, mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
        addresses.retain(|address| self.reach.allows(address.ip(), address.port(), judge::is_private));
        addresses
    }
}

/// The destination that a request names: a scheme in front and a path behind it mean nothing, as in the reference.
pub(super) fn named(headers: &HeaderMap) -> Option<(String, u16)> {
    let mut values = headers.get_all(JUMP_DESTINATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = value.to_str().ok()?;
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split(['/', '?', '#']).next().unwrap_or_default();
    let authority: Authority = text.parse().ok()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().filter(|port| *port > 0)?;
    (!host.is_empty() && !text.contains('@')).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_destination_is_a_host_and_a_port_whatever_stands_around_it() {
        for (written, wanted) in [
            ("db.internal:5432", Some(("db.internal", 5432))),
            ("ssh://10.0.0.7:22/x", Some(("10.0.0.7", 22))),
            ("[fd00::7]:22", Some(("fd00::7", 22))),
            ("db.internal", None),
            ("db.internal:0", None),
            ("me@db.internal:22", None),
            (":22", None),
            ("", None),
            ("a b:22", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(JUMP_DESTINATION, HeaderValue::from_static(written));
            let found = named(&headers);
            assert_eq!(found.as_ref().map(|(host, port)| (host.as_str(), *port)), wanted, "{written}");
            headers.append(JUMP_DESTINATION, HeaderValue::from_static(written));
            assert_eq!(named(&headers), None, "two of them");
        }
        assert_eq!(named(&HeaderMap::new()), None);
    }
}
