//! Programs that people run over a tunnel, through our client and, where it is there, the reference's: OpenSSH's client
//! and server, PostgreSQL's, Redis, a remote desktop's. They have to be installed, so these tests are asked for by name:
//! `cargo xtask programs`.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::fleet::Fleet;
use e2e::process::{Process, adit};
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, Visitor, bare, to};
use e2e::within;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A port that was free a moment ago, for servers that are told theirs.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until somebody listens there.
async fn listens(port: u16) {
    let tried = async {
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(&format!("somebody listens at port {port}"), tried).await;
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Where a program lies that is in no PATH of most people.
fn program(name: &str, variable: &str, usual: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    assert!(path.exists(), "there is no {name} at {}; {variable} says where it is", path.display());
    path
}

/// A visitor's end of circuits.
enum Client {
    Ours,
    Reference(PathBuf),
}

impl Client {
    /// The reference's too, if its program is named.
    fn all() -> Vec<Self> {
        let reference = std::env::var_os("ADIT_REFERENCE_CLIENT");
        [Self::Ours].into_iter().chain(reference.map(|path| Self::Reference(path.into()))).collect()
    }

    /// Its command for what is asked for by `words`, in the site's folder.
    fn command(&self, product: &Product, words: &[&str]) -> Command {
        let name = name(product);
        let mut command = match self {
            Self::Ours => {
                let mut command = Command::new(adit());
                command.arg("access").args(words).args(["--cacert", "edge-data/ca.pem"]);
                command
            }
            Self::Reference(path) => {
                let mut command = Command::new(path);
                command.env("SSL_CERT_FILE", "edge-data/ca.pem").arg("access").args(words);
                command
            }
        };
        command.args(["--hostname", &name]).current_dir(product.site.folder());
        command
    }

    /// Listens for programs that know no proxy.
    async fn listen(&self, product: &Product, word: &str) -> (Process, SocketAddr) {
        let address = SocketAddr::from(([127, 0, 0, 1], port()));
        let process = Process::start("access", self.command(product, &[word, "--url", &address.to_string()]));
        listens(address.port()).await;
        (process, address)
    }
}

/// What the edge's only tunnel is asked for by, with its port of TLS.
fn name(product: &Product) -> String {
    format!("localhost:{}", product.edge.https.unwrap().port())
}

fn edge() -> EdgeDocument {
    let mut edge = EdgeDocument::new(&["west"], 1).with_https();
    edge.hostnames.push("localhost".to_owned());
    edge
}

async fn reload(product: &Product, document: &HostDocument) {
    product.site.write("host.toml", document.to_toml(&product.edge.servers));
    let asked = bare(to("POST", "/reload").header("host", "localhost"));
    let verdict = Visitor::new(product.host.admin, Speaks::Http1, None).send(asked).await.json();
    assert_eq!(verdict["verdict"], "applied", "{verdict}");
}

/// A server of OpenSSH with keys of this folder, and its port.
async fn sshd(folder: &Path) -> (Process, u16) {
    let program = program("sshd", "ADIT_SSHD", "/usr/sbin/sshd");
    let port = port();
    for key in ["host", "user"] {
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", key])
            .current_dir(folder));
    }
    let shown = folder.display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {shown}/host\nAuthorizedKeysFile {shown}/user.pub\n\
         StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
    );
    let path = folder.join("sshd_config");
    std::fs::write(&path, config).unwrap();
    // Where it puts its children; the package makes it when it starts the service.
    let _ = std::fs::create_dir("/run/sshd");
    let mut command = Command::new(program);
    command.arg("-D").arg("-e").arg("-f").arg(path);
    let process = Process::start("sshd", command);
    listens(port).await;
    (process, port)
}

/// `ssh` that runs `said`, by way of such a command.
fn ssh(folder: &Path, proxy: &str, said: &str) -> Command {
    let mut command = Command::new("ssh");
    command
        .args(["-q", "-i", "user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .arg("-o")
        .arg(format!("ProxyCommand={proxy}"))
        .args(["-l", &std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "ssh.app.localhost", said])
        .current_dir(folder);
    command
}

/// As a line of a shell.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

const ECHOES: &str = "while read line; do echo got $line; done";

#[tokio::test]
#[ignore = "needs OpenSSH and sshd (ADIT_SSHD): cargo xtask programs"]
async fn an_openssh_session_lives_through_a_swap() {
    let site = Site::new();
    let (_sshd, port) = sshd(site.folder()).await;
    let service = format!("ssh://127.0.0.1:{port}");
    let host = HostDocument::new().otherwise(&service);
    let swapped = HostDocument::new().rule("hostname = \"new.app.localhost\"\nservice = \"http_status:418\"");
    let swapped = swapped.otherwise(&service);
    let product = Product::start_at(site, edge(), host.clone()).await;
    for client in Client::all() {
        let folder = product.site.folder();
        let proxy =
            format!("env SSL_CERT_FILE=edge-data/ca.pem {}", line(&client.command(&product, &["ssh"])));
        assert_eq!(text(&run(&mut ssh(folder, &proxy, "seq 1 200000 | tail -n 1"))), "200000");

        let mut session = Process::start("ssh", ssh(folder, &proxy, ECHOES));
        session.tell("one\n");
        session.printed("got one").await;
        reload(&product, &swapped).await;
        session.tell("two\n");
        session.printed("got two").await;
        reload(&product, &host).await;
        session.tell("three\n");
        session.printed("got three").await;
    }
}

#[tokio::test]
#[ignore = "needs OpenSSH and sshd (ADIT_SSHD): cargo xtask programs"]
async fn an_openssh_session_lives_through_the_loss_of_its_edges_sibling() {
    for protocol in ["quic", "http2"] {
        let site = Site::new();
        let (_sshd, port) = sshd(site.folder()).await;
        let host = HostDocument::new().connections(2).over(protocol);
        let host = host.otherwise(&format!("ssh://127.0.0.1:{port}"));
        let mut fleet = Fleet::start(&["west", "east"], 1, &host).await;
        let visitors = fleet.edges[0].http();
        let proxy =
            format!("{} access ssh --hostname http://{HOST} --connect-to {visitors}", adit().display());
        let mut session = Process::start("ssh", ssh(site.folder(), &proxy, ECHOES));
        session.tell("one\n");
        session.printed("got one").await;
        fleet.edges[1].kill().await;
        // All that it had is found out to be gone.
        fleet.hosts[0]
            .until("one edge is left", |places| places.iter().all(|at| at.server == "west-0"))
            .await;
        session.tell("two\n");
        session.printed("got two").await;
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL (ADIT_POSTGRES, its folder of programs): cargo xtask programs"]
async fn postgresql_is_asked_and_dumped_as_if_it_were_here() {
    let programs = program("PostgreSQL", "ADIT_POSTGRES", "/usr/lib/postgresql/15/bin");
    let (site, port) = (Site::new(), port());
    // It does not run as root.
    let is_root = rustix::process::geteuid().is_root();
    let server = |name: &str| {
        if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(programs.join(name));
            command
        } else {
            Command::new(programs.join(name))
        }
    };
    let data = tempfile::tempdir().unwrap();
    if is_root {
        std::os::unix::fs::chown(data.path(), Some(65534), Some(65534)).unwrap();
    }
    run(server("initdb").args(["-A", "trust", "-U", "ada", "-D"]).arg(data.path()).current_dir("/"));
    let mut command = server("postgres");
    command.arg("-D").arg(data.path()).args(["-h", "127.0.0.1", "-k", "", "-p", &port.to_string()]);
    command.current_dir("/");
    let _postgres = Process::start("postgres", command);
    listens(port).await;
    let host = HostDocument::new().otherwise(&format!("tcp://127.0.0.1:{port}"));
    let product = Product::start_at(site, edge(), host).await;
    for access in Client::all() {
        let (_access, address) = access.listen(&product, "tcp").await;
        let client = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(programs.join(program));
            command.env("PGHOST", "127.0.0.1").env("PGPORT", address.port().to_string());
            command.env("PGUSER", "ada").env("PGDATABASE", "postgres").args(arguments);
            text(&run(command.current_dir(product.site.folder())))
        };
        let sum = "select count(*), md5(string_agg(x, '' order by g)) from t";
        client(
            "psql",
            &[
                "-qc",
                "create table t as select g, repeat(md5(g::text), 20) x from generate_series(1, 20000) g",
            ],
        );
        let before = client("psql", &["-Atc", sum]);
        assert!(before.starts_with("20000|"), "{before}");
        client("pg_dump", &["-t", "t", "-f", "dump.sql"]);
        client("psql", &["-qc", "drop table t"]);
        client("psql", &["-qf", "dump.sql"]);
        assert_eq!(client("psql", &["-Atc", sum]), before);
        client("psql", &["-qc", "drop table t"]);
    }
}

#[tokio::test]
#[ignore = "needs Redis (ADIT_REDIS, the path of redis-server): cargo xtask programs"]
async fn redis_answers_ten_thousand_pipelined_commands_in_their_order() {
    let redis = program("Redis", "ADIT_REDIS", "/usr/bin/redis-server");
    let (site, port) = (Site::new(), port());
    let mut command = Command::new(redis);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .current_dir(site.folder());
    let _redis = Process::start("redis", command);
    listens(port).await;
    let host = HostDocument::new().otherwise(&format!("tcp://127.0.0.1:{port}"));
    let product = Product::start_at(site, edge(), host).await;
    for access in Client::all() {
        let (_access, address) = access.listen(&product, "tcp").await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let value = "v".repeat(1000);
        let asked: String = (0..10_000).map(|at| format!("SET k{at} {at}{value}\r\nGET k{at}\r\n")).collect();
        let wanted: String = (0..10_000)
            .map(|at| format!("+OK\r\n${}\r\n{at}{value}\r\n", at.to_string().len() + value.len()))
            .collect();
        let (mut read, mut write) = stream.split();
        let mut seen = vec![0; wanted.len()];
        let sent = async { write.write_all(asked.as_bytes()).await.unwrap() };
        let heard = async { read.read_exact(&mut seen).await.unwrap() };
        within("all answers", async { tokio::join!(sent, heard) }).await;
        assert!(seen == wanted.as_bytes(), "an answer is another one");
    }
}

#[tokio::test]
#[ignore = "needs a server of RDP (ADIT_XRDP, the path of xrdp): cargo xtask programs"]
async fn a_remote_desktop_shakes_hands() {
    let xrdp = program("xrdp", "ADIT_XRDP", "/usr/sbin/xrdp");
    let (site, port) = (Site::new(), port());
    let [certificate, key] = e2e::certificate::Certificate::new(&["desktop.internal"]).pem();
    let (certificate, key) = (site.write("rdp.pem", certificate), site.write("rdp.key", key));
    let config = format!(
        "[Globals]\nini_version=1\nfork=false\nport=tcp://127.0.0.1:{port}\nsecurity_layer=tls\n\
         certificate={}\nkey_file={}\nssl_protocols=TLSv1.2, TLSv1.3\n",
        certificate.display(),
        key.display()
    );
    let config = site.write("xrdp.ini", config);
    let mut command = Command::new(xrdp);
    command.arg("--nodaemon").arg("--config").arg(config).current_dir(site.folder());
    let _xrdp = Process::start("xrdp", command);
    listens(port).await;
    let host = HostDocument::new().otherwise(&format!("rdp://127.0.0.1:{port}"));
    let product = Product::start_at(site, edge(), host).await;
    for access in Client::all() {
        let (_access, address) = access.listen(&product, "rdp").await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        // MS-RDPBCGR 2.2.1.1 and 2.2.1.2: a request for TLS, and the confirmation that chooses it.
        let asked = [3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 1, 0, 0, 0];
        stream.write_all(&asked).await.unwrap();
        let mut confirmed = [0; 19];
        within("the confirmation", stream.read_exact(&mut confirmed)).await.unwrap();
        assert_eq!((confirmed[5], confirmed[11], confirmed[15]), (0xd0, 2, 1), "{confirmed:?}");
        // What comes next is TLS: a hello is answered by one.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let server = "desktop.internal".try_into().unwrap();
        let mut hello = Vec::new();
        rustls::ClientConnection::new(Arc::new(config), server).unwrap().write_tls(&mut hello).unwrap();
        stream.write_all(&hello).await.unwrap();
        let mut answer = [0; 6];
        within("a hello", stream.read_exact(&mut answer)).await.unwrap();
        // RFC 8446 5.1 and 4: a record of a handshake, which begins with the server's hello.
        assert_eq!((answer[0], answer[1], answer[5]), (22, 3, 2), "{answer:?}");
    }
}
