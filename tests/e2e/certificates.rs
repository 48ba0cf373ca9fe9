//! Servers whose certificates are not those of a public authority, wherever a TLS client of ours speaks to one.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use e2e::certificate::Certificate;
use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::{Process, adit, component};
use e2e::product::{Host, Product, Site};
use e2e::visitor::{Speaks, get};
use e2e::within;
use rcgen::{KeyPair, PKCS_ECDSA_P521_SHA512};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// A server that shows a certificate of its own, hands over what it was asked, and knows nothing.
struct Server {
    address: SocketAddr,
    asked: mpsc::UnboundedReceiver<Vec<u8>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(certificate: &Certificate) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = TlsAcceptor::from(Arc::new(certificate.server(&[])));
        let (hand_over, asked) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, hand_over) = (tls.clone(), hand_over.clone());
                tokio::spawn(async move {
                    // Who does not believe it leaves here.
                    let Ok(mut stream) = tls.accept(stream).await else { return };
                    let mut text = vec![0; 4096];
                    let count = stream.read(&mut text).await.unwrap_or_default();
                    text.truncate(count);
                    let _ = hand_over.send(text);
                    let answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, asked, _task: AbortOnDropHandle::new(task) }
    }

    /// The next thing that a client said who believes this server.
    async fn next(&mut self) -> String {
        let asked = within("a question to the server", self.asked.recv()).await.unwrap();
        String::from_utf8_lossy(&asked).into_owned()
    }
}

/// The product with no other roots than these.
fn believing(file: &std::path::Path) -> Command {
    let mut command = Command::new(adit());
    command.env("SSL_CERT_FILE", file).env_remove("SSL_CERT_DIR");
    command
}

#[tokio::test]
async fn an_edge_whose_certificate_is_its_own_authority_is_believed_where_edge_ca_lists_it() {
    let names = ["quic.cftunnel.com", "h2.cftunnel.com", "probe.cftunnel.com"];
    let (own, other) = (Certificate::own(&names), Certificate::own(&names));
    let site = Site::new();
    let [chain, key] = own.pem();
    site.write("own.pem", &chain);
    site.write("own.key", key);
    site.write("other.pem", &other.ca_pem);
    let mut edge = EdgeDocument::new(&["west"], 1);
    edge.connectors = Some(["own.pem".to_owned(), "own.key".to_owned()]);
    let edge = site.edge(&edge).await;
    for protocol in ["quic", "http2"] {
        let mut document = HostDocument::new().over(protocol).otherwise("hello_world");
        document.edge_ca = "own.pem".to_owned();
        let name = format!("believes-{protocol}");
        let host = site.spawn_host_named(&name, &edge.servers, &document);
        let host = Host::connected(host, 1).await;
        assert_eq!(edge.visitor(Speaks::Http1).send(get("/")).await.status, 200, "{protocol}");
        drop(host);
        document.edge_ca = "other.pem".to_owned();
        let host = site.spawn_host_named(&format!("doubts-{protocol}"), &edge.servers, &document);
        host.said("that the edge is not believed", |line| line.contains("UnknownIssuer")).await;
    }
}

#[tokio::test]
async fn commands_plugins_and_name_servers_are_believed_by_the_certificate_that_is_listed() {
    let own = Certificate::own(&["127.0.0.1", "localhost"]);
    let mut server = Server::start(&own).await;
    let site = Site::new();
    let roots = site.write("own.pem", &own.ca_pem);
    let address = server.address;

    // A command, by its flag.
    let url = format!("https://{address}");
    let quick = ["tunnel", "--url", "hello_world", "--api-url", &url];
    let refused = Process::run(&quick, site.folder(), "").await;
    assert!(refused.code != Some(0), "{refused:?}");
    let listed = [&quick[..], &["--api-ca", "own.pem"]].concat();
    let outcome = Process::run(&listed, site.folder(), "").await;
    assert!(outcome.code != Some(0) && outcome.log.contains("404"), "{outcome:?}");
    assert!(server.next().await.starts_with("POST /tunnel"));

    // A plugin that asks for keys, and a name server that is asked for edges.
    let jwt = format!(
        "tick = \"1s\"\n[plugin.config]\nissuer = \"https://id.example.com\"\njwks = \"{url}/keys\"\naudience = \"app\"\n\
         [plugin.grants]\nhttp = [\"{url}\"]\nbuckets = {{ jwks = \"1MiB\" }}"
    );
    let document = HostDocument::new()
        .plugin("keys", &component("jwt"), &jwt)
        .rule("hostname = \"app.localhost\"\nservice = \"hello_world\"\nplugins = [\"keys\"]")
        .otherwise("http_status:404");
    let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
    site.write("host.toml", document.to_toml(&edge.servers));
    let run = ["tunnel", "run", "--config", "host.toml"];
    let host = Host::connected(Process::adit_by(believing(&roots), "host", &run, site.folder()), 1).await;
    let visit = edge.visitor(Speaks::Http1).send(get("/")).await;
    assert!(visit.status >= 400, "nobody has a token");
    assert!(server.next().await.starts_with("GET /keys"));
    drop(host);

    let found = format!("edge-domain = \"edges.example\"\ndns-servers = [\"tls://{address}#localhost\"]");
    let document = HostDocument::new().otherwise("hello_world").to_toml(&[]);
    site.write("found.toml", document.replace("edges = []", &found));
    let run = ["tunnel", "run", "--config", "found.toml"];
    let _host = Process::adit_by(believing(&roots), "found", &run, site.folder());
    assert!(server.next().await.contains("edges\u{7}example"), "a query for the edges' names");
}

/// One server after the other, of one version of TLS each, and of whatever else old servers do.
const OLD: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"old")
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.set_ciphers("ALL:@SECLEVEL=0")
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, sys.argv[2])
context.load_cert_chain(sys.argv[1])
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("listening", server.server_port, flush=True)
server.serve_forever()
"#;

#[tokio::test]
async fn a_service_with_a_short_key_or_one_on_the_curve_p521_is_reached() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let curve = Certificate::own_of(key, &["127.0.0.1"]);
    let site = Site::new();
    site.write("rsa-1024.pem", include_bytes!("../vectors/rsa-1024.pem"));
    site.write("p521.pem", curve.pem().concat());
    site.write("listed.pem", &curve.ca_pem);
    let (mut servers, mut host) = (Vec::new(), HostDocument::new());
    for (file, version, keys) in [
        ("rsa-1024.pem", "TLSv1_2", "tls-verify = false"),
        ("rsa-1024.pem", "TLSv1_3", "tls-verify = false"),
        ("p521.pem", "TLSv1_2", "tls-verify = false"),
        ("p521.pem", "TLSv1_3", "tls-verify = false"),
        ("p521.pem", "TLSv1_2", "ca-file = \"listed.pem\""),
        ("p521.pem", "TLSv1_3", "ca-file = \"listed.pem\""),
    ] {
        let mut server = Command::new("python3");
        server.args(["-u", "-c", OLD, file, version]).current_dir(site.folder());
        let server = Process::start("old server", server);
        let line = server.printed("listening ").await;
        let port = line.trim().rsplit(' ').next().unwrap().to_owned();
        let path = format!("/{}", servers.len());
        host = host.rule(&format!(
            "path = \"^{path}$\"\nservice = \"https://127.0.0.1:{port}\"\n[ingress.origin]\n{keys}"
        ));
        servers.push((server, path, file, version, keys));
    }
    let host = host.otherwise("http_status:404");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    for (_server, path, file, version, keys) in &servers {
        let answer = product.get(path).await;
        assert_eq!((answer.status, answer.text()), (200, "old"), "{file} {version} {keys}");
    }
}
