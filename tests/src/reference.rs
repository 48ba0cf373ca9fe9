//! Another connector of the same protocol in the place of our host: `ADIT_REFERENCE_CONNECTOR` names
//! its program, which takes the flags of `cloudflared`. Tests whose host needs plugins keep ours.
//!
//! `ADIT_REFERENCE_CONNECTOR=/path/to/cloudflared cargo test -p e2e --test e2e -- bodies cancel grpc path pages websocket`
//!
//! Four of these ask for what only our host has, and fail with the other: the list of connections in
//! `/ready`, a time limit for answers, a line in the log, and a WebSocket that is closed by halves. Over
//! HTTP/2 (`transports::bodies` and so on) it also keeps the start of an answer of known length back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::document::HostDocument;
use crate::process::Process;
use crate::product::{Host, Site};

/// The reference's own program, for a test that is about it: `cargo xtask reference PROGRAM` runs them.
pub fn program() -> PathBuf {
    std::env::var_os("ADIT_REFERENCE_CONNECTOR").expect("ADIT_REFERENCE_CONNECTOR names its program").into()
}

/// The program that stands in for our host with this document, if there is one and it can.
pub fn connector(document: &HostDocument) -> Option<PathBuf> {
    let program = std::env::var_os("ADIT_REFERENCE_CONNECTOR")?;
    document.plugins.is_empty().then(|| program.into())
}

/// Starts it and waits until all of its connections are registered. Each takes one of `servers` for itself,
/// also when it fails; what is listed twice serves two.
pub async fn host(program: PathBuf, site: &Site, servers: &[SocketAddr], document: &HostDocument) -> Host {
    let protocol = if document.protocol == "auto" { "quic" } else { document.protocol };
    site.write("reference.json", configuration(site, document).to_string());
    let mut command = Command::new(program);
    command
        .current_dir(site.folder())
        .args(["tunnel", "--config", "reference.json", "--no-autoupdate", "--no-prechecks"])
        .args(["--metrics", "127.0.0.1:0", "--cacert", &document.edge_ca, "--protocol", protocol])
        .args(["--grace-period", document.grace, "--ha-connections", &document.connections.to_string()]);
    for server in servers {
        command.args(["--edge", &server.to_string()]);
    }
    command.arg("run");
    let process = Process::start("reference connector", command);
    let listens = process.said("its metrics listener", |line| line.contains("Starting metrics server on"));
    let admin: SocketAddr = listens
        .await
        .rsplit_once(" on ")
        .and_then(|(_, address)| address.trim_end().trim_end_matches("/metrics").parse().ok())
        .expect("an address");
    for index in 0..document.connections {
        let wanted = format!("connIndex={index} ");
        process
            .said("that it is registered", |line| {
                line.contains("Registered tunnel connection") && line.contains(&wanted)
            })
            .await;
    }
    Host { process, admin }
}

fn configuration(site: &Site, document: &HostDocument) -> Value {
    let rules: toml::Table = document.rules.parse().expect("the rules are TOML");
    let keep = |rule: &toml::Value| {
        let mut kept = serde_json::Map::new();
        for key in ["hostname", "path", "service"] {
            if let Some(value) = rule.get(key).and_then(toml::Value::as_str) {
                kept.insert(key.into(), value.into());
            }
        }
        let says = |key: &str, wanted: bool| {
            rule.get("origin").and_then(|origin| origin.get(key)) == Some(&toml::Value::Boolean(wanted))
        };
        let origin = json!({ "noTLSVerify": says("tls-verify", false), "http2Origin": says("http2", true) });
        kept.insert("originRequest".into(), origin);
        Value::Object(kept)
    };
    let ingress: Vec<Value> = rules["ingress"].as_array().expect("rules").iter().map(keep).collect();
    json!({
        "tunnel": site.credentials.tunnel_id,
        "credentials-file": site.path("demo.json"),
        "ingress": ingress,
    })
}
