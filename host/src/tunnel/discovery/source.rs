//! Where the edge's addresses come from: a list, or the SRV records of a domain. Knows no slot.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::lookup_host;
use tokio::time::timeout;
use tracing::warn;

use super::dns::Dns;
use super::{LOOKUP_LIMIT, LookupError, Region, family, lock};
use crate::config::settings::{DnsServer, EdgeSource, Edges, IpVersion};

/// Where addresses come from.
pub(super) enum Source {
    Listed { entries: Vec<Entry>, dns: Option<Dns>, ip_version: IpVersion },
    Domain { service: String, needs_two_regions: bool, dns: Dns, ip_version: IpVersion },
}

/// One edge server of the configuration.
pub(super) enum Entry {
    Address(SocketAddr),
    /// As it is written, with what it resolved to last.
    Name {
        text: String,
        last: Mutex<Vec<SocketAddr>>,
    },
}

impl Source {
    pub(super) fn new(edges: Edges) -> Self {
        let needs_two_regions = edges.source.is_public();
        let Edges { source, ip_version, dns_servers, .. } = edges;
        match source {
            EdgeSource::Listed(entries) => {
                let entries = entries.into_iter().map(|text| match text.parse() {
                    Ok(address) => Entry::Address(address),
                    Err(_) => Entry::Name { text, last: Mutex::default() },
                });
                // The system's own resolver also knows names that are in no DNS.
                let dns = (dns_servers != [DnsServer::System])
                    .then(|| Dns::new(dns_servers, ip_version, NAME_LIMIT));
                Self::Listed { entries: entries.collect(), dns, ip_version }
            }
            EdgeSource::Domain { name, region } => {
                let region = region.map(|region| format!("{region}-")).unwrap_or_default();
                let service = format!("_{region}v2-origintunneld._tcp.{name}");
                Self::Domain {
                    service,
                    needs_two_regions,
                    dns: Dns::new(dns_servers, ip_version, LOOKUP_LIMIT),
                    ip_version,
                }
            }
        }
    }

    /// How long a dial waits for a new lookup while it has addresses to go on with.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Self::Listed { entries, .. } if entries.iter().any(|it| matches!(it, Entry::Name { .. })) => {
                PATIENCE
            }
            Self::Listed { .. } | Self::Domain { .. } => Duration::ZERO,
        }
    }

    /// Looks up anew. A part that cannot be is taken from what is `known`.
    pub(super) async fn look_up(&self, known: &[Region]) -> Result<Vec<Region>, LookupError> {
        match self {
            Self::Listed { entries, dns, ip_version } => listed(entries, dns.as_ref(), *ip_version).await,
            Self::Domain { service, needs_two_regions, dns, .. } => {
                let regions = dns.regions(service, known).await?;
                match regions.as_slice() {
                    [only] if *needs_two_regions => {
                        Err(LookupError::OneRegion { service: service.clone(), region: only.name.clone() })
                    }
                    _ => Ok(regions),
                }
            }
        }
    }

    /// The addresses in the order in which they are handed out, without those that no route leads to.
    pub(super) fn arrange(&self, regions: &[Region]) -> Vec<Vec<SocketAddr>> {
        let mut regions: Vec<Vec<SocketAddr>> =
            regions.iter().map(|region| region.addresses.clone()).collect();
        let ip_version = match self {
            Self::Listed { ip_version, .. } => *ip_version,
            Self::Domain { ip_version, .. } => {
                // Hosts that find the same servers must not all start with the same ones.
                regions.iter_mut().for_each(|region| fastrand::shuffle(region));
                fastrand::shuffle(&mut regions);
                *ip_version
            }
        };
        let all = || regions.iter().flatten();
        if ip_version == IpVersion::Auto && all().any(SocketAddr::is_ipv4) && all().any(SocketAddr::is_ipv6) {
            let routed: HashSet<SocketAddr> = all().copied().filter(has_route).collect();
            if !routed.is_empty() {
                regions.iter_mut().for_each(|region| region.retain(|address| routed.contains(address)));
            }
        }
        regions
    }
}

/// Entries alternate between two regions as the reference client has it: first, third, … and second,
/// fourth, … (wire.md, 1). A name that cannot be resolved keeps the addresses it had.
async fn listed(
    entries: &[Entry],
    dns: Option<&Dns>,
    ip_version: IpVersion,
) -> Result<Vec<Region>, LookupError> {
    let resolved = join_all(entries.iter().map(async |entry| match entry {
        Entry::Address(address) => Ok(vec![*address]),
        Entry::Name { text, last } => match resolve(text, dns, ip_version).await {
            Ok(addresses) => {
                lock(last).clone_from(&addresses);
                Ok(addresses)
            }
            Err(error) => {
                let known = lock(last).clone();
                if known.is_empty() { Err(error) } else { Ok(known) }
            }
        },
    }));
    let mut regions = ["first", "second"].map(|name| Region { name: name.into(), addresses: Vec::new() });
    let mut first_error = None;
    for (index, outcome) in resolved.await.into_iter().enumerate() {
        match outcome {
            Ok(addresses) => regions[index % 2].addresses.extend(addresses),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let regions: Vec<Region> = regions.into_iter().filter(|region| !region.addresses.is_empty()).collect();
    match first_error {
        Some(error) if regions.is_empty() => Err(error),
        Some(error) => {
            warn!(%error, "this edge server is left out");
            Ok(regions)
        }
        None => Ok(regions),
    }
}

async fn resolve(
    text: &str,
    dns: Option<&Dns>,
    ip_version: IpVersion,
) -> Result<Vec<SocketAddr>, LookupError> {
    let failed = |why: String| LookupError::Listed { entry: text.to_owned(), why };
    let found = match (dns, text.rsplit_once(':')) {
        (Some(dns), Some((host, port))) => {
            let port = port.parse().map_err(|_| failed("the port is not a number".into()))?;
            dns.addresses(host, port).await?
        }
        _ => {
            let found = timeout(NAME_LIMIT, lookup_host(text)).await;
            let found = found.map_err(|_| failed("no answer".into()))?;
            found.map_err(|error| failed(error.to_string()))?.collect()
        }
    };
    let found: Vec<SocketAddr> =
        found.into_iter().filter(|address| ip_version.admits(address.ip())).collect();
    if found.is_empty() {
        return Err(failed(format!("the name has no address{}", family(ip_version))));
    }
    Ok(found)
}

/// Whether this machine knows a way to the address. Sends nothing.
pub(super) fn has_route(address: &SocketAddr) -> bool {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    UdpSocket::bind(any).and_then(|socket| socket.connect(address)).is_ok()
}

/// How long a dial waits for names to be resolved anew while it has addresses.
const PATIENCE: Duration = Duration::from_secs(2);
/// One listed name: less than a lookup, so that one slow name does not cost the others theirs.
const NAME_LIMIT: Duration = Duration::from_secs(7);
