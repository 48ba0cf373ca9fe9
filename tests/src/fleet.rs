//! Several edge servers, each a process of its own, and several replicas in front of the same origin:
//! all start, end and come back one by one, on the addresses that they had. Knows no promise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::certificate::Certificate;
use crate::document::{EdgeDocument, HostDocument};
use crate::gate::Gate;
use crate::network::Network;
use crate::process::Process;
use crate::product::{Edge, Host, Site};
use crate::within;

/// A tunnel with all who serve it.
pub struct Fleet {
    // In the order in which they go: the hosts first.
    pub hosts: Vec<Replica>,
    pub edges: Vec<EdgeServer>,
    pub site: Arc<Site>,
    /// Replicas so far, those that are gone included: each has a name of its own.
    begun: usize,
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
    /// Where it runs, if not with everybody else.
    network: Option<Arc<Network>>,
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
        Self::edges_at(regions, &OnLoopback::new()).await
    }

    /// The same where hosts reach the edge servers over a network.
    pub async fn edges_on(regions: &[&str], network: &Network) -> Self {
        Self::edges_at(regions, network).await
    }

    async fn edges_at(regions: &[&str], servers: &impl Addresses) -> Self {
        let mut fleet = Self::unstarted(regions, servers);
        for edge in &mut fleet.edges {
            edge.start().await;
        }
        fleet
    }

    /// Edges that have documents, and are not started.
    pub fn stopped(regions: &[&str]) -> Self {
        Self::unstarted(regions, &OnLoopback::new())
    }

    fn unstarted(regions: &[&str], servers: &impl Addresses) -> Self {
        let visitors = OnLoopback::new();
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
            document.http = format!("{}:0", visitors.numbered(number));
            document.admin.clone_from(&document.http);
            document.servers[0].listen = format!("{}:0", servers.numbered(number));
            let edge = EdgeServer {
                name,
                region: (*region).to_owned(),
                gate: None,
                document,
                site: site.clone(),
                running: None,
            };
            edges.push(edge);
        }
        Self { hosts: Vec::new(), edges, site, begun: 0 }
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
        self.replicas_in(None, count, document).await;
    }

    /// The same where they know the servers of these numbers alone.
    pub async fn replicas_at(&mut self, at: &[usize], count: usize, document: &HostDocument) {
        let edges: Vec<SocketAddr> = at.iter().map(|number| self.edges[*number].way()).collect();
        self.replicas_of(None, edges, count, document).await;
    }

    /// The same behind a network.
    pub async fn replicas_on(&mut self, network: &Arc<Network>, count: usize, document: &HostDocument) {
        let document = HostDocument { admin: format!("{}:0", network.host()), ..document.clone() };
        self.replicas_in(Some(network), count, &document).await;
    }

    async fn replicas_in(&mut self, network: Option<&Arc<Network>>, count: usize, document: &HostDocument) {
        let edges: Vec<SocketAddr> = self.edges.iter().map(EdgeServer::way).collect();
        self.replicas_of(network, edges, count, document).await;
    }

    async fn replicas_of(
        &mut self,
        network: Option<&Arc<Network>>,
        edges: Vec<SocketAddr>,
        count: usize,
        document: &HostDocument,
    ) {
        let first = self.hosts.len();
        for _ in 0..count {
            let name = format!("host-{}", self.begun);
            self.begun += 1;
            self.hosts.push(Replica {
                name,
                document: HostDocument { edge_ca: "ca.pem".into(), ..document.clone() },
                edges: edges.clone(),
                network: network.cloned(),
                site: self.site.clone(),
                running: None,
            });
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

    /// Waits until every host has one connection to each edge server, by the word of both. For hosts with
    /// as many connections as there are servers.
    pub async fn spread(&self) {
        for host in &self.hosts {
            host.until("a connection to each edge server", |places| self.is_covered(places)).await;
        }
        for edge in &self.edges {
            edge.has(self.hosts.len() as u64).await;
        }
    }

    fn is_covered(&self, places: &[Place]) -> bool {
        self.edges.iter().all(|edge| places.iter().any(|place| place.server == edge.name))
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

    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Before it is started.
    pub fn document_mut(&mut self) -> &mut EdgeDocument {
        &mut self.document
    }

    /// Writes its document, for commands about it.
    pub fn write_document(&self) {
        self.site.write(&format!("{}.toml", self.name), self.document.to_toml());
    }

    /// An address of its own on this machine, for what listens besides.
    pub fn ip(&self) -> IpAddr {
        self.document.http.parse::<SocketAddr>().expect("an address with a port").ip()
    }

    /// Waits until it has ended by itself, and well.
    pub async fn ended(&mut self) {
        let edge = self.running.take().expect("a running edge");
        let status = edge.process.exit().await;
        assert_eq!(status.code(), Some(0), "{}", edge.process.tail());
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
    pub fn spawn(&self) -> Process {
        assert!(self.running.is_none(), "{} runs already", self.name);
        match &self.network {
            None => self.site.spawn_host_named(&self.name, &self.edges, &self.document),
            Some(network) => {
                let file = format!("{}.toml", self.name);
                self.site.write(&file, self.document.to_toml(&self.edges));
                let arguments = ["tunnel", "run", "--config", &file];
                Process::adit_by(network.inside(), &self.name, &arguments, self.site.folder())
            }
        }
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

/// Where the servers of a fleet are.
trait Addresses {
    fn numbered(&self, number: usize) -> IpAddr;
}

/// Addresses that nobody connects from, so that their ports stay free while an edge is away; of
/// each fleet its own.
struct OnLoopback(u8);

impl OnLoopback {
    fn new() -> Self {
        static FLEETS: AtomicU8 = AtomicU8::new(0);
        Self(FLEETS.fetch_add(1, Ordering::Relaxed))
    }
}

impl Addresses for OnLoopback {
    fn numbered(&self, number: usize) -> IpAddr {
        let run = 64 + (std::process::id() % 64) as u8;
        Ipv4Addr::new(127, run, self.0, number as u8 + 1).into()
    }
}

impl Addresses for Network {
    fn numbered(&self, number: usize) -> IpAddr {
        self.edge(number)
    }
}

/// How often an admin listener is asked while a test waits.
const POLL: Duration = Duration::from_millis(20);
