//! What the admin API shows, as it is written in JSON. Reads the registry; changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use serde::Serialize;
use uuid::Uuid;

use crate::balancer::retry_budget::Counts;
use crate::balancer::weights::Weight;
use crate::registry::{Connection, Origin, Probe, Registry, RemoteReplica, Tunnel};
use crate::settings;

/// `/ready`
#[derive(Serialize)]
pub(super) struct Ready {
    pub(super) status: u16,
    pub(super) connections: usize,
    /// Hosts that were connected before a restart and are not back.
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) waits_for: usize,
    /// Of a node that is cut off from its fleet's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) store: Option<String>,
}

/// `/status`
#[derive(Serialize)]
pub(super) struct Status {
    pub(super) draining: bool,
    pub(super) servers: Vec<ServerView>,
    pub(super) tunnels: Vec<TunnelStatus>,
}

#[derive(Serialize)]
pub(super) struct ServerView {
    pub(super) region: String,
    pub(super) name: String,
    pub(super) address: String,
}

#[derive(Serialize)]
pub(super) struct TunnelStatus {
    pub(super) name: String,
    pub(super) id: Uuid,
    pub(super) connections: Vec<StatusOfConnection>,
}

/// In `/status` connections stand by themselves, so each says whose it is.
#[derive(Serialize)]
pub(super) struct StatusOfConnection {
    pub(super) connector: Uuid,
    pub(super) version: String,
    pub(super) arch: String,
    #[serde(flatten)]
    pub(super) connection: ConnectionView,
}

/// `/tunnels`
#[derive(Serialize)]
pub(super) struct Tunnels {
    pub(super) tunnels: Vec<TunnelView>,
}

/// `/tunnels/ID`
#[derive(Serialize)]
pub(super) struct TunnelView {
    pub(super) name: String,
    pub(super) id: Uuid,
    pub(super) stickiness: String,
    pub(super) replicas: usize,
    pub(super) connections: usize,
    pub(super) requests: usize,
    /// Requests that wait for a connection.
    pub(super) held: usize,
    pub(super) held_total: u64,
    pub(super) retries: Counts,
}

/// `/tunnels/ID/replicas`
#[derive(Serialize)]
pub(super) struct Replicas {
    pub(super) tunnel: String,
    pub(super) id: Uuid,
    pub(super) stickiness: String,
    pub(super) replicas: Vec<ReplicaView>,
    /// Weights that are kept for replicas that are not there.
    pub(super) absent: Vec<AbsentView>,
    /// What other nodes of the fleet have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) elsewhere: Vec<ElsewhereView>,
}

/// A replica that is connected to another node.
#[derive(Serialize)]
pub(super) struct ElsewhereView {
    pub(super) connector: Uuid,
    pub(super) node: String,
    connections: u8,
    /// Nothing is heard of it there.
    silent: bool,
    weight: u8,
    draining: bool,
}

/// `/tunnels/ID/replicas/CONNECTOR`
#[derive(Serialize)]
pub(super) struct ReplicaView {
    pub(super) connector: Uuid,
    pub(super) version: String,
    pub(super) arch: String,
    pub(super) features: Vec<String>,
    pub(super) weight: u8,
    pub(super) draining: bool,
    pub(super) requests: usize,
    pub(super) requests_total: u64,
    pub(super) connections: Vec<ConnectionView>,
}

#[derive(Serialize)]
pub(super) struct AbsentView {
    pub(super) connector: Uuid,
    pub(super) weight: u8,
    pub(super) draining: bool,
}

#[derive(Serialize)]
pub(super) struct ConnectionView {
    pub(super) id: Uuid,
    pub(super) index: u8,
    pub(super) server: String,
    pub(super) region: String,
    pub(super) address: String,
    /// `quic` or `http2`
    pub(super) protocol: &'static str,
    /// RFC 3339
    pub(super) since: String,
    /// Requests under way.
    pub(super) requests: usize,
    pub(super) requests_total: u64,
    /// The host was asked and says nothing.
    pub(super) silent: bool,
    /// It has not been heard for longer than it should take.
    pub(super) suspect: bool,
    pub(super) leaving: bool,
    /// What the host said about its own configuration, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) configuration: Option<ConfigurationView>,
    /// What it said the last time when it was asked for its origins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) probe: Option<ProbeView>,
}

#[derive(Serialize)]
pub(super) struct ConfigurationView {
    pub(super) bytes: usize,
    pub(super) digest: String,
}

#[derive(Serialize)]
pub(super) struct ProbeView {
    /// RFC 3339
    pub(super) at: String,
    pub(super) took_ms: u128,
    pub(super) ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    pub(super) origins: Vec<OriginView>,
}

#[derive(Serialize)]
pub(super) struct OriginView {
    pub(super) rule: String,
    pub(super) origin: String,
    pub(super) ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Status {
    pub(super) fn of(registry: &Registry, servers: &[Arc<settings::Server>], draining: bool) -> Self {
        let servers = servers.iter().map(|server| ServerView {
            region: server.region.clone(),
            name: server.name.clone(),
            address: server.listen.to_string(),
        });
        let tunnels = by_name(registry).into_iter().map(|(id, tunnel)| TunnelStatus {
            name: tunnel.name().to_string(),
            id,
            connections: tunnel.connections().iter().map(|live| StatusOfConnection::of(live)).collect(),
        });
        Self { draining, servers: servers.collect(), tunnels: tunnels.collect() }
    }
}

impl StatusOfConnection {
    fn of(live: &Connection) -> Self {
        Self {
            connector: live.connector,
            version: live.version.clone(),
            arch: live.arch.clone(),
            connection: ConnectionView::of(live),
        }
    }
}

impl Tunnels {
    pub(super) fn of(registry: &Registry) -> Self {
        let tunnels = by_name(registry).into_iter().map(|(id, tunnel)| TunnelView::of(&id, &tunnel));
        Self { tunnels: tunnels.collect() }
    }
}

impl TunnelView {
    pub(super) fn of(id: &Uuid, tunnel: &Tunnel) -> Self {
        let replicas = replicas(tunnel);
        Self {
            name: tunnel.name().to_string(),
            id: *id,
            stickiness: tunnel.stickiness.to_string(),
            replicas: replicas.len(),
            connections: replicas.values().map(Vec::len).sum(),
            requests: replicas.values().flatten().map(|live| live.requests()).sum(),
            held: tunnel.holds.held(),
            held_total: tunnel.holds.total(),
            retries: tunnel.retries.counts(),
        }
    }
}

impl Replicas {
    pub(super) fn of(id: &Uuid, tunnel: &Tunnel) -> Self {
        let replicas = replicas(tunnel);
        let elsewhere = tunnel.replicas_elsewhere().into_iter().map(|(node, replica)| {
            let RemoteReplica { connector, connections, is_silent: silent } = replica;
            let Weight { weight, is_draining: draining } = tunnel.share(&connector);
            ElsewhereView { connector, node, connections, silent, weight, draining }
        });
        let absent = tunnel.absent();
        let absent = absent.into_iter().map(|(connector, Weight { weight, is_draining })| AbsentView {
            connector,
            weight,
            draining: is_draining,
        });
        Self {
            tunnel: tunnel.name().to_string(),
            id: *id,
            stickiness: tunnel.stickiness.to_string(),
            replicas: replicas
                .into_iter()
                .map(|(connector, connections)| ReplicaView::new(tunnel, connector, &connections))
                .collect(),
            absent: absent.collect(),
            elsewhere: elsewhere.collect(),
        }
    }
}

impl ReplicaView {
    /// Also for a replica that is not there any more, then without connections.
    pub(super) fn of(tunnel: &Tunnel, connector: Uuid) -> Self {
        let connections = replicas(tunnel).remove(&connector).unwrap_or_default();
        Self::new(tunnel, connector, &connections)
    }

    fn new(tunnel: &Tunnel, connector: Uuid, connections: &[Arc<Connection>]) -> Self {
        let Weight { weight, is_draining } = tunnel.share(&connector);
        // All connections of a replica come from the same process; the last one knows best.
        let last = connections.last();
        Self {
            connector,
            version: last.map_or_else(String::new, |live| live.version.clone()),
            arch: last.map_or_else(String::new, |live| live.arch.clone()),
            features: last.map_or_else(Vec::new, |live| live.features.words.clone()),
            weight,
            draining: is_draining,
            requests: connections.iter().map(|live| live.requests()).sum(),
            requests_total: connections.iter().map(|live| live.total()).sum(),
            connections: connections.iter().map(|live| ConnectionView::of(live)).collect(),
        }
    }
}

impl ConnectionView {
    fn of(live: &Connection) -> Self {
        let configuration = live.report();
        Self {
            id: live.id,
            index: live.index,
            server: live.server.name.clone(),
            region: live.server.region.clone(),
            address: live.address.to_string(),
            protocol: live.link.protocol(),
            since: rfc3339(live.since),
            requests: live.requests(),
            requests_total: live.total(),
            silent: live.is_silent(Instant::now()),
            suspect: live.is_suspect(),
            leaving: live.is_leaving(),
            configuration: configuration
                .map(|report| ConfigurationView { bytes: report.bytes, digest: report.digest }),
            probe: live.probe().map(|probe| ProbeView::of(&probe)),
        }
    }
}

impl ProbeView {
    fn of(probe: &Probe) -> Self {
        let Probe { at, took, is_ready, origins, error } = probe;
        let origins = origins.iter().map(|Origin { rule, origin, is_ok, error }| OriginView {
            rule: rule.clone(),
            origin: origin.clone(),
            ok: *is_ok,
            error: error.clone(),
        });
        Self {
            at: rfc3339(*at),
            took_ms: took.as_millis(),
            ready: *is_ready,
            error: error.clone(),
            origins: origins.collect(),
        }
    }
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// In an order that does not change from one look to the next.
fn replicas(tunnel: &Tunnel) -> BTreeMap<Uuid, Vec<Arc<Connection>>> {
    let mut replicas: BTreeMap<Uuid, Vec<_>> = BTreeMap::new();
    for live in tunnel.connections() {
        replicas.entry(live.connector).or_default().push(live);
    }
    for connections in replicas.values_mut() {
        connections.sort_by_key(|live| (live.index, live.since));
    }
    replicas
}

pub(super) fn by_name(registry: &Registry) -> Vec<(Uuid, Arc<Tunnel>)> {
    let tunnels = registry.tunnels();
    let mut tunnels: Vec<_> = tunnels.iter().map(|(id, tunnel)| (*id, tunnel.clone())).collect();
    // Names of different accounts may be the same.
    tunnels.sort_by(|(id, one), (other_id, other)| (one.name(), id).cmp(&(other.name(), other_id)));
    tunnels
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}
