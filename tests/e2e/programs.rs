//! Programs that people run over a tunnel: OpenSSH's client and server, PostgreSQL's. They have to be installed, so
//! these tests are asked for by name.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use e2e::document::{EdgeDocument, HostDocument};
use e2e::process::{Process, adit};
use e2e::product::{Product, Site};
use e2e::visitor::{Speaks, Visitor, bare, to};
use e2e::within;
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

/// Where a server's program lies, which is in no PATH of most people.
fn server(name: &str, variable: &str, usual: &str) -> PathBuf {
    let path = std::env::var_os(variable).map_or_else(|| PathBuf::from(usual), PathBuf::from);
    assert!(path.exists(), "there is no {name} at {}; {variable} says where it is", path.display());
    path
}

async fn reload(product: &Product, document: &HostDocument) {
    product.site.write("host.toml", document.to_toml(&product.edge.servers));
    let asked = bare(to("POST", "/reload").header("host", "localhost"));
    let verdict = Visitor::new(product.host.admin, Speaks::Http1, None).send(asked).await.json();
    assert_eq!(verdict["verdict"], "applied", "{verdict}");
}

/// `ssh` by way of `adit access`, with a key of this site.
fn ssh(folder: &Path, edge: SocketAddr, said: &str) -> Command {
    let proxy =
        format!("{} access ssh --hostname http://ssh.app.localhost --connect-to {edge}", adit().display());
    let mut command = Command::new("ssh");
    command
        .args(["-q", "-i", "user", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
        .arg("-o")
        .arg(format!("ProxyCommand={proxy}"))
        .args(["-l", &std::env::var("USER").unwrap_or_else(|_| "root".to_owned()), "ssh.app.localhost", said])
        .current_dir(folder);
    command
}

#[tokio::test]
#[ignore = "needs OpenSSH and sshd (ADIT_SSHD): cargo test -p e2e --test e2e -- --ignored programs::an_openssh"]
async fn an_openssh_session_lives_through_a_swap() {
    let sshd = server("sshd", "ADIT_SSHD", "/usr/sbin/sshd");
    let (site, port) = (Site::new(), port());
    for key in ["host", "user"] {
        run(Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f", key])
            .current_dir(site.folder()));
    }
    let folder = site.folder().display();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n\
         StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\n"
    );
    let config = site.write("sshd_config", config);
    let mut command = Command::new(sshd);
    command.arg("-D").arg("-e").arg("-f").arg(config);
    let _sshd = Process::start("sshd", command);
    listens(port).await;
    let host = HostDocument::new()
        .rule(&format!("hostname = \"ssh.app.localhost\"\nservice = \"ssh://127.0.0.1:{port}\""));
    let edge = EdgeDocument::new(&["west"], 1);
    let product = Product::start_at(site, edge, host.clone().otherwise("http_status:404")).await;
    let (folder, edge) = (product.site.folder(), product.edge.http);
    assert_eq!(text(&run(&mut ssh(folder, edge, "seq 1 200000 | tail -n 1"))), "200000");

    let mut session = Process::start("ssh", ssh(folder, edge, "while read line; do echo got $line; done"));
    session.tell("one\n");
    session.printed("got one").await;
    reload(&product, &host.otherwise("http_status:418")).await;
    session.tell("two\n");
    session.printed("got two").await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL (ADIT_POSTGRES, its folder of programs; not as root): cargo test -p e2e --test e2e -- --ignored programs::postgresql"]
async fn postgresql_is_asked_and_dumped_as_if_it_were_here() {
    let programs = server("PostgreSQL", "ADIT_POSTGRES", "/usr/lib/postgresql/15/bin");
    let (site, port) = (Site::new(), port());
    run(Command::new(programs.join("initdb"))
        .args(["-A", "trust", "-U", "ada", "-D", "pg"])
        .current_dir(site.folder()));
    let mut command = Command::new(programs.join("postgres"));
    command
        .args(["-D", "pg", "-h", "127.0.0.1", "-k", "", "-p", &port.to_string()])
        .current_dir(site.folder());
    let _postgres = Process::start("postgres", command);
    listens(port).await;
    let host = HostDocument::new()
        .rule(&format!("hostname = \"db.app.localhost\"\nservice = \"tcp://127.0.0.1:{port}\""))
        .otherwise("http_status:404");
    let product = Product::start_at(site, EdgeDocument::new(&["west"], 1), host).await;
    let edge = product.edge.http.to_string();
    let access = Process::adit(
        "access",
        &[
            "access",
            "tcp",
            "--hostname",
            "http://db.app.localhost",
            "--connect-to",
            &edge,
            "--url",
            "127.0.0.1:0",
        ],
        product.site.folder(),
    );
    let event = access.event("listening", |event| event["kind"] == "access").await;
    let address: SocketAddr = event["address"].as_str().unwrap().parse().unwrap();
    let client = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(programs.join(program));
        command.env("PGHOST", "127.0.0.1").env("PGPORT", address.port().to_string());
        command.env("PGUSER", "ada").env("PGDATABASE", "postgres").args(arguments);
        text(&run(command.current_dir(product.site.folder())))
    };
    let sum = "select count(*), md5(string_agg(x, '' order by g)) from t";
    client(
        "psql",
        &["-qc", "create table t as select g, repeat(md5(g::text), 20) x from generate_series(1, 20000) g"],
    );
    let before = client("psql", &["-Atc", sum]);
    assert!(before.starts_with("20000|"), "{before}");
    client("pg_dump", &["-t", "t", "-f", "dump.sql"]);
    client("psql", &["-qc", "drop table t"]);
    client("psql", &["-qf", "dump.sql"]);
    assert_eq!(client("psql", &["-Atc", sum]), before);
}
