//! `adit edge run`.

use std::path::Path;

use adit_edge::{Edge, Settings};
use tokio_util::sync::CancellationToken;

use crate::{Failure, signals, systemd};

/// Runs an edge until a signal stops it.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(path: &Path, with_stdin: bool) -> Result<(), Failure> {
    let settings = Settings::load(path).map_err(|error| Failure::Configuration(error.into()))?;
    let stop = CancellationToken::new();
    let _signals = signals::watch(stop.clone(), with_stdin).map_err(anyhow::Error::from)?;
    let _hangups = signals::nothing_reloads().map_err(anyhow::Error::from)?;
    let edge = Edge::build(settings).map_err(Failure::Configuration)?;
    let _systemd = systemd::watch_edge(edge.watchdog(), stop.clone()).map_err(anyhow::Error::from)?;
    Ok(edge.run(stop).await?)
}
