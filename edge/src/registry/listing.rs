//! The connections of a tunnel, as whoever wants to see them is shown them, here and at other nodes of a fleet. Knows
//! connections; does not know who asks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Tunnel, lock};

/// One connection. Nodes of a fleet tell each other of them in this form: what is added later needs a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListedConnection {
    pub(crate) id: Uuid,
    pub(crate) connector: Uuid,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) features: Vec<String>,
    /// The edge server that it came in on.
    pub(crate) server: String,
    pub(crate) address: IpAddr,
    pub(crate) since: SystemTime,
    /// It takes requests; one that does not is on its way out.
    pub(crate) is_serving: bool,
}

impl Tunnel {
    /// Those that are registered here, those that are leaving included.
    pub(crate) fn listed(&self) -> Vec<ListedConnection> {
        let connections = self.connections();
        let listed = connections.iter().map(|live| ListedConnection {
            id: live.id,
            connector: live.connector,
            version: live.version.clone(),
            arch: live.arch.clone(),
            features: live.features.words.clone(),
            server: live.server.name.clone(),
            address: live.address.ip(),
            since: live.since,
            is_serving: live.is_serving(),
        });
        listed.collect()
    }

    /// How many connections serve of each replica in the whole fleet; none of one that is only leaving.
    pub(crate) fn serving(&self) -> BTreeMap<Uuid, usize> {
        let book = lock(&self.book);
        let mut serving = BTreeMap::new();
        for live in &book.connections {
            *serving.entry(live.connector).or_default() += usize::from(live.is_serving());
        }
        for known in &book.remote {
            *serving.entry(known.connector).or_default() += usize::from(known.connections);
        }
        serving
    }

    /// Makes the connections that are registered here leave, or those of one replica. How many there were.
    pub(crate) fn disconnect(&self, connector: Option<Uuid>) -> usize {
        let connections = self.connections();
        let chosen =
            connections.iter().filter(|live| connector.is_none_or(|wanted| live.connector == wanted));
        chosen.map(|live| self.leave(live)).count()
    }
}
