//! The life of a node by our own commands: real processes over a real etcd. A machine joins by a token, drains, comes
//! back, and leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use e2e::collector::{Collector, Span};
use e2e::etcd::{self, Etcd};
use e2e::origin::Origin;
use e2e::process::{Outcome, Process, adit};
use e2e::visitor::{Speaks, Visitor, get};
use e2e::{DEADLINE, within};
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
        Self::with(etcd, name, region, "")
    }

    /// With these sections besides.
    fn with(etcd: &Etcd, name: &str, region: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = etcd.address("main");
        let document = format!(
            "[visitors]\nhttp = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [[server]]\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\n\
             [store]\nurl = \"{store}\"\nallow-old = true\n\
             [node]\nname = \"{name}\"\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\n{more}"
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

/// seeing.md, row 3: visitor, edge, another edge, host, service. The log of that host is watched the same way.
#[tokio::test]
async fn a_trace_and_a_watched_log_cross_from_one_edge_to_another() {
    let Some(etcd) = Etcd::start().await else { return };
    let (collector, origin) = (Collector::start(), Origin::start());
    let section = collector.section("");
    let (mut one, mut two) =
        (Machine::with(&etcd, "a", "west", &section), Machine::with(&etcd, "b", "east", &section));
    one.done(&["init", "--zone", "example.test"], "").await;
    one.start().await;
    let api = format!("http://{}", one.api);
    let token = one.done(&["invite", "--api-url", &api], "").await;
    two.done(&["join", "--token-file", "-"], &token).await;
    two.start().await;
    one.until("b", |node| !node["alive"].is_null()).await;

    let tunnel = async |words: &[&str]| {
        let begin = ["tunnel", "--api-url", &api, "--origincert", "cert.pem"];
        let outcome = Process::run(&[&begin[..], words].concat(), one.folder.path(), "").await;
        assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
        outcome.output
    };
    tunnel(&["create", "demo"]).await;
    tunnel(&["route", "dns", "demo", "app.example.test"]).await;
    let token = tunnel(&["token", "demo"]).await;
    let listens = async |machine: &Machine, kind: &str| {
        let edge = machine.edge.as_ref().unwrap();
        let fields = edge.event("listening", |fields| fields["kind"] == kind).await;
        fields["address"].as_str().unwrap().to_owned()
    };
    let mut command = Command::new(adit());
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address()));
    command.env("TUNNEL_TOKEN", token.trim());
    let server = listens(&two, "server").await;
    let words = [
        "tunnel",
        "--edge",
        &server,
        "--cacert",
        "edge-data/ca.pem",
        "--ha-connections",
        "1",
        "--metrics",
        "127.0.0.1:0",
        "--url",
        &origin.service(),
        "run",
    ];
    let host = Process::adit_by(command, "host", &words, two.folder.path());
    host.event("registered", |_| true).await;

    let visitors = listens(&one, "visitors-http").await.parse().unwrap();
    let visit = async || {
        let mut request = get("/echo");
        request.headers_mut().insert("host", "app.example.test".parse().unwrap());
        Visitor::new(visitors, Speaks::Http1, None).send(request).await.status
    };
    within("the other edge's host answers", async {
        while visit().await != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    let way = |spans: &[Span]| -> Option<Vec<Span>> {
        let service = spans.iter().find(|span| span.name == "origin")?;
        let mut way = vec![service.clone()];
        while let Some(parent) = spans.iter().find(|span| span.id == way[0].parent) {
            way.insert(0, parent.clone());
        }
        (way.len() == 6).then_some(way)
    };
    let spans = collector.until("all three have told", |spans| way(spans).is_some()).await;
    let way = way(&spans).unwrap();
    let names: Vec<_> = way.iter().map(|span| (span.service.as_str(), span.kind)).collect();
    let (edge, host_is) = ("adit-edge", "adit-host");
    assert_eq!(names, [(edge, 2), (edge, 3), (edge, 2), (edge, 3), (host_is, 2), (host_is, 3)], "{way:#?}");
    assert!(way.iter().all(|span| span.trace == way[0].trace), "{way:#?}");
    assert_eq!((way[0].parent.as_str(), way[1].attributes["network.transport"].as_str()), ("", "peer"));
    assert_eq!(way[0].attributes["adit.ray"], way[2].attributes["adit.ray"]);

    let mut command = Command::new(adit());
    command.current_dir(one.folder.path());
    command.args(["tail", "--api-url", &api, "--origincert", "cert.pem", "--event", "http", "demo"]);
    let watched = Process::start("tail", command);
    within("the log is watched", async {
        while !watched.output().contains("GET app.example.test/echo 200") {
            assert_eq!(visit().await, 200);
            assert!(watched.is_running(), "{}", watched.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
}
