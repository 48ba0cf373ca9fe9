//! `adit tunnel`: the commands that users of `cloudflared tunnel` know, with its flags, environment names
//! and files where they mean the same. docs/differences.md lists where they do not.

mod account;
mod client;
mod create;
mod ingress;
mod legacy;
pub(crate) mod places;
mod quick;
mod route;
mod run;
mod tunnels;

use std::path::PathBuf;

use adit_host::config::document;
use adit_host::settings;
use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::table::Form;
use crate::{Failure, ready};

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
    connections: Option<u8>,
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
    /// We never update ourselves
    #[arg(long, global = true, hide = true, env = "NO_AUTOUPDATE", num_args = 0..=1, default_missing_value = "true")]
    no_autoupdate: Option<bool>,
}

impl EdgeOptions {
    /// What goes before the keys of a document of ours that is served as it is.
    fn flags(&self) -> settings::Flags {
        let protocol = self.protocol.as_deref().and_then(|protocol| match protocol {
            "auto" => Some(document::Protocol::Auto),
            "quic" => Some(document::Protocol::Quic),
            "http2" => Some(document::Protocol::Http2),
            _ => None,
        });
        settings::Flags {
            edges: self.edge.clone(),
            region: self.region.clone(),
            edge_ip_version: self.edge_ip_version.clone(),
            edge_bind_address: self.edge_bind_address.clone(),
            protocol,
            grace_period: self.grace_period.clone(),
            exit_after_unconnected: self.exit_after_unconnected.clone(),
        }
    }

    /// What goes before a translated document, which has the rest of it inside.
    fn flags_beside_translation(&self) -> settings::Flags {
        let exit_after_unconnected = self.exit_after_unconnected.clone();
        settings::Flags { exit_after_unconnected, ..settings::Flags::default() }
    }

    /// Flags that were given and that a document of ours says itself.
    fn unused(&self) -> impl Iterator<Item = &'static str> {
        let given = [
            ("--edge-domain", self.edge_domain.is_some()),
            ("--cacert", self.edge_ca.is_some()),
            ("--ha-connections", self.connections.is_some()),
            ("--metrics", self.metrics.is_some()),
        ];
        given.into_iter().filter_map(|(flag, is_given)| is_given.then_some(flag))
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
        Some(Command::Ready(arguments)) => {
            // A config.yml has nothing but `metrics` to say about it.
            let config = options.config.as_deref().filter(|_| file.is_none());
            ready::ask(arguments, config, options.edge.metrics.as_deref())
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
