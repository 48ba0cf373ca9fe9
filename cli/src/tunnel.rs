//! `adit tunnel`: the commands that users of `cloudflared tunnel` know, with its flags, environment names
//! and files where they mean the same. docs/differences.md lists where they do not.

mod account;
pub(crate) mod balancing;
mod client;
mod create;
mod ingress;
mod legacy;
mod named;
pub(crate) mod places;
mod quick;
pub(crate) mod reference;
mod route;
mod run;
#[cfg(test)]
mod tests;
mod tunnels;

use std::collections::HashSet;
use std::path::PathBuf;

use adit_host::config::document;
use adit_host::config::settings;
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::host::{Extras, Stdin};
use crate::table::Form;
use crate::telemetry::{self, LogFormat, Logging};
use crate::{Failure, ready};
use legacy::Legacy;
pub(crate) use legacy::go_duration;
use reference::Idle;

/// Everything behind `adit tunnel`. Flags may stand before or behind the command.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = false, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    proof: Proofs,
    /// The control API of the edge that makes the tunnel for --url; by default --api-url
    #[arg(long, value_name = "URL", env = "TUNNEL_QUICK_SERVICE")]
    quick_service: Option<String>,
    /// Without a command: make the tunnel of this name if there is none, lead --hostname to it, and serve it
    #[arg(long, short, value_name = "NAME", env = "TUNNEL_NAME")]
    name: Option<String>,
    /// With --name: the host name that is led to the tunnel
    #[arg(long, value_name = "HOSTNAME", env = "TUNNEL_HOSTNAME")]
    hostname: Option<String>,
    /// With --hostname: although it leads elsewhere now
    #[arg(long, short = 'f', value_name = "BOOL", env = "TUNNEL_FORCE_PROVISIONING_DNS", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    overwrite_dns: Option<bool>,
    /// How log lines look: default or json
    #[arg(long = "output", value_name = "FORM", env = "TUNNEL_LOG_OUTPUT", value_parser = ["default", "json"], hide = true)]
    log_output: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
    #[arg(skip)]
    file: Option<Legacy>,
}

/// What several commands take.
#[derive(Args, Clone, Default)]
pub(crate) struct Options {
    /// The host's configuration: our TOML, or the config.yml of cloudflared
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// cert.pem: the right to create tunnels and names in an account
    #[arg(long = "origincert", global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CERT")]
    origin_cert: Option<PathBuf>,
    /// The edge's control API, such as http://127.0.0.1:20250
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_API_URL")]
    api_url: Option<String>,
    /// PEM file with the authority that signed the API's certificate; by default the system's are believed
    #[arg(long, global = true, value_name = "FILE", env = "ADIT_API_CA")]
    api_ca: Option<PathBuf>,
    #[command(flatten)]
    edge: EdgeOptions,
    #[command(flatten)]
    single: Single,
    #[command(flatten)]
    process: Process,
    #[command(flatten)]
    log: LogOptions,
    #[command(flatten)]
    idle: Idle,
}

/// Who the tunnel is.
#[derive(Args, Clone, Default)]
pub(crate) struct Proofs {
    /// The tunnel's identity, as `create` writes it
    #[arg(long, visible_alias = "cred-file", value_name = "FILE", env = "TUNNEL_CRED_FILE")]
    credentials_file: Option<PathBuf>,
    /// The same as text
    #[arg(long, value_name = "JSON", env = "TUNNEL_CRED_CONTENTS", hide_env_values = true)]
    credentials_contents: Option<String>,
    /// What `adit tunnel token` prints; better in a file or in the environment, where no list of
    /// processes shows it
    #[arg(long, value_name = "TOKEN", env = "TUNNEL_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// The same in a file
    #[arg(long, value_name = "FILE", env = "TUNNEL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// One service in place of rules.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "One service in place of rules")]
pub(crate) struct Single {
    /// What to serve; without a command: under a name that is drawn, for a try
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_URL")]
    url: Option<String>,
    /// A page that shows what arrives
    #[arg(long, global = true, value_name = "BOOL", env = "TUNNEL_HELLO_WORLD", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = switch)]
    hello_world: Option<bool>,
    /// A service that listens at a Unix socket
    #[arg(long, global = true, value_name = "PATH", env = "TUNNEL_UNIX_SOCKET")]
    unix_socket: Option<PathBuf>,
    /// The Host that the service is asked for
    #[arg(long, global = true, value_name = "HOST", env = "TUNNEL_HTTP_HOST_HEADER")]
    http_host_header: Option<String>,
    /// The name that the service's certificate has
    #[arg(long, global = true, value_name = "NAME", env = "TUNNEL_ORIGIN_SERVER_NAME")]
    origin_server_name: Option<String>,
    /// PEM file of authorities that the service's certificate may be from
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CA_POOL")]
    origin_ca_pool: Option<PathBuf>,
    /// Believe any certificate of the service
    #[arg(long, global = true, value_name = "BOOL", env = "NO_TLS_VERIFY", num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = switch)]
    no_tls_verify: Option<bool>,
    /// Send bodies with their length
    #[arg(long, global = true, value_name = "BOOL", env = "TUNNEL_NO_CHUNKED_ENCODING", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    no_chunked_encoding: Option<bool>,
    /// Speak HTTP/2 where the service offers it
    #[arg(long, global = true, value_name = "BOOL", env = "TUNNEL_ORIGIN_ENABLE_HTTP2", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    http2_origin: Option<bool>,
    /// How long a connection to the service may take
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    proxy_connect_timeout: Option<String>,
    /// How long its TLS handshake may take
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    proxy_tls_timeout: Option<String>,
    /// How often TCP asks whether it is still there
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    proxy_tcp_keepalive: Option<String>,
    /// Do not try both families of addresses at once
    #[arg(long, global = true, value_name = "BOOL", hide = true, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_parser = switch)]
    proxy_no_happy_eyeballs: Option<bool>,
    /// Idle connections that are kept
    #[arg(long, global = true, value_name = "N", hide = true)]
    proxy_keepalive_connections: Option<String>,
    /// How long one is kept
    #[arg(long, global = true, value_name = "DURATION", hide = true)]
    proxy_keepalive_timeout: Option<String>,
    /// Not supported yet: requests get 501
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "TUNNEL_SOCKS", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    socks5: Option<bool>,
    /// Not supported yet: requests get 501
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "TUNNEL_BASTION", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    bastion: Option<bool>,
    /// Not supported yet: requests get 501
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "TUNNEL_SSH_SERVER", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    ssh_server: Option<bool>,
}

impl Single {
    /// Whether it says what is served, and not only how.
    fn is_origin(&self) -> bool {
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
    pidfile: Option<PathBuf>,
    /// What people call this host: in its log, and in /diag/configuration
    #[arg(long, global = true, value_name = "TEXT")]
    label: Option<String>,
    /// Told to origins with every request, as the header Cf-Warp-Tag-NAME; may be given several times
    #[arg(long, global = true, value_name = "NAME=VALUE", env = "TUNNEL_TAG", value_delimiter = ',')]
    tag: Vec<String>,
    /// How often the wait between failed attempts to connect doubles, from a second on; it is never longer than 15 s
    #[arg(long, global = true, value_name = "COUNT", env = "TUNNEL_RETRIES")]
    retries: Option<u32>,
    /// Only key exchanges that withstand quantum computers; by QUIC
    #[arg(long, visible_alias = "pq", global = true, value_name = "BOOL", env = "TUNNEL_POST_QUANTUM", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    post_quantum: Option<bool>,
    /// Take commands from standard input: `reconnect`, or `reconnect 30s`
    #[arg(long, global = true, value_name = "BOOL", hide = true, env = "STDIN_CONTROL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true", value_parser = switch)]
    stdin_control: Option<bool>,
}

/// The log, in the reference's words; ours go before them.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "The log, as cloudflared has it; --log and --log-format go before it")]
pub(crate) struct LogOptions {
    /// What is logged: debug, info, warn, error or fatal; with debug each request too
    #[arg(long, global = true, value_name = "LEVEL", env = "TUNNEL_LOGLEVEL")]
    loglevel: Option<String>,
    /// The same for connections to the edge
    #[arg(
        long,
        alias = "proto-loglevel",
        global = true,
        value_name = "LEVEL",
        env = "TUNNEL_TRANSPORT_LOGLEVEL"
    )]
    transport_loglevel: Option<String>,
    /// A file that the log is written to as well, one JSON object a line
    #[arg(long, global = true, value_name = "FILE", env = "TUNNEL_LOGFILE")]
    logfile: Option<PathBuf>,
    /// A folder for cloudflared.log and what was written before it, 1 MB each
    #[arg(long, global = true, value_name = "FOLDER", env = "TUNNEL_LOGDIRECTORY")]
    log_directory: Option<PathBuf>,
    #[arg(skip)]
    output: Option<String>,
}

impl Extras {
    fn new(options: &Options, with_stdin: bool) -> Result<Self, Failure> {
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

const OURS_IN_DETAIL: &str = "info,adit=debug,adit_host=debug,adit_engine=debug";

/// As Go reads a switch.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "" => Ok(false),
        _ => legacy::flag(text).ok_or_else(|| "it is neither true nor false".to_owned()),
    }
}

/// An address to listen on as Go writes it: `localhost:1`, `:1`.
fn listen(text: &str) -> String {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, "0"));
    let port = if port.is_empty() { "0" } else { port };
    match host {
        "localhost" => format!("127.0.0.1:{port}"),
        "" => format!("0.0.0.0:{port}"),
        _ => format!("{host}:{port}"),
    }
}

impl Options {
    /// The file that `create` wrote for a tunnel: beside cert.pem, or where cloudflared keeps it.
    fn credentials_of(&self, id: Uuid) -> Option<PathBuf> {
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
    edge: Vec<String>,
    /// A domain whose SRV records name the edge servers
    #[arg(long, global = true, value_name = "DOMAIN")]
    edge_domain: Option<String>,
    /// PEM file with the authority of the edge
    #[arg(long = "cacert", alias = "edge-ca", global = true, value_name = "FILE", env = "TUNNEL_CACERT")]
    edge_ca: Option<PathBuf>,
    /// Over what the edge is reached: QUIC (UDP), HTTP/2 (TCP), or auto: QUIC, and HTTP/2 for as long as UDP
    /// does not get through
    #[arg(long, short, global = true, value_name = "PROTOCOL", env = "TUNNEL_TRANSPORT_PROTOCOL", value_parser = ["auto", "quic", "http2"])]
    protocol: Option<String>,
    /// Use a part of the edge only, such as "us"
    #[arg(long, global = true, value_name = "REGION", env = "TUNNEL_REGION")]
    region: Option<String>,
    /// Which addresses of the edge are dialled: 4, 6 or auto (both)
    #[arg(long, global = true, value_name = "VERSION", env = "TUNNEL_EDGE_IP_VERSION")]
    edge_ip_version: Option<String>,
    /// The IP address of this machine that connections to the edge come from; it decides the IP version
    #[arg(long, global = true, value_name = "IP", env = "TUNNEL_EDGE_BIND_ADDRESS")]
    edge_bind_address: Option<String>,
    /// Connections to keep, 1 to 4
    #[arg(long = "ha-connections", alias = "connections", global = true, value_name = "N")]
    connections: Option<i64>,
    /// After SIGTERM or SIGINT, how long requests may take to finish, such as "30s"; at most 3m. The host ends
    /// as soon as the last one has; a second signal ends it at once, with exit code 130
    #[arg(long, global = true, value_name = "DURATION", env = "TUNNEL_GRACE_PERIOD")]
    grace_period: Option<String>,
    /// Give up, with exit code 1, when no connection to the edge has served for so long, such as "5m"; for
    /// supervisors that try another machine. Without it the host tries for ever
    #[arg(long, global = true, value_name = "DURATION", env = "ADIT_EXIT_AFTER_UNCONNECTED")]
    exit_after_unconnected: Option<String>,
    /// Where /ready and the rest of the admin API listen
    #[arg(long, global = true, value_name = "HOST:PORT", env = "TUNNEL_METRICS")]
    metrics: Option<String>,
}

impl Options {
    /// What goes before the keys of a document.
    fn flags(&self) -> Result<settings::Flags, Failure> {
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

#[derive(Subcommand)]
enum Command {
    /// Store an API token of the edge as cert.pem; the token is read from standard input
    Login(account::Login),
    /// Make a tunnel, and write its credentials
    Create(create::Create),
    /// List tunnels
    List(tunnels::List),
    /// Show who serves a tunnel
    Info(tunnels::Info),
    /// Connect to the edge and serve the rules of a configuration
    Run(run::Run),
    /// Delete tunnels
    Delete(tunnels::Delete),
    /// Close the connections of tunnels; hosts that live come back
    Cleanup(tunnels::Cleanup),
    /// Print what `run --token` takes
    Token(tunnels::Token),
    /// Ask a running host whether visitors would be served: exit code 0 if so, 1 if not, 2 if it does not answer
    Ready(ready::Arguments),
    /// Lead names to tunnels
    #[command(subcommand, arg_required_else_help = true)]
    Route(route::Route),
    /// Look at the rules of a configuration
    #[command(subcommand, arg_required_else_help = true)]
    Ingress(ingress::Ingress),
}

/// How results are shown.
#[derive(Args, Default)]
pub(crate) struct Output {
    /// In which form
    #[arg(long = "output", short = 'o', value_name = "FORM", value_enum, default_value_t)]
    form: Form,
}

impl Arguments {
    /// Reads the config.yml that is meant, if one is, and lets it fill in what was not given.
    pub(crate) fn prepare(&mut self) -> Result<(), Failure> {
        self.options.log.output.clone_from(&self.log_output);
        if let Some(Command::Run(run)) = &mut self.command {
            run.take(&self.proof);
            self.options.log.output = run.log_output.take().or(self.options.log.output.take());
        }
        if self.command.is_none() && self.is_quick() && self.options.config.is_none() {
            // A try has nothing to do with what lies where cloudflared looks for it.
            return Ok(());
        }
        if let Some(file) = legacy::find(&self.options)? {
            file.fill(&mut self.options)
                .and_then(|()| file.fill_task(self))
                .map_err(Failure::Configuration)?;
            self.file = Some(file);
        }
        Ok(())
    }

    fn is_quick(&self) -> bool {
        self.options.single.is_origin() && self.name.is_none() && self.hostname.is_none()
    }

    /// What is logged, and where to, beside what our own flags say.
    pub(crate) fn logging(&self, logging: &mut Logging) -> Result<(), Failure> {
        let log = &self.options.log;
        let level = |text: &Option<String>, flag: &str| match text.as_deref().filter(|text| !text.is_empty())
        {
            None => Ok(None),
            Some(text) => match text.to_ascii_lowercase().as_str() {
                "debug" => Ok(Some("debug")),
                "info" => Ok(Some("info")),
                "warn" => Ok(Some("warn")),
                "error" | "fatal" | "panic" => Ok(Some("error")),
                _ => Err(usage(format!(
                    "{flag} `{}` is no level: debug, info, warn, error or fatal",
                    text.escape_debug()
                ))),
            },
        };
        let all = level(&log.loglevel, "--loglevel")?;
        let transport = level(&log.transport_loglevel, "--transport-loglevel")?;
        logging.directives.get_or_insert_with(|| match (all, transport) {
            // Of our own; what libraries have to say at that level is for those who write them.
            (Some("debug"), None) => OURS_IN_DETAIL.to_owned(),
            (Some("debug"), Some(transport)) => format!("{OURS_IN_DETAIL},adit_host::tunnel={transport}"),
            (all, None) => all.unwrap_or("info").to_owned(),
            (all, Some(transport)) => format!("{},adit_host::tunnel={transport}", all.unwrap_or("info")),
        });
        if log.output.as_deref() == Some("json") {
            logging.format.get_or_insert(LogFormat::Flat);
        }
        logging.file = match (&log.logfile, &log.log_directory) {
            (Some(file), _) => Some(telemetry::File::One(file.clone())),
            (None, Some(folder)) => Some(telemetry::File::Rolling(folder.clone())),
            (None, None) => None,
        };
        Ok(())
    }
}

pub(crate) fn run(arguments: Arguments, with_stdin: bool) -> Result<(), Failure> {
    let Arguments { options, proof, quick_service, name, hostname, overwrite_dns, command, file, .. } =
        arguments;
    match command {
        None => match (name, hostname) {
            (Some(name), hostname) => {
                let run =
                    named::make(&name, hostname.as_deref(), overwrite_dns == Some(true), proof, &options)?;
                run::run(run, &options, file, with_stdin)
            }
            (None, Some(_)) => Err(usage(
                "--hostname needs --name, or `adit tunnel route dns` and `run`: tunnels have names",
            )),
            (None, None) if options.single.is_origin() => {
                quick::serve(&options, quick_service, file, with_stdin)
            }
            (None, None) => Err(usage(
                "say what to do: `adit tunnel --help` lists the commands, --url URL serves that for a try",
            )),
        },
        Some(Command::Run(mut run)) => {
            if hostname.is_some() || overwrite_dns == Some(true) {
                tracing::warn!(
                    "--hostname has no effect on `run`: `adit tunnel route dns` leads names to tunnels"
                );
            }
            run.name_if_none(name);
            run::run(run, &options, file, with_stdin)
        }
        Some(Command::Ready(arguments)) => {
            // A config.yml has nothing but `metrics` to say about it.
            let config = options.config.as_deref().filter(|_| file.is_none());
            let of_file = || file.as_ref().and_then(|file| file.text("metrics"));
            ready::ask(arguments, config, options.edge.metrics.clone().or_else(of_file).map(|at| listen(&at)))
        }
        Some(Command::Ingress(ingress)) => ingress::look(ingress, &options, file),
        Some(Command::Login(login)) => account::login(login, &options),
        Some(Command::Create(create)) => create::create(create, &options),
        Some(Command::List(list)) => tunnels::list(list, &options),
        Some(Command::Info(info)) => tunnels::info(info, &options),
        Some(Command::Delete(delete)) => tunnels::delete(delete, &options),
        Some(Command::Cleanup(cleanup)) => tunnels::cleanup(cleanup, &options),
        Some(Command::Token(token)) => tunnels::token(token, &options),
        Some(Command::Route(route)) => route::route(route, &options),
    }
}

/// What was asked cannot be meant: exit code 2.
fn usage(message: impl Into<String>) -> Failure {
    Failure::Configuration(anyhow::anyhow!(message.into()))
}

/// A tunnel as people name it.
fn as_id(tunnel: &str) -> Option<Uuid> {
    tunnel.parse().ok()
}
