//! The tracing subscriber: one per process, on standard error.

mod backlog;
mod json;

use std::io::{IsTerminal, stderr};

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use backlog::Backlog;
use json::Json;

pub(crate) use backlog::{GATHER, Writer};

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Starts logging, until the writer is dropped. `directives` as `tracing_subscriber::EnvFilter` reads them.
pub(crate) fn start(format: LogFormat, directives: &str) -> anyhow::Result<Writer> {
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("--log {directives:?} is not a level or a list of directives"))?;
    let backlog = Backlog::default();
    let writer = backlog.write().context("starting the thread that writes the log")?;
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(backlog).log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_ansi(stderr().is_terminal()).with_target(false).init(),
        LogFormat::Json => builder.json().event_format(Json::new()).init(),
    }
    Ok(writer)
}
