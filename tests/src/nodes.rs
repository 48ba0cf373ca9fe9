//! A fleet of nodes: edges in processes of their own that share an etcd, know of each other, and hand requests to each
//! other, in regions between which the lines can be bad. Knows how they come to be; knows no promise.

use std::net::SocketAddr;
use std::time::Duration;

use adit_protocol::credentials::OriginCert;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::DEADLINE;
use crate::etcd::Etcd;
use crate::fleet::{EdgeServer, Fleet};
use crate::line::Lines;
use crate::process::{Outcome, Process};
use crate::visitor::{Answer, Speaks, Visitor, bare, to, with_text};

/// All nodes of a fleet with their store.
pub struct Nodes {
    // In the order in which they go.
    pub fleet: Fleet,
    pub lines: Lines,
    pub etcd: Etcd,
    account: String,
    token: String,
}

impl Nodes {
    /// A node in each of these regions, in this order, over so many members of etcd. Their names are those of the
    /// regions with their numbers. `None` where there is no etcd.
    pub async fn start(regions: &[&str], members: usize, seed: u64) -> Option<Self> {
        Self::start_with(regions, members, seed, "").await
    }

    /// The same with more in their documents.
    pub async fn start_with(regions: &[&str], members: usize, seed: u64, keys: &str) -> Option<Self> {
        let etcd = Etcd::of(members).await?;
        let lines = Lines::new(seed);
        let mut fleet = Fleet::stopped(regions);
        let store = etcd.address("main");
        for edge in &mut fleet.edges {
            let listen = SocketAddr::new(edge.ip(), NODES);
            let way = lines.to(listen, &edge.region);
            let (name, region) = (edge.name.clone(), edge.region.clone());
            edge.document_mut().more = format!(
                "[api]\nlisten = \"{}\"\n[store]\nurl = \"{store}\"\nallow-old = true\n\
                 [node]\nname = \"{name}\"\nregion = \"{region}\"\nlisten = \"{listen}\"\naddresses = [\"{way}\"]\n{keys}",
                SocketAddr::new(edge.ip(), API)
            );
        }
        let first = fleet.edges[0].name.clone();
        for edge in &fleet.edges {
            edge.write_document();
        }
        let folder = fleet.site.folder().to_owned();
        let run = async |words: &[&str], input: &str| {
            let outcome: Outcome = Process::run(&[&["edge"], words].concat(), &folder, input).await;
            assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
            outcome.output
        };
        let file = |name: &str| format!("{name}.toml");
        run(&["init", "--zone", "example.test", "--config", &file(&first)], "").await;
        let certificate =
            std::fs::read_to_string(folder.join("cert.pem")).expect("what a person signs in with");
        let certificate = OriginCert::from_pem(&certificate).expect("a good one");
        let (account, token) = (certificate.account_id, certificate.api_token.as_str().to_owned());
        fleet.edges[0].start().await;
        let others: Vec<String> = fleet.edges[1..].iter().map(|edge| edge.name.clone()).collect();
        for name in &others {
            let invitation = run(&["invite", name, "--config", &file(&first)], "").await;
            run(&["join", "--token-file", "-", "--config", &file(name)], &invitation).await;
        }
        for edge in &mut fleet.edges[1..] {
            edge.start().await;
        }
        let nodes = Self { fleet, lines, etcd, account, token };
        nodes.placed();
        nodes.acquainted().await;
        Some(nodes)
    }

    /// Says which process is where; needed again for each that was started again.
    pub fn placed(&self) {
        for edge in self.fleet.edges.iter().filter(|edge| edge.is_running()) {
            self.lines.place(edge.edge().process.id(), &edge.region);
        }
    }

    /// Starts a node again that was ended.
    pub async fn start_again(&mut self, number: usize) {
        self.fleet.edges[number].start().await;
        self.placed();
    }

    /// Waits until each node that runs can hand requests to each other one that does.
    pub async fn acquainted(&self) {
        let running = || self.fleet.edges.iter().filter(|edge| edge.is_running());
        for edge in running() {
            let others: Vec<&str> =
                running().map(|other| other.name.as_str()).filter(|name| *name != edge.name).collect();
            edge.until("that it knows the others", async || {
                let peers = peers(edge).await;
                others.iter().all(|name| {
                    let peer = peers.iter().find(|peer| peer["name"] == *name);
                    peer.is_some_and(|peer| {
                        peer["connected"] == true && peer["gone"] == false && peer["suspect"] == false
                    })
                })
            })
            .await;
        }
    }

    /// Waits until a request to each node that runs is answered by the origin.
    pub async fn serve(&self) {
        for edge in self.fleet.edges.iter().filter(|edge| edge.is_running()) {
            edge.until("that it serves", async || {
                let visitor = Visitor::new(edge.http(), Speaks::Http1, None);
                visitor.send(bare(to("GET", "/load/0/0").header("host", crate::document::HOST))).await.status
                    == 200
            })
            .await;
        }
    }

    /// A command of ours about a node, which must succeed.
    pub async fn command(&self, words: &[&str]) -> String {
        let config = format!("{}.toml", self.fleet.edges[0].name);
        let words = [&["edge"], words, &["--config", &config]].concat();
        let outcome = Process::run(&words, self.fleet.site.folder(), "").await;
        assert_eq!(outcome.code, Some(0), "{words:?}: {outcome:?}");
        outcome.output
    }

    /// A call of the control API of a node; `None`: it does not answer.
    pub async fn call(&self, number: usize, method: &str, path: &str, body: &str) -> Option<Answer> {
        let address = SocketAddr::new(self.fleet.edges[number].ip(), API);
        let path = format!("/accounts/{}/{path}", self.account);
        let request =
            to(method, &path).header("host", "api").header("authorization", format!("Bearer {}", self.token));
        let visitor = Visitor::new(address, Speaks::Http1, None);
        let answer = async {
            let connection = visitor.connect().await;
            let response = connection.try_send(with_text(request, body)).await.ok()?;
            Some(Answer::collect(response).await)
        };
        tokio::time::timeout(Duration::from_secs(20), answer).await.ok().flatten()
    }
}

/// What a node says of the others.
pub async fn peers(edge: &EdgeServer) -> Vec<Value> {
    let page = edge.edge().admin("/nodes/peers").await.json();
    page["peers"].as_array().cloned().unwrap_or_default()
}

impl EdgeServer {
    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is_so().await {
            assert!(
                Instant::now() < end,
                "{} within {DEADLINE:?}: {what}\n{}",
                self.name,
                self.edge().process.tail()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Where each listens on its own address: to other nodes, and to callers of its control API.
const NODES: u16 = 7850;
const API: u16 = 7851;
