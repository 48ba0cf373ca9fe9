//! One monitor's look at one tunnel: when each replica is asked, and what the results make of it. Knows replicas;
//! does not know pools.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adit_balance::health::Verdict;
use adit_balance::steer::Ewma;
use futures_util::future::join_all;
use http::uri::Authority;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::info;
use uuid::Uuid;

use super::ask::{self, Outcome};
use super::sharing::{SharedVerdict, Sharing};
use super::terms::Terms;
use crate::forward::ray::Rays;
use crate::registry::{Connection, Doubt, Tunnel};
use crate::state::snapshot::Kept;
use crate::store::StoreRevision;
use crate::store::records::objects::Object;

/// See the module.
pub(crate) struct Watched {
    pub(super) id: Uuid,
    pub(super) account: String,
    pub(super) tunnel: Arc<Tunnel>,
    pub(super) revision: StoreRevision,
    monitor: String,
    terms: Terms,
    host: Authority,
    /// What requests see of it.
    state: AtomicU8,
    /// The same: how soon it answers, as the bits of seconds; 0 as long as it has not.
    latency: AtomicU64,
    known: Mutex<Known>,
    /// With the other nodes of a fleet, under this key.
    sharing: (Arc<Sharing>, u64),
}

#[derive(Default)]
struct Known {
    /// Replicas that are connected.
    connected: usize,
    /// Those of them that have answered, or have not in time.
    replicas: HashMap<Uuid, Replica>,
    /// How soon they answer, since `began`.
    latency: Option<(Instant, Ewma)>,
}

#[derive(Default)]
struct Replica {
    verdict: Verdict,
    last: Outcome,
    /// As long as it is held for down.
    doubts: Vec<Doubt>,
}

/// Which replicas are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Round {
    All,
    /// Those of which nothing is known.
    New,
}

type Connections = BTreeMap<Uuid, Vec<Arc<Connection>>>;

impl Watched {
    /// Keeps what is known by an earlier form of the same monitor.
    pub(super) fn new(
        (monitor, kept): (&str, &Kept<Object>),
        terms: Terms,
        host: Authority,
        tunnel: Arc<Tunnel>,
        before: Option<&Self>,
        sharing: (Arc<Sharing>, u64),
    ) -> Arc<Self> {
        let before = before.filter(|before| Arc::ptr_eq(&before.tunnel, &tunnel));
        let known = before.map(|before| std::mem::take(&mut *before.known())).unwrap_or_default();
        let watched = Arc::new(Self {
            id: Uuid::new_v4(),
            account: kept.record.account.clone(),
            tunnel,
            revision: kept.revision,
            monitor: monitor.to_owned(),
            terms,
            host,
            state: AtomicU8::new(known.state()),
            latency: AtomicU64::new(known.latency().map_or(0, f64::to_bits)),
            known: Mutex::new(known),
            sharing,
        });
        let (sharing, key) = &watched.sharing;
        sharing.watch(*key, &watched);
        watched
    }

    /// `None` as long as nothing is known.
    pub(crate) fn is_up(&self) -> Option<bool> {
        match self.state.load(Ordering::Relaxed) {
            UP => Some(true),
            DOWN => Some(false),
            _ => None,
        }
    }

    /// Seconds until it answers; `None` as long as nothing is known.
    pub(crate) fn latency(&self) -> Option<f64> {
        let bits = self.latency.load(Ordering::Relaxed);
        (bits != 0).then(|| f64::from_bits(bits))
    }

    /// What became of the last question to the replica that decides: one that is well, if there is one.
    pub(crate) fn last(&self) -> Option<Outcome> {
        let known = self.known();
        let replicas = known.replicas.values();
        let deciding = replicas.max_by_key(|replica| replica.verdict.is_up() == Some(true));
        deciding.map(|replica| replica.last.clone())
    }

    /// Asks again and again. Never done; may be dropped midway.
    pub(super) async fn run(self: Arc<Self>, room: Arc<Semaphore>, rays: Arc<Rays>) {
        let mut arrivals = self.tunnel.arrivals();
        // Not all at once after a start.
        self.pause().await;
        loop {
            self.ask(Round::All, &room, &rays).await;
            let next = Instant::now() + self.terms.interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            loop {
                tokio::select! {
                    () = sleep_until(next) => break,
                    changed = arrivals.changed() => if changed.is_err() {
                        return std::future::pending().await;
                    }
                }
                // Its other connections are about to come too.
                self.pause().await;
                self.ask(Round::New, &room, &rays).await;
            }
        }
    }

    async fn pause(&self) {
        sleep(FIRST.min(self.terms.interval).mul_f64(fastrand::f64())).await;
    }

    async fn ask(&self, round: Round, room: &Semaphore, rays: &Rays) {
        let all = self.connections();
        self.look(&all);
        let (sharing, key) = &self.sharing;
        let is_here =
            |connections: &[Arc<Connection>]| connections.iter().any(|live| live.link.distance() == 0);
        let is_mine = |connector: &Uuid, connections: &[Arc<Connection>]| {
            is_here(connections) && sharing.has(*key, &self.tunnel, *connector)
        };
        let mut mine: Connections = all.clone();
        mine.retain(|connector, connections| is_mine(connector, connections));
        sharing.keep(*key, |connector| mine.contains_key(connector));
        if round == Round::New {
            let known = self.known();
            mine.retain(|connector, _| !known.replicas.contains_key(connector));
        }
        join_all(mine.values().map(|connections| self.ask_one(connections, room, rays))).await;
    }

    /// Those of each replica, also of such as other nodes have; ways through those among them, if there are any yet.
    fn connections(&self) -> Connections {
        let mut connections = Connections::new();
        for live in self.tunnel.connections_anywhere().into_iter().filter(|live| live.is_serving()) {
            connections.entry(live.connector).or_default().push(live);
        }
        for (connector, count) in self.tunnel.serving() {
            if count > 0 {
                connections.entry(connector).or_default();
            }
        }
        connections
    }

    /// Another node has asked a replica.
    pub(super) fn hear(&self, verdict: SharedVerdict) {
        let SharedVerdict { subject: _, connector, is_up, outcome } = verdict;
        // Of one that is not there nothing is to be said.
        let Some(connections) = self.connections().remove(&connector) else { return };
        self.note(&connections, connector, outcome, |verdict| {
            std::mem::replace(verdict, Verdict::found(is_up)).is_up() != Some(is_up)
        });
    }

    async fn ask_one(&self, connections: &[Arc<Connection>], room: &Semaphore, rays: &Rays) {
        let Ok(_place) = room.acquire().await else { return };
        let now = std::time::Instant::now();
        let mut here = connections.iter().filter(|live| live.link.distance() == 0);
        let heard = here.clone().find(|live| !live.is_silent(now));
        let Some(live) = heard.or_else(|| here.next()) else { return };
        let outcome = ask::ask(&self.terms, &self.host, live, rays).await;
        // Of one that has gone nothing is to be said.
        if outcome.fault.is_none() || live.is_serving() {
            self.see(connections, outcome);
        }
    }

    /// Takes note of who is connected.
    fn look(&self, connections: &Connections) {
        let mut known = self.known();
        known.connected = connections.len();
        known.replicas.retain(|connector, _| connections.contains_key(connector));
        for (connector, replica) in &mut known.replicas {
            replica.doubt(&connections[connector]);
        }
        self.set(known.state());
    }

    fn see(&self, connections: &[Arc<Connection>], outcome: Outcome) {
        let Some(connector) = connections.first().map(|live| live.connector) else { return };
        let (sharing, key) = &self.sharing;
        self.note(connections, connector, outcome.clone(), |verdict| {
            let has_changed = verdict.see(outcome.fault.is_none(), self.terms.thresholds);
            if let Some(is_up) = verdict.is_up() {
                sharing.tell(*key, connector, &outcome, is_up);
            }
            has_changed
        });
    }

    /// Takes note of what became of a question; `change` says what is made of it, and whether that is new.
    fn note(
        &self,
        connections: &[Arc<Connection>],
        connector: Uuid,
        outcome: Outcome,
        change: impl FnOnce(&mut Verdict) -> bool,
    ) {
        let mut known = self.known();
        let replica = known.replicas.entry(connector).or_default();
        let has_changed = change(&mut replica.verdict);
        replica.doubt(connections);
        if has_changed {
            info!(
                monitor = self.monitor,
                tunnel = %self.tunnel.id,
                %connector,
                is_up = replica.verdict.is_up(),
                status = outcome.status,
                why = outcome.fault,
                "a monitor has changed its mind about a replica"
            );
        }
        if outcome.fault.is_none() {
            let fades = self.terms.interval * REMEMBERED;
            let (began, latency) = known.latency.get_or_insert_with(|| (Instant::now(), Ewma::new(fades)));
            latency.add(began.elapsed(), outcome.took);
            self.latency.store(known.latency().map_or(0, f64::to_bits), Ordering::Relaxed);
        }
        if let Some(replica) = known.replicas.get_mut(&connector) {
            replica.last = outcome;
        }
        self.set(known.state());
    }

    fn set(&self, state: u8) {
        if self.state.swap(state, Ordering::Relaxed) != state {
            self.tunnel.turns.turn();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let (sharing, key) = &self.sharing;
        sharing.forget(*key, self);
    }
}

impl Known {
    fn latency(&self) -> Option<f64> {
        self.latency.as_ref().and_then(|(_, latency)| latency.value())
    }

    /// One that is well is enough: requests go to it. Those who have come since may be.
    fn state(&self) -> u8 {
        let is = |wanted| self.replicas.values().any(|replica| replica.verdict.is_up() == Some(wanted));
        if is(true) {
            UP
        } else if is(false) && self.replicas.len() >= self.connected {
            DOWN
        } else {
            UNKNOWN
        }
    }
}

impl Replica {
    /// Its connections get requests only where no others are, as long as it is held for down.
    fn doubt(&mut self, connections: &[Arc<Connection>]) {
        self.doubts = match self.verdict.is_up() {
            Some(false) => connections.iter().cloned().map(Doubt::new).collect(),
            Some(true) | None => Vec::new(),
        };
    }
}

const UNKNOWN: u8 = 0;
const UP: u8 = 1;
const DOWN: u8 = 2;
/// Of a latency an e-th is left after so many intervals.
const REMEMBERED: u32 = 3;
/// Within this time one that is new is asked first.
const FIRST: Duration = Duration::from_secs(1);
