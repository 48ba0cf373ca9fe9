//! Which connections of which tunnel are alive, and which of them serves the next request. Knows who
//! may register; does not know how a connection is spoken to, nor host names.
//!
//! Shared by all shards: reading is one atomic load, writing (a connection comes or goes) is rare.

mod connection;
mod listing;
pub(crate) mod liveness;
mod moves;
mod order;
mod remote;
mod replicas;
pub(crate) mod warm_up;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use adit_balance::Key;
use adit_protocol::credentials::{Credentials, TunnelSecret};
use adit_protocol::rpc::TunnelAuth;
use arc_swap::ArcSwap;
use subtle::ConstantTimeEq;
use thiserror::Error;
use tokio::sync::watch;
use uuid::Uuid;

use crate::balancer::affinity::Stickiness;
use crate::balancer::queue::PendingQueue;
use crate::balancer::retry_budget::RetryBudget;
use crate::balancer::turns::Turns;
use crate::balancer::weights::{Shares, Weight};
use crate::metrics::Place;
use crate::remote_config::RemoteConfigs;
use crate::settings;
use replicas::Replicas;

pub(crate) use connection::{Connection, ConnectionInfo, Doubt, Move, Origin, Probe, Report, RequestGuard};
pub(crate) use listing::ListedConnection;
pub(crate) use moves::Moves;
pub(crate) use order::Order;
use remote::Remote;
pub(crate) use remote::{RemoteConnection, RemoteNode, RemoteReplica};
pub(crate) use replicas::Candidates;

/// All tunnels of this edge.
pub(crate) struct Registry {
    tunnels: ArcSwap<HashMap<Uuid, Arc<Tunnel>>>,
    /// Compared with when a tunnel is unknown, so that the answer takes the same path.
    decoy: Arc<Keys>,
    /// What the replicas of each tunnel are given.
    pub(crate) fleet: Arc<RemoteConfigs>,
    /// Turned when a tunnel has its first connection, or no longer has one.
    pub(crate) turns: Turns,
    /// Which tunnels' connections have come or gone.
    pub(crate) moves: Moves,
    /// Draws the ids of connections.
    pub(crate) order: Order,
}

/// One tunnel: who may serve it, and who does.
pub(crate) struct Tunnel {
    pub(crate) id: Uuid,
    /// May change while it is served.
    name: ArcSwap<String>,
    pub(crate) stickiness: Stickiness,
    /// When this edge began to know the tunnel.
    pub(crate) began: Instant,
    pub(crate) retries: RetryBudget,
    pub(crate) holds: PendingQueue,
    /// Where its requests are counted.
    pub(crate) place: Arc<Place>,
    keys: ArcSwap<Keys>,
    /// Made from the book whenever that changes.
    roster: ArcSwap<Replicas>,
    book: Mutex<Members>,
    arrivals: watch::Sender<()>,
    /// A request has asked for ways to it, so that those through other nodes are made. Of most tunnels of a fleet a
    /// node is asked for none.
    is_asked: AtomicBool,
    /// Another node has some of it.
    is_elsewhere: AtomicBool,
    /// Those of the registry.
    pub(crate) turns: Turns,
    moves: Moves,
}

#[derive(Default)]
struct Members {
    /// All registered connections, those that are leaving included.
    connections: Vec<Arc<Connection>>,
    /// What other nodes of the fleet have.
    remote: Vec<Remote>,
    shares: Shares,
    /// When nobody was left the last time.
    lost: Option<Instant>,
    /// The tunnel was deleted: nobody is let in any more.
    is_gone: bool,
}

impl Members {
    fn knows(&self, connector: &Uuid) -> bool {
        self.is_there(connector) || self.shares.knows(connector)
    }

    fn is_there(&self, connector: &Uuid) -> bool {
        self.connections.iter().any(|known| known.connector == *connector)
            || self.remote.iter().any(|known| known.connector == *connector)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AddError {
    #[error("this connector already has this connection")]
    Duplicate,
    #[error(
        "the tunnel has {MOST_CONNECTIONS} connections (25 replicas), and that is the most: stop a replica, \
         or wait until one has left"
    )]
    Full,
    #[error("the tunnel was deleted")]
    Gone,
}

/// No replica of the tunnel has this connector id, nor had it lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the tunnel has no replica with this connector id")]
pub(crate) struct UnknownReplica;

impl Registry {
    pub(crate) fn new(tunnels: impl IntoIterator<Item = settings::Tunnel>) -> Self {
        let (turns, moves) = (Turns::default(), Moves::default());
        let tunnels: HashMap<_, _> = tunnels
            .into_iter()
            .map(|settings::Tunnel { name, credentials, stickiness, hold, hostnames: _ }| {
                let id = credentials.tunnel_id;
                let keys = credentials.into();
                let about = (turns.clone(), moves.clone());
                (id, Arc::new(Tunnel::new(id, name, keys, stickiness, hold, about)))
            })
            .collect();
        Self {
            tunnels: ArcSwap::from_pointee(tunnels),
            decoy: decoy(),
            fleet: Arc::default(),
            turns,
            moves,
            order: Order::default(),
        }
    }

    pub(crate) fn tunnel(&self, id: &Uuid) -> Option<Arc<Tunnel>> {
        self.tunnels.load().get(id).cloned()
    }

    /// All tunnels as they are now.
    pub(crate) fn tunnels(&self) -> Arc<HashMap<Uuid, Arc<Tunnel>>> {
        self.tunnels.load_full()
    }

    /// Whether any connection of any tunnel is one that `is_wanted`, those that are leaving included.
    pub(crate) fn any(&self, is_wanted: impl Fn(&Connection) -> bool) -> bool {
        self.tunnels.load().values().any(|tunnel| tunnel.connections().iter().any(|live| is_wanted(live)))
    }

    /// Changes the set of tunnels to `wanted`. One that stays keeps its connections and all that is known
    /// of it, and takes the new name and keys; one that is new holds requests for `hold`; one that goes loses its
    /// connections, and takes no others.
    pub(crate) fn replace(&self, wanted: impl IntoIterator<Item = (Uuid, String, Keys)>, hold: Duration) {
        let before = self.tunnels.load_full();
        let after: HashMap<_, _> = wanted
            .into_iter()
            .map(|(id, name, keys)| match before.get(&id) {
                Some(known) => {
                    known.keys.store(Arc::new(keys));
                    if *known.name() != name {
                        known.name.store(Arc::new(name));
                    }
                    (id, known.clone())
                }
                None => {
                    let about = (self.turns.clone(), self.moves.clone());
                    let tunnel = Tunnel::new(id, name, keys, Stickiness::None, hold, about);
                    (id, Arc::new(tunnel))
                }
            })
            .collect();
        let after = Arc::new(after);
        self.tunnels.store(after.clone());
        for (_, gone) in before.iter().filter(|(id, _)| !after.contains_key(id)) {
            gone.retire();
        }
    }

    /// The tunnel that these credentials open. An unknown tunnel and a wrong secret look alike.
    pub(crate) fn authorise(&self, id: &Uuid, auth: &TunnelAuth) -> Option<Arc<Tunnel>> {
        let known = self.tunnel(id);
        let wanted = known.as_ref().map_or_else(|| self.decoy.clone(), |tunnel| tunnel.keys.load_full());
        let previous = wanted.previous.as_ref().filter(|(_, until)| *until > SystemTime::now());
        // As many comparisons whether or not there is a previous secret.
        let secrets = [&wanted.secret, previous.map_or(&self.decoy.secret, |(secret, _)| secret)];
        let tag = wanted.account.as_bytes().ct_eq(auth.account_tag.as_bytes());
        let [current, previous] =
            secrets.map(|secret| secret.as_bytes().ct_eq(auth.tunnel_secret.as_bytes()));
        known.filter(|_| bool::from(tag & (current | previous)))
    }
}

/// What opens a tunnel.
pub(crate) struct Keys {
    pub(crate) account: String,
    pub(crate) secret: TunnelSecret,
    /// The secret before the last rotation, and when it stops working.
    pub(crate) previous: Option<(TunnelSecret, SystemTime)>,
}

impl From<Credentials> for Keys {
    fn from(credentials: Credentials) -> Self {
        let Credentials { account_tag: account, tunnel_secret: secret, .. } = credentials;
        Self { account, secret, previous: None }
    }
}

impl Tunnel {
    fn new(
        id: Uuid,
        name: String,
        keys: Keys,
        stickiness: Stickiness,
        hold: Duration,
        (turns, moves): (Turns, Moves),
    ) -> Self {
        Self {
            id,
            name: ArcSwap::from_pointee(name),
            stickiness,
            began: Instant::now(),
            retries: RetryBudget::new(),
            holds: PendingQueue::new(hold),
            place: Arc::default(),
            keys: ArcSwap::from_pointee(keys),
            roster: ArcSwap::default(),
            book: Mutex::default(),
            arrivals: watch::Sender::new(()),
            is_asked: AtomicBool::new(false),
            is_elsewhere: AtomicBool::new(false),
            turns,
            moves,
        }
    }

    /// The tag of the account that it belongs to.
    pub(crate) fn account(&self) -> String {
        self.keys.load().account.clone()
    }

    pub(crate) fn name(&self) -> Arc<String> {
        self.name.load_full()
    }

    /// The tunnel is deleted: its connections leave, and no others come.
    fn retire(&self) {
        let mut book = lock(&self.book);
        book.is_gone = true;
        for live in &book.connections {
            live.leave();
        }
        book.remote.clear();
        self.apply(&mut book);
        drop(book);
        self.moves.note(self.id);
        // Whoever waits for a connection waits in vain.
        self.arrivals.send_replace(());
    }

    /// Whether the tunnel was deleted.
    pub(crate) fn is_gone(&self) -> bool {
        lock(&self.book).is_gone
    }

    /// Whether there is a connection that takes requests, one that is not heard or is at another node included.
    pub(crate) fn is_connected(&self) -> bool {
        !self.roster.load().is_empty() || self.is_elsewhere.load(Ordering::Acquire)
    }

    /// All connections that are registered here, those that are leaving included.
    pub(crate) fn connections(&self) -> Vec<Arc<Connection>> {
        lock(&self.book).connections.clone()
    }

    /// Makes `live` serve requests. `replace` pushes a living connection with the same connector and
    /// index out; a dead or leaving one always makes room.
    pub(crate) fn add(&self, live: Arc<Connection>, replace: bool) -> Result<(), AddError> {
        let mut book = lock(&self.book);
        if book.is_gone {
            return Err(AddError::Gone);
        }
        let same = |known: &Arc<Connection>| known.connector == live.connector && known.index == live.index;
        let at = book.connections.iter().position(same);
        if at.is_some_and(|at| book.connections[at].is_serving()) && !replace {
            return Err(AddError::Duplicate);
        }
        let others = book.connections.iter().enumerate().filter(|(other, _)| Some(*other) != at);
        // Of the whole fleet, as far as this node knows.
        let elsewhere: usize = book.remote.iter().map(|known| usize::from(known.connections)).sum();
        if others.filter(|(_, known)| known.is_serving()).count() + elsewhere >= MOST_CONNECTIONS {
            return Err(AddError::Full);
        }
        if let Some(at) = at {
            book.connections.remove(at).leave();
        }
        book.connections.push(live);
        self.apply(&mut book);
        drop(book);
        self.moves.note(self.id);
        self.arrivals.send_replace(());
        Ok(())
    }

    /// From now on no request begins on `live`, which may be a way through another node; those under way go on.
    pub(crate) fn leave(&self, live: &Connection) {
        let mut book = lock(&self.book);
        if !live.is_leaving() {
            live.leave();
            self.apply(&mut book);
            if live.link.distance() == 0 {
                self.moves.note(self.id);
            }
        }
    }

    /// The end of `live`.
    pub(crate) fn remove(&self, live: &Connection) {
        let mut book = lock(&self.book);
        live.leave();
        book.connections.retain(|known| known.id != live.id);
        self.apply(&mut book);
        self.moves.note(self.id);
    }

    /// The connections in the order in which a request that came in on `shard` should try them. Those who
    /// were not heard lately come last, those who are leaving not at all; a visitor's `key` keeps it to its
    /// replica. Lazy, since nearly always the first one takes it.
    pub(crate) fn choices(&self, shard: usize, key: Option<Key>) -> Candidates<'_> {
        Candidates::new(self, shard, key)
    }

    /// A connection that was silent is heard again.
    pub(crate) fn heard(&self) {
        self.arrivals.send_replace(());
    }

    /// Of a connection that is registered here other things are to be said to other nodes: whether it is heard.
    pub(crate) fn turned(&self) {
        self.moves.note(self.id);
    }

    /// Sees a change whenever a connection has begun to serve, or is heard again, or the tunnel is deleted.
    /// To be had before looking for one, so that none is missed.
    pub(crate) fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    /// When the tunnel was left without a connection the last time: now, if those that it has are only about
    /// to be found dead, and `None` if it never had one.
    pub(crate) fn lost(&self) -> Option<Instant> {
        let book = lock(&self.book);
        if self.is_connected() { Some(Instant::now()) } else { book.lost }
    }

    /// Whether this replica is there, or was and is remembered.
    pub(crate) fn knows(&self, connector: &Uuid) -> bool {
        lock(&self.book).knows(connector)
    }

    pub(crate) fn share(&self, connector: &Uuid) -> Weight {
        lock(&self.book).shares.of(connector)
    }

    /// Shares that are remembered of replicas that are not there.
    pub(crate) fn absent(&self) -> Vec<(Uuid, Weight)> {
        lock(&self.book).shares.absent().collect()
    }

    /// Changes how much a replica gets, from its next request on, and says what it is now.
    pub(crate) fn set_share(
        &self,
        connector: Uuid,
        change: impl FnOnce(&mut Weight),
    ) -> Result<Weight, UnknownReplica> {
        let mut book = lock(&self.book);
        if !book.knows(&connector) {
            return Err(UnknownReplica);
        }
        let mut share = book.shares.of(&connector);
        change(&mut share);
        book.shares.set(connector, share);
        self.apply(&mut book);
        Ok(share)
    }

    /// Takes over what an operator has said of replicas to a process before this one.
    pub(crate) fn recall(&self, shares: impl Iterator<Item = (Uuid, Weight)>) {
        let mut book = lock(&self.book);
        shares.for_each(|(connector, share)| book.shares.set(connector, share));
        self.apply(&mut book);
    }

    /// Makes what requests see of what the book says.
    fn apply(&self, book: &mut Members) {
        let Members { connections, remote, shares, lost, is_gone: _ } = book;
        let now = Instant::now();
        shares.see(now, |connector| {
            connections.iter().any(|known| known.connector == *connector)
                || remote.iter().any(|known| known.connector == *connector)
        });
        if self.is_asked.load(Ordering::Acquire) {
            remote.iter_mut().for_each(|known| known.make_ways(self.id));
        }
        let all = connections.iter().chain(remote.iter().flat_map(Remote::ways));
        let staying = all.filter(|known| !known.is_leaving());
        let roster = Replicas::new(staying, |connector| shares.of(connector));
        let was_connected = self.is_connected();
        self.roster.store(Arc::new(roster));
        self.is_elsewhere.store(remote.iter().any(Remote::is_open), Ordering::Release);
        let is_connected = self.is_connected();
        if was_connected && !is_connected {
            *lost = Some(now);
        }
        if was_connected != is_connected {
            self.turns.turn();
        }
    }

    fn roster(&self) -> Arc<Replicas> {
        if !self.is_asked.load(Ordering::Acquire) {
            let mut book = lock(&self.book);
            self.is_asked.store(true, Ordering::Release);
            self.apply(&mut book);
        }
        self.roster.load_full()
    }
}

/// No code panics while it holds one of these locks, and their content is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Credentials that nobody has: random, of the usual lengths.
fn decoy() -> Arc<Keys> {
    let [a, b, c] = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    let secret = [a.into_bytes(), b.into_bytes()].concat();
    let secret = TunnelSecret::new(&secret).expect("32 bytes are a secret");
    Arc::new(Keys { account: c.simple().to_string(), secret, previous: None })
}

/// 25 replicas of four connections each, the limit of Cloudflare Tunnel.
const MOST_CONNECTIONS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() -> Credentials {
        let Keys { account, secret, .. } = Arc::into_inner(decoy()).unwrap();
        Credentials { account_tag: account, tunnel_secret: secret, tunnel_id: Uuid::new_v4(), endpoint: None }
    }

    #[test]
    fn after_a_rotation_two_secrets_open_a_tunnel_until_the_older_one_ends() {
        let [old, new, id] = [somebody(), somebody(), somebody()];
        let registry = Registry::new([]);
        let auth = |secret: &TunnelSecret| TunnelAuth {
            account_tag: new.account_tag.clone(),
            tunnel_secret: secret.clone(),
        };
        let rotate = |until: SystemTime| {
            let previous = Some((old.tunnel_secret.clone(), until));
            let keys = Keys { previous, ..new.clone().into() };
            registry.replace([(id.tunnel_id, "demo".to_owned(), keys)], Duration::ZERO);
        };
        rotate(SystemTime::now() + Duration::from_secs(60));
        let tunnel = registry.authorise(&id.tunnel_id, &auth(&new.tunnel_secret)).unwrap();
        assert!(registry.authorise(&id.tunnel_id, &auth(&old.tunnel_secret)).is_some());
        rotate(SystemTime::now());
        assert!(registry.authorise(&id.tunnel_id, &auth(&old.tunnel_secret)).is_none());
        assert!(registry.authorise(&id.tunnel_id, &auth(&new.tunnel_secret)).is_some());
        registry.replace([], Duration::ZERO);
        assert!(registry.authorise(&id.tunnel_id, &auth(&new.tunnel_secret)).is_none());
        assert!(tunnel.is_gone(), "who still holds a deleted tunnel cannot add to it");
    }

    #[test]
    fn only_the_whole_credentials_open_a_tunnel() {
        let right = somebody();
        let id = Uuid::new_v4();
        let credentials = Credentials { tunnel_id: id, ..right.clone() };
        let tunnel = settings::Tunnel {
            name: "demo".into(),
            credentials,
            hostnames: Vec::new(),
            stickiness: Stickiness::None,
            hold: Duration::ZERO,
        };
        let registry = Registry::new([tunnel]);
        let other = somebody();
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
            (Uuid::nil(), auth(&registry.decoy.account, &registry.decoy.secret), false),
        ] {
            assert_eq!(registry.authorise(&id, &auth).is_some(), opens);
        }
    }
}
