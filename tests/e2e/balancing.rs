//! Load balancers as people use them: by our own commands, with real hosts behind them.

use std::path::Path;
use std::process::{Command, Stdio};

use e2e::process::adit;

/// The text about availability, as anybody can run it.
#[tokio::test]
async fn of_two_tunnels_behind_one_name_one_stops_and_one_is_killed_and_nobody_notices() {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/load-balancer.sh");
    let mut command = Command::new("sh");
    command.arg(script).env("ADIT", adit()).env("TMPDIR", folder.path());
    command.stdin(Stdio::null());
    let ended = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("nobody noticed") && said.contains("no host of the tunnel is connected"), "{said}");
}
