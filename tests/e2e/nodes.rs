//! The life of a node by our own commands: real processes over a real etcd. A machine joins by a token, drains, comes
//! back, and leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use e2e::DEADLINE;
use e2e::etcd::{self, Etcd};
use e2e::process::{Outcome, Process, adit};
use serde_json::Value;
use tempfile::TempDir;

/// A machine with the document of a node.
struct Machine {
    folder: TempDir,
    edge: Option<Process>,
    admin: String,
    api: String,
}

impl Machine {
    fn new(etcd: &Etcd, name: &str, region: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = etcd.address("main");
        let document = format!(
            "[visitors]\nhttp = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [[server]]\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\n\
             [store]\nurl = \"{store}\"\nallow-old = true\n\
             [node]\nname = \"{name}\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\n"
        );
        fs::write(folder.path().join("edge.toml"), document).unwrap();
        Self { folder, edge: None, admin: String::new(), api: String::new() }
    }

    /// A command at this machine.
    async fn run(&self, words: &[&str], input: &str) -> Outcome {
        Process::run(&[&["edge"], words].concat(), self.folder.path(), input).await
    }

    /// The same, which must succeed; what it printed.
    async fn done(&self, words: &[&str], input: &str) -> String {
        let outcome = self.run(words, input).await;
        assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
        outcome.output
    }

    async fn start(&mut self) {
        let edge = Process::adit("edge", &["edge", "run", "--config", "edge.toml"], self.folder.path());
        let address = async |kind: &str| {
            let fields = edge.event("listening", |fields| fields["kind"] == kind).await;
            fields["address"].as_str().unwrap().to_owned()
        };
        (self.admin, self.api) = (address("admin").await, address("api").await);
        self.edge = Some(edge);
    }

    /// Waits until the edge has ended by itself, and well.
    async fn ended(&mut self) {
        let status = self.edge.take().unwrap().exit().await;
        assert!(status.success(), "{status}");
    }

    /// A node as the edge of this machine shows it.
    async fn node(&self, name: &str) -> Value {
        let page = self.done(&["nodes", "--admin", &self.admin, "--output", "json"], "").await;
        let page: Value = serde_json::from_str(&page).unwrap();
        let nodes = page["nodes"].as_array().unwrap();
        nodes.iter().find(|node| node["name"] == name).cloned().unwrap_or_default()
    }

    async fn until(&self, name: &str, is_so: impl Fn(&Value) -> bool) {
        let end = Instant::now() + DEADLINE;
        loop {
            let node = self.node(name).await;
            if is_so(&node) {
                return;
            }
            assert!(Instant::now() < end, "{node}");
        }
    }
}

#[tokio::test]
async fn a_machine_joins_by_a_token_drains_comes_back_and_leaves() {
    let Some(etcd) = Etcd::start().await else { return };
    let (mut one, mut two) = (Machine::new(&etcd, "a", "west"), Machine::new(&etcd, "b", "east"));
    let made = one.done(&["init", "--zone", "example.test"], "").await;
    assert!(made.contains("node           a"), "{made}");
    one.start().await;

    // Before it has joined it is no node, and says what makes it one.
    let refused = two.run(&["run", "--config", "edge.toml"], "").await;
    assert!(refused.code == Some(2) && refused.log.contains("adit edge join"), "{refused:?}");
    let api = format!("http://{}", one.api);
    let token = one.done(&["invite", "--api-url", &api], "").await;
    // A token is no word of a command line.
    let refused = two.run(&["join", token.trim()], "").await;
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let joined = two.done(&["join", "--token-file", "-"], &token).await;
    assert!(joined.contains("node b of the fleet"), "{joined}");
    let again = Machine::new(&etcd, "c", "east").run(&["join", "--token-file", "-"], &token).await;
    assert!(again.code == Some(1) && !again.log.contains(token.trim()), "it was good once: {again:?}");
    two.start().await;
    one.until("b", |node| !node["alive"].is_null() && node["region"] == "east").await;
    let table = one.done(&["nodes", "--admin", &one.admin], "").await;
    assert!(table.contains("a (this one)") && table.contains("there"), "{table}");

    one.done(&["drain", "b"], "").await;
    two.ended().await;
    one.until("b", |node| node["alive"].is_null() && node["wanted"] == "draining").await;
    let refused = two.run(&["run", "--config", "edge.toml"], "").await;
    assert!(refused.log.contains("adit edge drain --undo b"), "{refused:?}");
    one.done(&["drain", "--undo", "b"], "").await;
    two.start().await;
    one.until("b", |node| !node["alive"].is_null() && node["wanted"] == "active").await;

    // The authority goes another way while both serve.
    for step in ["beside the old one", "signs", "believed no more"] {
        let said = one.done(&["rotate-authority"], "").await;
        assert!(said.contains(step), "{said}");
    }
    for machine in [&one, &two] {
        let renewed = machine.edge.as_ref().unwrap();
        renewed.event("the certificate of this node was renewed", |_| true).await;
    }

    two.done(&["leave"], "").await;
    two.ended().await;
    one.until("b", |node| node["wanted"] == "left").await;
    let refused = two.run(&["run", "--config", "edge.toml"], "").await;
    assert!(refused.code == Some(2) && refused.log.contains("adit edge join"), "{refused:?}");
    one.edge.as_ref().unwrap().terminate();
    one.ended().await;
}

/// What the example wants of curl, for a machine without it.
const CURL: &str = r#"#!/usr/bin/env python3
import sys, urllib.request
words, headers, url = sys.argv[1:], {}, None
while words:
    word = words.pop(0)
    if word == "-H":
        name, value = words.pop(0).split(": ")
        headers[name] = value
    elif word in ("--output", "--write-out"):
        words.pop(0)
    elif not word.startswith("-"):
        url = word
try:
    status = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10).status
except urllib.error.HTTPError as error:
    status = error.code
except OSError:
    sys.exit(7)
print(status, end="")
sys.exit(22 if "--fail" in sys.argv and status >= 400 else 0)
"#;

#[tokio::test]
async fn the_example_of_a_fleet_does_what_it_says() {
    let Some(etcd) = etcd::program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fleet");
    // Its ports, at an address that nobody else has.
    let own = format!("127.{}.{}.9", 192 + std::process::id() / 256 % 32, std::process::id() % 256);
    for entry in fs::read_dir(example).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read_to_string(entry.path()).unwrap().replace("127.0.0.1", &own);
        fs::write(folder.path().join(entry.file_name()), text).unwrap();
    }
    let programs = folder.path().join("bin");
    fs::create_dir(&programs).unwrap();
    if Command::new("curl").arg("--version").output().is_err() {
        fs::write(programs.join("curl"), CURL).unwrap();
        fs::set_permissions(programs.join("curl"), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let usual = std::env::var("PATH").unwrap();
    let path = format!("{}:{}:{usual}", programs.display(), etcd.parent().unwrap().display());
    let mut command = Command::new("sh");
    command.arg(folder.path().join("fleet.sh")).env("ADIT", adit()).env("PATH", path);
    command.env("TMPDIR", folder.path());
    let script = Process::start("fleet.sh", command);
    let status = script.exit().await;
    assert!(status.success(), "{status}: {}\n{}", script.output(), script.log());
    let said = script.output();
    for words in ["node east-1 of the fleet", "the second node drains", "done: "] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
