//! Which connections of which tunnel are alive, and which of them serves the next request. Knows who
//! may register; does not know how a connection is spoken to, nor host names.
//!
//! Shared by all shards: reading is one atomic load, writing (a connection comes or goes) is rare.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adit_protocol::credentials::{Credentials, TunnelSecret};
use adit_protocol::rpc::TunnelAuth;
use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use crate::fleet::Fleet;
use crate::settings;
use crate::tunnel::link::Link;

/// All tunnels of this edge.
pub(crate) struct Registry {
    tunnels: HashMap<Uuid, Arc<Tunnel>>,
    /// Compared with when a tunnel is unknown, so that the answer takes the same path.
    decoy: Credentials,
    /// What the replicas of each tunnel are given.
    pub(crate) fleet: Arc<Fleet>,
}

/// One tunnel: who may serve it, and who does.
pub(crate) struct Tunnel {
    pub(crate) name: String,
    credentials: Credentials,
    connections: ArcSwap<Vec<Arc<Live>>>,
    writing: Mutex<()>,
    turn: AtomicUsize,
}

/// One registered connection.
pub(crate) struct Live {
    pub(crate) id: Uuid,
    pub(crate) link: Link,
    pub(crate) connector: Uuid,
    pub(crate) index: u8,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) address: SocketAddr,
    pub(crate) server: Arc<settings::Server>,
    /// The shard whose thread drives this connection.
    pub(crate) shard: usize,
    leaving: Leaving,
    requests: TaskTracker,
    report: Mutex<Option<Report>>,
}

/// What a host said about its own configuration: enough to see whether two hosts differ.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) bytes: usize,
    /// First half of the SHA-256, in hexadecimal digits.
    pub(crate) digest: String,
}

/// Whoever holds it has a request on the connection; the connection is not closed under it.
pub(crate) struct Slot {
    _request: TaskTrackerToken,
}

#[derive(Default)]
struct Leaving {
    flag: AtomicBool,
    token: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AddError {
    #[error("this connector already has this connection")]
    Duplicate,
    #[error("the tunnel has {MOST_CONNECTIONS} connections, and that is the most")]
    Full,
}

impl Registry {
    pub(crate) fn new(tunnels: impl IntoIterator<Item = settings::Tunnel>) -> Self {
        let tunnels = tunnels
            .into_iter()
            .map(|settings::Tunnel { name, credentials, .. }| {
                (credentials.tunnel_id, Arc::new(Tunnel::new(name, credentials)))
            })
            .collect();
        Self { tunnels, decoy: decoy(), fleet: Arc::default() }
    }

    pub(crate) fn tunnel(&self, id: &Uuid) -> Option<&Arc<Tunnel>> {
        self.tunnels.get(id)
    }

    pub(crate) fn tunnels(&self) -> impl Iterator<Item = (&Uuid, &Arc<Tunnel>)> {
        self.tunnels.iter()
    }

    /// The tunnel that these credentials open. An unknown tunnel and a wrong secret look alike.
    pub(crate) fn authorise(&self, id: &Uuid, auth: &TunnelAuth) -> Option<&Arc<Tunnel>> {
        let known = self.tunnels.get(id);
        let wanted = known.map_or(&self.decoy, |tunnel| &tunnel.credentials);
        let tag = wanted.account_tag.as_bytes().ct_eq(auth.account_tag.as_bytes());
        let secret = wanted.tunnel_secret.as_bytes().ct_eq(auth.tunnel_secret.as_bytes());
        known.filter(|_| bool::from(tag & secret))
    }
}

impl Tunnel {
    fn new(name: String, credentials: Credentials) -> Self {
        let connections = ArcSwap::default();
        Self { name, credentials, connections, writing: Mutex::new(()), turn: AtomicUsize::new(0) }
    }

    pub(crate) fn id(&self) -> Uuid {
        self.credentials.tunnel_id
    }

    /// All registered connections, those about to leave included.
    pub(crate) fn connections(&self) -> Arc<Vec<Arc<Live>>> {
        self.connections.load_full()
    }

    /// Makes `live` serve requests. `replace` pushes a living connection with the same connector and
    /// index out; a dead or leaving one always makes room.
    pub(crate) fn add(&self, live: Arc<Live>, replace: bool) -> Result<(), AddError> {
        let _writing = lock(&self.writing);
        let mut connections = Vec::clone(&self.connections.load());
        let same = |known: &Live| known.connector == live.connector && known.index == live.index;
        if let Some(at) = connections.iter().position(|known| same(known)) {
            if connections[at].is_serving() && !replace {
                return Err(AddError::Duplicate);
            }
            connections.remove(at).leave();
        }
        if connections.iter().filter(|known| known.is_serving()).count() >= MOST_CONNECTIONS {
            return Err(AddError::Full);
        }
        connections.push(live);
        self.connections.store(Arc::new(connections));
        Ok(())
    }

    pub(crate) fn remove(&self, live: &Live) {
        let _writing = lock(&self.writing);
        let connections = self.connections.load();
        let rest = connections.iter().filter(|known| known.id != live.id).cloned().collect();
        self.connections.store(Arc::new(rest));
    }

    /// The connections in the order in which a request of `shard` should try them. Lazy, since
    /// nearly always the first one takes it.
    pub(crate) fn choices(&self, shard: usize) -> Choices {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Choices { connections: self.connections(), tried: 0, shard, turn }
    }
}

/// See [`Tunnel::choices`].
pub(crate) struct Choices {
    connections: Arc<Vec<Arc<Live>>>,
    tried: u128,
    shard: usize,
    turn: usize,
}

impl Iterator for Choices {
    type Item = Arc<Live>;

    fn next(&mut self) -> Option<Arc<Live>> {
        let load = |at: usize| {
            let live = &self.connections[at];
            let is_open = self.tried & (1 << at) == 0 && live.is_serving();
            is_open.then(|| Load { is_far: live.shard != self.shard, requests: live.requests.len() })
        };
        // `add` keeps the serving ones below 100; more only wait for their end.
        let count = self.connections.len().min(u128::BITS as usize);
        let at = choose(count, self.turn, load)?;
        self.tried |= 1 << at;
        Some(self.connections[at].clone())
    }
}

/// How unwilling a connection is to take a request, least first: one on another thread costs a wake
/// across threads both ways, and more requests at once share its bandwidth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Load {
    is_far: bool,
    requests: usize,
}

/// The least loaded of `count` candidates (`None` is no candidate); `turn` decides between equals.
fn choose(count: usize, turn: usize, load: impl Fn(usize) -> Option<Load>) -> Option<usize> {
    let start = turn.checked_rem(count)?;
    let order = (start..count).chain(0..start);
    order.filter_map(|at| Some((load(at)?, at))).min_by_key(|(load, _)| *load).map(|(_, at)| at)
}

/// What a connection says about itself when it registers.
pub(crate) struct Introduction {
    pub(crate) link: Link,
    pub(crate) connector: Uuid,
    pub(crate) index: u8,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) server: Arc<settings::Server>,
    pub(crate) shard: usize,
}

impl Live {
    pub(crate) fn new(introduction: Introduction) -> Self {
        let Introduction { link, connector, index, version, arch, server, shard } = introduction;
        Self {
            id: Uuid::new_v4(),
            address: link.remote_address(),
            link,
            connector,
            index,
            version,
            arch,
            server,
            shard,
            leaving: Leaving::default(),
            requests: TaskTracker::new(),
            report: Mutex::new(None),
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        !self.is_leaving() && !self.link.is_closed()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.flag.load(Ordering::SeqCst)
    }

    /// From now on no request begins here; those under way go on.
    pub(crate) fn leave(&self) {
        self.leaving.flag.store(true, Ordering::SeqCst);
        self.leaving.token.cancel();
    }

    /// Waits for [`Live::leave`]. May be dropped midway.
    pub(crate) async fn left(&self) {
        self.leaving.token.cancelled().await;
    }

    /// Waits until no request is under way any more. Only meaningful after [`Live::leave`]; may be
    /// dropped midway.
    pub(crate) async fn drained(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    /// Begins a request, unless the connection is leaving.
    pub(crate) fn begin(&self) -> Option<Slot> {
        // Counted before the flag is read: `drained` sees either the request or an unwilling `begin`.
        let slot = Slot { _request: self.requests.token() };
        (!self.is_leaving()).then_some(slot)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    pub(crate) fn set_report(&self, report: Report) {
        *lock(&self.report) = Some(report);
    }

    pub(crate) fn report(&self) -> Option<Report> {
        lock(&self.report).clone()
    }
}

/// No code panics while it holds one of these locks, and their content is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Credentials that nobody has: random, of the usual lengths.
fn decoy() -> Credentials {
    let [a, b, c] = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let secret = [a.into_bytes(), b.into_bytes()].concat();
    Credentials {
        account_tag: c.simple().to_string(),
        tunnel_secret: TunnelSecret::new(&secret).expect("32 bytes are a secret"),
        tunnel_id: Uuid::nil(),
        endpoint: None,
    }
}

/// 25 replicas of four connections each, the limit of Cloudflare Tunnel.
const MOST_CONNECTIONS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn near(requests: usize) -> Option<Load> {
        Some(Load { is_far: false, requests })
    }

    fn far(requests: usize) -> Option<Load> {
        Some(Load { is_far: true, requests })
    }

    #[test]
    fn the_own_shard_comes_first_then_the_least_loaded() {
        for (loads, wanted) in [
            (vec![], None),
            (vec![None, None], None),
            (vec![None, near(3)], Some(1)),
            (vec![far(0), near(9)], Some(1)),
            (vec![near(2), near(1), near(3)], Some(1)),
            (vec![far(5), None, far(4)], Some(2)),
        ] {
            assert_eq!(choose(loads.len(), 0, |at| loads[at]), wanted, "{loads:?}");
        }
    }

    #[test]
    fn equals_take_turns() {
        let loads = [near(1), near(0), far(0), near(0)];
        let chosen: Vec<_> = (0..8).map(|turn| choose(4, turn, |at| loads[at]).unwrap()).collect();
        assert_eq!(chosen, [1, 1, 3, 3, 1, 1, 3, 3]);
    }

    #[test]
    fn only_the_whole_credentials_open_a_tunnel() {
        let right = decoy();
        let id = Uuid::new_v4();
        let credentials = Credentials { tunnel_id: id, ..right.clone() };
        let tunnel = settings::Tunnel { name: "demo".into(), credentials, hostnames: Vec::new() };
        let registry = Registry::new([tunnel]);
        let other = decoy();
        let auth = |tag: &str, secret: &TunnelSecret| TunnelAuth {
            account_tag: tag.to_owned(),
            tunnel_secret: secret.clone(),
        };
        for (id, auth, opens) in [
            (id, auth(&right.account_tag, &right.tunnel_secret), true),
            (id, auth(&right.account_tag, &other.tunnel_secret), false),
            (id, auth(&other.account_tag, &right.tunnel_secret), false),
            (id, auth("", &right.tunnel_secret), false),
            (Uuid::new_v4(), auth(&right.account_tag, &right.tunnel_secret), false),
            (Uuid::nil(), auth(&registry.decoy.account_tag, &registry.decoy.tunnel_secret), false),
        ] {
            assert_eq!(registry.authorise(&id, &auth).is_some(), opens);
        }
    }
}
