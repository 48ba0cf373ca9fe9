//! What grows with the number of connections, plugins, streams, tunnels, host names and rules.
//!
//! `cargo xtask bench scale` builds and runs it; `--help` lists the options. Every figure is the difference
//! between two states of one process: resident memory and processor time, by the kernel's accounts.

mod connector;

#[path = "../adit/cpu.rs"]
mod cpu;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use adit_protocol::credentials::{Credentials, TunnelSecret};
use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Process, component};
use e2e::product::{Edge, Site};
use futures_util::future::try_join_all;
use http::Request;
use http::header::HOST as HOST_HEADER;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use connector::{Connector, Endpoint};
use cpu::Cpu;

struct Options {
    hosts: usize,
    sockets: usize,
    names: usize,
    results: PathBuf,
}

const HELP: &str = "\
Usage: cargo xtask bench scale [options]

Measures what grows with connections, plugins, open streams, tunnels, host names and rules, and prints tables.

  --hosts N         hosts of four connections each at one edge process (default 1000)
  --sockets N       WebSockets through one host (default 10000; each is an open file or two in four programs)
  --names N         tunnels with a host name each, and rules of one host (default 10000)
  --results FOLDER  where the tables go, as scale.md (default bench/results)
  --help            this text
";

fn main() -> ExitCode {
    match options().and_then(|options| options.map_or(Ok(()), |options| run(&options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> Result<Option<Options>> {
    let results = concat!(env!("CARGO_MANIFEST_DIR"), "/results").into();
    let mut options = Options { hosts: 1000, sockets: 10_000, names: 10_000, results };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            ORIGIN => {
                serve();
                return Ok(None);
            }
            // cargo adds it to whatever it runs as a benchmark.
            "--bench" => continue,
            _ => {}
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        let number = || value.parse::<usize>().with_context(|| format!("{word} {value}: not a number"));
        match word.as_str() {
            "--hosts" => options.hosts = number()?.max(1),
            "--sockets" => options.sockets = number()?.max(1),
            "--names" => options.names = number()?.max(10),
            "--results" => options.results = value.into(),
            _ => bail!("{word}: no such option\n\n{HELP}"),
        }
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut text = String::new();
    LocalSet::new().block_on(&runtime, async {
        connections(options.hosts, &mut text).await.context("connections")?;
        plugins(&mut text).await.context("plugins")?;
        sockets(options.sockets, &mut text).await.context("WebSockets")?;
        names(options.names, &mut text).await.context("tunnels and host names")?;
        rules(options.names, &mut text).await.context("rules")
    })?;
    println!("{text}");
    std::fs::create_dir_all(&options.results)?;
    std::fs::write(options.results.join("scale.md"), &text)?;
    eprintln!("written to {}", options.results.join("scale.md").display());
    Ok(())
}

/// Connections of hosts that have nothing to do, and their return when the edge was restarted.
async fn connections(hosts: usize, text: &mut String) -> Result<()> {
    // A tunnel takes a hundred connections.
    let tunnels = several(hosts.div_ceil(HOSTS_OF_TUNNEL));
    let site = Site::new();
    let document = EdgeDocument::new(&["north", "south"], 2);
    let edge = started(&site, &document, &tunnels).await;
    let ca = site.path(&document.data_dir).join("ca.pem");
    let before = Usage::of(&edge.process);
    eprintln!("{hosts} hosts connect");
    let begun = Instant::now();
    let all = connect(hosts, &ca, &edge.servers, &tunnels).await?;
    let (took, connected) = (begun.elapsed(), Usage::of(&edge.process));
    let count = all.len() as f64;
    tokio::time::sleep(SETTLE).await;
    let quiet = Usage::of(&edge.process);
    tokio::time::sleep(IDLE).await;
    let idle = Usage::of(&edge.process);
    let _ = writeln!(text, "## {hosts} hosts at one edge process\n\n| | |\n|---|---|");
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    row("connections", format!("{count}"));
    row("registered within", format!("{:.1} s", took.as_secs_f64()));
    row("edge CPU for a connection", format!("{:.0} us", connected.cpu_since(&before) * 1e6 / count));
    row("edge memory for an idle connection", format!("{:.1} KiB", quiet.kib_since(&before) / count));
    row(
        "edge CPU for an idle connection",
        format!("{:.1} us a second", idle.cpu_since(&quiet) * 1e6 / count / IDLE.as_secs_f64()),
    );
    drop(all);
    drop(edge);

    let mut document = document;
    // The same addresses as before, as after a crash.
    for server in &mut document.servers {
        server.listen = free_address()?.to_string();
    }
    let edge = started(&site, &document, &tunnels).await;
    let servers = edge.servers.clone();
    let all = connect(hosts, &ca, &servers, &tunnels).await?;
    eprintln!("the edge is killed, and all come back");
    edge.process.kill();
    let mut lost: JoinSet<_> = all
        .into_iter()
        .map(|connector| async move { connector.connection.close(0u32.into(), b"") })
        .collect();
    while lost.join_next().await.is_some() {}
    drop(edge);
    let edge = started(&site, &document, &tunnels).await;
    let begun = Instant::now();
    let before = Usage::of(&edge.process);
    let all = connect(hosts, &ca, &servers, &tunnels).await?;
    let after = Usage::of(&edge.process);
    let mut row = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    row("all back after a restart within", format!("{:.1} s", begun.elapsed().as_secs_f64()));
    row("edge CPU for that", format!("{:.2} s", after.cpu_since(&before)));
    ensure!(!all.is_empty(), "no connection came back");
    text.push('\n');
    Ok(())
}

async fn connect(
    hosts: usize,
    ca: &std::path::Path,
    servers: &[SocketAddr],
    tunnels: &[Credentials],
) -> Result<Vec<Connector>> {
    let mut all = Vec::new();
    let endpoints: Vec<Endpoint> =
        (0..hosts.div_ceil(HOSTS_OF_SOCKET)).map(|_| Endpoint::new(ca)).collect::<Result<_>>()?;
    // As many at once as a storm would bring; more would only wait in the same queues.
    for first in (0..hosts).step_by(AT_ONCE) {
        let some = (first..hosts.min(first + AT_ONCE)).flat_map(|host| {
            let (endpoint, credentials) =
                (&endpoints[host / HOSTS_OF_SOCKET], &tunnels[host / HOSTS_OF_TUNNEL]);
            let client = Uuid::new_v4();
            (0..4u8).map(move |index| {
                endpoint.connect(servers[usize::from(index) % servers.len()], credentials, client, index)
            })
        });
        all.extend(try_join_all(some).await?);
    }
    Ok(all)
}

/// A chain of so many plugins, all of which every request passes.
async fn plugins(text: &mut String) -> Result<()> {
    let shelf = [
        ("ip_allow", "[plugin.config]\nallow = [\"127.0.0.0/8\"]"),
        ("request_id", ""),
        ("headers", "[plugin.config.response]\nset = { \"x-mark\" = \"1\" }"),
        (
            "rewrite_redirect",
            "[plugin.config]\nrules = [{ prefix = \"/old\", to-path = \"/new\", status = 308 }]",
        ),
        ("maintenance", "[plugin.config]\npaths = [\"/status/200\"]"),
    ];
    let origin = Origin::start();
    let _ = writeln!(
        text,
        "## Plugins in a chain, of five kinds\n\n| plugins | start | host memory, idle | after requests | host CPU-us a request, least of {ROUNDS} |\n|---|---|---|---|---|"
    );
    for count in CHAINS {
        eprintln!("{count} plugins");
        let site = Site::new();
        let edge = site.edge(&EdgeDocument::new(&["north", "south"], 2)).await;
        let mut document = HostDocument::new().connections(4);
        let mut names = Vec::new();
        for (number, (component_of, more)) in (0..count).zip(shelf.iter().cycle()) {
            let name = format!("{component_of}-{number}");
            document = document.plugin(&name, &component(component_of), more);
            names.push(name);
        }
        let document = document.rule(&format!("service = {:?}\nplugins = {names:?}", origin.service()));
        let begun = Instant::now();
        let host = site.host_at(&edge.servers, &document).await;
        let took = begun.elapsed();
        tokio::time::sleep(SETTLE).await;
        let idle = host.process.memory();
        let cost = cost(&host.process, edge.http, HOST).await?;
        tokio::time::sleep(SETTLE).await;
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "| {count} | {:.1} s | {:.1} MiB | {:.1} MiB | {cost:.1} |",
            took.as_secs_f64(),
            mib(idle),
            mib(host.process.memory())
        );
    }
    text.push('\n');
    Ok(())
}

/// The origin is a program of its own, because the number of files that one may open is limited.
fn serve() {
    let origin = Origin::start();
    eprintln!("{}", origin.service());
    // Until whoever began it ends.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// Streams that stay open, at both ends.
async fn sockets(count: usize, text: &mut String) -> Result<()> {
    let mut origin = Command::new(std::env::current_exe()?);
    origin.arg(ORIGIN);
    let origin = Process::start("origin", origin);
    let service = origin.said("an address", |line| line.starts_with("http://")).await;
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["north", "south"], 2)).await;
    let document = HostDocument::new().connections(4).otherwise(&service);
    let host = site.host_at(&edge.servers, &document).await;
    eprintln!("{count} WebSockets open");
    // What the first few need stays, whatever comes.
    let mut open = open_sockets(edge.http, 64).await?;
    let (edge_before, host_before) = (Usage::of(&edge.process), Usage::of(&host.process));
    let begun = Instant::now();
    while open.len() < count {
        open.extend(open_sockets(edge.http, (count - open.len()).min(256)).await?);
    }
    let took = begun.elapsed();
    let (edge_after, host_after) = (Usage::of(&edge.process), Usage::of(&host.process));
    let added = (open.len() - 64) as f64;
    // They live.
    for socket in open.iter_mut().step_by(97) {
        echo(socket).await?;
    }
    let _ = writeln!(text, "## {count} WebSockets through one host\n\n| | edge | host |\n|---|---|---|");
    let _ = writeln!(
        text,
        "| memory for an open stream, its visitor or its origin included | {:.1} KiB | {:.1} KiB |",
        edge_after.kib_since(&edge_before) / added,
        host_after.kib_since(&host_before) / added
    );
    let _ = writeln!(
        text,
        "| CPU to open one | {:.0} us | {:.0} us |",
        edge_after.cpu_since(&edge_before) * 1e6 / added,
        host_after.cpu_since(&host_before) * 1e6 / added
    );
    let _ = writeln!(text, "\nAll were open within {:.1} s.\n", took.as_secs_f64());
    Ok(())
}

type Socket = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn open_sockets(edge: SocketAddr, count: usize) -> Result<Vec<Socket>> {
    try_join_all((0..count).map(|_| async {
        let tcp = TcpStream::connect(edge).await.context("connecting as a visitor")?;
        tcp.set_nodelay(true)?;
        let (mut socket, _) = client_async(format!("ws://{HOST}/websocket"), tcp).await?;
        echo(&mut socket).await?;
        Ok(socket)
    }))
    .await
}

async fn echo(socket: &mut Socket) -> Result<()> {
    use futures_util::{SinkExt as _, StreamExt as _};
    let message = Message::text("hello");
    socket.send(message.clone()).await?;
    let back = socket.next().await.context("the socket was closed")??;
    ensure!(back == message, "another message came back");
    Ok(())
}

/// The edge's way from a host name to a tunnel.
async fn names(most: usize, text: &mut String) -> Result<()> {
    let _ = writeln!(
        text,
        "## Tunnels with a host name each\n\n| tunnels | start | edge memory | edge CPU-us a request, least of {ROUNDS} |\n|---|---|---|---|"
    );
    let origin = Origin::start();
    for count in sizes(most) {
        eprintln!("{count} tunnels");
        let tunnels = several(count);
        let site = Site::new();
        let document = EdgeDocument::new(&["north", "south"], 2);
        let begun = Instant::now();
        let edge = started(&site, &document, &tunnels).await;
        let took = begun.elapsed();
        let memory = edge.process.memory();
        let host = HostDocument::new().connections(4).otherwise(&origin.service());
        let _host = site.host_at(&edge.servers, &host).await;
        let cost = cost(&edge.process, edge.http, HOST).await?;
        let _ = writeln!(
            text,
            "| {count} | {:.1} s | {:.1} MiB | {cost:.1} |",
            took.as_secs_f64(),
            memory as f64 / f64::from(1 << 20)
        );
    }
    text.push('\n');
    Ok(())
}

/// The host's way from a host name to a rule.
async fn rules(most: usize, text: &mut String) -> Result<()> {
    let _ = writeln!(
        text,
        "## Rules of one host, a host name and a path each\n\n| rules | start | host memory | host CPU-us a request for the last rule, least of {ROUNDS} |\n|---|---|---|---|"
    );
    let origin = Origin::start();
    for count in sizes(most) {
        eprintln!("{count} rules");
        let site = Site::new();
        let edge = site.edge(&EdgeDocument::new(&["north", "south"], 2)).await;
        let mut document = HostDocument::new().connections(4);
        for number in 0..count - 1 {
            document = document.rule(&format!(
                "hostname = \"site-{number}.{HOST}\"\npath = \"^/status\"\nservice = \"{}\"",
                origin.service()
            ));
        }
        document = document.otherwise("http_status:404");
        let begun = Instant::now();
        let host = site.host_at(&edge.servers, &document).await;
        let took = begun.elapsed();
        let memory = host.process.memory();
        let name = format!("site-{}.{HOST}", count - 2);
        let cost = cost(&host.process, edge.http, &name).await?;
        let _ = writeln!(
            text,
            "| {count} | {:.1} s | {:.1} MiB | {cost:.1} |",
            took.as_secs_f64(),
            memory as f64 / f64::from(1 << 20)
        );
    }
    text.push('\n');
    Ok(())
}

fn sizes(most: usize) -> [usize; 3] {
    [10, (most / 10).max(10), most]
}

/// Microseconds of one process for a request by 64 visitors, the least of some rounds.
async fn cost(process: &Process, address: SocketAddr, name: &str) -> Result<f64> {
    let mut least = f64::MAX;
    for round in 0..=ROUNDS {
        let before = Usage::of(process);
        let until = Instant::now() + ROUND;
        let visits = (0..64).map(|_| ask(address, name.to_owned(), until));
        let requests: u64 = try_join_all(visits).await?.into_iter().sum();
        // The first fills pools and caches.
        if round > 0 {
            least = least.min(Usage::of(process).cpu_since(&before) * 1e6 / requests as f64);
        }
    }
    Ok(least)
}

async fn ask(address: SocketAddr, name: String, until: Instant) -> Result<u64> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let mut requests = 0;
    while Instant::now() < until {
        let request = Request::builder().header(HOST_HEADER, &name).uri("/status/200");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        ensure!(response.status().is_success(), "status {} for {name}", response.status());
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        requests += 1;
    }
    driver.abort();
    Ok(requests)
}

/// An edge that knows these tunnels too.
async fn started(site: &Site, document: &EdgeDocument, tunnels: &[Credentials]) -> Edge {
    let mut document = document.clone();
    for (number, tunnel) in tunnels.iter().enumerate() {
        let file = format!("tunnel-{number}.json");
        site.write(&file, tunnel.to_json());
        document.more.push_str(&format!(
            "[[tunnel]]\nname = \"tunnel-{number}\"\ncredentials-file = \"{file}\"\nhostnames = [\"tunnel-{number}.localhost\"]\n"
        ));
    }
    site.edge(&document).await
}

fn several(count: usize) -> Vec<Credentials> {
    let tunnel = |_| {
        let secret = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        Credentials {
            account_tag: Uuid::new_v4().simple().to_string(),
            tunnel_secret: TunnelSecret::new(&secret).expect("a secret of 32 bytes"),
            tunnel_id: Uuid::new_v4(),
            endpoint: None,
        }
    };
    (0..count).map(tunnel).collect()
}

fn free_address() -> Result<SocketAddr> {
    Ok(std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?)
}

/// What a process has used so far, and holds.
struct Usage {
    cpu: Cpu,
    memory: u64,
}

impl Usage {
    fn of(process: &Process) -> Self {
        Self { cpu: Cpu::of([("it", vec![process.id()])]), memory: process.memory() }
    }

    /// Seconds.
    fn cpu_since(&self, before: &Self) -> f64 {
        self.cpu.since(&before.cpu)["it"].as_secs_f64()
    }

    fn kib_since(&self, before: &Self) -> f64 {
        (self.memory as f64 - before.memory as f64) / 1024.
    }
}

/// The word by which this program is the origin.
const ORIGIN: &str = "--origin";
const HOSTS_OF_TUNNEL: usize = 25;
/// Hosts that share a UDP socket of this program.
const HOSTS_OF_SOCKET: usize = 50;
const AT_ONCE: usize = 50;
const SETTLE: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(10);
/// A chain has at most 32.
const CHAINS: [usize; 5] = [0, 1, 5, 10, 30];
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_secs(1);
