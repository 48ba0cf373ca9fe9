//! A rule's path guards: whatever a path may mean to a service, no visitor comes to what stands behind a
//! plugin without passing it.

#[path = "../../address/tests/servers/mod.rs"]
mod servers;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::process::Process;
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, bare, get, to};
use serde_json::Value;
use servers::READERS;

const README: &str = include_str!("../../README.md");
const SECRET: &str = "what only those with a password see";

/// The rules and the plugin of README's host, for this service.
async fn readme(site: &Site, service: &str) -> HostDocument {
    let mut blocks = README.split("```toml\n").skip(1).filter_map(|block| block.split("\n```").next());
    let document = blocks.find(|block| block.contains("[[ingress]]")).unwrap();
    let password = Process::run(&["hash-password"], site.folder(), "open sesame\n").await.output;
    let document = document
        .replace("$pbkdf2-sha256$…", password.trim())
        .replace("app.example.com", HOST)
        .replace("http://127.0.0.1:3000", service);
    let (plugin, rules) = document.split_at(document.find("[[ingress]]").unwrap());
    let mut host = HostDocument::new().over(super::PROTOCOL);
    host.plugins = plugin[plugin.find("[[plugin]]").unwrap()..].to_owned();
    host.rules = rules.to_owned();
    host
}

/// A service that reads a path in every way, and shows the secret if it is below `/private` by one of them;
/// else the path that it was sent.
fn reads_everything() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || show(&stream.unwrap()));
        }
    });
    address
}

fn show(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(first)) = lines.next() {
        let mut head = Vec::new();
        while let Some(Ok(line)) = lines.next() {
            if line.is_empty() {
                break;
            }
            head.push(line.to_ascii_lowercase());
        }
        let told = head.iter().find_map(|line| line.strip_prefix("x-original-url: "));
        let sent = first.split(' ').nth(1).unwrap();
        let path = told.unwrap_or(sent).split('?').next().unwrap();
        let is_secret = READERS.iter().any(|(_, reader)| reader(path).starts_with("/private"));
        let body = if is_secret { SECRET } else { sent };
        let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    }
}

/// Paths of up to three of these pieces, with what is guarded somewhere in them.
fn paths() -> Vec<String> {
    let pieces = [
        "/",
        "//",
        "/x/..",
        "/x",
        "/.",
        "%2f",
        "/x%2f..",
        "/..;a",
        "\\",
        "%5c",
        "/%2e%2e",
        ";a/",
        "%252f",
        "/%252e%252e",
    ];
    let mut paths = Vec::new();
    for first in pieces {
        for second in ["", "/", "//", "%2f", "\\", "/../"] {
            for tail in [
                "private/x",
                "%70rivate/x",
                "private%2f..%2fx",
                "private/../x",
                "x",
                "private/..%5c..%5cx",
                "y/../private//../x",
            ] {
                let path = format!("{first}{second}{tail}");
                paths.push(if path.starts_with('/') { path } else { format!("/{path}") });
            }
        }
    }
    paths
}

#[tokio::test]
async fn no_path_passes_by_the_password_of_the_readme() {
    let site = Site::new();
    let address = reads_everything();
    let host = readme(&site, &format!("http://{address}")).await;
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let visitor = product.visitor(Speaks::Http1);
    let mut counts = [0; 2];
    for path in paths() {
        for more in ["", "x-original-url: /private/x\r\n", "X_Original_Url: /private/x\r\n"]
            .iter()
            .take(if path.len() < 4 { 3 } else { 1 })
        {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {HOST}\r\n{more}connection: close\r\n\r\n");
            let answer = String::from_utf8_lossy(&visitor.raw(request.as_bytes()).await).into_owned();
            assert!(!answer.contains(SECRET), "{path} {more}: {answer}");
            let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
            match answer.split(' ').nth(1) {
                // What goes to the service is what was sent.
                Some("200") => {
                    assert_eq!(body, path);
                    counts[0] += 1;
                }
                Some("400") => counts[1] += 1,
                Some("401") => {}
                _ => panic!("{path}: {answer}"),
            }
        }
    }
    assert!(counts.iter().all(|count| *count > 20), "passed and refused: {counts:?}");

    for speaks in Speaks::ALL.into_iter().filter(|speaks| !speaks.is_secure()) {
        let visitor = product.visitor(speaks);
        for path in ["//private/x", "/./private/x", "/x/../private/x", "/%2fprivate/x", "/x/..%2fprivate/x"] {
            let answer = visitor.send(get(path)).await;
            assert_eq!(answer.status, 400, "{path}");
            assert!(answer.text().contains("in different ways"), "{}", answer.text());
        }
        assert_eq!(visitor.send(get("/%70rivate/x")).await.status, 401);
        let credentials = format!("Basic {}", STANDARD.encode("me:open sesame"));
        let answer = visitor.send(bare(to("GET", "/private/x").header("authorization", credentials))).await;
        assert_eq!((answer.status, answer.text()), (200, SECRET));
    }

    // Names that can be taken for another are none, before and behind the edge's table.
    for name in [format!("{HOST}:abc"), format!("{HOST}.."), format!("{HOST}:99999"), format!("x@{HOST}")] {
        let request = format!("GET /private/x HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n");
        let answer = visitor.raw(request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{name}: {}", String::from_utf8_lossy(&answer));
    }
    let request =
        format!("GET /private/x HTTP/1.1\r\nhost: {}.:80\r\nconnection: close\r\n\r\n", HOST.to_uppercase());
    assert!(visitor.raw(request.as_bytes()).await.starts_with(b"HTTP/1.1 401"));
}

#[tokio::test]
async fn an_ordinary_file_server_does_not_serve_the_guarded_file() {
    let site = Site::new();
    std::fs::create_dir_all(site.path("files/private")).unwrap();
    site.write("files/private/x", SECRET);
    site.write("files/open", "open");
    let mut server = Command::new("python3");
    server
        .args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"])
        .arg(site.path("files"));
    let server = Process::start("file server", server);
    let line = server.printed("Serving HTTP on ").await;
    let port = line.split("port ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let host = readme(&site, &format!("http://127.0.0.1:{port}")).await;
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let visitor = product.visitor(Speaks::Http1);
    assert_eq!(visitor.send(get("/open")).await.text(), "open");
    for path in [
        "/private/x",
        "//private/x",
        "/./private/x",
        "/x/../private/x",
        "/%2fprivate/x",
        "/x/..%2fprivate/x",
        "/%2e/private/x",
    ] {
        let answer = visitor.send(get(path)).await;
        assert!([400, 401].contains(&answer.status), "{path}: {}", answer.status);
    }
}

#[tokio::test]
async fn explain_says_what_an_unclear_path_may_be() {
    let site = Site::new();
    let host = readme(&site, "hello_world").await;
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let ask = async |path: &str| -> Value {
        let (admin, url) = (product.host.admin.to_string(), format!("https://{HOST}{path}"));
        let explain = ["explain", "--admin", &admin, "--no-plugins", &url];
        serde_json::from_str(&Process::run(&explain, product.site.folder(), "").await.output).unwrap()
    };
    let answer = ask("//private/x").await;
    let why = answer["refused"].as_str().unwrap();
    assert!(answer["rule"].is_null() && why.contains("^/private") && why.contains(HOST), "{answer}");
    assert_eq!(ask("/private/x").await["rule"]["number"], 0);
}
