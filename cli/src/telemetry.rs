//! The tracing subscriber: one per process, on standard error, and in a file where one is asked for.

mod backlog;
mod flat;
mod json;
mod rolling;
mod tail;

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;

use anyhow::Context;
use clap::ValueEnum;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use backlog::Backlog;
use flat::Flat;
use json::Json;
use rolling::Rolling;

pub(crate) use backlog::{GATHER, Writer};
pub(crate) use tail::tail;

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
    /// The same with the reference's keys
    #[value(skip)]
    Flat,
}

/// What is logged, and where.
#[derive(Default)]
pub(crate) struct Logging {
    pub(crate) format: Option<LogFormat>,
    /// As `tracing_subscriber::EnvFilter` reads them.
    pub(crate) directives: Option<String>,
    pub(crate) file: Option<File>,
}

/// What a log is written to besides.
pub(crate) enum File {
    One(PathBuf),
    /// A folder with the newest file and those before it.
    Rolling(PathBuf),
}

/// Starts logging, until the writers are dropped.
pub(crate) fn start(logging: Logging) -> anyhow::Result<Vec<Writer>> {
    let directives = logging.directives.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(directives)
        .with_context(|| format!("--log {directives:?} is not a level or a list of directives"))?;
    let backlog = Backlog::default();
    let mut writers = vec![backlog.write(stderr()).context("starting the thread that writes the log")?];
    let format = logging.format.unwrap_or(LogFormat::Text);
    let lines = fmt::layer().with_writer(backlog).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).with_target(false).boxed(),
        LogFormat::Json => lines.json().event_format(Json::new()).boxed(),
        LogFormat::Flat => lines.json().event_format(Flat).boxed(),
    };
    let in_file = match logging.file {
        None => None,
        Some(file) => {
            let kept = Backlog::default();
            let file = match file {
                File::One(path) => Rolling::one(path),
                File::Rolling(folder) => Rolling::below(folder),
            };
            writers.push(kept.write(file?).context("starting the thread that writes the log file")?);
            Some(fmt::layer().with_writer(kept).log_internal_errors(false).json().event_format(Flat))
        }
    };
    let (watched, wanted) = tail::watched();
    // What is watched has nothing to do with what is written.
    let written = lines.and_then(in_file).with_filter(filter);
    tracing_subscriber::registry().with(written).with(watched.with_filter(wanted)).init();
    Ok(writers)
}
