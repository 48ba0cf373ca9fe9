//! What a node knows of a large fleet, in numbers: memory, and time for what changes. Printed, since machines differ.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use adit_protocol::credentials::{Credentials, TunnelSecret};
use uuid::Uuid;

use super::frames::{Frame, NodeState};
use super::presence::{Own, View};
use crate::balancer::affinity::Stickiness;
use crate::registry::{Registry, RemoteNode, RemoteReplica};
use crate::settings;
use crate::transport::peer::Peer;

const NODES: usize = 64;
const TUNNELS: u128 = 100_000;
/// Nodes at which a tunnel has a connection.
const EACH: usize = 4;

fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn node(number: usize) -> std::sync::Arc<RemoteNode> {
    let server = settings::Server {
        region: "west".to_owned(),
        name: format!("node-{number}"),
        listen: ([127, 0, 0, 1], 0).into(),
        is_at_visitors: false,
    };
    let peer = Peer::new(format!("node-{number}"), 2, 1).into();
    RemoteNode {
        peer,
        liveness: std::sync::Arc::new(crate::registry::liveness::Liveness::new()),
        server: server.into(),
    }
    .into()
}

/// One of the others, as it is and as this node sees it.
struct Neighbour {
    own: Own,
    cursor: super::presence::Cursor,
    view: View,
    node: std::sync::Arc<RemoteNode>,
}

impl Neighbour {
    /// Says what is new, in bytes; how many there were, and how long it took to hear them.
    fn tells(&mut self, registry: &Registry, now: Duration, is_first: bool) -> (usize, Duration) {
        let mut words = bytes::BytesMut::new();
        let mut written = Vec::new();
        if is_first {
            let (hello, cursor) = self.own.begin(None);
            self.cursor = cursor;
            hello.write(&mut written);
        }
        while let Some(page) = self.own.page(&mut self.cursor) {
            page.write(&mut written);
        }
        self.own.heartbeat(NodeState::default()).write(&mut written);
        words.extend_from_slice(&written);
        drop(written);
        let (length, began) = (words.len(), Instant::now());
        while let Some(frame) = Frame::read(&mut words).unwrap() {
            let news = self.view.hear(frame, now);
            assert!(!news.is_confused);
            let tunnels = registry.tunnels();
            for change in news.changes {
                tunnels[&change.tunnel].set_remote(&self.node, &change.replicas);
            }
        }
        (length, began.elapsed())
    }
}

#[test]
#[ignore = "a row of chaos: cargo xtask chaos"]
fn a_hundred_thousand_tunnels_at_sixty_four_nodes_take_little_memory_and_time() {
    let tunnels = (0..TUNNELS).map(|number| settings::Tunnel {
        name: format!("tunnel-{number}"),
        credentials: Credentials {
            account_tag: "account".to_owned(),
            tunnel_secret: TunnelSecret::new(&[7; 32]).unwrap(),
            tunnel_id: Uuid::from_u128(number),
            endpoint: None,
        },
        hostnames: Vec::new(),
        stickiness: Stickiness::None,
        hold: Duration::ZERO,
    });
    let registry = Registry::new(tunnels);
    let mut chance = fastrand::Rng::with_seed(7);
    let mut neighbours: Vec<Neighbour> = (1..NODES)
        .map(|number| {
            let own = Own::new(number as u64);
            let (_, cursor) = own.begin(None);
            Neighbour { own, cursor, view: View::new(), node: node(number) }
        })
        .collect();
    let replica = |number: u128| RemoteReplica {
        connector: Uuid::from_u128(number << 64),
        connections: 1,
        is_silent: false,
    };
    let mut places: HashMap<u128, Vec<usize>> = HashMap::new();
    for number in 0..TUNNELS {
        for _ in 0..EACH {
            let at = chance.usize(..neighbours.len());
            neighbours[at].own.set(Uuid::from_u128(number), vec![replica(number)]);
            places.entry(number).or_default().push(at);
        }
    }
    let before = resident();
    let mut sent = 0;
    for neighbour in &mut neighbours {
        sent += neighbour.tells(&registry, Duration::ZERO, true).0;
    }
    let memory = resident().saturating_sub(before);
    // One second after the other, in each of which a twentieth of all tunnels comes or goes somewhere.
    let (mut heard, mut times) = (Duration::ZERO, Vec::new());
    let seconds = 5;
    for second in 1..=seconds {
        for _ in 0..TUNNELS / 20 {
            let number = u128::from(chance.u64(..TUNNELS as u64));
            let at = places[&number][chance.usize(..EACH)];
            let replicas = if chance.bool() { vec![replica(number)] } else { Vec::new() };
            neighbours[at].own.set(Uuid::from_u128(number), replicas);
        }
        for neighbour in &mut neighbours {
            let (length, took) = neighbour.tells(&registry, Duration::from_secs(second), false);
            sent += length;
            heard += took;
            times.push(took);
        }
    }
    times.sort_unstable();
    let (p99, share) = (times[times.len() * 99 / 100], heard.as_secs_f64() / seconds as f64 * 100.0);
    let megabytes = memory as f64 / 1e6;
    eprintln!(
        "figure: {TUNNELS} tunnels, each at {EACH} of {NODES} nodes: {megabytes:.0} MB in one node, {:.1} MB heard; \
         5 % of them change each second: {share:.1} % of a core, a node's words of a second are taken in {p99:.1?} (p99); {}",
        sent as f64 / 1e6,
        if cfg!(debug_assertions) { "not optimised" } else { "optimised" }
    );
    assert!(megabytes < 60.0, "{megabytes}");
    assert!(p99 < Duration::from_millis(300), "{p99:?}");
    assert!(cfg!(debug_assertions) || share < 3.0, "{share}");
}
