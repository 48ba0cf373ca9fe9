//! `adit tunnel run` and `adit config check`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_engine::Engine;
use adit_host::buckets::BucketFiles;
use adit_host::config::reader::Reader;
use adit_host::config::settings;
use adit_host::contents::Contents;
use adit_host::generation::Generation;
use adit_host::health::Health;
use adit_host::revision::resolve::{self, Mode};
use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::table::print;
use crate::{Failure, signals, systemd, telemetry};

/// What a process does besides serving.
#[derive(Clone, Default)]
pub(crate) struct Extras {
    /// The host name of a quick tunnel.
    pub(crate) quick_tunnel: Option<String>,
    /// Where the number of the process goes once it serves.
    pub(crate) pidfile: Option<PathBuf>,
    pub(crate) stdin: Stdin,
}

/// What standard input is for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Stdin {
    #[default]
    Nothing,
    /// Its end stops the process.
    Stops,
    /// It has commands; so the end stops nothing.
    Commands,
}

/// Runs a host until a signal stops it or the edge refuses it for good. SIGHUP reloads its rules and plugins.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(
    reader: Reader,
    state_dir: Option<&Path>,
    flags: settings::Flags,
    extras: Extras,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let with_stdin = extras.stdin == Stdin::Stops;
    let _signals = signals::watch(stop.clone(), with_stdin).map_err(anyhow::Error::from)?;
    let mut host = adit_host::Host::start(reader, state_dir, flags).await.map_err(Failure::Configuration)?;
    host.watch_log(telemetry::tail());
    if let Some(hostname) = extras.quick_tunnel {
        host.set_quick_tunnel(hostname);
        // Its requests are somebody's who tries something out, at a terminal.
        host.watch_requests();
        if let Some(url) = host.dashboard()? {
            print(&format!("Look at its requests: {url}"));
        }
    }
    let _systemd = systemd::watch(&mut host, stop.clone()).map_err(anyhow::Error::from)?;
    let _reloads = signals::reload_on_hangup(host.reload()).map_err(anyhow::Error::from)?;
    let _pidfile = extras.pidfile.map(|path| {
        let health = host.health(stop.clone());
        AbortOnDropHandle::new(tokio::spawn(write_pid(path, health)))
    });
    if extras.stdin == Stdin::Commands {
        let connections = host.connections();
        signals::commands_on_stdin(move |delay| connections.reconnects.ask(delay));
    }
    Ok(host.run(stop).await?)
}

/// As the reference does: a supervisor takes the file for a sign that the host serves.
async fn write_pid(path: PathBuf, health: Health) {
    while health.connections().0 == 0 {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let number = std::process::id().to_string();
    if let Err(error) = std::fs::write(&path, number).with_context(|| format!("writing {}", path.display())) {
        warn!("{error:#}");
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Reads a configuration and builds what it asks for, without serving it. What is kept in buckets is read and stays as
/// it is. `state_dir` goes before what the document says.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn check(path: &Path, state_dir: Option<&Path>) -> Result<(), Failure> {
    let (settings, plan) =
        resolve::load(path, state_dir, Mode::Check).await.map_err(Failure::Configuration)?;
    let engine = Engine::of_this_program()?;
    engine.keep_buckets(state_dir.or(settings.state_dir.as_deref()).map(BucketFiles::below));
    Generation::build(1, &plan, &engine, settings.shards, None, &mut Contents::default())
        .await
        .map_err(|error| Failure::Configuration(error.into()))?;
    for warning in settings.warnings.iter().chain(&plan.warnings) {
        println!("warning: {warning}");
    }
    println!("{}: good ({} rules, {} plugins)", path.display(), plan.rules.len(), plan.plugins.len());
    Ok(())
}
