//! `adit tunnel run` and `adit config check`.

use std::path::Path;

use adit_host::generation::Generation;
use adit_host::plugin::Engine;
use adit_host::settings;
use adit_host::supply::{self, Mode};
use tokio_util::sync::CancellationToken;

use crate::{Failure, signals, systemd};

/// Runs a host until a signal stops it or the edge refuses it for good. SIGHUP reloads its rules and plugins.
/// `quick_tunnel` is the host name of a quick tunnel.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(
    path: &Path,
    state_dir: Option<&Path>,
    flags: settings::Flags,
    quick_tunnel: Option<&str>,
    with_stdin: bool,
) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let _signals = signals::watch(stop.clone(), with_stdin).map_err(anyhow::Error::from)?;
    let mut host =
        adit_host::Host::start(path.to_owned(), state_dir, flags).await.map_err(Failure::Configuration)?;
    if let Some(hostname) = quick_tunnel {
        host.set_quick_tunnel(hostname.to_owned());
    }
    let _systemd = systemd::watch(&mut host, stop.clone()).map_err(anyhow::Error::from)?;
    let _reloads = signals::reload_on_hangup(host.reload()).map_err(anyhow::Error::from)?;
    Ok(host.run(stop).await?)
}

/// Reads a configuration and builds what it asks for, without serving it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn check(path: &Path) -> Result<(), Failure> {
    let (settings, plan) = supply::load(path, None, Mode::Check).await.map_err(Failure::Configuration)?;
    let engine = Engine::of_this_program()?;
    Generation::build(1, &plan, &engine, settings.shards, None)
        .await
        .map_err(|error| Failure::Configuration(error.into()))?;
    for warning in settings.warnings.iter().chain(&plan.warnings) {
        println!("warning: {warning}");
    }
    println!("{}: good ({} rules, {} plugins)", path.display(), plan.rules.len(), plan.plugins.len());
    Ok(())
}
