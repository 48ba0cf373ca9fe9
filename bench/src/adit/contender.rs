//! Who carries the visitors' requests to the origin, each started once and kept for all rounds.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use e2e::document::{EdgeDocument, HostDocument};
use e2e::origin::Origin;
use e2e::process::{Process, component};
use e2e::product::{Edge, Host, Site};
use e2e::reference;
use tempfile::TempDir;

use crate::cpu::Cpu;
use crate::options::Options;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No one.
    Direct,
    /// nginx as a plain reverse proxy.
    Nginx,
    /// Our edge and our host.
    Adit { protocol: &'static str, plugins: usize },
    /// Our edge and another connector.
    Reference { protocol: &'static str, program: PathBuf },
}

pub(crate) struct Contender {
    pub(crate) kind: Kind,
    /// Where its visitors go.
    pub(crate) address: SocketAddr,
    running: Running,
}

enum Running {
    Nothing,
    Nginx { process: Process, _folder: TempDir },
    Tunnel { host: Box<Host>, edge: Box<Edge>, _site: Site },
}

pub(crate) fn all(options: &Options) -> Vec<Kind> {
    let mut kinds = vec![Kind::Direct];
    if is_there("nginx") {
        kinds.push(Kind::Nginx);
    } else {
        eprintln!("nginx is left out: there is no such program here");
    }
    let programs = options.reference.iter();
    for protocol in ["quic", "http2"] {
        kinds.extend([0, 1, 3, 10].map(|plugins| Kind::Adit { protocol, plugins }));
        kinds.extend(programs.clone().map(|program| Kind::Reference { protocol, program: program.clone() }));
    }
    let names: Vec<String> = kinds.iter().map(Kind::to_string).collect();
    kinds.into_iter().filter(|kind| options.wants(&kind.to_string(), &names)).collect()
}

impl Contender {
    /// Starts it in front of `origin`.
    pub(crate) async fn start(kind: Kind, origin: &Origin) -> Result<Self> {
        let (address, running) = match &kind {
            Kind::Direct => (origin.address(), Running::Nothing),
            Kind::Nginx => nginx(origin.address()).await?,
            Kind::Adit { protocol, plugins } => {
                let document = document(protocol, *plugins, origin);
                let (site, edge) = edge().await;
                let host = site.host_at(&edge.servers, &document).await;
                (edge.http, Running::Tunnel { host: host.into(), edge: edge.into(), _site: site })
            }
            Kind::Reference { protocol, program } => {
                let document = document(protocol, 0, origin);
                let (site, edge) = edge().await;
                let host = reference::host(program.clone(), &site, &edge.servers, &document).await;
                (edge.http, Running::Tunnel { host: host.into(), edge: edge.into(), _site: site })
            }
        };
        Ok(Self { kind, address, running })
    }

    pub(crate) fn cpu(&self) -> Cpu {
        Cpu::of(self.processes().into_iter().map(|(name, process)| {
            let ids = std::iter::once(process.id()).chain(process.children());
            (name, ids.collect())
        }))
    }

    /// Resident bytes of each process.
    pub(crate) fn memory(&self) -> Vec<(&'static str, u64)> {
        self.processes().into_iter().map(|(name, process)| (name, process.memory())).collect()
    }

    fn processes(&self) -> Vec<(&'static str, &Process)> {
        match &self.running {
            Running::Nothing => Vec::new(),
            Running::Nginx { process, .. } => vec![("proxy", process)],
            Running::Tunnel { host, edge, .. } => vec![("edge", &edge.process), ("host", &host.process)],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::Nginx => f.write_str("nginx"),
            Self::Adit { protocol, plugins: 0 } => write!(f, "adit {protocol}"),
            Self::Adit { protocol, plugins: 1 } => write!(f, "adit {protocol} + 1 plugin"),
            Self::Adit { protocol, plugins } => write!(f, "adit {protocol} + {plugins} plugins"),
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

fn document(protocol: &'static str, plugins: usize, origin: &Origin) -> HostDocument {
    let mut document = HostDocument::new().connections(4).over(protocol);
    let names: Vec<String> = (0..plugins).map(|number| format!("mark-{number}")).collect();
    for name in &names {
        let edit = format!("[plugin.config.response]\nset = {{ \"x-{name}\" = \"1\" }}");
        document = document.plugin(name, &component("headers"), &edit);
    }
    document.rule(&format!("service = {:?}\nplugins = {names:?}", origin.service()))
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
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration)?;
    let mut command = Command::new("nginx");
    command.arg("-c").arg(&file).arg("-p").arg(folder.path());
    let process = Process::start("nginx", command);
    e2e::within("nginx listens", async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            assert!(process.is_running(), "nginx does not start\n{}", process.tail());
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    Ok((address, Running::Nginx { process, _folder: folder }))
}

/// nginx cannot be asked for any free port.
fn free_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| Path::new(&folder).join(program).is_file())
}
