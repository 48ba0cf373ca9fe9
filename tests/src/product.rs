//! An edge and a host with one tunnel between them, as an operator would run them: two processes, a
//! folder with their files.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use adit_protocol::credentials::{Credentials, TunnelSecret};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::document::{EdgeDocument, HostDocument};
use crate::origin::Origin;
use crate::process::{Process, adit};
use crate::reference;
use crate::visitor::{Answer, Speaks, Visitor, bare, get, to};
use crate::within;

/// A folder with the files of both sides and the credentials of the tunnel `demo`.
pub struct Site {
    folder: TempDir,
    /// What is free goes back at once, so that a process is as large as what it holds.
    gives_back_at_once: bool,
    disks: Disks,
    pub credentials: Credentials,
}

/// Where the programs of a site write.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Disks {
    AsTheyAre,
    ThatFill,
    Full,
}

/// Waits until nobody has this address. The system may have lent its port to somebody else since a process that
/// is started again had it.
async fn free(address: &str) {
    let is_taken =
        |error: Option<io::Error>| error.is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    within(&format!("{address} is free"), async {
        while is_taken(TcpListener::bind(address).err()) || is_taken(UdpSocket::bind(address).err()) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// A running edge.
pub struct Edge {
    pub process: Process,
    pub document: EdgeDocument,
    pub http: SocketAddr,
    pub https: Option<SocketAddr>,
    pub admin: SocketAddr,
    pub servers: Vec<SocketAddr>,
    ca: PathBuf,
}

/// A running host.
pub struct Host {
    pub process: Process,
    pub admin: SocketAddr,
}

/// Both, connected.
pub struct Product {
    // In the order in which they go: the host first.
    pub host: Host,
    pub edge: Edge,
    pub site: Site,
}

impl Site {
    pub fn new() -> Self {
        static SWEPT: Once = Once::new();
        SWEPT.call_once(sweep);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir().expect("a temporary folder");
        // Any 32 bytes are as good as random ones here, and no two tests share a folder.
        let secret = [Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat();
        let credentials = Credentials {
            account_tag: Uuid::new_v4().simple().to_string(),
            tunnel_secret: TunnelSecret::new(&secret).expect("a secret of 32 bytes"),
            tunnel_id: Uuid::new_v4(),
            endpoint: None,
        };
        let site = Self { folder, gives_back_at_once: false, disks: Disks::AsTheyAre, credentials };
        site.write("demo.json", site.credentials.to_json());
        site
    }

    /// Where the memory of processes is looked at: the allocator keeps what was freed for ten seconds otherwise.
    pub fn giving_back_at_once(mut self) -> Self {
        self.gives_back_at_once = true;
        self
    }

    /// Where [`Process::fill_disk`] is used: what cannot be written is an error then, and not the end of a process.
    pub fn on_disks_that_fill(mut self) -> Self {
        self.disks = Disks::ThatFill;
        self
    }

    /// What is started from now on begins on such a disk when it is full.
    pub fn fill_disks(&mut self) {
        self.disks = Disks::Full;
    }

    fn program(&self) -> Command {
        let mut command = Command::new(adit());
        let filled = match self.disks {
            Disks::AsTheyAre => "",
            Disks::ThatFill => "trap '' XFSZ",
            Disks::Full => "trap '' XFSZ; ulimit -S -f 0",
        };
        if !filled.is_empty() {
            command = Command::new("sh");
            command.arg("-c").arg(format!("{filled}; exec \"$0\" \"$@\"")).arg(adit());
        }
        if self.gives_back_at_once {
            command.env("_RJEM_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0");
        }
        command
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap_or_else(|error| panic!("writing {}: {error}", path.display()));
        path
    }

    /// Starts an edge and waits until it listens everywhere.
    pub async fn edge(&self, document: &EdgeDocument) -> Edge {
        self.edge_named("edge", document).await
    }

    /// The same beside others: its document and its log go by its name.
    pub async fn edge_named(&self, name: &str, document: &EdgeDocument) -> Edge {
        let file = format!("{name}.toml");
        self.write(&file, document.to_toml());
        let arguments = ["edge", "run", "--config", &file];
        let tcp = [&document.http, &document.admin].into_iter().chain(&document.https);
        let servers = document.servers.iter().map(|server| &server.listen);
        for address in tcp.chain(servers) {
            free(address).await;
        }
        let process = Process::adit_by(self.program(), name, &arguments, self.folder());
        let http = listening(&process, "visitors-http").await;
        let https = match document.https {
            Some(_) => Some(listening(&process, "visitors-https").await),
            None => None,
        };
        let admin = listening(&process, "admin").await;
        let mut servers = Vec::new();
        for server in &document.servers {
            let event = process.event("listening", |event| {
                event["kind"] == "server" && event["name"] == server.name.as_str()
            });
            servers.push(address(&event.await));
        }
        let ca = self.path(&document.data_dir).join("ca.pem");
        Edge { process, document: document.clone(), http, https, admin, servers, ca }
    }

    /// Starts a host that dials these servers, without waiting for anything but its start.
    pub fn spawn_host(&self, servers: &[SocketAddr], document: &HostDocument) -> Process {
        self.spawn_host_named("host", servers, document)
    }

    /// The same beside others: its document and its log go by its name.
    pub fn spawn_host_named(&self, name: &str, servers: &[SocketAddr], document: &HostDocument) -> Process {
        let file = format!("{name}.toml");
        self.write(&file, document.to_toml(servers));
        let arguments = ["tunnel", "run", "--config", &file];
        Process::adit_by(self.program(), name, &arguments, self.folder())
    }

    /// Starts a host and waits until every connection is registered.
    pub async fn host(&self, edge: &Edge, document: &HostDocument) -> Host {
        if let Some(program) = reference::connector(document) {
            let twice = edge.servers.repeat(2);
            return reference::host(program, self, &twice, document).await;
        }
        self.host_at(&edge.servers, document).await
    }

    /// The same where the way to the edge is not a straight one.
    pub async fn host_at(&self, servers: &[SocketAddr], document: &HostDocument) -> Host {
        Host::connected(self.spawn_host(servers, document), document.connections).await
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Product {
    pub async fn start(edge: EdgeDocument, host: HostDocument) -> Self {
        Self::start_at(Site::new(), edge, host).await
    }

    /// The same where the site has files already.
    pub async fn start_at(site: Site, edge: EdgeDocument, host: HostDocument) -> Self {
        let edge = site.edge(&edge).await;
        let host = site.host(&edge, &host).await;
        Self { host, edge, site }
    }

    /// The smallest one: one server, one connection, a catch-all rule.
    pub async fn simple(service: &str) -> Self {
        Self::start(EdgeDocument::new(&["west"], 1), HostDocument::new().otherwise(service)).await
    }

    pub fn visitor(&self, speaks: Speaks) -> Visitor {
        self.edge.visitor(speaks)
    }

    /// `GET` over HTTP/1.1 on a connection of its own.
    pub async fn get(&self, path: &str) -> Answer {
        self.visitor(Speaks::Http1).send(get(path)).await
    }
}

impl Edge {
    pub fn visitor(&self, speaks: Speaks) -> Visitor {
        let address =
            if speaks.is_secure() { self.https.expect("this edge has no https") } else { self.http };
        Visitor::new(address, speaks, Some(&self.ca))
    }

    pub async fn admin(&self, path: &str) -> Answer {
        Visitor::new(self.admin, Speaks::Http1, None)
            .send(bare(to("GET", path).header("host", "localhost")))
            .await
    }

    /// The same edge on the ports that it has now, for a start after its end.
    pub fn pinned(&self) -> EdgeDocument {
        let mut document = self.document.clone();
        document.http = self.http.to_string();
        document.https = self.https.map(|address| address.to_string());
        document.admin = self.admin.to_string();
        for (server, address) in document.servers.iter_mut().zip(&self.servers) {
            server.listen = address.to_string();
        }
        document
    }
}

impl Host {
    /// Waits until a host that was started has all of its connections.
    pub async fn connected(process: Process, connections: usize) -> Self {
        let admin = listening(&process, "admin").await;
        for slot in 0..connections {
            process.event("registered", |event| event["slot"] == slot).await;
        }
        Self { process, admin }
    }

    pub async fn admin(&self, path: &str) -> Answer {
        Visitor::new(self.admin, Speaks::Http1, None)
            .send(bare(to("GET", path).header("host", "localhost")))
            .await
    }

    pub async fn ready(&self) -> Value {
        self.admin("/ready").await.json()
    }
}

async fn listening(process: &Process, kind: &str) -> SocketAddr {
    address(&process.event("listening", |event| event["kind"] == kind).await)
}

fn address(event: &Value) -> SocketAddr {
    let text = event["address"].as_str().unwrap_or_default();
    text.parse().unwrap_or_else(|_| panic!("{event} has no address"))
}

/// Removes what earlier runs have left: a shared product is never dropped, and a run may be killed.
fn sweep() {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let run = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
        if run.is_some_and(|run| !Path::new("/proc").join(run).exists()) {
            // Somebody else's, or being removed by somebody else, is as good as gone.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Begins the name of every folder of a test; the id of its process follows.
const PREFIX: &str = "adit-e2e-";

/// An origin with the product in front of it, that several tests of a module use at once. It ends
/// with the test process, whose end closes the standard input of both programs.
pub struct Stage {
    pub product: Product,
    pub origin: Origin,
    /// Further ones, that only have to be there.
    pub others: Vec<Origin>,
}

impl Stage {
    pub fn new(product: Product, origin: Origin) -> Self {
        Self { product, origin, others: Vec::new() }
    }

    /// Lends it to one test. If that test fails, it prints what the programs said.
    pub fn lend(&'static self) -> Lent {
        Lent(self)
    }
}

pub struct Lent(&'static Stage);

impl Deref for Lent {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Product { host, edge, .. } = &self.0.product;
            eprintln!("{}\n{}", edge.process.tail(), host.process.tail());
        }
    }
}
