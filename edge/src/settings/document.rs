//! What an operator writes for an edge: the TOML document as it stands. Knows names and types;
//! knows no rule.

use std::path::PathBuf;

use adit_config_reader::Spanned;
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Document {
    pub(super) data_dir: Option<Spanned<PathBuf>>,
    pub(super) visitors: Option<Spanned<Visitors>>,
    pub(super) connectors: Option<Spanned<CertificateFiles>>,
    pub(super) certificate: Option<Vec<Spanned<CertificateFiles>>>,
    pub(super) server: Option<Vec<Spanned<Server>>>,
    pub(super) tunnel: Option<Vec<Spanned<Tunnel>>>,
    pub(super) admin: Option<Spanned<Admin>>,
    pub(super) api: Option<Spanned<Api>>,
    pub(super) store: Option<Spanned<Store>>,
    pub(super) node: Option<Spanned<Node>>,
    pub(super) acme: Option<Spanned<Acme>>,
    pub(super) name: Option<Vec<Spanned<Name>>>,
    pub(super) dns: Option<Spanned<Dns>>,
    pub(super) alerts: Option<Spanned<Alerts>>,
    pub(super) drain: Option<Spanned<Drain>>,
    pub(super) bodies: Option<Spanned<Bodies>>,
    pub(super) geography: Option<Spanned<Geography>>,
    pub(super) traces: Option<Spanned<Traces>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Visitors {
    pub(super) http: Option<Spanned<String>>,
    pub(super) https: Option<Spanned<String>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) private_key: Option<Spanned<PathBuf>>,
    /// A duration like "10s".
    pub(super) hold: Option<Spanned<String>>,
    /// A duration like "15s".
    pub(super) warm_up: Option<Spanned<String>>,
    /// The same.
    pub(super) answer_timeout: Option<Spanned<String>>,
    pub(super) upload_timeout: Option<Spanned<String>>,
    pub(super) half_closed_timeout: Option<Spanned<String>>,
    pub(super) connections_per_address: Option<Spanned<i64>>,
    pub(super) requests_per_address: Option<Spanned<i64>>,
    /// Addresses and networks like "10.0.0.0/8".
    pub(super) unlimited_addresses: Option<Spanned<Vec<Spanned<String>>>>,
    /// The same.
    pub(super) trusted_proxies: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) proxy_protocol: Option<Spanned<bool>>,
    pub(super) tls: Option<Spanned<String>>,
    /// The name of a server.
    pub(super) server: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CertificateFiles {
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) private_key: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Server {
    pub(super) region: Option<Spanned<String>>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Tunnel {
    pub(super) name: Option<Spanned<String>>,
    pub(super) credentials_file: Option<Spanned<PathBuf>>,
    pub(super) hostnames: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) stickiness: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Admin {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) probes: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Api {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) private_key: Option<Spanned<PathBuf>>,
    pub(super) tunnel_domain: Option<Spanned<String>>,
    pub(super) quick_domain: Option<Spanned<String>>,
    /// Of a certificate that an authority issues.
    pub(super) hostname: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<PathBuf>>,
    pub(super) tunnels_per_account: Option<Spanned<i64>>,
    pub(super) records_per_account: Option<Spanned<i64>>,
    pub(super) state_per_account: Option<Spanned<String>>,
}

/// Where the state is kept, if not in the data folder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Store {
    /// `etcd://HOST:PORT,HOST:PORT/FLEET`.
    pub(super) url: Option<Spanned<String>>,
    pub(super) ca: Option<Spanned<PathBuf>>,
    pub(super) certificate: Option<Spanned<PathBuf>>,
    pub(super) private_key: Option<Spanned<PathBuf>>,
    pub(super) allow_old: Option<Spanned<bool>>,
}

/// What this edge is to a fleet.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Node {
    pub(super) name: Option<Spanned<String>>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) listen: Option<Spanned<String>>,
    /// Addresses with ports.
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
}

/// What is wanted of the visitors of some names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Name {
    pub(super) hostnames: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) redirect: Option<Spanned<bool>>,
    pub(super) hsts_days: Option<Spanned<i64>>,
    pub(super) client_certificate: Option<Spanned<String>>,
    pub(super) client_ca: Option<Spanned<PathBuf>>,
}

/// Who issues certificates, and how many.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Acme {
    pub(super) email: Option<Spanned<String>>,
    /// A URL.
    pub(super) directory: Option<Spanned<String>>,
    pub(super) directory_ca: Option<Spanned<PathBuf>>,
    pub(super) external_account: Option<Spanned<String>>,
    pub(super) external_account_key_file: Option<Spanned<PathBuf>>,
    pub(super) challenges: Option<Spanned<Vec<Spanned<String>>>>,
    /// IP addresses.
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) resolver: Option<Spanned<String>>,
    pub(super) key_file: Option<Spanned<PathBuf>>,
    pub(super) orders_per_zone: Option<Spanned<i64>>,
    pub(super) orders_per_account: Option<Spanned<i64>>,
    pub(super) orders_per_minute: Option<Spanned<i64>>,
}

/// The name server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Dns {
    pub(super) listen: Option<Spanned<String>>,
    pub(super) zones: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) name_servers: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) node: Option<Vec<Spanned<DnsNode>>>,
}

/// An edge, as resolvers see it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct DnsNode {
    pub(super) region: Option<Spanned<String>>,
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) ports: Option<Spanned<Vec<Spanned<i64>>>>,
    pub(super) probe: Option<Spanned<String>>,
    /// The name of a node of the fleet.
    pub(super) node: Option<Spanned<String>>,
}

/// What accounts are told, and where. Durations are texts like "30s".
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Alerts {
    /// Addresses and networks like "10.0.0.0/8".
    pub(super) private_networks: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) down_for: Option<Spanned<String>>,
    pub(super) up_for: Option<Spanned<String>>,
}

/// How the edge stops. Durations are texts like "3s".
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Drain {
    pub(super) linger: Option<Spanned<String>>,
    pub(super) hosts: Option<Spanned<String>>,
    pub(super) grace_period: Option<Spanned<String>>,
}

/// What peers have to take. Sizes are texts like "64MiB", durations like "30s".
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Bodies {
    pub(super) held: Option<Spanned<String>>,
    pub(super) grace: Option<Spanned<String>>,
    pub(super) minimum_rate: Option<Spanned<String>>,
}

/// Whom traces are told, and which.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Traces {
    /// A URL.
    pub(super) collector: Option<Spanned<String>>,
    pub(super) headers_file: Option<Spanned<PathBuf>>,
    pub(super) service: Option<Spanned<String>>,
    pub(super) share: Option<Spanned<f64>>,
    pub(super) context: Option<Spanned<String>>,
    /// A duration.
    pub(super) slow: Option<Spanned<String>>,
    pub(super) errors: Option<Spanned<bool>>,
}

/// Where this edge is, and where visitors are.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Geography {
    pub(super) pop: Option<Spanned<String>>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) latitude: Option<Spanned<f64>>,
    pub(super) longitude: Option<Spanned<f64>>,
    pub(super) country_header: Option<Spanned<String>>,
    pub(super) region_header: Option<Spanned<String>>,
    /// A file in the form of MaxMind DB.
    pub(super) database: Option<Spanned<PathBuf>>,
    pub(super) network: Option<Vec<Spanned<NetworkPlace>>>,
}

/// A place and its networks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct NetworkPlace {
    pub(super) addresses: Option<Spanned<Vec<Spanned<String>>>>,
    pub(super) pop: Option<Spanned<String>>,
    pub(super) country: Option<Spanned<String>>,
    pub(super) region: Option<Spanned<String>>,
}
