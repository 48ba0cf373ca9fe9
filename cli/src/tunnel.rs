//! `adit tunnel`: the commands that users of `cloudflared tunnel` know, with its flags, environment names
//! and files where they mean the same. docs/differences.md lists where they do not.

mod account;
pub(crate) mod balancing;
mod client;
mod create;
mod ingress;
mod legacy;
mod named;
mod options;
pub(crate) mod places;
mod quick;
pub(crate) mod reference;
mod route;
mod run;
pub(crate) mod tail;
#[cfg(test)]
mod tests;
mod tunnels;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use uuid::Uuid;

use crate::table::Form;
use crate::telemetry::{self, LogFormat, Logging};
use crate::{Failure, ready};
pub(crate) use client::Api;
use legacy::Legacy;
pub(crate) use legacy::go_duration;
pub(crate) use options::Options;
use options::{Proofs, Single, listen, switch};

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

const OURS_IN_DETAIL: &str = "info,adit=debug,adit_host=debug,adit_engine=debug";

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

/// Where the control API is, and what it lets us do.
#[derive(Args)]
pub(crate) struct At {
    /// cert.pem: the right to what an account has
    #[arg(long = "origincert", global = true, value_name = "FILE", env = "TUNNEL_ORIGIN_CERT")]
    origin_cert: Option<PathBuf>,
    /// The edge's control API, such as http://127.0.0.1:20250
    #[arg(long, global = true, value_name = "URL", env = "TUNNEL_API_URL")]
    api_url: Option<String>,
    /// PEM file with the authority that signed the API's certificate; by default the system's are believed
    #[arg(long, global = true, value_name = "FILE", env = "ADIT_API_CA")]
    api_ca: Option<PathBuf>,
}

impl At {
    fn options(self) -> Options {
        let Self { origin_cert, api_url, api_ca } = self;
        Options { origin_cert, api_url, api_ca, ..Options::default() }
    }
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
