//! Thousands of requests made from the OpenAPI document, right and wrong ones, against the running API:
//! everything that it answers is what the document says. `cargo xtask test` brings the program and sets
//! `ADIT_SCHEMATHESIS=/path/to/schemathesis`; without it this test is skipped, unless `ADIT_SKIP_NOTHING=1`.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use crate::office::Office;

#[tokio::test(flavor = "multi_thread")]
async fn the_api_answers_as_its_document_says_whatever_is_asked() {
    // Nothing links one of these calls with another one.
    run(
        "--exclude-path-regex",
        "/load_balancers|/alerting|/cfd_tunnel|^/nodes",
        "25",
        "examples,coverage,fuzzing",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tunnels_answer_as_the_document_says_whatever_is_asked() {
    run("--include-path-regex", "/cfd_tunnel", "25", PHASES).await;
}

/// For itself, as tunnels are: whoever leaves the token out on each of all the paths together is told to wait.
#[tokio::test(flavor = "multi_thread")]
async fn load_balancing_answers_as_its_document_says_whatever_is_asked() {
    run("--include-path-regex", "/load_balancers", "25", PHASES).await;
}

/// For itself: whoever has no good token to join by is told to wait soon.
#[tokio::test(flavor = "multi_thread")]
async fn joining_answers_as_its_document_says_whatever_is_asked() {
    run("--include-path-regex", "^/nodes", "10", "examples,coverage,fuzzing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn alerting_answers_as_its_document_says_whatever_is_asked() {
    run("--include-path-regex", "/alerting", "15", PHASES).await;
}

/// The paths that match, or all others.
async fn run(which: &str, pattern: &str, seconds: &str, phases: &str) {
    let Some(program) = std::env::var_os("ADIT_SCHEMATHESIS") else {
        let reason = "ADIT_SCHEMATHESIS does not say where schemathesis is";
        let must_not = std::env::var_os("ADIT_SKIP_NOTHING").is_some_and(|set| set == "1");
        assert!(!must_not, "{reason}, and ADIT_SKIP_NOTHING is set");
        // Not `eprintln!`, which is heard only where a test fails.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {reason}");
        return;
    };
    let office = Office::open().await;
    let folder = office.edge.folder.path();
    // The two that nothing in the document gives.
    let settings = format!(
        "[parameters]\n\"path.account\" = \"{}\"\n\"path.zone\" = \"{}\"\n",
        office.account, office.zone
    );
    std::fs::write(folder.join("schemathesis.toml"), settings).unwrap();
    let mut command = Command::new(program);
    command.current_dir(folder).kill_on_drop(true).stdin(Stdio::null());
    command.arg("run").arg(format!("http://{}/openapi.json", office.edge.api.unwrap()));
    command.args([which, pattern, "--phases", phases]);
    command.args(["--header", &format!("Authorization: Bearer {}", office.token)]);
    // Whoever asks for a deleted tunnel by its id is told when it was deleted; a name of a foreign zone fits
    // the document; and a parameter without a value is none.
    let left_out = "use_after_free,positive_data_acceptance,negative_data_rejection";
    command.args(["--checks", "all", "--exclude-checks", left_out]);
    // One worker: two threads that parse Python at once can fail by themselves (python/cpython#106905).
    command.args(["--rate-limit", "auto", "--workers", "1", "--no-color"]);
    command.args(["--max-time", seconds, "--max-examples", "40", "--seed", "1"]);
    let ended = timeout(LIMIT, command.output()).await.expect("it ends in time").unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("generated"), "{said}");
    eprintln!("{}", said.lines().find(|line| line.contains("generated,")).unwrap_or_default());
}

const PHASES: &str = "examples,coverage,fuzzing,stateful";
const LIMIT: Duration = Duration::from_secs(150);
