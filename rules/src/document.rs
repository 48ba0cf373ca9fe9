//! What may be written in a host's document. Knows names and types; no rule, no default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use adit_config_reader::Spanned;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Document {
    pub state_dir: Option<Spanned<PathBuf>>,
    pub config_source: Option<Spanned<ConfigSource>>,
    pub watch: Option<Spanned<bool>>,
    pub access_log: Option<Spanned<bool>>,
    pub retire_after: Option<Spanned<Quantity>>,
    pub insecure_registries: Option<Spanned<Vec<Spanned<String>>>>,
    /// What rules that do not say it themselves say of paths.
    pub paths: Option<Spanned<Paths>>,
    pub path_headers: Option<Spanned<PathHeaders>>,
    pub tunnel: Option<Spanned<Tunnel>>,
    pub admin: Admin,
    pub ready: Ready,
    pub bodies: Bodies,
    pub tcp: Tcp,
    pub traces: Option<Spanned<Traces>>,
    pub pushed: Pushed,
    pub bucket_server: Option<Spanned<BucketServer>>,
    pub plugin: Vec<Spanned<Plugin>>,
    pub ingress: Vec<Spanned<Rule>>,
}

/// Whose rules are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConfigSource {
    Local,
    Remote,
    Layered,
}

/// `[tunnel]`: who this host is and where it connects to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Tunnel {
    pub credentials_file: Option<Spanned<PathBuf>>,
    pub token_file: Option<Spanned<PathBuf>>,
    pub edges: Option<Spanned<Vec<Spanned<String>>>>,
    pub edge_domain: Option<Spanned<String>>,
    pub edge_region: Option<Spanned<String>>,
    pub edge_ip_version: Option<Spanned<String>>,
    pub edge_bind_address: Option<Spanned<String>>,
    pub dns_servers: Option<Spanned<Vec<Spanned<String>>>>,
    pub edge_ca: Option<Spanned<PathBuf>>,
    pub connections: Option<Spanned<i64>>,
    pub protocol: Option<Spanned<Protocol>>,
    pub shards: Option<Spanned<i64>>,
    pub grace_period: Option<Spanned<Quantity>>,
    pub exit_after_unconnected: Option<Spanned<Quantity>>,
}

/// How edges are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    Auto,
    Quic,
    Http2,
}

/// `[admin]`: the listener for health, readiness and status.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Admin {
    pub listen: Option<Spanned<String>>,
    pub probes: Option<Spanned<String>>,
    pub token_file: Option<Spanned<PathBuf>>,
}

/// `[ready]`: what it takes to be ready.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ready {
    pub connections: Option<Spanned<i64>>,
}

/// `[bodies]`: what peers have to take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Bodies {
    pub held: Option<Spanned<Quantity>>,
    pub grace: Option<Spanned<Quantity>>,
    pub minimum_rate: Option<Spanned<Quantity>>,
}

/// `[traces]`: whom traces are told, and which.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Traces {
    pub collector: Option<Spanned<String>>,
    pub headers_file: Option<Spanned<PathBuf>>,
    pub service: Option<Spanned<String>>,
    pub share: Option<Spanned<f64>>,
    pub context: Option<Spanned<TraceContext>>,
    pub slow: Option<Spanned<Quantity>>,
    pub errors: Option<Spanned<bool>>,
}

/// What the context of a trace is worth that somebody sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TraceContext {
    Link,
    Accept,
    Ignore,
}

/// `[tcp]`: circuits, which are what requests to services of bytes become.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Tcp {
    pub most_circuits: Option<Spanned<i64>>,
    pub ip_rules: Option<Spanned<Vec<Spanned<IpRule>>>>,
}

/// `ip-rules`: where circuits may lead whose destination somebody else names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct IpRule {
    pub prefix: Option<Spanned<String>>,
    pub ports: Option<Spanned<Vec<Spanned<i64>>>>,
    pub allow: Option<Spanned<bool>>,
}

/// `[pushed]`: what of this machine a configuration of the edge may use.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Pushed {
    pub may_use: Option<Spanned<Vec<Spanned<OfThisMachine>>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OfThisMachine {
    /// Services at Unix sockets.
    Unix,
    /// Plugins as services.
    Wasm,
    /// Files, such as those of certificate authorities.
    Files,
}

/// `[bucket-server]`: where the buckets are that plugins of several hosts share.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BucketServer {
    pub url: Option<Spanned<String>>,
    pub username: Option<Spanned<String>>,
    pub password: Option<Spanned<Secret>>,
    pub ca: Option<Spanned<PathBuf>>,
    pub prefix: Option<Spanned<String>>,
    pub timeout: Option<Spanned<Quantity>>,
}

/// `[[plugin]]`: a component, how it is configured and what it may use.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Plugin {
    pub name: Option<Spanned<String>>,
    pub component: Option<Spanned<PathBuf>>,
    pub on_error: Option<Spanned<OnError>>,
    pub on_away: Option<Spanned<OnError>>,
    pub timeout: Option<Spanned<Quantity>>,
    pub memory: Option<Spanned<Quantity>>,
    pub concurrency: Option<Spanned<i64>>,
    pub instances: Option<Spanned<Instances>>,
    pub experimental: Option<Spanned<bool>>,
    pub tick: Option<Spanned<Quantity>>,
    pub grants: Option<Spanned<Grants>>,
    pub verify: Option<Spanned<Verify>>,
    /// Handed to the plugin as JSON; may hold secrets.
    pub config: Option<Spanned<toml::Table>>,
}

/// `[plugin.grants]`: what the plugin may reach.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Grants {
    pub http: Option<Spanned<Vec<Spanned<String>>>>,
    pub private_networks: Option<Spanned<Vec<Spanned<String>>>>,
    pub secrets: Option<Spanned<BTreeMap<String, Spanned<Secret>>>>,
    pub buckets: Option<Spanned<BTreeMap<String, Spanned<Quantity>>>>,
    pub kept_buckets: Option<Spanned<Vec<Spanned<String>>>>,
    pub shared_buckets: Option<Spanned<Vec<Spanned<String>>>>,
}

/// `[plugin.verify]`: who must have signed the component.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Verify {
    pub keys: Option<Spanned<Vec<Spanned<PathBuf>>>>,
}

/// Where a secret is kept: one of the two.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Secret {
    pub file: Option<PathBuf>,
    pub env: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnError {
    Deny,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instances {
    Reused,
    Fresh,
}

/// `[[ingress]]`: which requests go where.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    pub name: Option<Spanned<String>>,
    pub hostname: Option<Spanned<String>>,
    pub path: Option<Spanned<String>>,
    pub paths: Option<Spanned<Paths>>,
    pub path_headers: Option<Spanned<PathHeaders>>,
    pub service: Option<Spanned<String>>,
    pub plugins: Option<Spanned<Vec<Spanned<String>>>>,
    pub origin: Option<Spanned<Origin>>,
}

/// Which paths a rule hands to its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Paths {
    /// Those that are this rule's however servers read them.
    #[default]
    Checked,
    /// Whatever is this rule's as rules read it.
    AsSent,
}

/// What becomes of headers in which a visitor names another path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathHeaders {
    #[default]
    Cut,
    AsSent,
}

/// `[ingress.origin]`: how a service is spoken to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Origin {
    pub connect_timeout: Option<Spanned<Quantity>>,
    pub tls_timeout: Option<Spanned<Quantity>>,
    pub response_timeout: Option<Spanned<Quantity>>,
    pub keep_alive_timeout: Option<Spanned<Quantity>>,
    pub keep_alive_connections: Option<Spanned<i64>>,
    pub tls_verify: Option<Spanned<bool>>,
    pub ca_file: Option<Spanned<PathBuf>>,
    pub server_name: Option<Spanned<String>>,
    pub host_header: Option<Spanned<String>>,
    pub http2: Option<Spanned<Http2>>,
    pub server_name_from_host: Option<Spanned<bool>>,
    pub chunked: Option<Spanned<bool>>,
    pub tcp_keep_alive: Option<Spanned<Quantity>>,
    pub happy_eyeballs: Option<Spanned<bool>>,
    pub header_case: Option<Spanned<HeaderCase>>,
    pub idle_timeout: Option<Spanned<Quantity>>,
    pub ip_rules: Option<Spanned<Vec<Spanned<IpRule>>>>,
}

/// How the names of headers are written to a service that speaks HTTP/1.1: `"lower"` or `"title"`, as in
/// `Content-Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeaderCase {
    #[default]
    Lower,
    Title,
}

/// Whether a service is spoken to in HTTP/2: `false`, `true` or `"if-offered"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    #[default]
    Never,
    IfOffered,
    Only,
}

impl<'de> Deserialize<'de> for Http2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Http2Visitor)
    }
}

struct Http2Visitor;

impl Visitor<'_> for Http2Visitor {
    type Value = Http2;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or \"if-offered\"")
    }

    fn visit_bool<E: Error>(self, is_only: bool) -> Result<Http2, E> {
        Ok(if is_only { Http2::Only } else { Http2::Never })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Http2, E> {
        match text {
            "if-offered" => Ok(Http2::IfOffered),
            _ => Err(E::unknown_variant(text, &["true", "false", "if-offered"])),
        }
    }
}

/// A number with its unit, as text: a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    // Shown to whoever writes `timeout = 50`.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number with a unit in quotes, such as \"30s\" or \"64MiB\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Quantity, E> {
        Ok(Quantity(text.to_owned()))
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("component", &self.component)
            .finish_non_exhaustive()
    }
}
