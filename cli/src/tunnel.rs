//! `adit tunnel`: the commands that users of `cloudflared tunnel` know, with its flags, environment names
//! and files where they mean the same. docs/differences.md lists where they do not.

mod account;
mod client;
mod create;
mod ingress;
mod legacy;
pub(crate) mod places;
mod quick;
mod ready;
mod route;
mod run;
mod tunnels;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::Failure;
use crate::table::Form;

/// Everything behind `adit tunnel`. Flags may stand before or behind the command.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = false, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    options: Options,
    /// What to serve, in place of rules; without a command: under a name that is drawn, for a try
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_URL")]
    url: Option<String>,
    /// The control API of the edge that makes the tunnel for --url; by default --api-url
    #[arg(long, value_name = "URL", env = "TUNNEL_QUICK_SERVICE")]
    quick_service: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
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
}

impl Options {
    /// The file that `create` wrote for a tunnel: beside cert.pem, or where cloudflared keeps it.
    fn credentials_of(&self, id: Uuid) -> Option<PathBuf> {
        let name = format!("{id}.json");
        let beside = self.origin_cert.as_ref().and_then(|cert| Some(cert.parent()?.join(&name)));
        beside.filter(|path| path.is_file()).or_else(|| places::find(&[&name]))
    }
}

/// Where and how a host connects; each goes before its key in the configuration.
#[derive(Args, Clone, Default)]
pub(crate) struct EdgeOptions {
    /// host:port of an edge server; once for each
    #[arg(long, global = true, value_name = "HOST:PORT", env = "TUNNEL_EDGE", value_delimiter = ',')]
    edge: Vec<String>,
    /// A domain whose SRV records name the edge servers
    #[arg(long, global = true, value_name = "DOMAIN")]
    edge_domain: Option<String>,
    /// PEM file with the authority of the edge
    #[arg(long = "cacert", alias = "edge-ca", global = true, value_name = "FILE", env = "TUNNEL_CACERT")]
    edge_ca: Option<PathBuf>,
    /// auto, quic or http2
    #[arg(long, short, global = true, value_name = "NAME", env = "TUNNEL_TRANSPORT_PROTOCOL")]
    protocol: Option<String>,
    #[arg(long, global = true, value_name = "NAME", env = "TUNNEL_REGION", hide = true)]
    region: Option<String>,
    #[arg(long, global = true, value_name = "4|6|auto", env = "TUNNEL_EDGE_IP_VERSION", hide = true)]
    edge_ip_version: Option<String>,
    #[arg(long, global = true, value_name = "IP", env = "TUNNEL_EDGE_BIND_ADDRESS", hide = true)]
    edge_bind_address: Option<String>,
    /// Connections to keep, 1 to 4
    #[arg(long = "ha-connections", alias = "connections", global = true, value_name = "N")]
    connections: Option<u8>,
    /// How long requests may take to finish after a stop
    #[arg(long, global = true, value_name = "TIME", env = "TUNNEL_GRACE_PERIOD")]
    grace_period: Option<String>,
    /// Where /ready and the rest of the admin API listen
    #[arg(long, global = true, value_name = "HOST:PORT", env = "TUNNEL_METRICS")]
    metrics: Option<String>,
    /// We never update ourselves
    #[arg(long, global = true, hide = true, env = "NO_AUTOUPDATE", num_args = 0..=1, default_missing_value = "true")]
    no_autoupdate: Option<bool>,
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
    /// Whether a running host is connected
    Ready,
    /// Lead names to tunnels
    #[command(subcommand, arg_required_else_help = true)]
    Route(route::Route),
    /// Look at the rules of a configuration
    #[command(subcommand, arg_required_else_help = true)]
    Ingress(ingress::Ingress),
}

/// How results are shown.
#[derive(Args)]
pub(crate) struct Output {
    /// In which form
    #[arg(long = "output", short = 'o', value_name = "FORM", value_enum, default_value_t)]
    form: Form,
}

pub(crate) fn run(arguments: Arguments, with_stdin: bool) -> Result<(), Failure> {
    let Arguments { mut options, url, quick_service, command } = arguments;
    let file = legacy::find(&mut options)?;
    match command {
        None => match url {
            Some(url) => quick::serve(&options, quick_service, &url, with_stdin),
            None => Err(usage(
                "say what to do: `adit tunnel --help` lists the commands, --url URL serves that for a try",
            )),
        },
        Some(Command::Run(run)) => run::run(run, &options, url, file, with_stdin),
        Some(Command::Ready) => ready::ready(&options),
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
