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

/// Prints the nodes of a running edge's fleet, with what it hears of the others.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn nodes(ask: Ask) -> Result<(), Failure> {
    let (admin, shown) = ask.edge();
    let mut page = admin.look("/nodes").await?;
    // An edge that is no node itself hears of nobody.
    let heard = admin.look("/nodes/peers").await.unwrap_or_default();
    for node in page["nodes"].as_array_mut().into_iter().flatten() {
        let mut peers = heard["peers"].as_array().into_iter().flatten();
        if let Some(peer) = peers.find(|peer| peer["name"] == node["name"]) {
            node["peer"] = peer.clone();
        }
    }
    show(shown.form, &page, || {
        let mut table = Table::new(&HEAD);
        let newest =
            page["nodes"].as_array().into_iter().flatten().filter_map(|one| one["peer"]["revision"].as_u64());
        let newest = newest.chain(page["revision"].as_u64()).max().unwrap_or_default();
        for one in page["nodes"].as_array().into_iter().flatten() {
            table.row(row(one, &page, newest));
        }
        table.text()
    });
    Ok(())
}

/// A node in the table. What it has not said itself stays empty.
fn row(one: &Value, page: &Value, newest: u64) -> [String; 9] {
    let text = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let (peer, alive) = (&one["peer"], &one["alive"]);
    let is_own = one["name"] == page["own"];
    let name = if is_own { format!("{} (this one)", text(one, "name")) } else { text(one, "name") };
    let wanted = text(one, "wanted");
    // What the store hears of is late; what the node says itself is not.
    let is_there = is_own || peer["connected"] == true || !alive.is_null();
    let state = if is_there || wanted == "left" { wanted } else { format!("{wanted}, away") };
    let revision = if is_own { page["revision"].as_u64() } else { peer["revision"].as_u64() };
    let lag = revision.map(|revision| newest.saturating_sub(revision).to_string());
    let store = match (is_own, peer["store_silent_ms"].as_u64()) {
        (true, _) => text(page, "store"),
        (false, Some(silent)) if silent > SILENT => format!("silent for {} s", silent / 1_000),
        (false, Some(_)) => "there".to_owned(),
        (false, None) => String::new(),
    };
    let heard = if peer.is_null() {
        String::new()
    } else if peer["gone"] == true {
        "gone".to_owned()
    } else if peer["suspect"] == true {
        format!("silent for {} ms", peer["silent_ms"])
    } else if peer["connected"] == true {
        peer["rtt_ms"].as_f64().map_or("connected".to_owned(), |rtt| format!("{rtt:.1} ms"))
    } else {
        "not connected".to_owned()
    };
    let tunnels = peer["tunnels"].as_u64().map(|count| count.to_string()).unwrap_or_default();
    let revision = revision.map(|revision| revision.to_string()).unwrap_or_default();
    let version = text(alive, "version");
    [name, text(one, "region"), state, revision, lag.unwrap_or_default(), store, heard, tunnels, version]
}

const HEAD: [&str; 9] = ["NODE", "REGION", "STATE", "REVISION", "LAG", "STORE", "PEER", "TUNNELS", "VERSION"];
/// Milliseconds without a word of the store that are worth telling.
const SILENT: u64 = 10_000;
