//! Who carries the visitors' requests to the origin, each started once and kept for all rounds.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context, Result};
use e2e::document::{EdgeDocument, HOST, HostDocument};
use e2e::grpc::Grpc;
use e2e::origin::Origin;
use e2e::process::{Process, component};
use e2e::product::{Edge, Host, Site};
use e2e::reference;
use tempfile::TempDir;

use crate::balanced::{self, By};
use crate::circuits::{self, Ends};
use crate::cpu::Cpu;
use crate::options::Options;
use crate::seen::{self, Seen};
use crate::visitor::Door;
use crate::{scenario, visitor};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No one.
    Direct,
    /// nginx as a plain reverse proxy.
    Nginx,
    /// haproxy as a plain reverse proxy.
    Haproxy,
    /// A tunnel that carries TCP, without encryption.
    Rathole { program: PathBuf },
    /// A tunnel that knows HTTP, encrypted.
    Frp { folder: PathBuf },
    /// Our edge and our host, which logs every request.
    Adit { protocol: &'static str, plugins: usize, is_fresh: bool },
    /// Our edge and our host, behind a name of the edge's state.
    Named { protocol: &'static str, by: By },
    /// Our edge and our host, looked at.
    Seen { protocol: &'static str, seen: Seen },
    /// A client at the visitor's side, our edge and a host: ours, or the reference's at both ends.
    Circuit { protocol: &'static str, program: Option<PathBuf> },
    /// Our edge and another connector.
    Reference { protocol: &'static str, program: PathBuf },
}

/// What all of them carry requests to.
pub(crate) struct Origins {
    pub(crate) http: Origin,
    pub(crate) grpc: Grpc,
}

pub(crate) struct Contender {
    pub(crate) kind: Kind,
    /// Where its visitors go.
    pub(crate) door: Door,
    running: Rc<Running>,
}

enum Running {
    Nothing,
    /// One process between visitor and origin.
    Proxy {
        process: Process,
        _folder: TempDir,
    },
    /// One process at each end.
    Pair {
        server: Process,
        client: Process,
        _folder: TempDir,
    },
    Ends(Box<Ends>),
    Tunnel {
        host: Box<Host>,
        edge: Box<Edge>,
        _site: Site,
    },
}

pub(crate) fn all(options: &Options) -> Vec<Kind> {
    let mut kinds = vec![Kind::Direct];
    for (program, kind) in [("nginx", Kind::Nginx), ("haproxy", Kind::Haproxy)] {
        if is_there(program) {
            kinds.push(kind);
        } else {
            eprintln!("{program} is left out: there is no such program here");
        }
    }
    kinds.extend(options.rathole.iter().map(|program| Kind::Rathole { program: program.clone() }));
    kinds.extend(options.frp.iter().map(|folder| Kind::Frp { folder: folder.clone() }));
    for protocol in ["quic", "http2"] {
        let adit = |plugins, is_fresh| Kind::Adit { protocol, plugins, is_fresh };
        kinds.extend([0, 1, 3, 10].map(|plugins| adit(plugins, false)));
        kinds.extend([1, 3, 10].map(|plugins| adit(plugins, true)));
        kinds.extend([By::Route, By::Balancer].map(|by| Kind::Named { protocol, by }));
        kinds.extend(Seen::ALL.map(|seen| Kind::Seen { protocol, seen }));
        let programs = options.reference.iter();
        kinds.extend(programs.map(|program| Kind::Reference { protocol, program: program.clone() }));
        let programs = std::iter::once(None).chain(options.reference.clone().map(Some));
        kinds.extend(programs.map(|program| Kind::Circuit { protocol, program }));
    }
    // Only for who asks for it: it takes long, and says nothing of peers.
    let is_seen = options.only.iter().any(|word| word.starts_with("seeing"));
    kinds.retain(|kind| is_seen || !matches!(kind, Kind::Seen { .. }));
    let names: Vec<String> = kinds.iter().map(Kind::to_string).collect();
    kinds.into_iter().filter(|kind| options.wants(&kind.to_string(), &names)).collect()
}

impl Contender {
    /// Starts it in front of `origin`. What differs from the `last` one by the name that visitors ask for shares its
    /// processes, so that nothing else differs.
    pub(crate) async fn start(kind: Kind, origins: &Origins, last: Option<&Self>) -> Result<Self> {
        let host = if let Kind::Named { by, .. } = kind { by.host() } else { HOST };
        if let (Kind::Named { protocol, .. }, Some(last)) = (&kind, last)
            && let Kind::Named { protocol: before, .. } = &last.kind
            && before == protocol
        {
            let door = Door { host, ..last.door };
            return Ok(Self { kind, door, running: last.running.clone() });
        }
        let origin = &origins.http;
        let (address, running) = match &kind {
            Kind::Direct => (origin.address(), Running::Nothing),
            Kind::Nginx => nginx(origin.address()).await?,
            Kind::Haproxy => haproxy(origin.address()).await?,
            Kind::Rathole { program } => rathole(program, origin.address()).await?,
            Kind::Frp { folder } => frp(folder, origin.address()).await?,
            Kind::Adit { protocol, plugins, is_fresh } => {
                let document = document(protocol, *plugins, *is_fresh, origins);
                let (site, edge) = edge().await;
                let host = site.host_at(&edge.servers, &document).await;
                host.process.forget();
                edge.process.forget();
                (edge.http, Running::Tunnel { host: host.into(), edge: edge.into(), _site: site })
            }
            Kind::Named { protocol, .. } => {
                let (site, edge, host) = balanced::start(&document(protocol, 0, false, origins)).await?;
                host.process.forget();
                edge.process.forget();
                (edge.http, Running::Tunnel { host: host.into(), edge: edge.into(), _site: site })
            }
            Kind::Seen { protocol, seen } => {
                let (site, edge, host) = seen::start(*seen, document(protocol, 0, false, origins)).await?;
                host.process.forget();
                edge.process.forget();
                (edge.http, Running::Tunnel { host: host.into(), edge: edge.into(), _site: site })
            }
            Kind::Circuit { protocol, program } => {
                let (address, ends) = circuits::start(protocol, program.as_deref()).await?;
                (address, Running::Ends(ends.into()))
            }
            Kind::Reference { protocol, program } => {
                let document = document(protocol, 0, false, origins);
                let (site, edge) = edge().await;
                let host = reference::host(program.clone(), &site, &edge.servers, &document).await;
                (edge.http, Running::Tunnel { host: host.into(), edge: edge.into(), _site: site })
            }
        };
        Ok(Self { kind, door: Door { address, host }, running: Rc::new(running) })
    }

    /// Whether it can carry what these visitors do.
    pub(crate) fn takes(&self, kind: scenario::Kind) -> bool {
        let is_circuit = matches!(self.kind, Kind::Circuit { .. });
        match kind {
            scenario::Kind::CircuitDown(_) | scenario::Kind::CircuitUp(_) => is_circuit,
            _ if is_circuit => false,
            // The others would want it over TLS, or as an origin of its own.
            scenario::Kind::Call => matches!(self.kind, Kind::Adit { .. } | Kind::Named { .. }),
            // It would have to be told of upgrades.
            scenario::Kind::Messages => self.kind != Kind::Nginx,
            scenario::Kind::Get
            | scenario::Kind::Browser
            | scenario::Kind::Fresh
            | scenario::Kind::Post
            | scenario::Kind::Paced(_)
            | scenario::Kind::Events
            | scenario::Kind::Down(_)
            | scenario::Kind::Up(_) => true,
        }
    }

    pub(crate) fn cpu(&self) -> Cpu {
        let mut ids = HashMap::<_, Vec<u32>>::new();
        for (name, process) in self.processes() {
            ids.entry(name).or_default().extend(std::iter::once(process.id()).chain(process.children()));
        }
        Cpu::of(ids)
    }

    /// Resident bytes of each process.
    pub(crate) fn memory(&self) -> HashMap<&'static str, u64> {
        let mut memory = HashMap::new();
        for (name, process) in self.processes() {
            *memory.entry(name).or_default() += process.memory();
        }
        memory
    }

    fn processes(&self) -> Vec<(&'static str, &Process)> {
        match &*self.running {
            Running::Nothing => Vec::new(),
            Running::Proxy { process, .. } => vec![("proxy", process)],
            Running::Pair { server, client, .. } => vec![("edge", server), ("host", client)],
            // The client is the other half of the host's work.
            Running::Ends(ends) => {
                vec![("edge", &ends.edge.process), ("host", &ends.host.process), ("host", &ends.client)]
            }
            Running::Tunnel { host, edge, .. } => vec![("edge", &edge.process), ("host", &host.process)],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Nginx => f.write_str("nginx"),
            Self::Haproxy => f.write_str("haproxy"),
            Self::Rathole { .. } => f.write_str("rathole"),
            Self::Frp { .. } => f.write_str("frp"),
            Self::Adit { protocol, plugins: 0, .. } => write!(f, "adit {protocol}"),
            Self::Adit { protocol, plugins, is_fresh } => {
                let (fresh, s) =
                    (if *is_fresh { "fresh " } else { "" }, if *plugins == 1 { "" } else { "s" });
                write!(f, "adit {protocol} + {plugins} {fresh}plugin{s}")
            }
            Self::Named { protocol, by } => write!(f, "adit {protocol} behind {by}"),
            Self::Seen { protocol, seen } => write!(f, "seeing {protocol}: {seen}"),
            Self::Circuit { protocol, program: None } => write!(f, "adit {protocol} at both ends"),
            Self::Circuit { protocol, program: Some(_) } => {
                write!(f, "the reference {protocol} at both ends")
            }
            Self::Reference { protocol, program } => {
                let name = program.file_name().unwrap_or(program.as_os_str());
                write!(f, "{} {protocol}", name.display())
            }
        }
    }
}

async fn edge() -> (Site, Edge) {
    let site = Site::new();
    let edge = site.edge(&EdgeDocument::new(&["north", "south"], 2)).await;
    (site, edge)
}

fn document(protocol: &'static str, plugins: usize, is_fresh: bool, origins: &Origins) -> HostDocument {
    let mut document = HostDocument::new().connections(4).over(protocol).keys("access-log = true");
    let names: Vec<String> = (0..plugins).map(|number| format!("mark-{number}")).collect();
    let instances = if is_fresh { "instances = \"fresh\"\n" } else { "" };
    for name in &names {
        let edit = format!("{instances}[plugin.config.response]\nset = {{ \"x-{name}\" = \"1\" }}");
        document = document.plugin(name, &component("headers"), &edit);
    }
    let calls = format!("path = \"^/Unary$\"\nplugins = {names:?}\n{}", origins.grpc.rule());
    let others = format!("service = {:?}\nplugins = {names:?}", origins.http.service());
    document.rule(&calls).rule(&others)
}

/// Two workers with connections kept to the origin, and nothing else.
async fn nginx(origin: SocketAddr) -> Result<(SocketAddr, Running)> {
    let folder = tempfile::tempdir().context("a folder for nginx")?;
    let address = free_address()?;
    let path = folder.path().display();
    let configuration = format!(
        "daemon off; worker_processes 2; pid {path}/pid; error_log {path}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; client_max_body_size 0; client_body_temp_path {path}; proxy_temp_path {path};\n\
         fastcgi_temp_path {path}; uwsgi_temp_path {path}; scgi_temp_path {path};\n\
         keepalive_requests 1000000000; proxy_buffering off; proxy_request_buffering off;\n\
         upstream origin {{ server {origin}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{ listen {address} reuseport; location / {{ proxy_pass http://origin; proxy_http_version 1.1;\n\
         proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }} }}\n"
    );
    proxy("nginx", &["-p", &path.to_string(), "-c"], "nginx.conf", &configuration, address, folder).await
}

async fn haproxy(origin: SocketAddr) -> Result<(SocketAddr, Running)> {
    let folder = tempfile::tempdir().context("a folder for haproxy")?;
    let address = free_address()?;
    let configuration = format!(
        "global\n nbthread 2\n maxconn 4096\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n \
         timeout server 60s\n timeout tunnel 60s\n http-reuse always\nfrontend visitors\n bind {address}\n \
         default_backend origin\nbackend origin\n server origin {origin}\n"
    );
    proxy("haproxy", &["-f"], "haproxy.cfg", &configuration, address, folder).await
}

/// Runs `program` with the arguments and its configuration's file behind them, until it listens.
async fn proxy(
    program: &str,
    arguments: &[&str],
    file: &str,
    configuration: &str,
    address: SocketAddr,
    folder: TempDir,
) -> Result<(SocketAddr, Running)> {
    let file = folder.path().join(file);
    std::fs::write(&file, configuration)?;
    let mut command = Command::new(program);
    command.args(arguments).arg(&file);
    let process = Process::start(program, command);
    listens(&process, address).await;
    Ok((address, Running::Proxy { process, _folder: folder }))
}

/// Plain TCP on both of its ways, as its own quick start has it.
async fn rathole(program: &Path, origin: SocketAddr) -> Result<(SocketAddr, Running)> {
    let (control, address) = (free_address()?, free_address()?);
    let server = format!(
        "[server]\nbind_addr = \"{control}\"\ndefault_token = \"bench\"\n\
         [server.services.origin]\nbind_addr = \"{address}\"\n"
    );
    let client = format!(
        "[client]\nremote_addr = \"{control}\"\ndefault_token = \"bench\"\n\
         [client.services.origin]\nlocal_addr = \"{origin}\"\n"
    );
    let server = (program, "--server", server);
    pair(server, (program, "--client", client), control, address).await
}

/// With what it does unless told otherwise: TLS, and all streams over one connection.
async fn frp(folder: &Path, origin: SocketAddr) -> Result<(SocketAddr, Running)> {
    let (control, address) = (free_address()?, free_address()?);
    let server = format!(
        "bindAddr = \"{}\"\nbindPort = {}\nproxyBindAddr = \"{}\"\nvhostHTTPPort = {}\nauth.token = \"bench\"\n\
         transport.maxPoolCount = 64\n",
        control.ip(),
        control.port(),
        address.ip(),
        address.port()
    );
    let client = format!(
        "serverAddr = \"{}\"\nserverPort = {}\nauth.token = \"bench\"\ntransport.poolCount = 64\n\
         [[proxies]]\nname = \"origin\"\ntype = \"http\"\ncustomDomains = [\"{HOST}\"]\n\
         localIP = \"{}\"\nlocalPort = {}\n",
        control.ip(),
        control.port(),
        origin.ip(),
        origin.port()
    );
    let (servers, clients) = (folder.join("frps"), folder.join("frpc"));
    pair((&servers, "-c", server), (&clients, "-c", client), control, address).await
}

/// Starts both ends, each a program with the argument before its configuration's file.
async fn pair(
    (server, server_argument, server_configuration): (&Path, &str, String),
    (client, client_argument, client_configuration): (&Path, &str, String),
    control: SocketAddr,
    address: SocketAddr,
) -> Result<(SocketAddr, Running)> {
    let folder = tempfile::tempdir().context("a folder for configurations")?;
    let start = |name: &str, program: &Path, argument: &str, configuration: String| -> Result<Process> {
        let file = folder.path().join(format!("{name}.toml"));
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        command.arg(argument).arg(&file);
        Ok(Process::start(name, command))
    };
    let server = start("server", server, server_argument, server_configuration)?;
    listens(&server, control).await;
    let client = start("client", client, client_argument, client_configuration)?;
    answers(&client, address).await;
    Ok((address, Running::Pair { server, client, _folder: folder }))
}

/// Until a request comes back from the origin.
async fn answers(process: &Process, address: SocketAddr) {
    e2e::within("it answers", async {
        while visitor::once(Door { address, host: HOST }).await.is_err() {
            assert!(process.is_running(), "it does not start\n{}", process.tail());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

async fn listens(process: &Process, address: SocketAddr) {
    e2e::within("it listens", async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(process.is_running(), "it does not start\n{}", process.tail());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// They cannot be asked for any free port.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
