//! The reference's host and ours, with one config.yml, behind one edge: what a visitor and the services see of TCP is
//! the same, but for what [`BETTER`] names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use adit_protocol::websocket::{NORMAL, Piece, data_head, mask, ping};
use e2e::certificate::Certificate;
use e2e::document::EdgeDocument;
use e2e::origin::{Origin, nobody};
use e2e::process::{Process, adit};
use e2e::product::{Edge, Site};
use e2e::reference;
use e2e::tcp::{Ended, Frames, Habit, TcpService};
use e2e::visitor::{Speaks, bare};
use http::Request;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What was seen, by what was done.
type Table = BTreeMap<String, String>;

/// Rows that begin so are other ones here, and why.
const BETTER: &[(&str, &str)] = &[
    ("a frame of 0016385", CUT),
    ("a frame of 0065536", CUT),
    ("a frame of 0262144", CUT),
    ("a frame of 1048576", CUT),
    ("a text frame", "its bytes count, whatever they are called"),
    ("a frame without a mask", TOLD),
    ("no frames", TOLD),
    ("the service greets", TOLD),
    ("the visitor ends without a Close", TOLD),
    ("socks, only with a password", TOLD),
    ("socks, version 4", TOLD),
    ("socks, CONNECT over IPv6", "a refusal names no address of the network"),
    ("a plain", "it is told what it should have asked for"),
    ("bastion anywhere", CLOSED),
    ("bastion jump: 127.0.0.1:OTHER", CLOSED),
    (JUMP, ITS_FAULT),
    ("bastion without a destination", ITS_FAULT),
];

/// Without a port; others begin so too.
const JUMP: &str = "bastion jump: 127.0.0.1";
const CUT: &str = "the reference loses what a frame has beyond 16 KiB";
const TOLD: &str = "the visitor is told why it ends";
const CLOSED: &str = "a bastion leads nowhere until rules say where";
const ITS_FAULT: &str = "the request is wrong, not the service away";

const KEY: [u8; 4] = [9, 8, 7, 6];
/// What comes of something that may be nothing.
const QUIET: Duration = Duration::from_secs(3);

struct Services {
    /// Whose circuits are told apart by how they end.
    echo: TcpService,
    /// Where visitors are led by their own word.
    named: TcpService,
    leaves: TcpService,
    greets: TcpService,
    /// Which no rule allows.
    other: TcpService,
    gone: SocketAddr,
    _unix: Origin,
}

impl Services {
    fn start(site: &Site) -> Self {
        let certificate = Certificate::new(&["origin.internal"]);
        site.write("origin-ca.pem", &certificate.ca_pem);
        Self {
            echo: TcpService::start(Habit::Echo),
            named: TcpService::start(Habit::Echo),
            leaves: TcpService::start(Habit::Leaves),
            greets: TcpService::start(Habit::Greets),
            other: TcpService::start(Habit::Echo),
            gone: nobody(),
            _unix: Origin::start_unix_secure(&site.path("secure.sock"), &certificate),
        }
    }

    /// As both programs read it.
    fn config(&self, site: &Site, protocol: &str) -> String {
        let (echo, named, gone) = (self.echo.address, self.named.address, self.gone);
        let allowed =
            format!("{{prefix: 127.0.0.1/32, ports: [{}, {}], allow: true}}", named.port(), gone.port());
        let mut rules = String::new();
        for scheme in ["tcp", "ssh", "rdp", "smb", "other"] {
            rules += &format!("- hostname: {scheme}.app.localhost\n  service: {scheme}://{echo}\n");
        }
        format!(
            "tunnel: {}\ncredentials-file: demo.json\nno-autoupdate: true\nmetrics: localhost:0\nprotocol: {protocol}\n\
             ingress:\n{rules}\
             - hostname: gone.app.localhost\n  service: tcp://{gone}\n\
             - hostname: leaves.app.localhost\n  service: tcp://{}\n\
             - hostname: greets.app.localhost\n  service: tcp://{}\n\
             - hostname: jump.app.localhost\n  service: bastion\n  originRequest:\n    ipRules: [{allowed}]\n\
             - hostname: mode.app.localhost\n  service: tcp://{gone}\n  originRequest:\n    bastionMode: true\n    ipRules: [{allowed}]\n\
             - hostname: anywhere.app.localhost\n  service: bastion\n\
             - hostname: socks.app.localhost\n  service: socks-proxy\n  originRequest:\n    ipRules: [{allowed}]\n\
             - hostname: socks-anywhere.app.localhost\n  service: socks-proxy\n\
             - hostname: unix.app.localhost\n  service: unix+tls:{}\n  originRequest:\n    caPool: origin-ca.pem\n    originServerName: origin.internal\n\
             - service: http_status:404\n",
            site.credentials.tunnel_id,
            self.leaves.address,
            self.greets.address,
            site.path("secure.sock").display(),
        )
    }
}

/// The same start line, whoever reads it.
fn start(program: &Path, edge: &Edge, site: &Site) -> Process {
    let mut command = Command::new(program);
    command.current_dir(site.folder()).args([
        "tunnel",
        "--config",
        "config.yml",
        "--ha-connections",
        "1",
        "--grace-period",
        "1s",
    ]);
    for _ in 0..2 {
        command.args(["--edge", &edge.servers[0].to_string()]);
    }
    command.args(["--no-prechecks", "--cacert", "edge-data/ca.pem", "run"]);
    Process::start(&program.display().to_string(), command)
}

async fn ask(edge: &Edge, name: &str, more: &str) -> Frames<TcpStream> {
    Frames::ask(edge.visitor(Speaks::Http1).dial().await, &format!("{name}.app.localhost"), more).await
}

/// All that still comes, in words.
async fn rest(circuit: &mut Frames<TcpStream>) -> String {
    hear(circuit, usize::MAX).await
}

/// What the next frame says; nothing where there is none.
async fn said(circuit: &mut Frames<TcpStream>) -> Vec<u8> {
    match timeout(QUIET, circuit.next()).await {
        Ok(Some(Piece::Data(data))) => data.to_vec(),
        _ => Vec::new(),
    }
}

/// What comes until these are as many bytes, in words.
async fn hear(circuit: &mut Frames<TcpStream>, wanted: usize) -> String {
    let (mut words, mut bytes) = (Vec::new(), 0);
    loop {
        if bytes >= wanted {
            return format!("{bytes} bytes");
        }
        match timeout(QUIET, circuit.next()).await {
            Err(_) => words.push("nothing more".to_owned()),
            Ok(Some(Piece::Data(data))) => {
                bytes += data.len();
                continue;
            }
            Ok(Some(Piece::Close(code))) => words.push(format!("Close {code:?}")),
            Ok(Some(piece)) => words.push(format!("{piece:?}")),
            Ok(None) => words.push("end".to_owned()),
        }
        if words.last().is_some_and(|word| word == "end" || word == "nothing more") {
            return format!("{bytes} bytes, {}", words.join(", "));
        }
    }
}

fn frame(first: u8, data: &[u8]) -> Vec<u8> {
    let (head, begin) = data_head(data.len(), Some(KEY));
    let mut frame = head[begin..].to_vec();
    frame[0] = first;
    let at = frame.len();
    frame.extend_from_slice(data);
    mask(&mut frame[at..], KEY);
    frame
}

fn ended(end: Ended) -> String {
    match end {
        Ended::Well(bytes) => format!("end after {bytes} bytes"),
        Ended::Reset => "reset".to_owned(),
    }
}

fn connect(command: u8, address: &[u8], port: u16) -> Vec<u8> {
    [&[5, command, 0][..], address, &port.to_be_bytes()].concat()
}

/// What a host does with each of these.
async fn tried(edge: &Edge, services: &Services) -> Table {
    let mut table = Table::new();
    let mut row = |name: String, seen: String| assert!(table.insert(name, seen).is_none());
    let port = services.named.address.port();
    for scheme in ["tcp", "ssh", "rdp", "smb", "other"] {
        let mut circuit = ask(edge, scheme, "").await;
        let echoes = circuit.echoes(b"hello").await;
        circuit.close(NORMAL).await;
        let end = rest(&mut circuit).await;
        let accept =
            circuit.head.lines().any(|line| line == "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=");
        let service = ended(services.echo.ended().await);
        row(
            format!("{scheme}://, bytes and Close 1000"),
            format!(
                "{}, key accepted {accept}, echo {echoes}; visitor: {end}; service: {service}",
                circuit.status()
            ),
        );
    }
    for length in [0, 1, 125, 126, 16_384, 16_385, 65_536, 262_144, 1_048_576] {
        let mut circuit = ask(edge, "tcp", "").await;
        let data = vec![7; length];
        circuit.raw(&frame(0x82, &data)).await;
        circuit.raw(&frame(0x82, b"!")).await;
        circuit.shutdown().await;
        let _ = rest(&mut circuit).await;
        row(format!("a frame of {length:07}, then one of 1"), ended(services.echo.ended().await));
    }
    {
        let mut circuit = ask(edge, "tcp", "").await;
        circuit.raw(&frame(0x81, b"text")).await;
        row("a text frame".to_owned(), hear(&mut circuit, 4).await);
        circuit.raw(&ping(Some(KEY))).await;
        row("a ping".to_owned(), format!("{:?}", timeout(QUIET, circuit.next()).await));
        circuit.raw(&frame(0x02, b"one ")).await;
        circuit.raw(&frame(0x00, b"two ")).await;
        circuit.raw(&frame(0x80, b"three")).await;
        row("a message in three parts".to_owned(), hear(&mut circuit, 13).await);
        circuit.shutdown().await;
        let end = rest(&mut circuit).await;
        row(
            "the visitor ends without a Close".to_owned(),
            format!("visitor: {end}; service: {}", ended(services.echo.ended().await)),
        );
    }
    for (name, bytes) in [
        ("no frames", &b"\xff\xff\xff\xff garbage of some length"[..]),
        ("a frame without a mask", b"\x82\x0cnot masked, "),
    ] {
        let mut circuit = ask(edge, "tcp", "").await;
        circuit.send(b"hello").await;
        hear(&mut circuit, 5).await;
        circuit.raw(bytes).await;
        let end = rest(&mut circuit).await;
        circuit.shutdown().await;
        row(name.to_owned(), format!("visitor: {end}; service: {}", ended(services.echo.ended().await)));
    }
    let mut leaves = ask(edge, "leaves", "").await;
    let end = rest(&mut leaves).await;
    row("the service greets and leaves".to_owned(), format!("{}, {end}", leaves.status()));
    {
        let mut greets = ask(edge, "greets", "").await;
        let end = rest(&mut greets).await;
        greets.shutdown().await;
        row("the service greets and ends its direction".to_owned(), format!("{}, {end}", greets.status()));
    }
    row("nobody listens".to_owned(), ask(edge, "gone", "").await.status().to_owned());
    for (method, name) in [("GET", "tcp"), ("POST", "tcp"), ("GET", "gone")] {
        let request = bare(Request::builder().method(method).uri(format!("http://{name}.app.localhost/")));
        let answer = timeout(QUIET, edge.visitor(Speaks::Http1).send(request)).await;
        row(
            format!("a plain {method} to {name}"),
            answer.map_or("nothing".to_owned(), |answer| answer.status.to_string()),
        );
    }
    let jump = |destination: &str| format!("Cf-Access-Jump-Destination: {destination}\r\n");
    for (name, destination) in [
        ("jump", format!("127.0.0.1:{port}")),
        ("jump", format!("ssh://127.0.0.1:{port}/some/path")),
        ("jump", format!("localhost:{port}")),
        ("jump", "127.0.0.1".to_owned()),
        ("jump", format!("127.0.0.1:{}", services.gone.port())),
        ("mode", format!("127.0.0.1:{port}")),
        ("jump", services.other.address.to_string()),
        ("anywhere", services.other.address.to_string()),
    ] {
        let mut circuit = ask(edge, name, &jump(&destination)).await;
        let status = circuit.status().to_owned();
        let echoes = status == "101" && timeout(QUIET, circuit.echoes(b"hello")).await.unwrap_or(false);
        let shown = destination.replace(&port.to_string(), "PORT");
        let shown = shown.replace(&services.gone.port().to_string(), "GONE");
        let shown = shown.replace(&services.other.address.port().to_string(), "OTHER");
        row(format!("bastion {name}: {shown}"), format!("{status}, echo {echoes}"));
    }
    row("bastion without a destination".to_owned(), ask(edge, "jump", "").await.status().to_owned());
    let local = [1, 127, 0, 0, 1];
    let name = [&[3, 9][..], b"localhost"].concat();
    let mut six = vec![4];
    six.extend_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
    for (what, host, request) in [
        ("CONNECT to what is allowed", "socks", connect(1, &local, port)),
        ("CONNECT by name", "socks", connect(1, &name, port)),
        ("CONNECT to what is not allowed", "socks", connect(1, &local, services.other.address.port())),
        ("CONNECT over IPv6, not allowed", "socks", connect(1, &six, port)),
        ("CONNECT to where nobody listens", "socks", connect(1, &local, services.gone.port())),
        ("BIND", "socks", connect(2, &local, port)),
        ("UDP ASSOCIATE", "socks", connect(3, &local, port)),
        ("CONNECT without rules", "socks-anywhere", connect(1, &local, port)),
    ] {
        let mut circuit = ask(edge, host, "").await;
        circuit.send(&[5, 1, 0]).await;
        let greeting = said(&mut circuit).await;
        circuit.send(&request).await;
        let reply = said(&mut circuit).await;
        let echoes = reply.get(1) == Some(&0) && timeout(QUIET, circuit.echoes(b"hello")).await == Ok(true);
        let reply = (reply.get(1), reply.len());
        row(format!("socks, {what}"), format!("{greeting:?}, reply {reply:?}, echo {echoes}"));
    }
    for (what, greeting) in
        [("only with a password", &[5, 1, 2][..]), ("version 4", &[4, 1, 0, 80, 127, 0, 0, 1, 0])]
    {
        let mut circuit = ask(edge, "socks", "").await;
        circuit.send(greeting).await;
        row(format!("socks, {what}"), rest(&mut circuit).await);
    }
    let request = bare(Request::get("http://unix.app.localhost/echo"));
    let answer = edge.visitor(Speaks::Http1).send(request).await;
    row("unix+tls:".to_owned(), format!("{} {}", answer.status, answer.json()["method"]));
    table
}

#[tokio::test]
#[ignore = "needs the reference's own program: cargo xtask reference PROGRAM"]
async fn one_configuration_means_the_same_to_the_references_host_and_to_ours() {
    for protocol in ["quic", "http2"] {
        let site = Site::new();
        let edge = site.edge(&EdgeDocument::new(&["west"], 1)).await;
        let services = Services::start(&site);
        site.write("config.yml", services.config(&site, protocol));
        let mut tables = Vec::new();
        for program in [reference::program(), adit()] {
            let host = start(&program, &edge, &site);
            let mark = edge.process.mark();
            edge.process.event_after(mark, "registered", |_| true).await;
            tables.push(tried(&edge, &services).await);
            host.terminate();
            host.exit().await;
            edge.process.event_after(mark, "unregistered", |_| true).await;
        }
        let [theirs, ours] = tables.try_into().expect("two tables");
        let mut wrong = Vec::new();
        println!("\n| over {protocol} | the reference's host | ours |\n|---|---|---|");
        for (row, theirs) in &theirs {
            let ours = &ours[row];
            let fits = |(name, _): &&(&str, &str)| row == name || (row.starts_with(name) && *name != JUMP);
            let better = BETTER.iter().find(fits);
            match (theirs == ours, better) {
                (true, None) => println!("| {row} | {theirs} | the same |"),
                (false, Some((_, why))) => println!("| {row} | {theirs} | {ours}: {why} |"),
                (true, Some(_)) => wrong.push(format!("{row} is no difference any more: {theirs}")),
                (false, None) => wrong.push(format!("{row}: {theirs}; ours: {ours}")),
            }
        }
        assert!(wrong.is_empty(), "{protocol}: {wrong:#?}");
    }
}
