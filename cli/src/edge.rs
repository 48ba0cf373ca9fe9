//! `adit edge run`, `check`, `certificates`, `nodes` and `explain`.

pub(crate) mod explain;

use std::path::{Path, PathBuf};

use adit_edge::{Edge, Settings};
use clap::Args;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::office::Shown;
use crate::table::{Table, show};
use crate::{Failure, signals, systemd};

/// Which edge that runs, and how what it says is shown.
#[derive(Args)]
pub(crate) struct Ask {
    /// Where the admin API of the edge listens, as `[admin] listen` in its configuration
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:20240", env = "ADIT_EDGE_ADMIN")]
    admin: String,
    /// The file with the token that it wants, as `[admin] token-file`
    #[arg(long, value_name = "FILE", env = "ADIT_EDGE_ADMIN_TOKEN_FILE")]
    admin_token_file: Option<PathBuf>,
    #[command(flatten)]
    shown: Shown,
}

impl Ask {
    fn edge(self) -> (Admin, Shown) {
        let Self { admin, admin_token_file, shown } = self;
        (Admin::of_edge(admin, admin_token_file), shown)
    }
}

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

/// Reports every mistake of a document, and every file that it names and that an edge could not begin with.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    Settings::load(path).map_err(|error| Failure::Configuration(error.into()))?;
    Ok(())
}

/// Prints what a running edge shows over TLS, and until when.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn certificates(ask: Ask) -> Result<(), Failure> {
    let (admin, shown) = ask.edge();
    let page = admin.look("/certificates").await?;
    show(shown.form, &page, || {
        let mut table = Table::new(&["USE", "NAMES", "SOURCE", "UNTIL", "TROUBLE"]);
        for one in page["certificates"].as_array().into_iter().flatten() {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let names = one["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let names = names.collect::<Vec<_>>().join(" ");
            table.row([text("use"), names, text("source"), text("not_after"), text("error")]);
        }
        for one in page["issued"].as_array().into_iter().flatten() {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let empty = String::new();
            table.row(["issued".to_owned(), text("name"), "acme".to_owned(), text("not_after"), empty]);
        }
        for one in page["orders"].as_array().into_iter().flatten() {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let failures = one["failures"].as_u64().unwrap_or_default();
            let error = text("error");
            let trouble = if failures > 0 { format!("{error} ({failures} failures)") } else { error };
            table.row(["order".to_owned(), text("name"), String::new(), text("next"), trouble]);
        }
        table.text()
    });
    Ok(())
}

/// Prints the nodes of a running edge's fleet.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn nodes(ask: Ask) -> Result<(), Failure> {
    let (admin, shown) = ask.edge();
    let page = admin.look("/nodes").await?;
    show(shown.form, &page, || {
        let mut table = Table::new(&["NODE", "REGION", "WANTED", "ALIVE", "STARTED", "VERSION", "ADDRESSES"]);
        for one in page["nodes"].as_array().into_iter().flatten() {
            let text = |key: &str| one[key].as_str().unwrap_or_default().to_owned();
            let alive = &one["alive"];
            let said = |key: &str| alive[key].as_str().unwrap_or_default().to_owned();
            let addresses = one["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let addresses = addresses.collect::<Vec<_>>().join(" ");
            let is_own = one["name"] == page["own"];
            let name = if is_own { format!("{} (this one)", text("name")) } else { text("name") };
            let is_alive = if alive.is_null() { "no" } else { "yes" };
            table.row([
                name,
                text("region"),
                text("wanted"),
                is_alive.to_owned(),
                said("started_at"),
                said("version"),
                addresses,
            ]);
        }
        let (revision, store) = (&page["revision"], page["store"].as_str().unwrap_or_default());
        format!("{}\nrevision {revision}, store {store}", table.text())
    });
    Ok(())
}
