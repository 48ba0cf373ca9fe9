//! `adit tunnel run` and `adit config check`.

use std::path::Path;

use adit_host::config;
use adit_host::config::document;
use adit_host::generation::Generation;
use adit_host::plugin::Engine;
use adit_host::settings;
use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{Failure, signals, systemd};

/// Where the edge is and how it is reached, in place of what the configuration says. The words of the
/// environment are those of cloudflared where the meaning is the same.
#[derive(Args)]
#[command(next_help_heading = "In place of what [tunnel] of the configuration says")]
pub(crate) struct Flags {
    /// Over what the edge is reached: QUIC (UDP), HTTP/2 (TCP), or auto: QUIC, and HTTP/2 for as long as UDP
    /// does not get through
    #[arg(long, short, value_enum, value_name = "PROTOCOL", env = "TUNNEL_TRANSPORT_PROTOCOL")]
    protocol: Option<Protocol>,
    /// An edge server; give it several times, or several with commas, with the servers of two regions in turn.
    /// Servers are then not looked up in DNS
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', env = "TUNNEL_EDGE")]
    edge: Vec<String>,
    /// Use a part of the edge only, such as "us"
    #[arg(long, value_name = "REGION", env = "TUNNEL_REGION")]
    region: Option<String>,
    /// Which addresses of the edge are dialled: 4, 6 or auto (both)
    #[arg(long, value_name = "VERSION", env = "TUNNEL_EDGE_IP_VERSION")]
    edge_ip_version: Option<String>,
    /// The IP address of this machine that connections to the edge come from; it decides the IP version
    #[arg(long, value_name = "IP", env = "TUNNEL_EDGE_BIND_ADDRESS")]
    edge_bind_address: Option<String>,
    /// After SIGTERM or SIGINT, how long requests may take to finish, such as "30s"; at most 3m. The host ends
    /// as soon as the last one has; a second signal ends it at once, with exit code 130
    #[arg(long, value_name = "DURATION", env = "TUNNEL_GRACE_PERIOD")]
    grace_period: Option<String>,
    /// Give up, with exit code 1, when no connection to the edge has served for so long, such as "5m"; for
    /// supervisors that try another machine. Without it the host tries for ever
    #[arg(long, value_name = "DURATION", env = "ADIT_EXIT_AFTER_UNCONNECTED")]
    exit_after_unconnected: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Protocol {
    Auto,
    Quic,
    Http2,
}

impl From<Flags> for settings::Flags {
    fn from(flags: Flags) -> Self {
        let protocol = flags.protocol.map(|protocol| match protocol {
            Protocol::Auto => document::Protocol::Auto,
            Protocol::Quic => document::Protocol::Quic,
            Protocol::Http2 => document::Protocol::Http2,
        });
        Self {
            edges: flags.edge,
            region: flags.region,
            edge_ip_version: flags.edge_ip_version,
            edge_bind_address: flags.edge_bind_address,
            protocol,
            grace_period: flags.grace_period,
            exit_after_unconnected: flags.exit_after_unconnected,
        }
    }
}

/// Runs a host until a signal stops it or the edge refuses it for good. SIGHUP reloads its rules and plugins.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(path: &Path, flags: Flags, with_stdin: bool) -> Result<(), Failure> {
    let loaded = config::load_with(path, &flags.into());
    let (settings, plan) = loaded.map_err(|error| Failure::Configuration(error.into()))?;
    for warning in settings.warnings.iter().chain(&plan.warnings) {
        warn!("{}: {warning}", path.display());
    }
    let stop = CancellationToken::new();
    let _signals = signals::watch(stop.clone(), with_stdin).map_err(anyhow::Error::from)?;
    let mut host =
        adit_host::Host::build(settings, &plan, path.to_owned()).await.map_err(Failure::Configuration)?;
    let _systemd = systemd::watch(&mut host, stop.clone()).map_err(anyhow::Error::from)?;
    let _reloads = signals::reload_on_hangup(host.reload()).map_err(anyhow::Error::from)?;
    Ok(host.run(stop).await?)
}

/// Reads a configuration and builds what it asks for, without serving it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn check(path: &Path) -> Result<(), Failure> {
    let (settings, plan) = config::load(path).map_err(|error| Failure::Configuration(error.into()))?;
    let engine = Engine::of_this_program()?;
    Generation::build(1, &plan, &engine, settings.shards, None).await.map_err(Failure::Configuration)?;
    for warning in settings.warnings.iter().chain(&plan.warnings) {
        println!("warning: {warning}");
    }
    println!("{}: good ({} rules, {} plugins)", path.display(), plan.rules.len(), plan.plugins.len());
    Ok(())
}
