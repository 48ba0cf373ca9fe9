//! What the nodes of a fleet have to do with each other while they run: each tells each other one which tunnels have
//! hosts here ([`presence`]), and takes requests for those from the others ([`door`]). Knows the records of nodes and
//! live connections; what becomes of a request is `forward`.
//!
//! `trust` says who is at the other end, `frames` is what is said in bytes, `telling` says it, `other` listens to one
//! other node and keeps connections to it, `asked` is a request that another node hands on, `elsewhere` asks others for
//! what nobody has to know all the time.

mod asked;
mod door;
mod elsewhere;
mod frames;
mod other;
mod presence;
mod telling;
mod trust;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::monitors::Sharing;
use crate::nodes::OwnNode;
use crate::registry::Registry;
use crate::shutdown::Shutdown;
use crate::state::State;
use crate::transport::peer::Peer;
pub(crate) use door::Door;
#[doc(hidden)]
pub use frames::again as frames_again;
use frames::{CONNECTIONS, Frame, NodeState};
use other::Other;
use presence::Own;
use trust::Trust;

/// This node among the others.
pub(crate) struct Peers {
    node: Arc<OwnNode>,
    state: State,
    trust: Trust,
    registry: Arc<Registry>,
    own: Mutex<Own>,
    /// What monitors find.
    sharing: Arc<Sharing>,
    /// Sees a change whenever there is something to be told.
    news: watch::Sender<()>,
    /// The nodes that are followed.
    others: watch::Sender<Arc<BTreeMap<String, Arc<Other>>>>,
    shards: usize,
    /// What another node may send before it is read.
    window: u32,
    stop: Shutdown,
    began: Instant,
}

/// Another node, as this one sees it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct PeerView {
    name: String,
    region: String,
    /// Requests can be handed to it now.
    connected: bool,
    /// It has not been heard for longer than it should take.
    suspect: bool,
    /// What it had is forgotten, if it ever was heard.
    gone: bool,
    /// It has said that it is about to end.
    leaving: bool,
    /// How long nothing was heard of it.
    silent_ms: u64,
    rtt_ms: u64,
    /// Tunnels that have hosts there.
    tunnels: usize,
    epoch: Option<u64>,
    sequence: u64,
    /// Up to where it serves by the fleet's records, and how long it has heard nothing of their store.
    revision: u64,
    store_silent_ms: u64,
    /// Requests that were handed to it.
    requests: u64,
}

/// The same in numbers.
pub(crate) struct PeerFigures {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) is_connected: bool,
    pub(crate) silent: Duration,
    pub(crate) peer: Arc<Peer>,
}

impl Peers {
    pub(crate) fn new(
        node: Arc<OwnNode>,
        state: State,
        (registry, sharing): (Arc<Registry>, Arc<Sharing>),
        shards: usize,
        window: u32,
        stop: Shutdown,
    ) -> Arc<Self> {
        registry.moves.want();
        sharing.join(&node.name);
        Arc::new(Self {
            trust: Trust::new(node.clone()),
            own: Mutex::new(Own::new(node.epoch)),
            node,
            state,
            registry,
            sharing,
            news: watch::Sender::new(()),
            others: watch::Sender::default(),
            shards,
            window,
            stop,
            began: Instant::now(),
        })
    }

    /// The other nodes, as they are seen from here.
    pub(crate) fn view(&self) -> Vec<PeerView> {
        let others = self.others.borrow().clone();
        others.values().map(|other| other.view(self.now())).collect()
    }

    pub(crate) fn figures(&self) -> Vec<PeerFigures> {
        let others = self.others.borrow().clone();
        others.values().map(|other| other.figures(self.now())).collect()
    }

    /// How this node is.
    fn state(&self) -> NodeState {
        let store_silent = u32::try_from(self.state.silent_for().as_secs()).unwrap_or(u32::MAX);
        let revision = self.state.served().0;
        NodeState { is_leaving: self.stop.draining.is_fired(), revision, store_silent }
    }

    /// The connections of the tunnels of a page, as they are now.
    fn connections_of(&self, page: &Frame) -> impl Iterator<Item = Frame> {
        let entries = if let Frame::Entries { entries, .. } = page { entries.as_slice() } else { &[] };
        let tunnels = entries.iter().filter(|entry| !entry.replicas.is_empty());
        let tunnels = tunnels.filter_map(|entry| self.registry.tunnel(&entry.tunnel));
        let all: Vec<_> = tunnels.flat_map(|tunnel| tunnel.connections_here()).collect();
        let frames: Vec<Frame> =
            all.chunks(CONNECTIONS).map(|part| Frame::Connections(part.to_vec())).collect();
        frames.into_iter()
    }

    /// Follows the other nodes, and tells them of this one, until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let tell = self.clone();
        let tell = async move {
            loop {
                for tunnel in tell.registry.moves.next().await {
                    let replicas = tell.registry.tunnel(&tunnel).map(|tunnel| tunnel.replicas_here());
                    tell.own().set(tunnel, replicas.unwrap_or_default());
                }
                tell.news.send_replace(());
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = tell => {}
            () = self.follow() => {}
        }
    }

    /// Keeps to the records: who is a node, and who is none any more.
    async fn follow(self: &Arc<Self>) {
        let mut changes = self.node.changes();
        let mut tasks = JoinSet::new();
        loop {
            changes.borrow_and_update();
            self.keep_to_records(&mut tasks);
            for other in self.others.borrow().values() {
                other.place_the_rest(&self.registry);
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                },
                Some(_) = tasks.join_next() => {}
            }
        }
    }

    fn keep_to_records(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let wanted: BTreeMap<_, _> = self.node.others().into_iter().collect();
        let before = self.others.borrow().clone();
        let mut after = BTreeMap::new();
        for (name, other) in before.iter() {
            if wanted.get(name).is_some_and(|record| other.is_still(record)) {
                after.insert(name.clone(), other.clone());
            } else {
                info!(node = name, "another node is followed no longer");
                other.end(&self.registry);
            }
        }
        for (name, record) in wanted.into_iter().take(MOST_NODES) {
            if let Some(known) = after.get(&name) {
                known.set_wanted(record.wanted);
                continue;
            }
            debug!(node = name, addresses = ?record.addresses, "another node of the fleet");
            let other = Other::new(name.clone(), record, self.node.region.as_str(), self.shards);
            tasks.spawn(other.clone().follow(self.clone()));
            after.insert(name, other);
        }
        self.others.send_if_modified(|others| {
            let is_same = others.len() == after.len()
                && others.values().zip(after.values()).all(|(one, other)| Arc::ptr_eq(one, other));
            if !is_same {
                *others = Arc::new(after);
            }
            !is_same
        });
    }

    /// Keeps a connection of this shard to each of the other nodes, until the edge closes its connections.
    pub(crate) async fn connect(self: Arc<Self>, shard: usize) {
        let mut others = self.others.subscribe();
        let mut tasks = JoinSet::new();
        let mut known: BTreeMap<String, Arc<Other>> = BTreeMap::new();
        let connect = async {
            loop {
                let now = others.borrow_and_update().clone();
                known.retain(|name, other| now.get(name).is_some_and(|now| Arc::ptr_eq(now, other)));
                for (name, other) in now.iter() {
                    if known.insert(name.clone(), other.clone()).is_none() {
                        tasks.spawn(other.clone().keep_link(self.clone(), shard));
                    }
                }
                tokio::select! {
                    changed = others.changed() => if changed.is_err() {
                        std::future::pending::<()>().await;
                    },
                    Some(_) = tasks.join_next() => {}
                }
            }
        };
        tokio::select! {
            () = connect => {}
            () = self.stop.connections.wait() => {}
        }
    }

    /// Held for a look or a change, never across a wait.
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }
}

/// Each node has a connection to each other one; beyond this the fleet needs another shape (docs/scale.md).
const MOST_NODES: usize = 128;

#[cfg(test)]
mod scale;
