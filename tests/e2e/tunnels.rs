//! A tunnel's whole life by our own commands: made, named, run twice, looked at, cleaned up, deleted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use adit_protocol::credentials::{ApiToken, OriginCert};
use e2e::DEADLINE;
use e2e::certificate::Certificate;
use e2e::process::{Outcome, Process, adit};
use e2e::visitor::{Speaks, Visitor, bare, to};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An edge with a state, and the commands that work on it.
pub(super) struct Office {
    pub(super) folder: TempDir,
    pub(super) edge: Process,
    pub(super) api: String,
    pub(super) visitors: String,
    pub(super) servers: Vec<String>,
    is_secure: bool,
}

impl Office {
    pub(super) async fn open() -> Self {
        Self::open_with(&["example.test".to_owned()]).await
    }

    async fn open_with(zones: &[String]) -> Self {
        Self::open_by(zones, "").await
    }

    /// With an API over TLS, as `localhost`.
    pub(super) async fn open_secure() -> Self {
        let keys = "certificate = \"api.pem\"\nprivate-key = \"api.key\"\n";
        Self::open_by(&["example.test".to_owned()], keys).await
    }

    async fn open_by(zones: &[String], keys: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let [certificate, key] = Certificate::own(&["localhost"]).pem();
        std::fs::write(folder.path().join("api.pem"), certificate).expect("a file");
        std::fs::write(folder.path().join("api.key"), key).expect("a file");
        let mut document = format!(
            "[visitors]\nhttp = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n{keys}\
             tunnel-domain = \"tunnels.test\"\nquick-domain = \"try.test\"\n"
        );
        for region in ["west", "east"] {
            document.push_str(&format!("[[server]]\nregion = \"{region}\"\nlisten = \"127.0.0.1:0\"\n"));
        }
        std::fs::write(folder.path().join("edge.toml"), document).expect("a document");
        let zones = zones.iter().flat_map(|zone| ["--zone", zone]);
        let init: Vec<&str> = ["edge", "init"].into_iter().chain(zones).collect();
        let made = Process::run(&init, folder.path(), "").await;
        assert_eq!(made.code, Some(0), "{made:?}");
        let edge = Process::adit("edge", &["edge", "run", "--config", "edge.toml"], folder.path());
        let address = async |kind: &str| {
            let fields = edge.event("listening", |fields| fields["kind"] == kind).await;
            fields["address"].as_str().expect("an address").to_owned()
        };
        let (api, visitors) = (address("api").await, address("visitors-http").await);
        let mut servers = Vec::new();
        for region in ["west", "east"] {
            let fields = edge.event("listening", |fields| fields["region"] == region).await;
            servers.push(fields["address"].as_str().expect("an address").to_owned());
        }
        let is_secure = !keys.is_empty();
        Self { api, visitors, servers, folder, edge, is_secure }
    }

    /// Where our own commands ask.
    pub(super) fn url(&self) -> String {
        match self.api.rsplit_once(':').filter(|_| self.is_secure) {
            Some((_, port)) => format!("https://localhost:{port}"),
            None => format!("http://{}", self.api),
        }
    }

    fn cert(&self) -> OriginCert {
        let pem = std::fs::read_to_string(self.folder.path().join("cert.pem")).expect("a certificate");
        OriginCert::from_pem(&pem).expect("a good one")
    }

    pub(super) fn account(&self) -> String {
        self.cert().account_id
    }

    /// The same with another token.
    pub(super) fn write_cert(&self, name: &str, token: &str) {
        let pem = OriginCert { api_token: ApiToken::new(token), ..self.cert() }.to_pem();
        std::fs::write(self.folder.path().join(name), pem).expect("a file");
    }

    async fn tunnel(&self, arguments: &[&str]) -> Outcome {
        let api = self.url();
        let flags = ["tunnel", "--api-url", &api, "--api-ca", "api.pem", "--origincert", "cert.pem"];
        Process::run(&[&flags[..], arguments].concat(), self.folder.path(), "").await
    }

    pub(super) async fn done(&self, arguments: &[&str]) -> String {
        let outcome = self.tunnel(arguments).await;
        assert_eq!(outcome.code, Some(0), "{arguments:?}: {outcome:?}");
        outcome.output
    }

    /// A host in a window of its own.
    pub(super) fn window(&self, name: &str, arguments: &[&str]) -> Process {
        self.window_by(Command::new(adit()), name, arguments)
    }

    /// The same by a command with an environment of its own.
    fn window_by(&self, mut command: Command, name: &str, arguments: &[&str]) -> Process {
        let api = self.url();
        command.current_dir(self.folder.path()).args(["--log-format", "json", "--stop-with-stdin"]);
        command.args([
            "tunnel",
            "--api-url",
            &api,
            "--api-ca",
            "api.pem",
            "--origincert",
            "cert.pem",
            "--cacert",
            "edge-data/ca.pem",
        ]);
        command.args(["--metrics", "127.0.0.1:0"]);
        for server in &self.servers {
            command.args(["--edge", server]);
        }
        command.args(arguments);
        Process::start(name, command)
    }

    /// Waits until as many connectors have as many connections each.
    pub(super) async fn connectors(&self, wanted: &[usize]) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let info: Value =
                serde_json::from_str(&self.done(&["info", "demo", "-o", "json"]).await).expect("JSON");
            let count = |connector: &Value| connector["conns"].as_array().map_or(0, Vec::len);
            let mut counts: Vec<_> =
                info["conns"].as_array().expect("connectors").iter().map(count).collect();
            counts.sort_unstable();
            if counts == wanted {
                return info;
            }
            assert!(Instant::now() < end, "not {wanted:?}: {info}\n{}", self.edge.tail());
        }
    }

    /// Waits until as many replicas serve a version of the configuration.
    async fn verdicts(&self, path: &str, version: i32, replicas: usize) -> Vec<Value> {
        let end = Instant::now() + DEADLINE;
        loop {
            let answer = self.api("GET", path, &Value::Null).await;
            let verdicts = answer["replicas"].as_array().expect("verdicts").clone();
            if verdicts.iter().filter(|replica| replica["applied"] == version).count() == replicas {
                return verdicts;
            }
            assert!(Instant::now() < end, "{answer}");
        }
    }

    /// Asks the control API for what no command does, with what cert.pem allows.
    pub(super) async fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let cert = self.cert();
        let (body, account) = (body.to_string(), cert.account_id);
        let head = format!(
            "{method} /accounts/{account}{path} HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {}\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n",
            cert.api_token.as_str(),
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(&self.api).await.expect("the edge listens");
        stream.write_all((head + &body).as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        let (_, json) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let answer: Value = serde_json::from_str(json).expect("JSON");
        assert_eq!(answer["success"], true, "{answer}");
        answer["result"].clone()
    }

    async fn visit(&self, host: &str) -> u16 {
        self.visit_at(host, "/").await
    }

    pub(super) async fn visit_at(&self, host: &str, path: &str) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.visitors).await.expect("the edge listens");
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("it answers");
        answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
}

#[tokio::test]
async fn one_tunnel_in_two_windows_has_one_id_two_connectors_and_eight_connections() {
    let office = Office::open().await;
    assert!(office.done(&["list"]).await.contains("No tunnels fit"));
    let made = office.done(&["create", "demo"]).await;
    let again = office.tunnel(&["create", "demo"]).await;
    assert!(again.code == Some(1) && again.log.contains("already"), "{again:?}");
    let routed = office.done(&["route", "dns", "demo", "app.example.test"]).await;
    let id = routed.trim().rsplit(' ').next().expect("an id").to_owned();
    assert!(made.contains(&id), "{made}");
    assert_eq!(office.visit("app.example.test").await, 530, "nothing is proxied unless the tunnel runs");

    let token = office.done(&["token", "demo"]).await;
    let one = office.window("one", &["--url", "hello_world", "run", "demo"]);
    let two = office.window("two", &["--url", "hello_world", "run", "--token", token.trim()]);
    office.connectors(&[4, 4]).await;
    // `info` asks for the tunnel, then for its connectors: the status may be of a moment before the last came.
    let info = office.connectors(&[4, 4]).await;
    assert_eq!((info["id"].as_str(), info["status"].as_str()), (Some(&*id), Some("healthy")));
    assert_ne!(info["conns"][0]["id"], info["conns"][1]["id"]);
    assert_eq!(office.visit("app.example.test").await, 200);
    assert_eq!(office.visit(&format!("{id}.tunnels.test")).await, 200);
    let table = office.done(&["list"]).await;
    assert!(table.contains("demo") && table.contains("x"), "{table}");

    two.kill();
    office.connectors(&[4]).await;
    assert_eq!(office.visit("app.example.test").await, 200);
    let refused = office.tunnel(&["delete", "demo"]).await;
    assert!(refused.code == Some(1) && refused.log.contains("active connections"), "{refused:?}");
    office.done(&["cleanup", "demo"]).await;
    office.done(&["delete", "--force", "demo"]).await;
    assert!(!office.folder.path().join(format!("{id}.json")).exists(), "its credentials went with it");
    // It lost its connections, and gets no others.
    office.edge.event("refused", |_| true).await;
    assert_eq!(office.visit("app.example.test").await, 404);
    one.terminate();
    assert!(one.exit().await.success());
}

/// All below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_host_that_is_killed_leaves_its_secret_in_no_file() {
    let office = Office::open().await;
    office.done(&["create", "demo"]).await;
    office.done(&["route", "dns", "demo", "app.example.test"]).await;
    let token = office.done(&["token", "demo"]).await;
    let credentials = office.done(&["token", "demo", "--cred-file", "given.json"]).await;
    assert!(!credentials.contains("TunnelSecret"), "{credentials}");
    let credentials = std::fs::read_to_string(office.folder.path().join("given.json")).unwrap();
    let quick = format!("http://{}", office.api);
    // Wherever a program may put something by itself, even while it runs.
    let (temporary, own) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (arguments, variables) in [
        (&["run", "--token", token.trim()][..], &[][..]),
        (&["run"], &[("TUNNEL_TOKEN", token.trim())]),
        (&["run", "--credentials-contents", &credentials, "demo"], &[]),
        (&["run", "--credentials-file", "given.json", "demo"], &[]),
        (&["--quick-service", &quick], &[]),
    ] {
        let mut command = Command::new(adit());
        for name in ["HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            command.env(name, own.path());
        }
        command.env("TMPDIR", temporary.path()).envs(variables.iter().copied());
        let host = office.window_by(command, "killed", &[&["--url", "hello_world"], arguments].concat());
        host.event("registered", |_| true).await;
        // It is read again with each configuration.
        let before = host.mark();
        host.hang_up();
        host.event_after(before, "configuration applied", |_| true).await;
        host.kill();
        host.exit().await;
        let left: Vec<_> = files(temporary.path()).into_iter().chain(files(own.path())).collect();
        assert!(left.is_empty(), "{arguments:?} left {left:?}");
    }
}

#[tokio::test]
async fn pools_and_load_balancers_are_made_changed_and_taken_away_by_our_own_commands() {
    let office = Office::open().await;
    let api = format!("http://{}", office.api);
    let ask = async |words: &[&str]| {
        let flags = ["--api-url", &api, "--origincert", "cert.pem"];
        Process::run(&[words, &flags[..]].concat(), office.folder.path(), "").await
    };
    let done = async |words: &[&str]| {
        let outcome = ask(words).await;
        assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
        outcome
    };
    for name in ["one", "two", "three"] {
        office.done(&["create", name]).await;
    }
    let monitor = done(&["monitor", "create", "--path", "/health"]).await;
    let monitor = monitor.output.trim();
    done(&["pool", "create", "shop", "one", "two=0.5", "--policy", "least-connections"]).await;
    done(&["pool", "set", "shop", "--monitor", monitor]).await;
    done(&["pool", "create", "spare", "three"]).await;
    done(&["lb", "create", "app.example.test", "shop", "--fallback", "spare"]).await;
    let pools = done(&["pool", "list"]).await.output;
    assert!(pools.contains("one=1.0, two=0.5") && pools.contains("least_connections"), "{pools}");
    let status = async || -> Value {
        let status = done(&["lb", "status", "app.example.test", "-o", "json"]).await;
        serde_json::from_str(&status.output).expect("JSON")
    };
    let seen = status().await;
    assert_eq!(seen["pools"][0]["endpoints"][1]["tunnel_name"], "two");
    assert_eq!(seen["pools"][0]["endpoints"][1]["failure_reason"], "no host of the tunnel is connected");
    assert_eq!(
        (&seen["pools"][0]["may_serve"], &seen["pools"][1]["fallback"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(office.visit("app.example.test").await, 530);

    let _one = office.window("one", &["--url", "hello_world", "run", "three"]);
    let end = Instant::now() + DEADLINE;
    while office.visit("app.example.test").await != 200 {
        assert!(Instant::now() < end, "the fallback serves: {}", status().await);
    }
    done(&["pool", "add", "shop", "three=0.25", "one=0"]).await;
    done(&["pool", "remove", "shop", "two"]).await;
    let seen = status().await;
    let weights: Vec<_> =
        seen["pools"][0]["endpoints"].as_array().unwrap().iter().map(|one| &one["weight"]).collect();
    assert_eq!(weights, [&json!(0.0), &json!(0.25)]);
    assert_eq!(seen["pools"][0]["may_serve"], true);
    for _ in 0..10 {
        assert_eq!(office.visit("app.example.test").await, 200);
    }
    let seen = status().await;
    assert_eq!(seen["pools"][0]["endpoints"][1]["requests_last_minute"], 10);
    done(&["lb", "set", "app.example.test", "--policy", "random", "--failover-across-pools", "true"]).await;
    let listed = done(&["lb", "list"]).await.output;
    assert!(listed.contains("random") && listed.contains("spare"), "{listed}");

    for (words, code, reason) in [
        (&["pool", "delete", "shop"][..], 1, "is named by load balancer"),
        (&["pool", "create", "shop", "nobody"], 1, "no tunnel named `nobody`"),
        (&["pool", "create", "shop", "one=x"], 1, "`x` is no weight"),
        (&["pool", "create", "a.b", "one=3"], 1, "`origins[0].weight`"),
        (&["pool", "remove", "shop", "two"], 1, "is not in the pool"),
        (&["lb", "create", "app.other.org", "shop"], 1, "is in no zone"),
        (&["lb", "create", "b.example.test", "shop", "none", "nor"], 1, "no pool `none`, `nor`"),
        (&["lb", "status", "b.example.test"], 1, "`adit lb list` shows"),
        (&["lb", "set", "app.example.test", "--policy", "best"], 2, "possible values"),
    ] {
        let outcome = ask(words).await;
        assert!(outcome.code == Some(code) && outcome.log.contains(reason), "{words:?}: {outcome:?}");
    }
    for words in [
        &["lb", "delete", "app.example.test"][..],
        &["pool", "delete", "shop"],
        &["pool", "delete", "spare"],
        &["monitor", "delete", monitor],
    ] {
        done(words).await;
    }
    assert_eq!(office.visit("app.example.test").await, 404);
}

#[tokio::test]
async fn a_configuration_put_once_reaches_every_window_and_those_that_open_later() {
    let office = Office::open().await;
    office.done(&["create", "demo"]).await;
    let routed = office.done(&["route", "dns", "demo", "app.example.test"]).await;
    let id = routed.trim().rsplit(' ').next().expect("an id").to_owned();
    let token = office.done(&["token", "demo"]).await;
    let arguments = ["run", "--token", token.trim()];
    let one = office.window("one", &arguments);
    office.connectors(&[4]).await;
    assert_eq!(office.visit("app.example.test").await, 503, "it has no rules yet");

    let path = format!("/cfd_tunnel/{id}/configurations");
    let rules =
        |status: u16| json!({ "config": { "ingress": [{ "service": format!("http_status:{status}") }] } });
    assert_eq!(office.api("PUT", &path, &rules(418)).await["version"], 1);
    one.event("configuration applied", |_| true).await;
    assert_eq!(office.visit("app.example.test").await, 418);

    let _two = office.window("two", &arguments);
    office.connectors(&[4, 4]).await;
    let verdicts = office.verdicts(&path, 1, 2).await;
    assert!(verdicts.iter().all(|replica| replica["error"].is_null()), "{verdicts:?}");
    assert_eq!(office.api("PUT", &path, &rules(451)).await["version"], 2);
    office.verdicts(&path, 2, 2).await;
    for _ in 0..20 {
        assert_eq!(office.visit("app.example.test").await, 451);
    }
}

#[tokio::test]
async fn a_quick_tunnel_serves_under_the_name_that_it_prints() {
    let office = Office::open().await;
    let quick = office.window("quick", &["--url", "hello_world"]);
    let said = quick.printed("http://").await;
    let name =
        said.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).expect("a name").to_owned();
    quick.event("registered", |_| true).await;
    assert_eq!(office.visit(&name).await, 200, "{name}");
    let listening = quick.event("listening", |event| event["kind"] == "admin").await;
    let admin = Visitor::new(listening["address"].as_str().unwrap().parse().unwrap(), Speaks::Http1, None);
    let page = async |path: &str| admin.send(bare(to("GET", path).header("host", "localhost"))).await;
    assert_eq!(page("/quicktunnel").await.json(), json!({ "hostname": name }));
    let metric = format!("\ncloudflared_tunnel_user_hostnames_counts{{userHostname=\"https://{name}\"}} 1\n");
    assert!(page("/metrics").await.text().contains(&metric), "{metric}");
}

#[tokio::test]
async fn a_quick_tunnel_may_answer_with_a_status_also_with_the_one_of_what_is_not_served_yet() {
    let office = Office::open().await;
    for status in [501, 418] {
        let quick = office.window("quick", &["--url", &format!("http_status:{status}")]);
        let said = quick.printed("http://").await;
        let name =
            said.split("http://").nth(1).and_then(|rest| rest.split(' ').next()).expect("a name").to_owned();
        quick.event("registered", |_| true).await;
        assert_eq!(office.visit(&name).await, status, "{name}");
    }
}

#[tokio::test]
async fn a_token_becomes_a_certificate_that_works() {
    let office = Office::open().await;
    let token = Process::run(&["edge", "token", "create", "--name", "ci"], office.folder.path(), "").await;
    assert_eq!(token.code, Some(0), "{token:?}");
    let api = format!("http://{}", office.api);
    let with = |command: &'static str| {
        ["tunnel", "--api-url", &api, "--origincert", "new/cert.pem", command].map(str::to_owned)
    };
    let end = Instant::now() + DEADLINE;
    // The running edge takes the new token over within a second.
    loop {
        let arguments = with("login");
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let login = Process::run(&arguments, office.folder.path(), &token.output).await;
        if login.code == Some(0) {
            assert!(!login.output.contains("adit_"), "{login:?}");
            break;
        }
        assert!(Instant::now() < end && login.log.contains("401"), "{login:?}");
    }
    let arguments = with("list");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let list = Process::run(&arguments, office.folder.path(), "").await;
    assert_eq!(list.code, Some(0), "{list:?}");
}

#[tokio::test]
async fn a_name_in_a_zone_of_the_second_page_is_led_to_its_tunnel_too() {
    // A page has a thousand, and where there are several the file does not say one.
    let zones: Vec<String> = (0..=1000).map(|number| format!("z{number:04}.test")).collect();
    let office = Office::open_with(&zones).await;
    office.done(&["create", "demo"]).await;
    for zone in ["z0000", "z1000"] {
        let said = office.done(&["route", "dns", "demo", &format!("a.{zone}.test")]).await;
        assert!(said.contains("now leads to"), "{said}");
    }
}
