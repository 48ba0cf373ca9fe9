//! Alerts by a real edge that is killed: what was written down arrives.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use e2e::DEADLINE;
use e2e::process::Process;
use e2e::visitor::{Speaks, Visitor, to, with_body};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// A webhook on this machine that answers with a status, and hands on heads and bodies.
async fn hook(status: Arc<AtomicU16>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback binds");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    let (told, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let mut bytes = [0; 4096];
            // JSON in one line ends with a brace.
            while !text.ends_with('}') {
                match stream.read(&mut bytes).await {
                    Ok(0) | Err(_) => break,
                    Ok(count) => text.push_str(&String::from_utf8_lossy(&bytes[..count])),
                }
            }
            let status = status.load(Ordering::Relaxed);
            let _ = told.send(text);
            let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, heard)
}

async fn edge(folder: &Path) -> (Process, String) {
    let edge = Process::adit("edge", &["edge", "run", "--config", "edge.toml"], folder);
    let fields = edge.event("listening", |fields| fields["kind"] == "api").await;
    let api = fields["address"].as_str().expect("an address").to_owned();
    (edge, api)
}

fn id_of(text: &str) -> String {
    let found = text.lines().find_map(|line| line.strip_prefix("webhook-id: "));
    found.unwrap_or_else(|| panic!("no id: {text}")).to_owned()
}

#[tokio::test]
async fn an_alert_that_waits_for_its_webhook_outlives_an_edge_that_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let document = "[visitors]\nhttp = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[alerts]\n\
                    private-networks = [\"127.0.0.1\"]\n[[server]]\nregion = \"west\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("edge.toml"), document).expect("a document");
    let made =
        Process::run(&["edge", "init", "--zone", "example.test", "-o", "json"], folder.path(), "").await;
    let account: Value = serde_json::from_str(&made.output).expect("what was made");
    let account = account["account"].as_str().expect("an account").to_owned();
    let token = Process::run(&["edge", "token", "create"], folder.path(), "").await.output.trim().to_owned();
    let ask = async |api: &str, path: &str, body: Value| {
        let request = to("POST", &format!("/accounts/{account}/{path}")).header("host", "api");
        let request = request.header("authorization", format!("Bearer {token}"));
        let visitor = Visitor::new(api.parse().expect("an address"), Speaks::Http1, None);
        let answer = visitor.send(with_body(request, body.to_string())).await.json();
        assert_eq!(answer["success"], true, "{answer}");
        answer["result"]["id"].as_str().expect("an id").to_owned()
    };
    let status = Arc::new(AtomicU16::new(200));
    let (url, mut heard) = hook(status.clone()).await;
    let mut next = async || timeout(DEADLINE, heard.recv()).await.expect("in time").expect("a message");
    let (edge_of_before, api) = edge(folder.path()).await;
    let webhook = ask(&api, "alerting/v3/destinations/webhooks", json!({ "name": "a", "url": url })).await;
    assert!(next().await.contains("\"test\""));
    let policy = json!({
        "name": "p", "enabled": true, "alert_type": "tunnel_update_event",
        "mechanisms": { "webhooks": [{ "id": webhook }] },
    });
    ask(&api, "alerting/v3/policies", policy).await;
    status.store(503, Ordering::Relaxed);
    ask(&api, "cfd_tunnel", json!({ "name": "one" })).await;
    let first = next().await;
    edge_of_before.kill();
    edge_of_before.exit().await;
    status.store(204, Ordering::Relaxed);
    let (edge_of_now, _) = edge(folder.path()).await;
    let second = next().await;
    assert!(second.contains("The tunnel one was created."), "{second}");
    assert_eq!(id_of(&second), id_of(&first));
    edge_of_now.event("an alert has arrived", |_| true).await;
}
