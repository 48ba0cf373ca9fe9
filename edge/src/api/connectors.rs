//! Who is connected, in the shape of the control API: connectors with their connections, and what follows
//! from them for a tunnel's status, in a fleet at all of its nodes. Knows the registry; keeps nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;
use uuid::Uuid;

use crate::registry::{ListedConnection, Registry};
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
pub(crate) fn connectors(listed: impl IntoIterator<Item = ListedConnection>) -> Vec<Connector> {
    let mut connectors: BTreeMap<Uuid, Connector> = BTreeMap::new();
    for listed in listed {
        let connection = ConnectionView::of(&listed);
        connectors
            .entry(listed.connector)
            .and_modify(|known| known.run_at = known.run_at.min(connection.opened_at))
            .or_insert_with(|| Connector {
                id: listed.connector,
                features: listed.features,
                version: listed.version,
                arch: listed.arch,
                run_at: connection.opened_at,
                conns: Vec::new(),
            })
            .conns
            .push(connection);
    }
    connectors.into_values().collect()
}

/// `was_seen`: whether it is known to have been connected before. `wanted`: connections per connector.
pub(crate) fn status(registry: &Registry, tunnel: Uuid, wanted: usize, was_seen: bool) -> Status {
    let serving = registry.tunnel(&tunnel).map(|tunnel| tunnel.serving()).unwrap_or_default();
    status_of(serving.into_values(), wanted, was_seen)
}

/// The same by the connections that serve of each connector.
fn status_of(serving: impl ExactSizeIterator<Item = usize>, wanted: usize, was_seen: bool) -> Status {
    let is_known = serving.len() > 0;
    let counts: Vec<_> = serving.filter(|count| *count > 0).collect();
    if counts.is_empty() {
        return if was_seen || is_known { Status::Down } else { Status::Inactive };
    }
    if counts.iter().all(|count| *count >= wanted) { Status::Healthy } else { Status::Degraded }
}

impl ConnectionView {
    fn of(listed: &ListedConnection) -> Self {
        Self {
            id: listed.id,
            uuid: listed.id,
            colo_name: listed.server.clone(),
            is_pending_reconnect: !listed.is_serving,
            origin_ip: listed.address,
            opened_at: listed.since.into(),
            client_id: listed.connector,
            client_version: listed.version.clone(),
        }
    }
}

/// Connections that a connector keeps when all is well.
pub(crate) const USUAL_CONNECTIONS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_follows_from_the_connections_and_the_past() {
        for (serving, was_seen, wanted) in [
            (&[][..], false, Status::Inactive),
            (&[], true, Status::Down),
            (&[4], true, Status::Healthy),
            (&[4, 5], true, Status::Healthy),
            (&[3], true, Status::Degraded),
            (&[4, 1], true, Status::Degraded),
            (&[4, 0], true, Status::Healthy),
            (&[0], false, Status::Down),
        ] {
            let status = status_of(serving.iter().copied(), USUAL_CONNECTIONS, was_seen);
            assert_eq!(status, wanted, "{serving:?}");
        }
    }
}
