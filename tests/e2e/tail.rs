//! A host's log, watched through its edge: by whom, what is in it and what is not.

use std::path::Path;
use std::process::Command;

use e2e::process::{Process, adit};
use e2e::within;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::tunnels::Office;

const NAME: &str = "app.example.test";
const SECRET: &str = "hunter2-in-a-query";

/// An edge with the tunnel `demo`, and a host of it over this protocol.
async fn served(protocol: &str) -> (Office, Process) {
    let office = Office::open().await;
    office.done(&["create", "demo"]).await;
    office.done(&["route", "dns", "demo", NAME]).await;
    let host = office.window("host", &["--protocol", protocol, "--url", "hello_world", "run", "demo"]);
    office.connectors(&[4]).await;
    (office, host)
}

/// Somebody who watches by our own command.
fn watcher(office: &Office, arguments: &[&str]) -> Process {
    let mut command = Command::new(adit());
    command.current_dir(office.folder.path()).args([
        "tail",
        "--api-url",
        &office.url(),
        "--origincert",
        "cert.pem",
    ]);
    command.args(["--api-ca", "api.pem"]).args(arguments);
    Process::start("tail", command)
}

/// Has visitors come until the watcher shows a line that contains all of `texts`.
async fn shown(office: &Office, watcher: &Process, path: &str, texts: &[&str]) -> String {
    within("a request is watched", async {
        loop {
            assert_eq!(office.visit_at(NAME, path).await, 200);
            let output = watcher.output();
            let mut lines = output.lines();
            if let Some(line) = lines.find(|line| texts.iter().all(|text| line.contains(text))) {
                return line.to_owned();
            }
            assert!(watcher.is_running(), "{}", watcher.log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
}

/// The control API at the paths where hosts are asked about themselves.
async fn asked(address: &str, path: &str, host: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    (status, body.to_owned())
}

async fn token(office: &Office, path: &str) -> String {
    let answer = office.api("POST", path, &Value::Null).await;
    answer.as_str().expect("a token is a text").to_owned()
}

fn id_of(tunnel: &Value) -> &str {
    tunnel["id"].as_str().unwrap()
}

#[tokio::test]
async fn requests_are_watched_as_they_come_over_both_transports_and_without_their_secrets() {
    for protocol in ["quic", "http2"] {
        let (office, host) = served(protocol).await;
        let path = format!("/?token={SECRET}&page=2");
        let watched = watcher(&office, &["demo", "--event", "http", "--output", "json"]);
        let line = shown(&office, &watched, &path, &["GET ", "\"http\""]).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&line["level"], &line["event"]), (&json!("debug"), &json!("http")), "{line}");
        assert!(line["message"].as_str().unwrap().starts_with(&format!("GET {NAME}/")), "{line}");
        assert_eq!(
            (&line["fields"]["status"], &line["fields"]["host"]),
            (&json!(200), &json!(NAME)),
            "{line}"
        );
        assert!(!host.log().contains("\"access\""), "the host's own log has nothing to do with it");

        // Whoever has the same token watches here instead.
        let again = watcher(&office, &["demo", "--level", "info", "--sample", "1"]);
        assert_eq!(watched.exit().await.code(), Some(0), "{}", watched.log());
        assert!(watched.log().contains("watched from elsewhere"), "{}", watched.log());
        // What is logged at that level: a changed document is not here, but its reading is.
        within("the host says something", async {
            while !again.output().contains(" cloudflared ") {
                host.hang_up();
                assert!(again.is_running(), "{}", again.log());
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        })
        .await;
        assert!(!again.output().contains(" http "), "requests are below that level: {}", again.output());
        again.interrupt();
        assert_eq!(again.exit().await.code(), Some(0), "{}", again.log());
        for (place, text) in [("tail", watched.output()), ("host", host.log()), ("edge", office.edge.log())] {
            assert!(!text.contains(SECRET), "it is in what the {place} says over {protocol}");
        }

        // A host that ends is not kept by who watches.
        let last = watcher(&office, &["demo", "--event", "http"]);
        shown(&office, &last, "/", &[" http "]).await;
        host.terminate();
        assert!(within("the host ends", host.exit()).await.success());
        assert_eq!(within("its watcher ends", last.exit()).await.code(), Some(1), "{}", last.log());
        let nobody = watcher(&office, &["demo"]);
        assert_eq!(nobody.exit().await.code(), Some(1));
        assert!(nobody.log().contains("530"), "{}", nobody.log());
    }
}

#[tokio::test]
async fn a_host_answers_only_who_has_a_token_for_this_tunnel_and_this_question() {
    let (office, _host) = served("quic").await;
    let tunnels = office.api("GET", "/cfd_tunnel?name=demo", &Value::Null).await;
    let tunnel = id_of(&tunnels[0]).to_owned();
    let other = office.api("POST", "/cfd_tunnel", &json!({ "name": "other" })).await;
    let logs = token(&office, &format!("/cfd_tunnel/{tunnel}/management/logs")).await;
    let details = token(&office, &format!("/cfd_tunnel/{tunnel}/management/host_details")).await;
    let wanted = json!({ "resources": ["admin"] });
    let admin = office.api("POST", &format!("/cfd_tunnel/{tunnel}/management"), &wanted).await;
    let admin = admin.as_str().unwrap().to_owned();
    let elsewhere = token(&office, &format!("/cfd_tunnel/{}/management/logs", id_of(&other))).await;
    let signature = logs.rsplit('.').next().unwrap();
    let forged = format!("{}.{signature}", admin.rsplit_once('.').unwrap().0);
    for (path, token, wanted) in [
        ("/ping", "", 400),
        ("/ping", "a.b.c", 401),
        ("/ping", &forged, 401),
        ("/ping", &logs, 200),
        ("/ping", &elsewhere, 530),
        ("/host_details", &logs, 403),
        ("/host_details", &details, 200),
        ("/host_details", &admin, 200),
        ("/logs", &details, 403),
        ("/logs", &logs, 426),
    ] {
        let (status, body) = asked(&office.api, &format!("{path}?access_token={token}"), "api").await;
        assert_eq!(status, wanted, "{path}: {body}");
    }
    let connectors = office.connectors(&[4]).await;
    let connector = connectors["conns"][0]["id"].as_str().unwrap();
    let query = |id: &str| format!("/host_details?access_token={details}&connector_id={id}");
    let (status, body) = asked(&office.api, &query(connector), "api").await;
    let body: Value = serde_json::from_str(&body).unwrap_or_else(|_| panic!("{status}: {body}"));
    assert_eq!(body["connector_id"], connector);
    assert!(!body["hostname"].as_str().unwrap().is_empty());
    assert_eq!(asked(&office.api, &query(id_of(&other)), "api").await.0, 530, "no such connector");
    assert_eq!(asked(&office.api, &query("x"), "api").await.0, 400);

    // Visitors get nowhere, whatever name leads to a tunnel, with the best of tokens.
    for host in ["management.argotunnel.com", "Management.Argotunnel.Com:80", NAME] {
        let (_, body) = asked(&office.visitors, &format!("/host_details?access_token={admin}"), host).await;
        assert!(!body.contains("connector_id"), "{host}: {body}");
    }

    // One that may only read gets none, and with an API token all go that it has made.
    let run = async |arguments: &[&str]| Process::run(arguments, office.folder.path(), "").await;
    let made = run(&["edge", "token", "create", "--name", "reader", "--read-only", "--output", "json"]).await;
    let reader: Value = serde_json::from_str(&made.output).unwrap_or_else(|_| panic!("{made:?}"));
    let reader = reader["token"].as_str().unwrap_or_else(|| panic!("{reader}"));
    let mut stream = TcpStream::connect(&office.api).await.unwrap();
    let account = office.account();
    let request = format!(
        "POST /accounts/{account}/cfd_tunnel/{tunnel}/management/logs HTTP/1.1\r\nhost: api\r\nauthorization: Bearer {reader}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    let verified = office.api("GET", "/tokens/verify", &Value::Null).await;
    let revoked = run(&["edge", "token", "revoke", id_of(&verified)]).await;
    assert_eq!(revoked.code, Some(0), "{revoked:?}");
    assert_eq!(asked(&office.api, &format!("/ping?access_token={logs}"), "api").await.0, 401);
    let log = office.edge.log();
    assert!(!log.contains(&logs) && !log.contains(&admin), "tokens are in no log");
}

#[tokio::test]
async fn requests_go_on_while_somebody_watches_and_takes_nothing() {
    let (office, host) = served("quic").await;
    let tunnels = office.api("GET", "/cfd_tunnel?name=demo", &Value::Null).await;
    let logs = token(&office, &format!("/cfd_tunnel/{}/management/logs", id_of(&tunnels[0]))).await;
    let mut stream = TcpStream::connect(&office.api).await.unwrap();
    let request = format!(
        "GET /logs?access_token={logs} HTTP/1.1\r\nhost: api\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = vec![0; 4096];
    let read = stream.read(&mut head).await.unwrap();
    let head = String::from_utf8_lossy(&head[..read]).into_owned();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    let start = adit_protocol::websocket::text(br#"{"type":"start_streaming"}"#, Some([1, 2, 3, 4]));
    stream.write_all(&start).await.unwrap();
    for _ in 0..300 {
        assert_eq!(office.visit_at(NAME, "/").await, 200);
    }
    // Somebody else is told that it is watched.
    let made = ["edge", "token", "create", "--name", "second", "--output", "json"];
    let made = Process::run(&made, office.folder.path(), "").await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let second: Value = serde_json::from_str(&made.output).unwrap();
    office.write_cert("second.pem", second["token"].as_str().unwrap());
    let mut command = Command::new(adit());
    command.current_dir(office.folder.path());
    let api = format!("http://{}", office.api);
    command.args(["tail", "--api-url", &api, "--origincert", "second.pem", "demo"]);
    let refused = Process::start("tail", command);
    assert_eq!(refused.exit().await.code(), Some(1));
    assert!(refused.log().contains("somebody else watches"), "{}", refused.log());
    drop(stream);
    // With the watcher its place has gone.
    within("nobody watches", async {
        loop {
            let watched = watcher(&office, &["demo", "--event", "http"]);
            let line = async {
                while watched.is_running() {
                    assert_eq!(office.visit_at(NAME, "/").await, 200);
                    if watched.output().contains(" http ") {
                        return true;
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
                false
            };
            if line.await {
                return;
            }
        }
    })
    .await;
    drop(host);
}

/// The reference's own programs at both ends: its connector watched by ours, and ours by its client.
#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn the_reference_watches_our_host_and_ours_watches_its_connector() {
    let program = e2e::reference::program();
    let office = Office::open_secure().await;
    office.done(&["create", "demo"]).await;
    office.done(&["route", "dns", "demo", NAME]).await;
    let host = office.window("host", &["--url", "hello_world", "run", "demo"]);
    office.connectors(&[4]).await;
    let port = office.api.rsplit(':').next().unwrap();
    let printed = Process::run(
        &[
            "tail",
            "--api-url",
            &office.url(),
            "--api-ca",
            "api.pem",
            "--origincert",
            "cert.pem",
            "token",
            "demo",
        ],
        office.folder.path(),
        "",
    )
    .await;
    let printed: Value = serde_json::from_str(&printed.output).unwrap_or_else(|_| panic!("{printed:?}"));
    let token = printed["token"].as_str().unwrap().to_owned();
    let mut command = Command::new(&program);
    command.current_dir(office.folder.path()).env("SSL_CERT_FILE", "api.pem");
    command.env("TUNNEL_MANAGEMENT_TOKEN", &token);
    command.args([
        "tail",
        "--management-hostname",
        &format!("localhost:{port}"),
        "--event",
        "http",
        "--output",
        "json",
    ]);
    let theirs = Process::start("their tail", command);
    let line = shown(&office, &theirs, "/", &["\"http\""]).await;
    let line: Value = serde_json::from_str(&line).unwrap();
    assert!(line["message"].as_str().unwrap().starts_with("GET app.example.test/"), "{line}");
    theirs.interrupt();
    theirs.exit().await;
    host.terminate();
    host.exit().await;

    for protocol in ["quic", "http2"] {
        let run = office.done(&["token", "demo"]).await;
        let mut command = Command::new(Path::new(&program));
        command.current_dir(office.folder.path()).env("TUNNEL_TOKEN", run.trim());
        command.args(["tunnel", "--no-autoupdate", "--no-prechecks", "--cacert", "edge-data/ca.pem"]);
        command.args(["--protocol", protocol, "--metrics", "127.0.0.1:0", "--url", "http://127.0.0.1:1"]);
        for server in office.servers.iter().cycle().take(8) {
            command.args(["--edge", server]);
        }
        command.arg("run");
        let connector = Process::start("their connector", command);
        office.connectors(&[4]).await;
        let ours = watcher(&office, &["demo", "--level", "debug"]);
        within("their log is watched", async {
            while !ours.output().contains(" http ") {
                office.visit_at(NAME, "/").await;
                assert!(ours.is_running(), "{}", ours.log());
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
        ours.interrupt();
        assert_eq!(ours.exit().await.code(), Some(0), "{}", ours.log());
        connector.terminate();
        connector.exit().await;
    }
}
