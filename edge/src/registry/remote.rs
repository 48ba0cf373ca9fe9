//! The replicas of a tunnel that other nodes of the fleet have, as ways to them. Knows what a node says of itself;
//! does not know how it is spoken to.

use std::sync::Arc;
use std::time::Instant;

use tracing::info;
use uuid::Uuid;

use super::connection::{Connection, Features};
use super::{Tunnel, lock};
use crate::registry::liveness::Liveness;
use crate::settings;
use crate::transport::connection::Transport;
use crate::transport::peer::{Errand, Peer, PeerWay};

/// Another node, as ways through it see it.
pub(crate) struct RemoteNode {
    pub(crate) peer: Arc<Peer>,
    /// Whether it is heard: of all ways through it.
    pub(crate) liveness: Arc<Liveness>,
    /// As it is shown.
    pub(crate) server: Arc<settings::Server>,
}

/// A replica that another node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteReplica {
    pub(crate) connector: Uuid,
    /// How many connections it has there.
    pub(crate) connections: u8,
    /// Nothing is heard of it there: no new request is for it while there is another way.
    pub(crate) is_silent: bool,
}

/// A connection that a node has. Who has the same one of the same replica sees which of the two is the newer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteConnection {
    pub(crate) tunnel: Uuid,
    pub(crate) connector: Uuid,
    pub(crate) index: u8,
    pub(crate) id: Uuid,
}

/// What is kept of one of them.
pub(super) struct Remote {
    node: Arc<RemoteNode>,
    pub(super) connector: Uuid,
    pub(super) connections: u8,
    is_silent: bool,
    /// Made when the tunnel is asked for.
    ways: Vec<Arc<Connection>>,
}

impl Remote {
    pub(super) fn ways(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.ways.iter()
    }

    /// Whether a request may go there, once there are ways.
    pub(super) fn is_open(&self) -> bool {
        self.ways.is_empty() || self.ways.iter().any(|way| !way.is_leaving())
    }

    pub(super) fn make_ways(&mut self, tunnel: Uuid) {
        let Self { node, connector, connections, is_silent, ways } = self;
        for index in 0..(*connections).min(MOST_WAYS) {
            if ways.iter().all(|way| way.index != index) {
                let errand = Errand { tunnel, connector: *connector, hops: 0 };
                let link = Transport::Peer(Arc::new(PeerWay::new(node.peer.clone(), errand)));
                ways.push(Arc::new(Connection::through(node, link, *connector, index)));
            }
        }
        for way in ways {
            if let Transport::Peer(way) = &way.link {
                way.set_silent(*is_silent);
            }
        }
    }
}

impl Tunnel {
    /// What a node says that it has of this tunnel, in the place of all that it has said before.
    pub(crate) fn set_remote(&self, node: &Arc<RemoteNode>, replicas: &[RemoteReplica]) {
        let mut book = lock(&self.book);
        if book.is_gone && !replicas.is_empty() {
            return;
        }
        let before = book.remote.extract_if(.., |known| Arc::ptr_eq(&known.node, node));
        let mut before: Vec<Remote> = before.collect();
        for &RemoteReplica { connector, connections, is_silent } in replicas {
            // What is still right stays, with what is under way on it.
            let known = before.iter_mut().find(|known| known.connector == connector);
            let mut ways = known.map(|known| std::mem::take(&mut known.ways)).unwrap_or_default();
            ways.retain(|way| !way.is_leaving() && way.index < connections);
            book.remote.push(Remote { node: node.clone(), connector, connections, is_silent, ways });
        }
        book.remote.shrink_to_fit();
        self.apply(&mut book);
        drop(book);
        self.arrivals.send_replace(());
    }

    /// Another node has this connection. An older one here with the same replica and index makes way for it, as it would
    /// for one that came here.
    pub(crate) fn make_way(&self, newer: &RemoteConnection) {
        let mut book = lock(&self.book);
        let same = |known: &&Arc<Connection>| {
            (known.connector, known.index) == (newer.connector, newer.index) && !known.is_leaving()
        };
        let Some(older) = book.connections.iter().find(same).filter(|known| known.id < newer.id).cloned()
        else {
            return;
        };
        older.leave();
        self.apply(&mut book);
        drop(book);
        self.moves.note(self.id);
        info!(
            tunnel = %self.name(),
            connector = %older.connector,
            index = older.index,
            "the host has this connection at another node now"
        );
    }

    /// The connections that are registered here, as other nodes are told of them.
    pub(crate) fn connections_here(&self) -> Vec<RemoteConnection> {
        let book = lock(&self.book);
        let staying = book.connections.iter().filter(|live| !live.is_leaving());
        let told = staying.map(|live| RemoteConnection {
            tunnel: self.id,
            connector: live.connector,
            index: live.index,
            id: live.id,
        });
        told.collect()
    }

    /// The other nodes that have a replica and are heard.
    pub(crate) fn nodes_with(&self, connector: Uuid) -> Vec<String> {
        let book = lock(&self.book);
        let having = book.remote.iter().filter(|known| {
            known.connector == connector && !known.node.peer.is_suspect() && !known.node.peer.is_closed()
        });
        having.map(|known| known.node.peer.name.clone()).collect()
    }

    /// The connections that are registered here, and the ways through other nodes that there are.
    pub(crate) fn connections_anywhere(&self) -> Vec<Arc<Connection>> {
        let book = lock(&self.book);
        book.connections.iter().chain(book.remote.iter().flat_map(Remote::ways)).cloned().collect()
    }

    /// The replicas that other nodes have, with the names of these.
    pub(crate) fn replicas_elsewhere(&self) -> Vec<(String, RemoteReplica)> {
        let book = lock(&self.book);
        let all = book.remote.iter().map(|known| {
            let Remote { node, connector, connections, is_silent, ways: _ } = known;
            let replica =
                RemoteReplica { connector: *connector, connections: *connections, is_silent: *is_silent };
            (node.peer.name.clone(), replica)
        });
        all.collect()
    }

    /// The replicas that are connected here, with the numbers of their connections; those that are leaving are not
    /// among them.
    pub(crate) fn replicas_here(&self) -> Vec<RemoteReplica> {
        let book = lock(&self.book);
        let (mut replicas, now): (Vec<RemoteReplica>, _) = (Vec::new(), Instant::now());
        for live in book.connections.iter().filter(|live| !live.is_leaving()) {
            let (connector, is_silent) = (live.connector, live.is_silent(now));
            match replicas.iter_mut().find(|known| known.connector == connector) {
                Some(known) => {
                    known.connections = known.connections.saturating_add(1);
                    known.is_silent &= is_silent;
                }
                None => replicas.push(RemoteReplica { connector, connections: 1, is_silent }),
            }
        }
        replicas.sort_by_key(|replica| replica.connector);
        replicas
    }
}

impl Connection {
    fn through(node: &RemoteNode, link: Transport, connector: Uuid, index: u8) -> Self {
        let features = Features::of_nodes();
        Self::of(link, (connector, index), features, node.server.clone(), node.liveness.clone())
    }
}

/// Ways to one replica through one node: the node chooses among its connections, so a second way is for another
/// attempt, and a third finds nothing that these have not.
const MOST_WAYS: u8 = 2;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Keys, decoy};
    use super::*;
    use crate::balancer::affinity::Stickiness;

    fn tunnel() -> Tunnel {
        let keys: Keys = Arc::into_inner(decoy()).unwrap();
        let about = Default::default();
        Tunnel::new(Uuid::new_v4(), "demo".to_owned(), keys, Stickiness::None, Duration::ZERO, about)
    }

    fn node(name: &str, distance: u8) -> Arc<RemoteNode> {
        let server = settings::Server {
            region: "west".to_owned(),
            name: name.to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            is_at_visitors: false,
        };
        let peer = Arc::new(Peer::new(name.to_owned(), 1, distance));
        Arc::new(RemoteNode { peer, liveness: Arc::new(Liveness::new()), server: Arc::new(server) })
    }

    fn replica(number: u128, connections: u8) -> RemoteReplica {
        RemoteReplica { connector: Uuid::from_u128(number), connections, is_silent: false }
    }

    /// The ways in the order in which a request tries them.
    fn order(tunnel: &Tunnel) -> Vec<(String, u128)> {
        tunnel.choices(0, None).map(|way| (way.server.name.clone(), way.connector.as_u128())).collect()
    }

    fn first(tunnel: &Tunnel) -> (String, u128) {
        let first = order(tunnel).remove(0);
        for _ in 0..20 {
            assert_eq!(order(tunnel)[0], first);
        }
        first
    }

    #[test]
    fn the_nearest_way_comes_first_what_is_not_heard_last_and_weights_before_both() {
        let (tunnel, near, far) = (tunnel(), node("near", 1), node("far", 2));
        tunnel.set_remote(&far, &[replica(1, 4), replica(2, 1)]);
        tunnel.set_remote(&near, &[replica(2, 1)]);
        assert_eq!(order(&tunnel).len(), 4, "no more than two ways to a replica through one node");
        assert_eq!(first(&tunnel), ("near".to_owned(), 2));
        near.peer.set_suspect(true);
        assert!((0..20).all(|_| order(&tunnel)[0].0 == "far"));
        assert_eq!(order(&tunnel).last(), Some(&("near".to_owned(), 2)));
        near.peer.set_suspect(false);
        tunnel.set_remote(&near, &[RemoteReplica { is_silent: true, ..replica(2, 1) }]);
        assert_eq!(order(&tunnel).last(), Some(&("near".to_owned(), 2)));
        tunnel.set_remote(&near, &[replica(2, 1)]);
        tunnel.set_share(Uuid::from_u128(2), |share| share.weight = 0).unwrap();
        assert_eq!(first(&tunnel), ("far".to_owned(), 1));
    }

    #[test]
    fn a_tunnel_is_connected_as_long_as_any_node_has_it_and_ways_are_made_when_it_is_asked_for() {
        let (tunnel, one, other) = (tunnel(), node("one", 1), node("other", 1));
        let turn = tunnel.turns.now();
        tunnel.set_remote(&one, &[replica(1, 4)]);
        tunnel.set_remote(&other, &[replica(1, 4)]);
        assert!(tunnel.is_connected() && tunnel.turns.now() == turn + 1);
        assert!(lock(&tunnel.book).remote.iter().all(|known| known.ways.is_empty()));
        assert_eq!(order(&tunnel).len(), 4);
        // One that is found missing is not asked for again, until its node says that it has it.
        let missing: Vec<_> = tunnel.choices(0, None).filter(|way| way.server.name == "one").collect();
        missing.iter().for_each(|way| tunnel.leave(way));
        assert!(order(&tunnel).iter().all(|(node, _)| node == "other"));
        tunnel.set_remote(&other, &[]);
        assert!(!tunnel.is_connected() && tunnel.lost().is_some());
        tunnel.set_remote(&one, &[replica(1, 4)]);
        assert!(tunnel.is_connected() && order(&tunnel).len() == 2);
        tunnel.set_remote(&one, &[]);
        assert!(!tunnel.is_connected() && order(&tunnel).is_empty());
        assert_eq!(tunnel.turns.now(), turn + 4);
    }

    #[test]
    fn what_stays_keeps_its_ways_and_a_deleted_tunnel_has_none() {
        let (tunnel, node) = (tunnel(), node("one", 1));
        tunnel.set_remote(&node, &[replica(1, 1)]);
        let before = tunnel.choices(0, None).next().unwrap();
        tunnel.set_remote(&node, &[replica(1, 2), replica(2, 1)]);
        assert!(tunnel.choices(0, None).any(|way| way.id == before.id));
        tunnel.set_remote(&node, &[replica(2, 1)]);
        assert!(tunnel.choices(0, None).all(|way| way.id != before.id));
        tunnel.retire();
        tunnel.set_remote(&node, &[replica(1, 1)]);
        assert!(order(&tunnel).is_empty());
    }
}
