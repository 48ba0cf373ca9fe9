//! Several edge servers, each a process of its own, and several replicas in front of the same origin:
//! all start, end and come back one by one, on the addresses that they had. Knows no promise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::certificate::Certificate;
use crate::document::{EdgeDocument, HostDocument};
use crate::gate::Gate;
use crate::process::Process;
use crate::product::{Edge, Host, Site};
use crate::within;

/// A tunnel with all who serve it.
pub struct Fleet {
    // In the order in which they go: the hosts first.
    pub hosts: Vec<Replica>,
    pub edges: Vec<EdgeServer>,
    pub site: Arc<Site>,
}

/// One edge process with one server.
pub struct EdgeServer {
    pub name: String,
    pub region: String,
    /// Between this server and the hosts that know the gate's address only.
    pub gate: Option<Gate>,
    document: EdgeDocument,
    site: Arc<Site>,
    running: Option<Edge>,
}

/// One host process of the tunnel.
pub struct Replica {
    pub name: String,
    pub document: HostDocument,
    pub edges: Vec<SocketAddr>,
    site: Arc<Site>,
    running: Option<Host>,
}

/// A connection of a host that serves, as its `/ready` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub server: String,
    pub protocol: String,
}

impl Fleet {
    /// An edge process in each of these regions, in this order, and then replicas with this document.
    /// Hosts take every other address for another region: name them in turn.
    pub async fn start(regions: &[&str], replicas: usize, document: &HostDocument) -> Self {
        let mut fleet = Self::edges(regions).await;
        fleet.replicas(replicas, document).await;
        fleet
    }

    /// Edges without hosts.
    pub async fn edges(regions: &[&str]) -> Self {
        static NETWORKS: AtomicU8 = AtomicU8::new(0);
        let network = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let site = Arc::new(Site::new());
        let certificate = Certificate::new(&["quic.cftunnel.com", "h2.cftunnel.com", "probe.cftunnel.com"]);
        site.write("ca.pem", &certificate.ca_pem);
        let [chain, key] = certificate.pem();
        site.write("edge.pem", chain);
        site.write("edge.key", key);
        let mut edges = Vec::new();
        for (number, region) in regions.iter().enumerate() {
            let name = format!("{region}-{number}");
            let mut document = EdgeDocument::new(&[region], 1);
            document.data_dir = format!("{name}-data");
            document.connectors = Some(["edge.pem", "edge.key"].map(str::to_owned));
            document.servers[0].name.clone_from(&name);
            // An address that nobody connects from, so that its ports stay free while the edge is away.
            let address = format!("127.83.{network}.{}:0", number + 1);
            document.http.clone_from(&address);
            document.admin.clone_from(&address);
            document.servers[0].listen = address;
            let mut edge = EdgeServer {
                name,
                region: (*region).to_owned(),
                gate: None,
                document,
                site: site.clone(),
                running: None,
            };
            edge.start().await;
            edges.push(edge);
        }
        Self { hosts: Vec::new(), edges, site }
    }

    /// Puts an open gate in front of every edge server. Hosts that start from now on go through.
    pub fn with_gates(mut self) -> Self {
        for edge in &mut self.edges {
            edge.gate = Some(Gate::open(edge.server()));
        }
        self
    }

    /// Starts further replicas, all at once.
    pub async fn replicas(&mut self, count: usize, document: &HostDocument) {
        let edges: Vec<SocketAddr> = self.edges.iter().map(EdgeServer::way).collect();
        let first = self.hosts.len();
        for number in first..first + count {
            let (document, edges) = (document.clone(), edges.clone());
            self.hosts.push(Replica::new(number, document, edges, self.site.clone()));
        }
        let starting: Vec<Process> = self.hosts[first..].iter().map(Replica::spawn).collect();
        for (host, process) in self.hosts[first..].iter_mut().zip(starting) {
            host.connected(process).await;
        }
    }

    /// What visitors find under the name.
    pub fn visitors(&self) -> Vec<SocketAddr> {
        self.edges.iter().map(EdgeServer::http).collect()
    }

    /// Waits until every host has a connection to each edge server.
    pub async fn spread(&self) {
        for host in &self.hosts {
            host.until("a connection to each edge server", |places| self.is_covered(places)).await;
        }
    }

    fn is_covered(&self, places: &[Place]) -> bool {
        self.edges.iter().all(|edge| places.iter().any(|place| place.server == edge.name))
    }

    /// The last that every process said, for a failed test.
    pub fn tails(&self) -> String {
        let edges =
            self.edges.iter().filter_map(|edge| edge.running.as_ref()).map(|edge| edge.process.tail());
        let hosts =
            self.hosts.iter().filter_map(|host| host.running.as_ref()).map(|host| host.process.tail());
        edges.chain(hosts).collect::<Vec<_>>().join("\n")
    }
}

impl EdgeServer {
    /// Starts it and waits until it listens; from the second time on, where it was before.
    pub async fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let edge = self.site.edge_named(&self.name, &self.document).await;
        self.document = edge.pinned();
        self.running = Some(edge);
    }

    pub async fn kill(&mut self) {
        let edge = self.running.take().expect("a running edge");
        edge.process.kill();
        edge.process.exit().await;
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) {
        let edge = self.running.take().expect("a running edge");
        edge.process.terminate();
        let status = edge.process.exit().await;
        assert_eq!(status.code(), Some(0), "{}", edge.process.tail());
    }

    pub fn edge(&self) -> &Edge {
        self.running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Where visitors reach it, whether it runs or not.
    pub fn http(&self) -> SocketAddr {
        self.document.http.parse().expect("it has started once")
    }

    fn server(&self) -> SocketAddr {
        self.document.servers[0].listen.parse().expect("it has started once")
    }

    /// Where hosts reach it.
    pub fn way(&self) -> SocketAddr {
        self.gate.as_ref().map_or_else(|| self.server(), |gate| gate.address)
    }

    /// Waits until it has so many connections.
    pub async fn has(&self, connections: u64) {
        let wanted = format!("{connections} connections at {}", self.name);
        within(&wanted, async {
            while self.edge().admin("/ready").await.json()["connections"].as_u64() != Some(connections) {
                tokio::time::sleep(POLL).await;
            }
        })
        .await;
    }
}

impl Replica {
    pub fn new(number: usize, document: HostDocument, edges: Vec<SocketAddr>, site: Arc<Site>) -> Self {
        let document = HostDocument { edge_ca: "ca.pem".into(), ..document };
        Self { name: format!("host-{number}"), document, edges, site, running: None }
    }

    pub fn spawn(&self) -> Process {
        assert!(self.running.is_none(), "{} runs already", self.name);
        self.site.spawn_host_named(&self.name, &self.edges, &self.document)
    }

    /// Starts it and waits until all of its connections are registered.
    pub async fn start(&mut self) {
        let process = self.spawn();
        self.connected(process).await;
    }

    async fn connected(&mut self, process: Process) {
        self.running = Some(Host::connected(process, self.document.connections).await);
    }

    pub async fn kill(&mut self) {
        let host = self.running.take().expect("a running host");
        host.process.kill();
        host.process.exit().await;
    }

    /// Asks it to stop and waits until it has.
    pub async fn stop(&mut self) {
        let host = self.running.take().expect("a running host");
        host.process.terminate();
        let status = host.process.exit().await;
        assert_eq!(status.code(), Some(0), "{}", host.process.tail());
    }

    pub fn host(&self) -> &Host {
        self.running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Where its slots serve.
    pub async fn places(&self) -> Vec<Place> {
        let ready = self.host().ready().await;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let slots = ready["connections"].as_array().expect("a list of connections");
        let serving = slots.iter().filter(|slot| slot["state"] == "connected");
        serving
            .map(|slot| Place { server: text(&slot["location"]), protocol: text(&slot["protocol"]) })
            .collect()
    }

    /// Waits until its slots serve where they should, and says where that is.
    pub async fn until(&self, what: &str, holds: impl Fn(&[Place]) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        let waiting = async {
            loop {
                places = self.places().await;
                if holds(&places) {
                    return;
                }
                tokio::time::sleep(POLL).await;
            }
        };
        if tokio::time::timeout(crate::DEADLINE, waiting).await.is_err() {
            panic!("{}: no {what} but {places:?}\n{}", self.name, self.host().process.tail());
        }
        places
    }
}

/// How often an admin listener is asked while a test waits.
const POLL: Duration = Duration::from_millis(20);
