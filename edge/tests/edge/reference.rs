//! The unmodified reference CLI and connector against this edge: the whole life of a tunnel.
//! `cargo xtask reference PROGRAM` runs these tests.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use adit_edge::TokenRequest;
use adit_protocol::credentials::Credentials;
use http::Request;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::harness::empty;
use crate::office::Office;

/// The reference's program with what tells it about this edge.
struct Reference<'o> {
    program: String,
    office: &'o Office,
}

struct Outcome {
    code: Option<i32>,
    output: String,
    log: String,
}

impl Reference<'_> {
    fn folder(&self) -> &Path {
        self.office.edge.folder.path()
    }

    fn command(&self, flags: &[&str], rest: &[&str]) -> Command {
        let api = format!("http://{}", self.office.edge.api.unwrap());
        let mut command = Command::new(&self.program);
        // Nothing of this machine's own set-up may matter.
        command.env_clear().env("HOME", self.folder()).current_dir(self.folder()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["tunnel", "--api-url", &api, "--origincert", "cert.pem"]).args(flags).args(rest);
        command
    }

    async fn run(&self, rest: &[&str]) -> Outcome {
        let ended = self.command(&[], rest).output().await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Outcome { code: ended.status.code(), output: text(ended.stdout), log: text(ended.stderr) }
    }

    /// The same, which must do what was asked.
    async fn done(&self, rest: &[&str]) -> String {
        let Outcome { code, output, log } = self.run(rest).await;
        assert_eq!(code, Some(0), "{rest:?}: {output}{log}");
        output
    }

    async fn json(&self, rest: &[&str]) -> Value {
        let output = self.done(rest).await;
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
    }

    /// A connector in a window of its own; it ends when it is dropped.
    fn window(&self, flags: &[&str], rest: &[&str]) -> Child {
        let ca = self.office.edge.ca.to_str().unwrap().to_owned();
        let mut all =
            vec!["--no-autoupdate", "--metrics", "127.0.0.1:0", "--cacert", &ca, "--grace-period", "1s"];
        let servers: Vec<String> = self.office.edge.servers.iter().map(ToString::to_string).collect();
        // Each as often as a failing connection may ask for one that is free.
        for server in servers.iter().cycle().take(8) {
            all.extend(["--edge", server]);
        }
        all.extend(flags);
        let mut command = self.command(&all, rest);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    /// Connections by connector, once there are as many of both.
    async fn connectors(&self, name: &str, wanted: &[usize]) -> Value {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let info = self.json(&["info", "-o", "json", name]).await;
            let connectors = info["conns"].as_array().cloned().unwrap_or_default();
            let mut counts: Vec<_> =
                connectors.iter().map(|one| one["conns"].as_array().unwrap().len()).collect();
            counts.sort_unstable();
            if counts == wanted {
                return info;
            }
            assert!(Instant::now() < end, "not {wanted:?} in time: {info}");
            sleep(Duration::from_millis(300)).await;
        }
    }
}

fn program() -> String {
    std::env::var("ADIT_REFERENCE_CONNECTOR").expect("ADIT_REFERENCE_CONNECTOR names the program")
}

async fn visit(office: &Office, host: &str) -> u16 {
    let request = Request::get("/").header("host", host).body(empty()).unwrap();
    office.edge.page(request).await.status.as_u16()
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_cli_and_connector_live_a_tunnels_whole_life_here() {
    let program = program();
    let office = Office::open().await;
    let cert = office.ledger.create_certificate(TokenRequest::default(), &office.zone).await.unwrap();
    std::fs::write(office.edge.folder.path().join("cert.pem"), cert.to_pem()).unwrap();
    office.token(TokenRequest::default()).await;
    let reference = Reference { program, office: &office };

    assert!(reference.done(&["list"]).await.contains("No tunnels were found"));
    let made = reference.done(&["create", "--credentials-file", "shop.json", "demo"]).await;
    let file = std::fs::read(office.edge.folder.path().join("shop.json")).unwrap();
    let credentials = Credentials::from_json(&file).unwrap();
    let id = credentials.tunnel_id.to_string();
    assert!(made.contains(&id), "{made}");
    let again = reference.run(&["create", "--credentials-file", "other.json", "demo"]).await;
    assert!(again.code != Some(0) && again.log.contains("already exists"), "{}", again.log);

    let list = reference.json(&["list", "-o", "json"]).await;
    assert_eq!((&list[0]["id"], &list[0]["name"]), (&Value::from(id.as_str()), &Value::from("demo")));
    assert!(reference.done(&["list", "--name-prefix", "x"]).await.contains("No tunnels were found"));
    assert!(reference.done(&["info", "demo"]).await.contains("does not have any active connection"));
    let token = reference.done(&["token", "demo"]).await;
    assert_eq!(Credentials::from_token(&token).unwrap(), credentials);

    reference.done(&["route", "dns", "demo", "app.example.com"]).await;
    let routed = reference.run(&["route", "dns", "demo", "app.example.com"]).await;
    assert!(routed.log.contains("already configured"), "{}", routed.log);
    let foreign = reference.run(&["route", "dns", "demo", "app.example.org"]).await;
    assert!(foreign.code != Some(0) && foreign.log.contains("in no zone"), "{}", foreign.log);
    let balanced = reference.run(&["route", "lb", "demo", "lb.example.com", "pool"]).await;
    assert!(balanced.code == Some(0) && balanced.log.contains("added a new pool"), "{}", balanced.log);
    let again = reference.run(&["route", "lb", "demo", "lb.example.com", "pool"]).await;
    assert!(again.code == Some(0) && !again.log.contains("added a new pool"), "{}", again.log);
    assert_eq!(visit(&office, "lb.example.com").await, 530, "no tunnel of its pool runs");
    assert_eq!(visit(&office, "app.example.com").await, 530, "nothing is proxied unless the tunnel runs");

    // Two windows: one by the credentials, one by the token, over both transports.
    let rules = "ingress: [{service: 'http_status:204'}]";
    std::fs::write(office.edge.folder.path().join("config.yml"), rules).unwrap();
    let one = reference.window(
        &["--config", "config.yml", "--protocol", "quic"],
        &["run", "--credentials-file", "shop.json", "demo"],
    );
    let mut two = reference
        .window(&["--config", "config.yml", "--protocol", "http2"], &["run", "--token", token.trim()]);
    let info = reference.connectors("demo", &[4, 4]).await;
    assert_eq!(info["id"], id.as_str(), "one tunnel, two connectors, eight connections");
    assert_ne!(info["conns"][0]["id"], info["conns"][1]["id"]);
    let table = reference.done(&["info", "demo"]).await;
    assert!(table.contains("2xeast-1, 2xwest-1"), "{table}");
    assert!(reference.done(&["list"]).await.contains("4xeast-1, 4xwest-1"));
    assert_eq!(visit(&office, "app.example.com").await, 204);
    assert_eq!(visit(&office, &format!("{id}.tunnels.test")).await, 204);

    two.kill().await.unwrap();
    reference.connectors("demo", &[4]).await;
    assert_eq!(visit(&office, "app.example.com").await, 204);
    let refused = reference.run(&["delete", "demo"]).await;
    assert!(refused.code != Some(0) && refused.log.contains("active connections"), "{}", refused.log);
    reference.done(&["cleanup", "demo"]).await;
    reference.connectors("demo", &[4]).await;
    reference.done(&["delete", "--force", "demo"]).await;
    let end = Instant::now() + Duration::from_secs(10);
    while office.get(&office.tunnel(&id)).await["connections"] != serde_json::json!([]) {
        assert!(Instant::now() < end, "a deleted tunnel keeps its connections");
        sleep(Duration::from_millis(100)).await;
    }
    // It goes on asking, and is refused.
    drop(one);
    assert_eq!(visit(&office, "app.example.com").await, 404);
    assert!(reference.done(&["list"]).await.contains("No tunnels were found"));
    assert!(reference.done(&["list", "--show-deleted"]).await.contains(&id));
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn a_quick_tunnel_of_the_reference_is_served() {
    let program = program();
    let office = Office::open().await;
    let reference = Reference { program, office: &office };
    let service = format!("http://{}", office.edge.api.unwrap());
    let _window = reference.window(&["--quick-service", &service, "--url", "http://127.0.0.1:9"], &[]);
    let end = Instant::now() + Duration::from_secs(30);
    // The only route there is.
    let hostname = loop {
        let found = quick_hostname(&office);
        if let Some(hostname) = found
            && visit(&office, &hostname).await == 502
        {
            break hostname;
        }
        assert!(Instant::now() < end, "no quick tunnel serves in time");
        sleep(Duration::from_millis(300)).await;
    };
    assert!(hostname.ends_with(".try.test"));
}

fn quick_hostname(office: &Office) -> Option<String> {
    let file = adit_edge::Provisioning::file(&office.edge.folder.path().join("edge-data"));
    let state = rusqlite::Connection::open(file).unwrap();
    let key =
        state.query_row("SELECT key FROM record WHERE key LIKE 'route/%'", [], |row| row.get::<_, String>(0));
    key.ok()?.strip_prefix("route/").map(str::to_owned)
}
