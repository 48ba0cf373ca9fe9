//! What several commands take: who the tunnel is, where the edge is, what one service is, how the process behaves.
//! Knows flags and what they mean to a host; does not know commands.

use std::collections::HashSet;
use std::path::PathBuf;

use adit_host::config::document;
use adit_host::config::settings;
use clap::Args;
use uuid::Uuid;

use super::legacy::MOST_CIRCUITS;
use super::reference::Idle;
use super::{legacy, places, usage};
use crate::Failure;
use crate::host::{Extras, Stdin};

/// What several commands take.
#[derive(Args, Clone, Default)]
pub(crate) struct Options {
    /// The host's configuration: our TOML, or the config.yml of cloudflared
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// cert.pem: the right to create tunnels and names in an account
    #[arg(long = "origincert", global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CERT")]
    pub(super) origin_cert: Option<PathBuf>,
    /// The edge's control API, such as http://127.0.0.1:20250
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_API_URL")]
    pub(super) api_url: Option<String>,
    /// PEM file with the authority that signed the API's certificate; by default the system's are believed
    #[arg(long, global = true, value_name = "FILE", env = "ADIT_API_CA")]
    pub(super) api_ca: Option<PathBuf>,
    #[command(flatten)]
    pub(super) edge: EdgeOptions,
    #[command(flatten)]
    pub(super) single: Single,
    #[command(flatten)]
    pub(super) process: Process,
    #[command(flatten)]
    pub(super) log: LogOptions,
    #[command(flatten)]
    pub(super) idle: Idle,
}

/// Who the tunnel is.
#[derive(Args, Clone, Default)]
pub(crate) struct Proofs {
    /// The tunnel's identity, as `create` writes it
    #[arg(long, visible_alias = "cred-file", value_name = "FILE", env = "TUNNEL_CRED_FILE")]
    pub(super) credentials_file: Option<PathBuf>,
    /// The same as text
    #[arg(long, value_name = "JSON", env = "TUNNEL_CRED_CONTENTS", hide_env_values = true)]
    pub(super) credentials_contents: Option<String>,
    /// What `adit tunnel token` prints; better in a file or in the environment, where no list of
    /// processes shows it
    #[arg(long, value_name = "TOKEN", env = "TUNNEL_TOKEN", hide_env_values = true)]
    pub(super) token: Option<String>,
    /// The same in a file
    #[arg(long, value_name = "FILE", env = "TUNNEL_TOKEN_FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// One service in place of rules.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "One service in place of rules")]
pub(crate) struct Single {
    /// What to serve; without a command: under a name that is drawn, for a try
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_URL")]
    pub(super) url: Option<String>,
    /// A page that shows what arrives
    #[arg(long, global = true, value_name = "BOOL", env = "TUNNEL_HELLO_WORLD", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = switch)]
    pub(super) hello_world: Option<bool>,
    /// A service that listens at a Unix socket
    #[arg(long, global = true, value_name = "PATH", env = "TUNNEL_UNIX_SOCKET")]
    pub(super) unix_socket: Option<PathBuf>,
    /// The Host that the service is asked for
    #[arg(long, global = true, value_name = "HOST", env = "TUNNEL_HTTP_HOST_HEADER")]
    pub(super) http_host_header: Option<String>,
    /// The name that the service's certificate has
    #[arg(long, global = true, value_name = "NAME", env = "TUNNEL_ORIGIN_SERVER_NAME")]
    pub(super) origin_server_name: Option<String>,
    /// PEM file of authorities that the service's certificate may be from
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CA_POOL")]
    pub(super) origin_ca_pool: Option<PathBuf>,
    /// Believe any certificate of the service
    #[arg(long, global = true, value_name = "BOOL", env = "NO_TLS_VERIFY", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = switch)]
    pub(super) no_tls_verify: Option<bool>,
    /// Send bodies with their length
    #[arg(long, global = true, value_name = "BOOL", env = "TUNNEL_NO_CHUNKED_ENCODING", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) no_chunked_encoding: Option<bool>,
    /// Speak HTTP/2 where the service offers it
    #[arg(long, global = true, value_name = "BOOL", env = "TUNNEL_ORIGIN_ENABLE_HTTP2", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) http2_origin: Option<bool>,
    /// How long a connection to the service may take
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    pub(super) proxy_connect_timeout: Option<String>,
    /// How long its TLS handshake may take
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    pub(super) proxy_tls_timeout: Option<String>,
    /// How often TCP asks whether it is still there
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    pub(super) proxy_tcp_keepalive: Option<String>,
    /// Do not try both families of addresses at once
    #[arg(long, global = true, value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = switch)]
    pub(super) proxy_no_happy_eyeballs: Option<bool>,
    /// Idle connections that are kept
    #[arg(long, global = true, value_name = "N", hide = true)]
    pub(super) proxy_keepalive_connections: Option<String>,
    /// How long one is kept
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    pub(super) proxy_keepalive_timeout: Option<String>,
    /// A SOCKS proxy; it leads nowhere without rules
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "TUNNEL_SOCKS", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) socks5: Option<bool>,
    /// A bastion; it leads nowhere without rules
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "TUNNEL_BASTION", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) bastion: Option<bool>,
    /// Not supported yet: requests get 501
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "TUNNEL_SSH_SERVER", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) ssh_server: Option<bool>,
}

impl Single {
    /// Whether it says what is served, and not only how.
    pub(super) fn is_origin(&self) -> bool {
        let is_on = |flag: Option<bool>| flag == Some(true);
        self.url.as_ref().is_some_and(|url| !url.is_empty())
            || self.unix_socket.is_some()
            || [self.hello_world, self.socks5, self.bastion, self.ssh_server].into_iter().any(is_on)
    }
}

/// The process, whatever it serves.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "The process")]
pub(crate) struct Process {
    /// Where the number of the process is written once the first connection serves
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_PIDFILE")]
    pub(super) pidfile: Option<PathBuf>,
    /// What people call this host: in its log, and in /diag/configuration
    #[arg(long, global = true, value_name = "TEXT")]
    pub(super) label: Option<String>,
    /// Told to origins with every request, as the header Cf-Warp-Tag-NAME; may be given several times
    #[arg(long, global = true, value_name = "NAME=VALUE", env = "TUNNEL_TAG", value_delimiter = ',')]
    pub(super) tag: Vec<String>,
    /// How often the wait between failed attempts to connect doubles, from a second on; it is never longer than 15 s
    #[arg(long, global = true, value_name = "COUNT", env = "TUNNEL_RETRIES")]
    pub(super) retries: Option<u32>,
    /// Only key exchanges that withstand quantum computers; by QUIC
    #[arg(long, visible_alias = "pq", global = true, value_name = "BOOL", env = "TUNNEL_POST_QUANTUM", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) post_quantum: Option<bool>,
    /// Take commands from standard input: `reconnect`, or `reconnect 30s`
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "STDIN_CONTROL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    pub(super) stdin_control: Option<bool>,
}

/// The log, in the reference's words; ours go before them.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "The log, as cloudflared has it; --log and --log-format go before it")]
pub(crate) struct LogOptions {
    /// What is logged: debug, info, warn, error or fatal; with debug each request too
    #[arg(long, global = true, value_name = "LEVEL", env = "TUNNEL_LOGLEVEL")]
    pub(super) loglevel: Option<String>,
    /// The same for connections to the edge
    #[arg(
        long,
        alias = "proto-loglevel",
        global = true,
        value_name = "LEVEL",
        env = "TUNNEL_TRANSPORT_LOGLEVEL"
    )]
    pub(super) transport_loglevel: Option<String>,
    /// A file that the log is written to as well, one JSON object a line
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_LOGFILE")]
    pub(super) logfile: Option<PathBuf>,
    /// A folder for cloudflared.log and what was written before it, 1 MB each
    #[arg(long, global = true, value_name = "FOLDER", env = "TUNNEL_LOGDIRECTORY")]
    pub(super) log_directory: Option<PathBuf>,
    #[arg(skip)]
    pub(super) output: Option<String>,
}

impl Extras {
    pub(super) fn new(options: &Options, with_stdin: bool) -> Result<Self, Failure> {
        let stdin = match (with_stdin, options.process.stdin_control == Some(true)) {
            (true, true) => {
                return Err(usage("--stdin-control and --stop-with-stdin are two uses of one input"));
            }
            (true, false) => Stdin::Stops,
            (false, true) => Stdin::Commands,
            (false, false) => Stdin::Nothing,
        };
        Ok(Self { quick_tunnel: None, pidfile: options.process.pidfile.clone(), stdin })
    }
}

impl Options {
    /// The file that `create` wrote for a tunnel: beside cert.pem, or where cloudflared keeps it.
    pub(super) fn credentials_of(&self, id: Uuid) -> Option<PathBuf> {
        let name = format!("{id}.json");
        let beside = self.origin_cert.as_ref().and_then(|cert| Some(cert.parent()?.join(&name)));
        beside.filter(|path| path.is_file()).or_else(|| places::find(&[&name]))
    }
}

/// Where the edge is and how it is reached, in place of what the configuration says. The words of the
/// environment are those of cloudflared where the meaning is the same.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "In place of what [tunnel] of the configuration says")]
pub(crate) struct EdgeOptions {
    /// An edge server; give it several times, or several with commas, with the servers of two regions in turn.
    /// Servers are then not looked up in DNS
    #[arg(long, global = true, value_name = "HOST:PORT", env = "TUNNEL_EDGE", value_delimiter = ',')]
    pub(super) edge: Vec<String>,
    /// A domain whose SRV records name the edge servers
    #[arg(long, global = true, value_name = "DOMAIN")]
    pub(super) edge_domain: Option<String>,
    /// PEM file with the authority of the edge
    #[arg(long = "cacert", alias = "edge-ca", global = true, value_name = "FILE", env = "TUNNEL_CACERT")]
    pub(super) edge_ca: Option<PathBuf>,
    /// Over what the edge is reached: QUIC (UDP), HTTP/2 (TCP), or auto: QUIC, and HTTP/2 for as long as UDP
    /// does not get through
    #[arg(long, short, global = true, value_name = "PROTOCOL", env = "TUNNEL_TRANSPORT_PROTOCOL", value_parser = ["auto", "quic", "http2"])]
    pub(super) protocol: Option<String>,
    /// Use a part of the edge only, such as "us"
    #[arg(long, global = true, value_name = "REGION", env = "TUNNEL_REGION")]
    pub(super) region: Option<String>,
    /// Which addresses of the edge are dialled: 4, 6 or auto (both)
    #[arg(long, global = true, value_name = "VERSION", env = "TUNNEL_EDGE_IP_VERSION")]
    pub(super) edge_ip_version: Option<String>,
    /// The IP address of this machine that connections to the edge come from; it decides the IP version
    #[arg(long, global = true, value_name = "IP", env = "TUNNEL_EDGE_BIND_ADDRESS")]
    pub(super) edge_bind_address: Option<String>,
    /// Connections to keep, 1 to 4
    #[arg(long = "ha-connections", alias = "connections", global = true, value_name = "N")]
    pub(super) connections: Option<i64>,
    /// How many TCP circuits there may be at once, as `[tcp] most-circuits`; 0 leaves it as it is
    #[arg(long, global = true, value_name = "N", env = "TUNNEL_MAX_ACTIVE_FLOWS")]
    pub(super) max_active_flows: Option<u64>,
    /// After SIGTERM or SIGINT, how long requests may take to finish, such as "30s"; at most 3m. The host ends
    /// as soon as the last one has; a second signal ends it at once, with exit code 130
    #[arg(long, global = true, value_name = "DURATION", env = "TUNNEL_GRACE_PERIOD")]
    pub(super) grace_period: Option<String>,
    /// Give up, with exit code 1, when no connection to the edge has served for so long, such as "5m"; for
    /// supervisors that try another machine. Without it the host tries for ever
    #[arg(long, global = true, value_name = "DURATION", env = "ADIT_EXIT_AFTER_UNCONNECTED")]
    pub(super) exit_after_unconnected: Option<String>,
    /// Where /ready and the rest of the admin API listen
    #[arg(long, global = true, value_name = "HOST:PORT", env = "TUNNEL_METRICS")]
    pub(super) metrics: Option<String>,
}

impl Options {
    /// What goes before the keys of a document.
    pub(super) fn flags(&self) -> Result<settings::Flags, Failure> {
        let edge = &self.edge;
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let is_quantum = self.process.post_quantum == Some(true);
        let protocol = match edge.protocol.as_deref() {
            Some("quic") => Some(document::Protocol::Quic),
            Some("http2") if is_quantum => {
                return Err(usage("--post-quantum works by QUIC only, not by --protocol http2"));
            }
            Some("http2") => Some(document::Protocol::Http2),
            _ if is_quantum => Some(document::Protocol::Quic),
            Some("auto") => Some(document::Protocol::Auto),
            _ => None,
        };
        let tag = |tag: &String| {
            let pair = tag.split_once('=').filter(|(name, _)| !name.is_empty());
            let (name, value) =
                pair.ok_or_else(|| usage(format!("--tag `{}`: write NAME=VALUE", tag.escape_debug())))?;
            Ok::<_, Failure>((name.to_owned(), value.to_owned()))
        };
        let edge_ca =
            edge.edge_ca.as_ref().filter(|path| !path.as_os_str().is_empty()).map(std::path::absolute);
        // The reference wants an entry for each connection, and is given the same server several times.
        let mut seen = HashSet::new();
        let is_new = |edge: &&String| !edge.is_empty() && seen.insert(edge.to_ascii_lowercase());
        let edges: Vec<String> = edge.edge.iter().filter(is_new).cloned().collect();
        let mut region = text(&edge.region);
        if !edges.is_empty() && region.take().is_some() {
            tracing::warn!("--region has no effect beside --edge, which says where the edge is");
        }
        Ok(settings::Flags {
            edges,
            edge_domain: text(&edge.edge_domain),
            region,
            edge_ip_version: text(&edge.edge_ip_version),
            edge_bind_address: text(&edge.edge_bind_address),
            protocol,
            grace_period: edge
                .grace_period
                .as_ref()
                .map(|time| legacy::duration(time).unwrap_or_else(|| time.clone())),
            exit_after_unconnected: edge.exit_after_unconnected.clone(),
            edge_ca: edge_ca.transpose().map_err(|error| usage(format!("--cacert: {error}")))?,
            connections: edge.connections,
            // 0 is no limit there.
            most_circuits: edge
                .max_active_flows
                .filter(|most| *most > 0)
                .and_then(|most| i64::try_from(most.min(MOST_CIRCUITS)).ok()),
            admin: edge.metrics.as_deref().map(listen),
            post_quantum: is_quantum,
            retries: self.process.retries,
            label: text(&self.process.label),
            tags: self
                .process
                .tag
                .iter()
                .filter(|tag| !tag.is_empty())
                .map(tag)
                .collect::<Result<_, Failure>>()?,
        })
    }
}

/// As Go reads a switch.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "" => Ok(false),
        _ => legacy::flag(text).ok_or_else(|| "it is neither true nor false".to_owned()),
    }
}

/// An address to listen on as Go writes it: `localhost:1`, `:1`.
pub(super) fn listen(text: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let port = if port.is_empty() { "0" } else { port };
    match host {
        "localhost" => format!("127.0.0.1:{port}"),
        "" => format!("0.0.0.0:{port}"),
        _ => format!("{host}:{port}"),
    }
}
