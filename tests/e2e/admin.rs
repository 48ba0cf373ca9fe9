//! Who may ask a host's admin addresses, and that nobody can be kept from them.

use std::time::Duration;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::Process;
use e2e::product::{Product, Site};
use e2e::visitor::{Answer, Speaks, Visitor, bare, get, to, with_text};
use e2e::within;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn document() -> HostDocument {
    HostDocument::new().otherwise("hello_world")
}

async fn product(admin: &str, keys: &str) -> Product {
    let site = Site::new();
    site.write("admin-token", format!("{TOKEN}\n"));
    let mut document = document();
    document.admin = admin.to_owned();
    document.admin_keys = keys.to_owned();
    Product::start_at(site, EdgeDocument::new(&["west"], 1), document).await
}

async fn ask(address: std::net::SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = to(method, path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Visitor::new(address, Speaks::Http1, None).send(bare(request)).await
}

const OPEN: [&str; 4] = ["/livez", "/readyz", "/ready", "/healthcheck"];
const SECRETS: [(&str, &str); 8] = [
    ("GET", "/status"),
    ("GET", "/diag/tunnel"),
    ("GET", "/diag/configuration"),
    ("GET", "/quicktunnel"),
    ("GET", "/config"),
    ("PUT", "/config"),
    ("POST", "/reload"),
    ("POST", "/explain"),
];

#[tokio::test]
async fn no_web_page_reads_anything_whatever_name_it_uses() {
    let product = product("127.0.0.1:0", "").await;
    let own = ("host", "localhost:20241");
    for (method, path) in SECRETS.into_iter().chain([("GET", "/metrics")]) {
        for headers in [
            &[("host", "evil.example")][..],
            &[own, ("origin", "null")],
            &[own, ("sec-fetch-site", "same-origin")],
        ] {
            let answer = ask(product.host.admin, method, path, headers).await;
            assert_eq!(answer.status, 403, "{method} {path} {headers:?}");
            assert!(answer.json()["error"].is_string(), "{}", answer.text());
        }
    }
    for path in OPEN {
        assert_eq!(
            ask(product.host.admin, "GET", path, &[("host", "lb.example")]).await.status,
            200,
            "{path}"
        );
    }
}

#[tokio::test]
async fn beyond_loopback_only_probes_and_metrics_are_answered_without_a_token() {
    let closed = product("0.0.0.0:0", "probes = \"0.0.0.0:0\"").await;
    let open = product("0.0.0.0:0", "token-file = \"admin-token\"").await;
    let probes = closed.host.process.event("listening", |event| event["kind"] == "probes").await;
    let probes: std::net::SocketAddr = probes["address"].as_str().unwrap().parse().unwrap();
    let here = |address: std::net::SocketAddr| ([127, 0, 0, 1], address.port()).into();
    let (closed_admin, probes, guarded) = (here(closed.host.admin), here(probes), here(open.host.admin));
    let (host, bearer) = (("host", "127.0.0.1"), format!("Bearer {TOKEN}"));
    for address in [closed_admin, probes, guarded] {
        for path in OPEN.into_iter().chain(["/metrics"]) {
            assert_eq!(ask(address, "GET", path, &[host]).await.status, 200, "{path}");
        }
        assert_eq!(ask(address, "GET", "/metrics", &[("host", "evil.example")]).await.status, 403);
        // As containers call each other.
        assert_eq!(ask(address, "GET", "/metrics", &[("host", "adit:20241")]).await.status, 200);
    }
    for (method, path) in SECRETS {
        let proof = [host, ("authorization", bearer.as_str())];
        assert_eq!(ask(closed_admin, method, path, &proof).await.status, 403, "{method} {path}");
        assert_eq!(ask(probes, method, path, &proof).await.status, 404, "{method} {path}");
        assert_eq!(ask(guarded, method, path, &[host]).await.status, 401, "{method} {path}");
        let right = ask(guarded, method, path, &proof).await.status;
        assert!(right != 401 && right != 403, "{method} {path}: {right}");
    }
    let folder = open.site.folder();
    let admin = guarded.to_string();
    let shut = Process::run(&["config", "history", "--admin", &admin], folder, "").await;
    assert!(shut.code == Some(1) && shut.log.contains("token-file"), "{shut:?}");
    let arguments = ["config", "history", "--admin", &admin, "--admin-token-file", "admin-token"];
    let shown = Process::run(&arguments, folder, "").await;
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(!format!("{:?}", open.host.process.log()).contains(TOKEN));
}

#[tokio::test]
async fn every_refusal_is_json_as_the_page_says() {
    let product = product("127.0.0.1:0", "").await;
    let host = ("host", "localhost");
    let large = " ".repeat((4 << 20) + 1);
    for (method, path, tag, body, wanted) in [
        ("PUT", "/config", None, "", 428),
        ("PUT", "/config", Some("*"), large.as_str(), 413),
        ("DELETE", "/config", None, "", 405),
        ("POST", "/status", None, "", 405),
        ("GET", "/nothing", None, "", 404),
        ("GET", "/config/generations/99", None, "", 404),
        ("POST", "/config/rollback", None, "", 400),
        ("POST", "/explain", None, "{}", 400),
    ] {
        let mut request = to(method, path).header(host.0, host.1);
        if let Some(tag) = tag {
            request = request.header("if-match", tag);
        }
        let answer =
            Visitor::new(product.host.admin, Speaks::Http1, None).send(with_text(request, body)).await;
        assert_eq!(answer.status, wanted, "{method} {path}");
        assert_eq!(answer.header("content-type"), "application/json", "{method} {path}");
        assert!(answer.json()["error"].is_string(), "{method} {path}: {}", answer.text());
    }
}

/// More than many systems let a process have by itself.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// What is answered within a second, at the third try at the latest: a busy machine is late once, a listener that
/// is full for as long as the sockets last.
async fn at_once<T>(who: &str, mut ask: impl AsyncFnMut() -> T) -> T {
    for _ in 0..3 {
        if let Ok(answer) = timeout(AT_MOST, ask()).await {
            return answer;
        }
    }
    panic!("{who} was kept waiting");
}

const AT_MOST: Duration = Duration::from_secs(1);

/// The whole of it at once: every listener of both ends, and every one of them still does its work. What QUIC
/// knows of the kind is in the edge's own tests.
#[tokio::test]
async fn five_thousand_idle_sockets_on_each_listener_keep_nobody_waiting() {
    allow_files();
    let mut edge = EdgeDocument::new(&["west"], 1).with_https();
    edge.more = "[api]\nlisten = \"127.0.0.1:0\"\n".to_owned();
    let product = Product::start(edge, document()).await;
    let (host, edge) = (&product.host, &product.edge);
    let api = edge.process.event("listening", |event| event["kind"] == "api").await;
    let api: std::net::SocketAddr = api["address"].as_str().unwrap().parse().unwrap();
    // Nothing, half a request, half a greeting of TLS.
    let heads = [
        &b""[..],
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ];
    let listeners = [edge.servers[0], edge.admin, host.admin, api, edge.http, edge.https.unwrap()];
    for (number, address) in listeners.into_iter().enumerate() {
        let mut sockets = Vec::new();
        for number in 0..5_000 {
            let mut socket = TcpStream::connect(address).await.unwrap();
            // It may have had to go already.
            let _ = socket.write_all(heads[number % heads.len()]).await;
            sockets.push(socket);
        }
        assert_eq!(at_once("a probe of the host", async || host.admin("/livez").await).await.status, 200);
        assert_eq!(at_once("a probe of the edge", async || edge.admin("/ready").await).await.status, 200);
        let described = async || ask(api, "GET", "/openapi.json", &[]).await;
        assert_eq!(at_once("a caller of the API", described).await.status, 200);
        for speaks in Speaks::ALL {
            let visit = async || product.visitor(speaks).send(get("/")).await;
            assert_eq!(at_once("a visitor", visit).await.status, 200);
        }
        // A host, over either transport, while the sockets are there.
        for protocol in ["quic", "http2"] {
            let name = format!("{protocol}-{number}");
            let late = product.site.spawn_host_named(&name, &edge.servers, &document().over(protocol));
            late.event("listening", |_| true).await;
            let registered = timeout(AT_MOST, late.event("registered", |_| true)).await;
            registered.expect("a registration was kept waiting");
        }
        within("the sockets' end", async { drop(sockets) }).await;
    }
}
