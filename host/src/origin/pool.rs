//! Connections to origins, one pool per shard: idle ones over HTTP/1.1, and those over HTTP/2, which many
//! requests share. It outlives generations: a connection is keyed
//! by everything that shaped it, so a new generation with the same origin finds it again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::SendRequest;
use tokio_util::task::AbortOnDropHandle;

use super::Body;
use super::http2::Connections;
use super::metered::Traffic;

/// How often connections that nobody asked for are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// How long an origin that was offered HTTP/2 and chose HTTP/1.1 is not offered it again.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Kinds of connections that are kept. Where visitors choose the names of origins they choose the kinds too.
const MOST_KEYS: usize = 1024;

/// What a connection must share with a request to carry it: target, TLS settings, server name.
pub(super) type Key = Arc<str>;

/// Connections of one shard.
#[derive(Clone, Default)]
pub struct Pool {
    idle: Rc<RefCell<HashMap<Key, Vec<Idle>>>>,
    pub(super) multiplexed: Rc<RefCell<HashMap<Key, Connections>>>,
    /// Origins that have chosen HTTP/1.1, and until when that is believed.
    older: Rc<RefCell<HashMap<Key, Instant>>>,
}

/// One open connection, with the task that drives it.
pub(super) struct Connected {
    pub(super) sender: SendRequest<Body>,
    pub(super) traffic: Rc<Cell<Traffic>>,
    pub(super) _driver: AbortOnDropHandle<()>,
}

/// A connection that was made for a request before its body was taken; none where there is nothing to connect to, or
/// others share it. Goes to the pool if the request does not need it.
#[derive(Default)]
pub struct Reached(pub(super) Option<Lease>);

impl Drop for Reached {
    fn drop(&mut self) {
        if let Some(lease) = self.0.take() {
            lease.give_back();
        }
    }
}

struct Idle {
    connected: Connected,
    until: Instant,
}

/// A connection while a request uses it.
pub(super) struct Lease {
    pub(super) connected: Connected,
    pub(super) pool: Pool,
    pub(super) key: Key,
    /// How long it may stay idle afterwards, and with how many others.
    pub(super) keep: Duration,
    pub(super) limit: usize,
}

impl Lease {
    /// Back into the pool, unless it is closed or the pool has enough.
    pub(super) fn give_back(self) {
        if self.connected.sender.is_closed() || self.limit == 0 || self.keep.is_zero() {
            return;
        }
        let mut idle = self.pool.idle.borrow_mut();
        if idle.len() >= MOST_KEYS && !idle.contains_key(&self.key) {
            return;
        }
        let idle = match idle.get_mut(&self.key) {
            Some(idle) => idle,
            None => idle.entry(self.key).or_default(),
        };
        if idle.len() < self.limit {
            idle.push(Idle { connected: self.connected, until: Instant::now() + self.keep });
        }
    }
}

impl Pool {
    /// The connection used last, if one is open and its last exchange is over.
    pub(super) fn take(&self, key: &Key) -> Option<Connected> {
        let mut all = self.idle.borrow_mut();
        let idle = all.get_mut(key)?;
        // One that the origin is about to close is not worth a request.
        let now = Instant::now();
        idle.retain(|idle| idle.until > now && !idle.connected.sender.is_closed());
        let ready = idle.iter().rposition(|idle| idle.connected.sender.is_ready())?;
        Some(idle.remove(ready).connected)
    }

    /// Whether connections of kinds that are not known yet cannot be kept.
    pub(super) fn is_full(&self) -> bool {
        self.multiplexed.borrow().len() >= MOST_KEYS
    }

    /// Whether the origin was offered HTTP/2 not long ago and chose HTTP/1.1.
    pub(super) fn is_older(&self, key: &Key) -> bool {
        self.older.borrow().get(key).is_some_and(|until| Instant::now() < *until)
    }

    pub(super) fn remember_older(&self, key: &Key) {
        let mut older = self.older.borrow_mut();
        if older.len() < MOST_KEYS || older.contains_key(key) {
            older.insert(key.clone(), Instant::now() + REMEMBERED);
        }
    }

    /// Closes what has been idle too long. Runs until dropped.
    pub async fn sweep(&self) {
        let mut clock = tokio::time::interval(SWEEP_EVERY);
        loop {
            clock.tick().await;
            let now = Instant::now();
            self.idle.borrow_mut().retain(|_, idle| {
                idle.retain(|idle| idle.until > now && !idle.connected.sender.is_closed());
                !idle.is_empty()
            });
            self.multiplexed.borrow_mut().retain(|_, connections| connections.sweep());
            self.older.borrow_mut().retain(|_, until| *until > now);
        }
    }
}
