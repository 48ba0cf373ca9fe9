//! Asks DNS: SRV records for the regions of an edge, A and AAAA records for the addresses of a name.
//! Keeps nothing between two questions; knows neither slots nor the edge.

use std::cmp::Reverse;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;
use tracing::warn;

use super::{LookupError, Region};
use crate::config::settings::{DnsServer, IpVersion};

/// Name servers, and which addresses are wanted of them.
pub(super) struct Dns {
    servers: Vec<DnsServer>,
    ip_version: IpVersion,
    /// For one question, however many servers it is put to.
    limit: Duration,
    /// Made when a server over TLS is asked for the first time.
    tls: OnceLock<ClientConfig>,
}

/// What is asked.
enum Question<'a> {
    /// Of this service; what is known stays where a target cannot be resolved now.
    Regions(&'a str, &'a [Region]),
    Addresses(&'a str, u16),
}

impl Dns {
    pub(super) fn new(servers: Vec<DnsServer>, ip_version: IpVersion, limit: Duration) -> Self {
        Self { servers, ip_version, limit, tls: OnceLock::new() }
    }

    /// The servers that the SRV records `service` name: a region for each target with an address, the
    /// preferred ones first, at most [`MOST_REGIONS`]. A target that cannot be resolved now, though nothing says
    /// that it has no address, keeps those that are `known`.
    pub(super) async fn regions(&self, service: &str, known: &[Region]) -> Result<Vec<Region>, LookupError> {
        self.ask_in_turn(Question::Regions(service, known)).await
    }

    /// The addresses of a host name, with this port.
    pub(super) async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, LookupError> {
        let regions = self.ask_in_turn(Question::Addresses(host, port)).await?;
        Ok(regions.into_iter().flat_map(|region| region.addresses).collect())
    }

    /// Each server gets its share of the time. Where none answers, what the first said is the reason.
    async fn ask_in_turn(&self, question: Question<'_>) -> Result<Vec<Region>, LookupError> {
        let share = self.limit / u32::try_from(self.servers.len()).unwrap_or(u32::MAX).max(1);
        let mut first = None;
        for server in &self.servers {
            let asked = async {
                let resolver = self.resolver(server).map_err(|error| failed(&question, server, &error))?;
                match question {
                    Question::Regions(service, known) => {
                        let found = resolver.srv_lookup(absolute(service)).await;
                        let found = found.map_err(|error| failed(&question, server, &error))?;
                        let records = found.answers().iter().filter_map(|record| {
                            if let RData::SRV(record) = &record.data { Some(record) } else { None }
                        });
                        self.targets(service, records.collect(), known, &resolver).await
                    }
                    Question::Addresses(host, port) => {
                        let found = resolver.lookup_ip(absolute(host)).await;
                        let found = found.map_err(|error| failed(&question, server, &error))?;
                        let ips = self.admitted(found.iter()).take(MOST_ADDRESSES);
                        let addresses = ips.map(|ip| SocketAddr::new(ip, port));
                        Ok(vec![Region { name: host.to_owned(), addresses: addresses.collect() }])
                    }
                }
            };
            let outcome = timeout(share, asked).await.unwrap_or_else(|_| {
                Err(LookupError::Dns {
                    what: question.to_string(),
                    server: show(server),
                    why: format!("no answer within {share:?}"),
                })
            });
            match outcome {
                Ok(regions) => return Ok(regions),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or(LookupError::Nothing))
    }

    /// Resolves the targets. Records with the same target are ports of one region.
    async fn targets(
        &self,
        service: &str,
        mut records: Vec<&SRV>,
        known: &[Region],
        resolver: &TokioResolver,
    ) -> Result<Vec<Region>, LookupError> {
        // Lowest priority number first, then the heavier, then by name: the same on every host.
        records.sort_by_key(|it| (it.priority, Reverse(it.weight), it.target.clone(), it.port));
        let mut targets: Vec<(String, Vec<u16>)> = Vec::new();
        // A target of "." says that there is no such service here (RFC 2782).
        for record in records.into_iter().filter(|it| !it.target.is_root() && it.port > 0).take(MOST_RECORDS)
        {
            let name = record.target.to_lowercase().to_string();
            match targets.iter_mut().find(|(known, _)| *known == name) {
                Some((_, ports)) => ports.push(record.port),
                None => targets.push((name, vec![record.port])),
            }
        }
        let resolved = targets.into_iter().map(async |(target, ports)| {
            let name = target.trim_end_matches('.').to_owned();
            let addresses: Vec<SocketAddr> = match resolver.lookup_ip(target.as_str()).await {
                Ok(found) => {
                    let ips = self.admitted(found.iter());
                    let all = ips.flat_map(|ip| ports.iter().map(move |port| SocketAddr::new(ip, *port)));
                    all.take(MOST_ADDRESSES).collect()
                }
                Err(error) if error.is_no_records_found() => return None,
                Err(error) => {
                    warn!(region = name, %error, "a region of the edge cannot be resolved");
                    known.iter().find(|region| region.name == name)?.addresses.clone()
                }
            };
            (!addresses.is_empty()).then_some(Region { name, addresses })
        });
        let resolved = join_all(resolved).await;
        let regions: Vec<Region> = resolved.into_iter().flatten().take(MOST_REGIONS).collect();
        if regions.is_empty() {
            return Err(LookupError::NoAddress { service: service.to_owned(), ip_version: self.ip_version });
        }
        Ok(regions)
    }

    fn admitted(&self, ips: impl Iterator<Item = IpAddr>) -> impl Iterator<Item = IpAddr> {
        let version = self.ip_version;
        ips.filter(move |ip| version.admits(*ip))
    }

    /// A new one each time: the system's servers may have changed, and what it would keep is old.
    fn resolver(&self, server: &DnsServer) -> Result<TokioResolver, NetError> {
        let with = |config: NameServerConfig| {
            let config = ResolverConfig::from_name_servers(vec![config]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let mut builder = match server {
            DnsServer::System => TokioResolver::builder_tokio()?,
            DnsServer::Plain(address) => {
                let mut config = NameServerConfig::udp_and_tcp(address.ip());
                config.connections.iter_mut().for_each(|connection| connection.port = address.port());
                with(config)
            }
            DnsServer::Tls { address, name } => {
                let mut connection = ConnectionConfig::tls(name.as_str().into());
                connection.port = address.port();
                with(NameServerConfig::new(address.ip(), true, vec![connection]))
                    .with_tls_config(self.tls.get_or_init(system_roots).clone())
            }
        };
        let options = builder.options_mut();
        options.cache_size = 0;
        options.timeout = ANSWER_LIMIT;
        options.attempts = 1;
        // A network that drops UDP may let TCP pass.
        options.try_tcp_on_error = true;
        options.ip_strategy = match self.ip_version {
            IpVersion::Auto => LookupIpStrategy::Ipv4AndIpv6,
            IpVersion::V4 => LookupIpStrategy::Ipv4Only,
            IpVersion::V6 => LookupIpStrategy::Ipv6Only,
        };
        builder.build()
    }
}

/// Name servers are believed as web servers are: by the roots of this system.
fn system_roots() -> ClientConfig {
    trusting(adit_trust::of_system())
}

fn trusting(roots: Arc<RootCertStore>) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = adit_trust::by_roots(roots, &provider);
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows the default versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth()
}

/// With a dot at the end, no search domain is tried.
fn absolute(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

fn failed(question: &Question<'_>, server: &DnsServer, error: &NetError) -> LookupError {
    let why = if error.is_nx_domain() {
        "there is no such name".to_owned()
    } else if error.is_no_records_found() {
        "the name has no such records".to_owned()
    } else {
        error.to_string()
    };
    LookupError::Dns { what: question.to_string(), server: show(server), why }
}

impl std::fmt::Display for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Regions(service, _) => write!(f, "the SRV records of {service}"),
            Self::Addresses(host, _) => write!(f, "the addresses of {host}"),
        }
    }
}

fn show(server: &DnsServer) -> String {
    match server {
        DnsServer::System => "the system's DNS".to_owned(),
        DnsServer::Plain(address) => address.to_string(),
        DnsServer::Tls { address, name } => format!("{name} ({address}, TLS)"),
    }
}

/// One attempt at one server over one transport. There are two attempts.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Groups beyond these are not used (wire.md, 1).
const MOST_REGIONS: usize = 2;
/// SRV records that are looked at.
const MOST_RECORDS: usize = 32;
/// Addresses of one name, or of one region with all its ports, that are used.
const MOST_ADDRESSES: usize = 64;

#[cfg(test)]
impl Dns {
    /// Believes only these roots.
    pub(super) fn trusting(mut self, roots: RootCertStore) -> Self {
        self.tls = trusting(roots.into()).into();
        self
    }
}
