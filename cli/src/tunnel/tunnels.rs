//! `adit tunnel list`, `info`, `delete`, `cleanup` and `token`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use adit_protocol::credentials::{Credentials, MAX_CREDENTIALS};
use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::client::Client;
use super::{Options, Output, places};
use crate::Failure;
use crate::table::{Table, print, show};

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    output: Output,
    /// The deleted ones too
    #[arg(long, short = 'd')]
    show_deleted: bool,
    /// Only the one of this name
    #[arg(long, short, value_name = "NAME")]
    name: Option<String>,
    /// Only those whose name begins so
    #[arg(long, visible_alias = "np", value_name = "TEXT")]
    name_prefix: Option<String>,
    /// Not those whose name begins so
    #[arg(long, visible_alias = "enp", value_name = "TEXT")]
    exclude_name_prefix: Option<String>,
    /// Only those that were there at this time (RFC 3339)
    #[arg(long, short, value_name = "TIME", value_parser = time)]
    when: Option<String>,
    /// Only the one with this id
    #[arg(long, short, value_name = "ID")]
    id: Option<Uuid>,
    /// Connections on their way out too
    #[arg(long, visible_alias = "rd")]
    show_recently_disconnected: bool,
    /// By what they are sorted
    #[arg(long, value_name = "KEY", value_enum, default_value_t, env = "TUNNEL_LIST_SORT_BY")]
    sort_by: TunnelKey,
    /// The other way round
    #[arg(long, env = "TUNNEL_LIST_INVERT_SORT")]
    invert_sort: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum TunnelKey {
    #[default]
    Name,
    Id,
    #[value(name = "createdAt")]
    CreatedAt,
    #[value(name = "deletedAt")]
    DeletedAt,
    #[value(name = "numConnections")]
    NumConnections,
}

#[derive(Args)]
pub(super) struct Info {
    /// Its id or its name
    tunnel: String,
    #[command(flatten)]
    output: Output,
    /// Connections on their way out too
    #[arg(long, visible_alias = "rd")]
    show_recently_disconnected: bool,
    /// By what connectors are sorted
    #[arg(long, value_name = "KEY", value_enum, default_value_t, env = "TUNNEL_INFO_SORT_BY")]
    sort_by: ConnectorKey,
    /// The other way round
    #[arg(long, env = "TUNNEL_INFO_INVERT_SORT")]
    invert_sort: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum ConnectorKey {
    Id,
    #[default]
    #[value(name = "createdAt", alias = "startedAt")]
    CreatedAt,
    #[value(name = "numConnections")]
    NumConnections,
    Version,
}

#[derive(Args)]
pub(super) struct Delete {
    /// Ids or names
    #[arg(required = true)]
    tunnels: Vec<String>,
    /// Although hosts are connected
    #[arg(long, short, env = "TUNNEL_RUN_FORCE_OVERWRITE")]
    force: bool,
    /// The file of the credentials, to be removed too; by default the one that `create` wrote
    #[arg(long, alias = "cred-file", value_name = "FILE", env = "TUNNEL_CRED_FILE")]
    credentials_file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct Cleanup {
    /// Ids or names
    #[arg(required = true)]
    tunnels: Vec<String>,
    /// Only those of this connector
    #[arg(long, short, value_name = "ID", env = "TUNNEL_CLEANUP_CONNECTOR")]
    connector_id: Option<Uuid>,
}

#[derive(Args)]
pub(super) struct Token {
    /// Its id or its name
    tunnel: String,
    /// Write a credentials file instead
    #[arg(long, alias = "credentials-file", value_name = "FILE", env = "TUNNEL_CRED_FILE")]
    cred_file: Option<PathBuf>,
}

/// A time as the control API reads it: RFC 3339, with `Z` or an offset.
fn time(text: &str) -> Result<String, String> {
    let offset = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at));
    let local = match offset {
        Some((local, offset)) if offset.starts_with(['+', '-']) && offset.as_bytes()[3] == b':' => {
            format!("{local}Z")
        }
        _ => text.to_owned(),
    };
    let is_time = local.ends_with('Z') && humantime::parse_rfc3339_weak(&local).is_ok();
    is_time.then(|| text.to_owned()).ok_or_else(|| "write a time such as 2026-01-31T12:00:00Z".to_owned())
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn list(list: List, options: &Options) -> Result<(), Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    let mut filters = Vec::new();
    if !list.show_deleted {
        filters.push(("is_deleted", "false".to_owned()));
    }
    for (name, value) in [
        ("name", list.name),
        ("name_prefix", list.name_prefix),
        ("exclude_prefix", list.exclude_name_prefix),
        ("existed_at", list.when),
        ("uuid", list.id.map(|id| id.to_string())),
    ] {
        filters.extend(value.map(|value| (name, value)));
    }
    let mut tunnels = client.list(&filters).await?;
    if !list.show_recently_disconnected {
        tunnels.iter_mut().for_each(|tunnel| hide_leaving(&mut tunnel["connections"]));
    }
    tunnels.sort_by_cached_key(|tunnel| match list.sort_by {
        TunnelKey::Name => (0, text(&tunnel["name"])),
        TunnelKey::Id => (0, text(&tunnel["id"])),
        TunnelKey::CreatedAt => (0, text(&tunnel["created_at"])),
        TunnelKey::DeletedAt => (0, text(&tunnel["deleted_at"])),
        TunnelKey::NumConnections => (count(&tunnel["connections"]), text(&tunnel["name"])),
    });
    if list.invert_sort {
        tunnels.reverse();
    }
    let shown = Value::Array(tunnels.iter().cloned().map(without_secrets).collect());
    show(list.output.form, &shown, || {
        if tunnels.is_empty() {
            return "No tunnels fit these filters. `adit tunnel create` makes one.".to_owned();
        }
        let mut table = Table::new(&["ID", "NAME", "CREATED", "CONNECTIONS"]);
        for tunnel in &tunnels {
            let connections = by_server(tunnel["connections"].as_array().into_iter().flatten());
            table.row([
                text(&tunnel["id"]),
                text(&tunnel["name"]),
                brief(&tunnel["created_at"]),
                connections,
            ]);
        }
        format!("`adit tunnel info NAME` shows who serves one of them.\n{}", table.text())
    });
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn info(info: Info, options: &Options) -> Result<(), Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    let id = client.find(&info.tunnel).await?;
    let what = "looking at the tunnel";
    let tunnel = client.tunnel(what, Method::GET, id, "").await?;
    if !tunnel["deleted_at"].is_null() {
        return Err(anyhow!("the tunnel was deleted at {}", brief(&tunnel["deleted_at"])).into());
    }
    let connectors = client.tunnel("looking at its connectors", Method::GET, id, "/connections").await?;
    let Value::Array(mut connectors) = connectors else {
        return Err(anyhow!("the API did not answer with a list").into());
    };
    if !info.show_recently_disconnected {
        connectors.iter_mut().for_each(|connector| hide_leaving(&mut connector["conns"]));
        connectors.retain(|connector| count(&connector["conns"]) > 0);
    }
    connectors.sort_by_cached_key(|connector| match info.sort_by {
        ConnectorKey::Id => (0, text(&connector["id"])),
        ConnectorKey::CreatedAt => (0, text(&connector["run_at"])),
        ConnectorKey::NumConnections => (count(&connector["conns"]), text(&connector["id"])),
        ConnectorKey::Version => (0, text(&connector["version"])),
    });
    if info.invert_sort {
        connectors.reverse();
    }
    let shown = json!({
        "id": tunnel["id"],
        "name": tunnel["name"],
        "createdAt": tunnel["created_at"],
        "status": tunnel["status"],
        "conns": connectors,
    });
    show(info.output.form, &shown, || {
        let head = format!(
            "NAME:     {}\nID:       {id}\nCREATED:  {}\nSTATUS:   {}\n\n",
            printable(&tunnel["name"]),
            brief(&tunnel["created_at"]),
            text(&tunnel["status"]),
        );
        if connectors.is_empty() {
            return format!("{head}No host serves this tunnel now.");
        }
        let mut table =
            Table::new(&["CONNECTOR ID", "CREATED", "ARCHITECTURE", "VERSION", "ORIGIN IP", "EDGE"]);
        for connector in &connectors {
            let conns = connector["conns"].as_array();
            let address = conns.and_then(|conns| conns.first()).map(|conn| text(&conn["origin_ip"]));
            table.row([
                text(&connector["id"]),
                brief(&connector["run_at"]),
                text(&connector["arch"]),
                text(&connector["version"]),
                address.unwrap_or_default(),
                by_server(conns.into_iter().flatten()),
            ]);
        }
        head + &table.text()
    });
    Ok(())
}

/// Every tunnel is tried; one failure is a failure of the whole.
#[tokio::main(flavor = "current_thread")]
pub(super) async fn delete(delete: Delete, options: &Options) -> Result<(), Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    let mut failures = Vec::new();
    for tunnel in &delete.tunnels {
        let outcome = async {
            let id = client.find(tunnel).await?;
            let known = client.tunnel("looking at the tunnel", Method::GET, id, "").await?;
            anyhow::ensure!(
                known["deleted_at"].is_null(),
                "it was deleted at {}",
                brief(&known["deleted_at"])
            );
            let cascade = if delete.force { "?cascade=true" } else { "" };
            client.tunnel("deleting the tunnel", Method::DELETE, id, cascade).await?;
            remove_credentials(id, delete.credentials_file.as_ref(), options)
        };
        if let Err(error) = outcome.await {
            failures.push(format!("{tunnel}: {error:#}"));
        }
    }
    all(failures)
}

/// Only a file that holds the credentials of just this tunnel.
fn remove_credentials(id: Uuid, named: Option<&PathBuf>, options: &Options) -> anyhow::Result<()> {
    let Some(path) = named.cloned().or_else(|| options.credentials_of(id)) else { return Ok(()) };
    let is_its =
        adit_files::read(&path, MAX_CREDENTIALS).ok().and_then(|text| Credentials::from_json(&text).ok());
    if is_its.is_some_and(|credentials| credentials.tunnel_id == id) {
        std::fs::remove_file(&path).with_context(|| format!("it is deleted, but not {}", path.display()))?;
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn cleanup(cleanup: Cleanup, options: &Options) -> Result<(), Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    let query = cleanup.connector_id.map(|id| format!("?client_id={id}")).unwrap_or_default();
    let mut failures = Vec::new();
    for tunnel in &cleanup.tunnels {
        let outcome = async {
            let id = client.find(tunnel).await?;
            client.tunnel("cleaning up", Method::DELETE, id, &format!("/connections{query}")).await?;
            anyhow::Ok(id)
        };
        match outcome.await {
            Ok(id) => print(&format!("Cleaned up the connections of tunnel {id}")),
            Err(error) => failures.push(format!("{tunnel}: {error:#}")),
        }
    }
    all(failures)
}

fn all(failures: Vec<String>) -> Result<(), Failure> {
    if failures.is_empty() { Ok(()) } else { Err(anyhow!(failures.join("\n")).into()) }
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn token(token: Token, options: &Options) -> Result<(), Failure> {
    let client = Client::new(options).map_err(Failure::Configuration)?;
    let id = client.find(&token.tunnel).await?;
    let answer = client.tunnel("fetching the token", Method::GET, id, "/token").await?;
    let text = answer.as_str().context("the API did not answer with a token")?;
    match token.cred_file {
        None => print(text),
        Some(path) => {
            let credentials = Credentials::from_token(text).context("the token of the API")?;
            places::write_secret(&path, &credentials.to_json(), 0o400)
                .with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}

/// What is shown goes into terminals and logs.
pub(super) fn without_secrets(mut tunnel: Value) -> Value {
    if let Some(members) = tunnel.as_object_mut() {
        members.remove("token");
    }
    tunnel
}

fn hide_leaving(connections: &mut Value) {
    if let Some(connections) = connections.as_array_mut() {
        connections.retain(|connection| connection["is_pending_reconnect"] != true);
    }
}

/// `2xeast-1, 2xwest-1`, sorted by server.
fn by_server<'v>(connections: impl Iterator<Item = &'v Value>) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for connection in connections {
        *counts.entry(text(&connection["colo_name"])).or_default() += 1;
    }
    counts.iter().map(|(server, count)| format!("{count}x{server}")).collect::<Vec<_>>().join(", ")
}

fn count(list: &Value) -> usize {
    list.as_array().map_or(0, Vec::len)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn printable(value: &Value) -> String {
    text(value).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A time without fractions of seconds.
fn brief(value: &Value) -> String {
    let time = text(value);
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time,
    }
}
