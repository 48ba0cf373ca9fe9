//! What a document means: plugins and rules, every default filled in, every rule kept. Does not know
//! files, networks or what runs a plugin.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::reference::Reference;
use adit_config_reader::Spanned;
use http::StatusCode;
use http::uri::Authority;
use regex::Regex;

use crate::bucket_server::BucketServerPlan;
use crate::document::{self, ConfigSource, Document, OfThisMachine};
pub use crate::document::{HeaderCase, Http2, PathHeaders, Paths};
use crate::grants::Grants;
pub use crate::reach::{IpRule, Reach};
use crate::value::Reader;
use crate::{bucket_server, ingress, plugin, reach};

/// What a host serves.
#[derive(Debug, Clone)]
pub struct Plan {
    pub plugins: Vec<Arc<PluginPlan>>,
    /// In the order of the document: the first that matches a request serves it. The last matches all.
    pub rules: Vec<Rule>,
    /// There is nothing to serve yet: the rules come from the edge.
    pub is_unconfigured: bool,
    /// One line is logged for each request.
    pub access_log: bool,
    /// How long answers of an earlier generation may go on.
    pub retire_after: Duration,
    pub tcp: TcpPlan,
    pub pushed: PushedPlan,
    /// Components that lie in registries and have to be made files of before anything is built.
    pub references: Vec<ReferencePlan>,
    /// Registries that are spoken to in clear besides those on this machine.
    pub insecure_registries: Vec<String>,
    /// Where plugins share buckets with those of other hosts.
    pub bucket_server: Option<BucketServerPlan>,
    /// What is allowed but hardly meant, one sentence each.
    pub warnings: Vec<String>,
}

/// What holds for circuits of all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcpPlan {
    /// How many there may be at once in this host.
    pub most_circuits: usize,
    /// Where they may lead if somebody else names the destination: for rules that say nothing of it, and whatever
    /// an edge asks for.
    pub ip_rules: Vec<IpRule>,
}

/// What of this machine a configuration may use that an edge pushes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushedPlan {
    pub unix: bool,
    pub wasm: bool,
    pub files: bool,
}

/// A component in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferencePlan {
    /// The plugin that wants it.
    pub plugin: String,
    pub reference: Reference,
    /// Files with the public keys of which one must have signed it; empty for none.
    pub keys: Vec<PathBuf>,
}

/// One plugin: its component, its configuration, its limits.
#[derive(Clone, PartialEq, Eq)]
pub struct PluginPlan {
    /// Unique in the plan; ASCII letters, digits, `-`, `_` and `.`.
    pub name: String,
    pub component: PathBuf,
    /// A JSON object with sorted keys and no white space; may hold secrets.
    pub config: String,
    pub on_error: OnError,
    /// The same where the server of its shared buckets is away.
    pub on_away: OnError,
    pub limits: Limits,
    pub grants: Grants,
    /// Whether an instance serves again after its first request; the plugin's role says so where
    /// nothing is written.
    pub reuse: Option<bool>,
    /// Whether it may be of a kind that is still experimental.
    pub experimental: bool,
    /// Between two calls of its regular work, if it has any.
    pub tick: Duration,
}

/// What becomes of a request when a plugin fails at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// The request is refused.
    Deny,
    /// The request goes on as if the plugin were not in the chain.
    Skip,
}

/// What a plugin may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance, bytes.
    pub memory: usize,
    /// Run time inside the component for one call; the plugin's role says which where none is written.
    pub timeout: Option<Duration>,
    /// Calls at once in one shard.
    pub concurrency: usize,
}

/// Which requests go where, and through which plugins.
#[derive(Debug, Clone)]
pub struct Rule {
    /// For logs and status; as written, or else host name and path.
    pub name: String,
    pub hostname: HostPattern,
    /// Searched for anywhere in the path of a request.
    pub path: Option<Regex>,
    pub paths: Paths,
    pub path_headers: PathHeaders,
    pub service: Service,
    /// Indexes into [`Plan::plugins`], in the order in which a request passes them.
    pub plugins: Vec<usize>,
    pub origin: OriginPlan,
}

/// The host names of a rule; lower case, without a trailing dot, international names as punycode.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    Exact(String),
    /// Every name that ends in this and is longer; begins with a dot.
    Wildcard(String),
}

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    Http {
        authority: Authority,
    },
    Https {
        authority: Authority,
    },
    Unix {
        path: PathBuf,
        /// Whether TLS is spoken on it.
        tls: bool,
    },
    /// Bytes both ways, whatever they mean: a circuit for each request. `authority` has a port.
    Tcp {
        scheme: Box<str>,
        authority: Authority,
    },
    /// A circuit to wherever the request says.
    Bastion,
    /// A circuit within which the visitor says in SOCKS5 where it wants to go.
    Socks,
    Status(StatusCode),
    HelloWorld,
    /// A plugin that is a service: an index into [`Plan::plugins`].
    Component(usize),
}

/// How a service is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginPlan {
    pub connect_timeout: Duration,
    pub tls_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive_timeout: Duration,
    /// Idle connections kept in one shard; 0 keeps none.
    pub keep_alive_connections: usize,
    pub tls_verify: bool,
    /// Trusted besides the roots of the system.
    pub ca_file: Option<PathBuf>,
    /// Asked for and checked in TLS in place of the host of the service.
    pub server_name: Option<String>,
    /// The host that a request is for is asked for and checked in TLS, where it is a name or an address.
    pub server_name_from_host: bool,
    /// Whether it is spoken to in HTTP/2. `Only` without TLS: it must know that beforehand.
    pub http2: Http2,
    /// Whether bodies of unknown length are sent in chunks; else they are measured before they are sent.
    pub chunked: bool,
    /// How long a connection is silent before the system asks whether the other side is still there.
    pub tcp_keep_alive: Option<Duration>,
    /// Whether addresses of both families are tried side by side.
    pub happy_eyeballs: bool,
    /// How names of headers are written over HTTP/1.1.
    pub header_case: HeaderCase,
    /// Sent in place of the visitor's Host header.
    pub host_header: Option<String>,
    /// From the end of the request head to the head of the answer.
    pub response_timeout: Option<Duration>,
    /// How long a circuit is kept on which nothing moves; `None` for as long as both ends are there.
    pub idle_timeout: Option<Duration>,
    /// Where circuits may lead whose destination the visitor names.
    pub reach: Reach,
}

/// Draws the plan of a document. What is wrong is added to the mistakes and left out of the plan.
pub fn lower(document: &Document, reading: &mut Reader<'_>) -> Plan {
    let mut warnings = Vec::new();
    let has_server = document.bucket_server.is_some();
    let (plugins, references) = plugin::lower(&document.plugin, has_server, reading);
    let is_remote = document
        .config_source
        .as_ref()
        .is_some_and(|source| matches!(source.get_ref(), ConfigSource::Remote | ConfigSource::Layered));
    let is_unconfigured = document.ingress.is_empty() && is_remote;
    let ip_rules = reach::lower(document.tcp.ip_rules.as_ref(), reading).unwrap_or_default();
    let rules = if is_unconfigured {
        vec![unconfigured()]
    } else {
        let defaults = document::Rule {
            paths: document.paths.clone(),
            path_headers: document.path_headers.clone(),
            ..document::Rule::default()
        };
        ingress::lower(&document.ingress, &defaults, &plugins, &ip_rules, reading, &mut warnings)
    };
    let used = |index| {
        rules.iter().any(|rule| rule.plugins.contains(&index) || rule.service == Service::Component(index))
    };
    for (index, plugin) in plugins.iter().enumerate().filter(|(index, _)| !used(*index)) {
        warnings.push(format!("plugin[{index}] ({}) is in no rule", plugin.name));
    }
    let access_log = document.access_log.as_ref().is_some_and(|wanted| *wanted.get_ref());
    let retire_after =
        reading.duration(document.retire_after.as_ref(), RETIRE_AFTER, SECOND..=LONGEST_RETIREMENT);
    let tcp = TcpPlan {
        most_circuits: reading.count(document.tcp.most_circuits.as_ref(), CIRCUITS, 1..=MOST_CIRCUITS),
        ip_rules,
    };
    let mut pushed = PushedPlan::default();
    for word in document.pushed.may_use.iter().flat_map(Spanned::get_ref) {
        match word.get_ref() {
            OfThisMachine::Unix => pushed.unix = true,
            OfThisMachine::Wasm => pushed.wasm = true,
            OfThisMachine::Files => pushed.files = true,
        }
    }
    let plugins = plugins.into_iter().map(Arc::new).collect();
    let insecure = document.insecure_registries.iter().flat_map(|list| list.get_ref());
    let insecure_registries = insecure.map(|registry| registry.get_ref().to_ascii_lowercase()).collect();
    Plan {
        plugins,
        rules,
        is_unconfigured,
        access_log,
        retire_after,
        tcp,
        pushed,
        references,
        insecure_registries,
        bucket_server: bucket_server::lower(document.bucket_server.as_ref(), reading),
        warnings,
    }
}

/// What is served while the rules are still to come from the edge.
pub(crate) fn unconfigured() -> Rule {
    Rule {
        name: "not configured yet".to_owned(),
        hostname: HostPattern::Any,
        path: None,
        paths: Paths::default(),
        path_headers: PathHeaders::default(),
        service: Service::parse(UNCONFIGURED, Path::new("")).expect("it is a service"),
        plugins: Vec::new(),
        origin: OriginPlan::default(),
    }
}

impl Service {
    /// As it stands in a document; `plugin` is the name of an index.
    pub fn text<'p>(&self, plugin: impl FnOnce(usize) -> &'p str) -> String {
        match self {
            Self::Http { authority } => format!("http://{authority}"),
            Self::Https { authority } => format!("https://{authority}"),
            Self::Unix { path, tls: false } => format!("unix:{}", path.display()),
            Self::Unix { path, tls: true } => format!("unix+tls:{}", path.display()),
            Self::Tcp { scheme, authority } => format!("{scheme}://{authority}"),
            Self::Bastion => BASTION.to_owned(),
            Self::Socks => SOCKS.to_owned(),
            Self::Status(status) => format!("http_status:{}", status.as_u16()),
            Self::HelloWorld => "hello_world".to_owned(),
            Self::Component(index) => format!("wasm:{}", plugin(*index)),
        }
    }
}

impl fmt::Debug for PluginPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginPlan")
            .field("name", &self.name)
            .field("component", &self.component)
            .field("config", &format_args!("{} bytes", self.config.len()))
            .field("on_error", &self.on_error)
            .field("on_away", &self.on_away)
            .field("limits", &self.limits)
            .field("grants", &self.grants)
            .field("reuse", &self.reuse)
            .field("tick", &self.tick)
            .finish()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Circuits at once, where nothing is written and at most.
const CIRCUITS: usize = 16_384;
pub(crate) const MOST_CIRCUITS: usize = 1_000_000;
pub(crate) const BASTION: &str = "bastion";
pub(crate) const SOCKS: &str = "socks-proxy";
const UNCONFIGURED: &str = "http_status:503";
const SECOND: Duration = Duration::from_secs(1);
const RETIRE_AFTER: Duration = Duration::from_secs(60 * 60);
const LONGEST_RETIREMENT: Duration = Duration::from_secs(7 * 24 * 60 * 60);
