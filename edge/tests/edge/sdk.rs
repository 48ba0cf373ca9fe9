//! The official SDKs of the public API against a running edge, with nothing changed but the address: every call
//! that is about tunnels, zones, records or configurations. `cargo xtask test` brings them and says where they are:
//! `ADIT_SDK_PYTHON` is a Python that has its SDK, `ADIT_SDK_NODE` a folder whose `node_modules` has the other.
//! Without them a test is skipped, unless `ADIT_SKIP_NOTHING=1`.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use crate::connector::Connector;
use crate::harness::LocalSet;
use crate::office::Office;

#[tokio::test]
async fn the_python_sdk_drives_all_that_an_edge_has() {
    let Some(python) = provided("ADIT_SDK_PYTHON") else { return };
    LocalSet::new().run_until(drive(Command::new(python), "python.py", "python 5.9.0: done")).await;
}

#[tokio::test]
async fn the_node_sdk_drives_all_that_an_edge_has() {
    let Some(folder) = provided("ADIT_SDK_NODE") else { return };
    let mut node = Command::new("node");
    node.env("SDK", folder);
    LocalSet::new().run_until(drive(node, "node.mjs", "node 7.3.0: done")).await;
}

/// Runs a script beside an edge with a tunnel that one host serves.
async fn drive(mut command: Command, script: &str, said: &str) {
    let mut office = Office::open().await;
    let tunnel = office.create("live").await;
    office.edge.credentials = Credentials::from_token(tunnel["token"].as_str().unwrap()).unwrap();
    let replica = Uuid::new_v4();
    let mut connectors = Vec::new();
    for index in 0..4 {
        connectors.push(Connector::registered(&office.edge, usize::from(index % 2), replica, index).await);
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/edge/sdk").join(script);
    command.arg(script).kill_on_drop(true).stdin(Stdio::null()).current_dir(office.edge.folder.path());
    command
        .env("BASE_URL", format!("http://{}/client/v4", office.edge.api.unwrap()))
        .env("TOKEN", &office.token)
        .env("ACCOUNT", &office.account)
        .env("TUNNEL", tunnel["id"].as_str().unwrap())
        .env("CONNECTOR", replica.to_string());
    let ended = timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap();
    let text =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && text.contains(said), "{text}");
    for connector in connectors {
        connector.connection.closed().await;
    }
}

fn provided(variable: &str) -> Option<OsString> {
    let found = std::env::var_os(variable);
    if found.is_none() {
        let reason = format!("{variable} does not say where an SDK is");
        let must_not = std::env::var_os("ADIT_SKIP_NOTHING").is_some_and(|set| set == "1");
        assert!(!must_not, "{reason}, and ADIT_SKIP_NOTHING is set");
        // Not `eprintln!`, which is heard only where a test fails.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
    }
    found
}

/// The first start of Python compiles what it reads of the SDK.
const LIMIT: Duration = Duration::from_secs(50);
