//! Who is connected, in the shape of the control API: connectors with their connections, and what follows
//! from them for a tunnel's status. Knows the registry; keeps nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::registry::{Connection, Registry};
use crate::store::timestamp::Timestamp;

/// One connection, as both lists of the API show it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ConnectionView {
    pub(crate) id: Uuid,
    pub(crate) uuid: Uuid,
    /// The edge server; the reference calls it by the airport of its data centre.
    pub(crate) colo_name: String,
    pub(crate) is_pending_reconnect: bool,
    pub(crate) origin_ip: IpAddr,
    pub(crate) opened_at: Timestamp,
    pub(crate) client_id: Uuid,
    pub(crate) client_version: String,
}

/// One process that serves a tunnel.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Connector {
    pub(crate) id: Uuid,
    pub(crate) features: Vec<String>,
    pub(crate) version: String,
    pub(crate) arch: String,
    /// When the oldest of its connections was made.
    pub(crate) run_at: Timestamp,
    pub(crate) conns: Vec<ConnectionView>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Every connector has all of its connections.
    Healthy,
    /// It serves, but some connection is missing.
    Degraded,
    /// It served before, and does not now.
    Down,
    /// It never served.
    Inactive,
}

/// The connectors of a tunnel by id, those on their way out included.
pub(crate) fn connectors(registry: &Registry, tunnel: Uuid) -> Vec<Connector> {
    let mut connectors: BTreeMap<Uuid, Connector> = BTreeMap::new();
    for live in lives(registry, tunnel) {
        let connection = ConnectionView::of(&live);
        connectors
            .entry(live.connector)
            .and_modify(|known| known.run_at = known.run_at.min(connection.opened_at))
            .or_insert_with(|| Connector {
                id: live.connector,
                features: live.features.words.clone(),
                version: live.version.clone(),
                arch: live.arch.clone(),
                run_at: connection.opened_at,
                conns: Vec::new(),
            })
            .conns
            .push(connection);
    }
    connectors.into_values().collect()
}

/// `was_seen`: whether it is known to have been connected before. `wanted`: connections per connector.
pub(crate) fn status(connectors: &[Connector], wanted: usize, was_seen: bool) -> Status {
    let serving =
        |connector: &Connector| connector.conns.iter().filter(|conn| !conn.is_pending_reconnect).count();
    let counts: Vec<_> = connectors.iter().map(serving).filter(|count| *count > 0).collect();
    if counts.is_empty() {
        return if was_seen || !connectors.is_empty() { Status::Down } else { Status::Inactive };
    }
    if counts.iter().all(|count| *count >= wanted) { Status::Healthy } else { Status::Degraded }
}

/// The same in a fleet, whose nodes know of each other's hosts that they are there, and not how many connections each
/// has: no tunnel is degraded then.
pub(crate) fn status_in_fleet(
    registry: &Registry,
    tunnel: Uuid,
    connectors: &[Connector],
    was_seen: bool,
) -> Status {
    match registry.tunnel(&tunnel) {
        Some(tunnel) if tunnel.is_connected() => Status::Healthy,
        Some(_) | None => status(connectors, 1, was_seen),
    }
}

/// Makes the connections of a tunnel, or of one connector of it, leave. How many there were.
pub(crate) fn disconnect(registry: &Registry, tunnel: Uuid, connector: Option<Uuid>) -> usize {
    let Some(tunnel) = registry.tunnel(&tunnel) else { return 0 };
    let lives = tunnel.connections();
    let chosen = lives.iter().filter(|live| connector.is_none_or(|connector| live.connector == connector));
    chosen.map(|live| tunnel.leave(live)).count()
}

fn lives(registry: &Registry, tunnel: Uuid) -> Vec<Arc<Connection>> {
    registry.tunnel(&tunnel).map(|tunnel| tunnel.connections()).unwrap_or_default()
}

impl ConnectionView {
    fn of(live: &Connection) -> Self {
        Self {
            id: live.id,
            uuid: live.id,
            colo_name: live.server.name.clone(),
            is_pending_reconnect: !live.is_serving(),
            origin_ip: live.address.ip(),
            opened_at: live.since.into(),
            client_id: live.connector,
            client_version: live.version.clone(),
        }
    }
}

/// Connections that a connector keeps when all is well.
pub(crate) const USUAL_CONNECTIONS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(serving: usize, leaving: usize) -> Connector {
        let connection = |is_pending_reconnect| ConnectionView {
            id: Uuid::nil(),
            uuid: Uuid::nil(),
            colo_name: String::new(),
            is_pending_reconnect,
            origin_ip: IpAddr::from([127, 0, 0, 1]),
            opened_at: Timestamp::now(),
            client_id: Uuid::nil(),
            client_version: String::new(),
        };
        let conns = (0..serving).map(|_| connection(false)).chain((0..leaving).map(|_| connection(true)));
        Connector {
            id: Uuid::nil(),
            features: Vec::new(),
            version: String::new(),
            arch: String::new(),
            run_at: Timestamp::now(),
            conns: conns.collect(),
        }
    }

    #[test]
    fn a_status_follows_from_the_connections_and_the_past() {
        for (connectors, was_seen, wanted) in [
            (vec![], false, Status::Inactive),
            (vec![], true, Status::Down),
            (vec![connector(4, 0)], true, Status::Healthy),
            (vec![connector(4, 1), connector(4, 0)], true, Status::Healthy),
            (vec![connector(3, 1)], true, Status::Degraded),
            (vec![connector(4, 0), connector(1, 0)], true, Status::Degraded),
            (vec![connector(4, 0), connector(0, 4)], true, Status::Healthy),
            (vec![connector(0, 2)], false, Status::Down),
        ] {
            assert_eq!(status(&connectors, USUAL_CONNECTIONS, was_seen), wanted, "{connectors:?}");
        }
    }
}
