//! Where edge servers are found, as `[tunnel]` says it. Knows what may be written; looks nothing up.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use adit_config_reader::Spanned;
use adit_protocol::credentials::Credentials;
use adit_rules::hostname;
use adit_rules::value::{Invalid, Reader};
use http::uri::Authority;

use crate::config::document::Tunnel;

/// How this host finds edge servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edges {
    pub source: EdgeSource,
    pub ip_version: IpVersion,
    /// The address that connections to the edge come from; of the family of `ip_version`.
    pub bind_address: Option<IpAddr>,
    /// Asked in turn until one answers; never empty.
    pub dns_servers: Vec<DnsServer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EdgeSource {
    /// `host:port` of each edge server, no two alike; of two regions in turn.
    Listed(Vec<String>),
    /// The servers that the SRV records of a domain name.
    Domain {
        /// Lower case, without a trailing dot.
        name: String,
        /// A part of the fleet, such as `us`.
        region: Option<String>,
    },
}

/// Which addresses may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpVersion {
    /// Both.
    Auto,
    V4,
    V6,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DnsServer {
    /// What the system uses.
    System,
    /// UDP, and TCP where that does not do.
    Plain(SocketAddr),
    /// DNS over TLS (RFC 7858); the certificate must have this name.
    Tls { address: SocketAddr, name: String },
}

impl IpVersion {
    pub fn admits(self, ip: IpAddr) -> bool {
        match self {
            Self::Auto => true,
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }
}

impl EdgeSource {
    /// Whether this is the public edge that the protocol comes from. Its own rules hold there.
    pub fn is_public(&self) -> bool {
        matches!(self, Self::Domain { name, .. } if name == PUBLIC_DOMAIN)
    }
}

/// Draws how edge servers are found. What is wrong is a mistake, and a stand-in takes its place.
pub(super) fn lower(
    section: &Spanned<Tunnel>,
    credentials: Option<&Credentials>,
    reading: &mut Reader<'_>,
    warnings: &mut Vec<String>,
) -> Edges {
    let tunnel = section.get_ref();
    let (ip_version, bind_address) = family(tunnel, reading);
    let source = match &tunnel.edges {
        Some(list) => {
            for (key, written) in [("edge-domain", &tunnel.edge_domain), ("edge-region", &tunnel.edge_region)]
            {
                if let Some(written) = written {
                    let wrong = Invalid::with_help(
                        format!("`edges` and `{key}` say where the edge is in two ways"),
                        "keep `edges`, or let the domain name the servers",
                    );
                    reading.refuse(written, wrong);
                }
            }
            EdgeSource::Listed(edges(list, ip_version, reading))
        }
        None => domain(section, credentials, reading),
    };
    let dns_servers = dns_servers(tunnel, &source, reading);
    if let EdgeSource::Listed(edges) = &source
        && tunnel.dns_servers.is_some()
        && edges.iter().all(|edge| edge.parse::<SocketAddr>().is_ok())
    {
        warnings.push("tunnel.dns-servers has no effect: `edges` lists no name".into());
    }
    Edges { source, ip_version, bind_address, dns_servers }
}

/// The source address decides the family (wire.md, 1).
fn family(tunnel: &Tunnel, reading: &mut Reader<'_>) -> (IpVersion, Option<IpAddr>) {
    let version = tunnel.edge_ip_version.as_ref().and_then(|written| {
        let version = match written.get_ref().as_str() {
            "auto" => Ok(IpVersion::Auto),
            "4" => Ok(IpVersion::V4),
            "6" => Ok(IpVersion::V6),
            _ => Err(Invalid::with_help("this is not an IP version", "write \"auto\", \"4\" or \"6\"")),
        };
        reading.take(written, version)
    });
    let version = version.unwrap_or(IpVersion::Auto);
    let Some(written) = &tunnel.edge_bind_address else { return (version, None) };
    let address = written.get_ref().parse::<IpAddr>().map_err(|_| {
        Invalid::with_help("this is not an IP address", "write an address of this machine, without a port")
    });
    let address = address.and_then(|address| {
        if version.admits(address) {
            return Ok(address);
        }
        Err(Invalid::with_help(
            format!("{address} is not of the family that `edge-ip-version` asks for"),
            "change one of them, or leave `edge-ip-version` out",
        ))
    });
    match reading.take(written, address) {
        Some(address) => (if address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 }, Some(address)),
        None => (version, None),
    }
}

fn edges(list: &Spanned<Vec<Spanned<String>>>, version: IpVersion, reading: &mut Reader<'_>) -> Vec<String> {
    let count = list.get_ref().len();
    if count == 0 {
        reading.refuse(list, Invalid::with_help("there is no edge server to connect to", EDGES_HELP));
    }
    if count > MOST_EDGES {
        reading.refuse(
            list,
            Invalid::new(format!("{count} edge servers are more than the {MOST_EDGES} that can be used")),
        );
    }
    let mut seen = HashSet::new();
    let mut edges = Vec::new();
    for written in list.get_ref() {
        let edge = edge(written.get_ref(), version);
        let is_new = edge.as_ref().map_or(true, |edge| seen.insert(edge.to_ascii_lowercase()));
        let edge = if is_new { edge } else { Err(Invalid::new("this edge server is listed twice")) };
        edges.extend(reading.take(written, edge));
    }
    edges
}

/// `host:port`; an IPv6 address stands in brackets.
fn edge(text: &str, version: IpVersion) -> Result<String, Invalid> {
    if let Some((_, rest)) = text.split_once("://") {
        // What a URL holds besides may be a password.
        let rest = rest.rsplit('@').next().unwrap_or(rest);
        let help = format!("write \"{}\"", rest.trim_end_matches('/'));
        return Err(Invalid::with_help("an edge server is a host and a port, not a URL", help));
    }
    let authority = text.parse::<Authority>().ok().filter(|it| !it.host().is_empty() && !text.contains('@'));
    let authority =
        authority.ok_or_else(|| Invalid::with_help("this is not a host and a port", EDGES_HELP))?;
    if let Ok(address) = text.parse::<SocketAddr>()
        && !version.admits(address.ip())
    {
        return Err(Invalid::with_help(
            "this edge server is not of the family that connections are made over",
            "change it, `edge-ip-version` or `edge-bind-address`",
        ));
    }
    match authority.port_u16() {
        Some(port) if port > 0 => Ok(text.to_owned()),
        None if authority.host() == text => Err(Invalid::with_help(
            "the port of this edge server is missing",
            format!("write \"{text}:7844\""),
        )),
        _ => Err(Invalid::new("the port of this edge server is not a number from 1 to 65535")),
    }
}

fn domain(
    section: &Spanned<Tunnel>,
    credentials: Option<&Credentials>,
    reading: &mut Reader<'_>,
) -> EdgeSource {
    let tunnel = section.get_ref();
    let name = tunnel.edge_domain.as_ref().and_then(|written| {
        let help = "write the domain whose SRV records name the edge servers: edge-domain = \"example.com\"";
        let name = hostname::name(written.get_ref()).map_err(|wrong| Invalid::with_help(wrong.message, help));
        reading.take(written, name)
    });
    let written = tunnel.edge_region.as_ref().and_then(|written| {
        let outcome = region(written.get_ref());
        reading.take(written, outcome)
    });
    let bound = credentials.and_then(|credentials| credentials.endpoint.as_deref());
    if let (Some(written), Some(bound)) = (&tunnel.edge_region, bound) {
        let wrong = Invalid::with_help(
            format!("the credentials say already that this tunnel is served in `{bound}`"),
            "leave `edge-region` out",
        );
        reading.refuse(written, wrong);
    }
    let bound = bound.and_then(|bound| match region(bound) {
        Ok(region) => Some(region),
        Err(_) => {
            reading.mistakes.add(section.span(), format!("the credentials name no region: {bound:?}"));
            None
        }
    });
    EdgeSource::Domain { name: name.unwrap_or_else(|| PUBLIC_DOMAIN.to_owned()), region: written.or(bound) }
}

/// What stands before `-v2-origintunneld` in the SRV name.
fn region(text: &str) -> Result<String, Invalid> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if (1..=LONGEST_REGION).contains(&text.len()) && text.chars().all(fits) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(Invalid::with_help("this is not the name of a region", "write a short word: edge-region = \"us\""))
}

fn dns_servers(tunnel: &Tunnel, source: &EdgeSource, reading: &mut Reader<'_>) -> Vec<DnsServer> {
    let Some(list) = &tunnel.dns_servers else {
        let mut servers = vec![DnsServer::System];
        if source.is_public() {
            // As the reference client has it (wire.md, 1). Nobody else's names are told to a third party.
            servers.push(DnsServer::Tls { address: FALLBACK, name: FALLBACK_NAME.to_owned() });
        }
        return servers;
    };
    let count = list.get_ref().len();
    if !(1..=MOST_DNS_SERVERS).contains(&count) {
        let message = format!("expected 1 to {MOST_DNS_SERVERS} DNS servers");
        reading.refuse(list, Invalid::with_help(message, DNS_HELP));
    }
    let mut servers = Vec::new();
    for written in list.get_ref() {
        let server = dns_server(written.get_ref());
        servers.extend(reading.take(written, server));
    }
    servers
}

/// `system`, `ip:port` or `tls://ip:port#name`.
fn dns_server(text: &str) -> Result<DnsServer, Invalid> {
    let wrong = || Invalid::with_help("this is not a DNS server", DNS_HELP);
    if text == "system" {
        return Ok(DnsServer::System);
    }
    let Some(rest) = text.strip_prefix("tls://") else {
        return text.parse().map(DnsServer::Plain).map_err(|_| wrong());
    };
    let (address, name) = rest.split_once('#').ok_or_else(wrong)?;
    let address = address.parse().map_err(|_| wrong())?;
    let name = hostname::name(name).map_err(|_| wrong())?;
    Ok(DnsServer::Tls { address, name })
}

/// The domain whose SRV records lead to the public edge of this protocol (wire.md, 1).
const PUBLIC_DOMAIN: &str = "argotunnel.com";
const FALLBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), 853);
const FALLBACK_NAME: &str = "cloudflare-dns.com";
const MOST_EDGES: usize = 64;
const MOST_DNS_SERVERS: usize = 4;
/// With `-v2-origintunneld` and an underscore it must fit into a label.
const LONGEST_REGION: usize = 32;
const EDGES_HELP: &str = "write the address of each edge server: edges = [\"edge.example.com:7844\"]";
const DNS_HELP: &str =
    "write \"system\", an address such as \"192.0.2.1:53\", or \"tls://192.0.2.1:853#dns.example.com\"";
