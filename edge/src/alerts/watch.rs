//! Notices what becomes of tunnels, pools and endpoints, logs it, and tells what is worth telling. Looks once a second
//! at what is served; knows nothing of webhooks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_balance::health::{PoolHealth, State as Signs};
use adit_net::log_limiter::LogLimiter;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::damping::{Damper, Word};
use super::event::{self, AlertType, Event, Labels, Turn, brief};
use super::{Terms, certificates, tokens};
use crate::api::connectors::{self, Status, USUAL_CONNECTIONS};
use crate::nodes::duties::Duties;
use crate::registry::Registry;
use crate::state::State;
use crate::state::snapshot::Snapshot;
use crate::steering::{Balancers, Pool};
use crate::store::records::alerts::{Said, said_key, unsaid};
use crate::store::records::objects::{Kind, Object};
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// What an object is, as far as alerts tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    /// Of a tunnel alone.
    Degraded,
    Down,
}

/// What alerts about health are about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    Tunnel(Uuid),
    Pool(String),
    /// The pool, and the address.
    Endpoint(String, String),
}

/// What is known of everything that is looked at.
#[derive(Default)]
struct Watched {
    /// Those of accounts that ask for alerts about them.
    tunnels: HashMap<Uuid, Damper<Health>>,
    pools: HashMap<String, PoolSeen>,
}

struct PoolSeen {
    damper: Damper<Health>,
    health: PoolHealth,
    /// By address.
    endpoints: HashMap<String, EndpointSeen>,
}

struct EndpointSeen {
    damper: Damper<Health>,
    state: Signs,
}

/// Looks until `stop`.
pub(crate) async fn run(
    state: State,
    registry: Arc<Registry>,
    balancers: Arc<Balancers>,
    terms: Terms,
    node: Option<String>,
    stop: CancellationToken,
) {
    let (started, mut watched) = (Instant::now(), Watched::default());
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Instant::now();
        state.read(|snapshot| watched.look(snapshot, &registry, &balancers, now));
        // Hosts of before need a moment to come back.
        if now.duration_since(started) > SETTLING {
            let hold = |health| if health == Health::Well { terms.up_for } else { terms.down_for };
            let words = state.read(|snapshot| {
                // Each is told by one node of the fleet; it goes on from what another has said.
                let duties = Duties::of(node.as_deref(), snapshot);
                if node.is_some() {
                    watched.follow(snapshot);
                }
                watched.words(snapshot, now, hold, &duties)
            });
            for (subject, word) in words {
                let told = state.read(|snapshot| tell(snapshot, &subject, word, Timestamp::now()));
                if change(&state, told).await
                    && let Some(damper) = watched.of(&subject)
                {
                    damper.tell(word);
                }
            }
        }
        if !state.read(|snapshot| Duties::of(node.as_deref(), snapshot).has(b"alerts")) {
            continue;
        }
        let told = state.read(|snapshot| tokens::tell(snapshot, Timestamp::now()));
        let forgotten = state.read(|snapshot| forget(snapshot, Timestamp::now()));
        let certified = state.read(|snapshot| certificates::tell(snapshot, Timestamp::now()));
        for transaction in told.into_iter().chain(certified).chain(forgotten).take(MOST_AT_ONCE) {
            change(&state, Some(transaction)).await;
        }
    }
}

/// Whether nothing is left to be done about it.
async fn change(state: &State, transaction: Option<Transaction>) -> bool {
    let Some(transaction) = transaction else { return true };
    match state.change(transaction).await {
        Ok(()) => true,
        Err(error) => {
            static LINES: LogLimiter = LogLimiter::new(1);
            if LINES.take().is_some() {
                warn!(%error, "an alert cannot be noted; trying again");
            }
            false
        }
    }
}

impl Watched {
    fn look(&mut self, snapshot: &Snapshot, registry: &Registry, balancers: &Balancers, now: Instant) {
        let pools = balancers.pools();
        self.pools.retain(|id, _| pools.contains_key(id));
        for (id, pool) in &pools {
            if !self.pools.contains_key(id) {
                let damper = damper(snapshot, &Subject::Pool(id.clone()));
                let seen = PoolSeen { damper, health: pool.health(), endpoints: HashMap::new() };
                self.pools.insert(id.clone(), seen);
            }
            if let Some(seen) = self.pools.get_mut(id) {
                seen.look(snapshot, pool, now);
            }
        }
        let mut is_asked: HashMap<&str, bool> = HashMap::new();
        let mut tunnels = HashMap::new();
        for (id, kept) in &snapshot.tunnels {
            let tunnel = &kept.record;
            // One that was never connected is not down.
            if tunnel.is_deleted() || tunnel.quick || !snapshot.seen.contains_key(id) {
                continue;
            }
            let asks = || event::is_asked_for(snapshot, &tunnel.account, AlertType::TunnelHealth);
            if !*is_asked.entry(&tunnel.account).or_insert_with(asks) {
                continue;
            }
            let known = self.tunnels.remove(id);
            let mut damper = known.unwrap_or_else(|| damper(snapshot, &Subject::Tunnel(*id)));
            damper.see(
                match connectors::status(registry, *id, USUAL_CONNECTIONS, true) {
                    Status::Healthy => Health::Well,
                    Status::Degraded => Health::Degraded,
                    Status::Down | Status::Inactive => Health::Down,
                },
                now,
            );
            tunnels.insert(*id, damper);
        }
        self.tunnels = tunnels;
    }

    /// Goes on from what was said by all nodes of the fleet.
    fn follow(&mut self, snapshot: &Snapshot) {
        let follow = |damper: &mut Damper<Health>, subject: &Subject| {
            let said = snapshot.alerts.said.get(&subject.key()).map(|kept| &kept.record);
            let (told, is_flapping) =
                said.map_or((Health::Well, false), |said| (Health::of(&said.state), said.is_flapping));
            damper.follow(told, is_flapping);
        };
        for (id, damper) in &mut self.tunnels {
            follow(damper, &Subject::Tunnel(*id));
        }
        for (id, seen) in &mut self.pools {
            follow(&mut seen.damper, &Subject::Pool(id.clone()));
            for (address, seen) in &mut seen.endpoints {
                follow(&mut seen.damper, &Subject::Endpoint(id.clone(), address.clone()));
            }
        }
    }

    /// What is to be told by this node, of accounts that ask for it.
    fn words(
        &self,
        snapshot: &Snapshot,
        now: Instant,
        hold: impl Fn(Health) -> Duration,
        duties: &Duties,
    ) -> Vec<(Subject, Word<Health>)> {
        let mut words = Vec::new();
        for (id, damper) in &self.tunnels {
            words.extend(damper.word(now, &hold).map(|word| (Subject::Tunnel(*id), word)));
        }
        for (id, seen) in &self.pools {
            let pool = seen.damper.word(now, &hold).map(|word| (Subject::Pool(id.clone()), word));
            let endpoints = seen.endpoints.iter().filter_map(|(address, seen)| {
                let word = seen.damper.word(now, &hold)?;
                Some((Subject::Endpoint(id.clone(), address.clone()), word))
            });
            let account = snapshot.objects.of(Kind::Pool).get(id).map(|kept| kept.record.account.as_str());
            let mut all = pool.into_iter().chain(endpoints).peekable();
            if all.peek().is_some()
                && account.is_some_and(|of| event::is_asked_for(snapshot, of, AlertType::PoolHealth))
            {
                words.extend(all);
            }
        }
        words.retain(|(subject, _)| duties.has(subject.key().as_bytes()));
        words.truncate(MOST_AT_ONCE);
        words
    }

    fn of(&mut self, subject: &Subject) -> Option<&mut Damper<Health>> {
        match subject {
            Subject::Tunnel(id) => self.tunnels.get_mut(id),
            Subject::Pool(id) => self.pools.get_mut(id).map(|seen| &mut seen.damper),
            Subject::Endpoint(pool, address) => {
                let seen = self.pools.get_mut(pool)?.endpoints.get_mut(address);
                seen.map(|seen| &mut seen.damper)
            }
        }
    }
}

impl PoolSeen {
    fn look(&mut self, snapshot: &Snapshot, pool: &Pool, now: Instant) {
        let health = pool.health();
        if health != self.health
            && let Some(unsaid) = LINES.take()
        {
            info!(pool = pool.id, health = %health, before = %self.health, unsaid, "a pool has changed its health");
        }
        self.health = health;
        let word = match health {
            PoolHealth::Healthy | PoolHealth::Degraded => Some(Health::Well),
            PoolHealth::Critical => Some(Health::Down),
            // Nothing is known, or nothing is wanted.
            PoolHealth::Unknown | PoolHealth::Disabled => None,
        };
        if let Some(word) = word {
            self.damper.see(word, now);
        }
        self.endpoints.retain(|address, _| pool.endpoints.iter().any(|known| known.address == *address));
        for endpoint in &pool.endpoints {
            let state = endpoint.state();
            if !self.endpoints.contains_key(&endpoint.address) {
                let subject = Subject::Endpoint(pool.id.clone(), endpoint.address.clone());
                let seen = EndpointSeen { damper: damper(snapshot, &subject), state };
                self.endpoints.insert(endpoint.address.clone(), seen);
            }
            let Some(seen) = self.endpoints.get_mut(&endpoint.address) else { continue };
            if state != seen.state
                && let Some(unsaid) = LINES.take()
            {
                let (address, before) = (&endpoint.address, seen.state);
                info!(pool = pool.id, address, state = %state, %before, unsaid, "an endpoint has changed its state");
            }
            seen.state = state;
            let word = match state {
                Signs::Up => Some(Health::Well),
                Signs::Down | Signs::Overdue | Signs::NotConnected => Some(Health::Down),
                // Unknown, an opinion of some seconds, or wanted so.
                Signs::Unknown | Signs::Ejected | Signs::Draining | Signs::Disabled => None,
            };
            if let Some(word) = word {
                seen.damper.see(word, now);
            }
        }
    }
}

/// Goes on from what was said before, also by another process.
fn damper(snapshot: &Snapshot, subject: &Subject) -> Damper<Health> {
    let said = snapshot.alerts.said.get(&subject.key()).map(|kept| &kept.record);
    said.map_or_else(
        || Damper::new(Health::Well, false),
        |said| Damper::new(Health::of(&said.state), said.is_flapping),
    )
}

impl Health {
    fn word(self) -> &'static str {
        match self {
            Self::Well => "healthy",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }

    fn of(word: &str) -> Self {
        let all = [Self::Well, Self::Degraded, Self::Down];
        all.into_iter().find(|known| known.word() == word).unwrap_or(Self::Well)
    }

    /// As alerts about tunnels say it.
    fn of_tunnel(self) -> &'static str {
        match self {
            Self::Well => "TUNNEL_STATUS_TYPE_HEALTHY",
            Self::Degraded => "TUNNEL_STATUS_TYPE_DEGRADED",
            Self::Down => "TUNNEL_STATUS_TYPE_DOWN",
        }
    }

    /// As those about pools and endpoints do.
    fn of_pool(self) -> &'static str {
        match self {
            Self::Well => "Healthy",
            Self::Degraded | Self::Down => "Unhealthy",
        }
    }
}

impl Subject {
    fn key(&self) -> String {
        match self {
            Self::Tunnel(id) => format!("tunnel/{id}"),
            Self::Pool(id) => format!("pool/{id}"),
            Self::Endpoint(pool, address) => format!("endpoint/{pool} {address}"),
        }
    }

    fn of(key: &str) -> Option<Self> {
        let (kind, rest) = key.split_once('/')?;
        match kind {
            "tunnel" => rest.parse().ok().map(Self::Tunnel),
            "pool" => Some(Self::Pool(rest.to_owned())),
            "endpoint" => rest
                .split_once(' ')
                .map(|(pool, address)| Self::Endpoint(pool.to_owned(), address.to_owned())),
            _ => None,
        }
    }

    /// The account, how people know it, and what filters look at, of one that is there.
    fn described(&self, snapshot: &Snapshot) -> Option<(String, String, Labels)> {
        let pool = |id: &str| snapshot.objects.of(Kind::Pool).get(id).map(|kept| &kept.record);
        let of_pool = |id: &str, pool: &Object, source: &str| {
            let name = brief(pool.text("name").unwrap_or_default());
            vec![("event_source", source.to_owned()), ("pool_id", id.to_owned()), ("pool_name", name)]
        };
        match self {
            Self::Tunnel(id) => {
                let tunnel = &snapshot.tunnels.get(id).filter(|kept| !kept.record.is_deleted())?.record;
                let name = brief(&tunnel.name);
                let labels = vec![("tunnel_id", id.to_string()), ("tunnel_name", name.clone())];
                Some((tunnel.account.clone(), format!("tunnel {name}"), labels))
            }
            Self::Pool(id) => {
                let pool = pool(id)?;
                let name = brief(pool.text("name").unwrap_or_default());
                Some((pool.account.clone(), format!("pool {name}"), of_pool(id, pool, "pool")))
            }
            Self::Endpoint(id, address) => {
                let pool = pool(id)?;
                let is_it = |said: &&serde_json::Map<String, serde_json::Value>| {
                    said.get("address").and_then(serde_json::Value::as_str) == Some(address)
                };
                let said = pool.endpoints().find(is_it)?;
                let name = said.get("name").and_then(serde_json::Value::as_str).unwrap_or_default();
                let name = brief(if name.is_empty() { address } else { name });
                let of = brief(pool.text("name").unwrap_or_default());
                let mut labels = of_pool(id, pool, "origin");
                labels.extend([("origin_name", name.clone()), ("origin_address", brief(address))]);
                Some((pool.account.clone(), format!("endpoint {name} of pool {of}"), labels))
            }
        }
    }

    fn kind(&self) -> AlertType {
        match self {
            Self::Tunnel(_) => AlertType::TunnelHealth,
            Self::Pool(_) | Self::Endpoint(..) => AlertType::PoolHealth,
        }
    }

    /// As people are told.
    fn word(&self, health: Health) -> &'static str {
        match (self, health) {
            (Self::Tunnel(_), _) | (_, Health::Well) => health.word(),
            (Self::Pool(_) | Self::Endpoint(..), Health::Degraded | Health::Down) => "unhealthy",
        }
    }

    fn health(&self, health: Health) -> (&'static str, String) {
        match self {
            Self::Tunnel(_) => ("new_status", health.of_tunnel().to_owned()),
            Self::Pool(_) | Self::Endpoint(..) => ("new_health", health.of_pool().to_owned()),
        }
    }
}

/// Notes that this was told, with the messages about it. `None` if it is of something that is not there any more.
fn tell(snapshot: &Snapshot, subject: &Subject, word: Word<Health>, now: Timestamp) -> Option<Transaction> {
    let (account, name, mut labels) = subject.described(snapshot)?;
    let before = snapshot.alerts.said.get(&subject.key());
    let since = before.map(|kept| kept.revision);
    let mut said = before.map(|kept| kept.record.clone()).unwrap_or_else(|| Said {
        account: account.clone(),
        state: Health::Well.word().to_owned(),
        correlation: Uuid::new_v4().simple().to_string(),
        ..Said::default()
    });
    // What begins anew has nothing in common with what is over.
    if said.state == Health::Well.word() && !said.is_flapping {
        said.correlation = Uuid::new_v4().simple().to_string();
    }
    let (health, what) = match word {
        Word::Changed(health) => (health, format!("is {}", subject.word(health))),
        Word::Settled(health) => (health, format!("has settled, and is {}", subject.word(health))),
        Word::Flapping => (Health::Down, "changes between healthy and unhealthy all the time".to_owned()),
    };
    labels.push(subject.health(health));
    if word == Word::Flapping {
        labels.push(("flapping", "true".to_owned()));
        said.is_flapping = true;
    } else {
        (said.state, said.is_flapping) = (health.word().to_owned(), false);
    }
    let turn = if health == Health::Well { Turn::End } else { Turn::Start };
    let correlation = said.correlation.clone();
    let text = format!("The {name} {what}.");
    info!(account, text, "an alert");
    let event = Event { account, kind: subject.kind(), turn, correlation, text, labels };
    let key = subject.key();
    let note = AuditEntry { actor: "edge".to_owned(), action: "alert", subject: event.text.clone() };
    let transaction =
        event.tell_once(snapshot, unsaid(Transaction::new(note), &key, since), &mut said.told, now);
    Some(transaction.put(said_key(&key), to_json(&said)))
}

/// What need not be remembered any more. The end of what has gone meanwhile is told.
fn forget(snapshot: &Snapshot, now: Timestamp) -> Vec<Transaction> {
    let over = snapshot.alerts.said.iter().filter_map(|(key, kept)| {
        let (said, subject) = (&kept.record, Subject::of(key)?);
        let is_well = said.state == Health::Well.word() && !said.is_flapping;
        let is_there = subject.described(snapshot).is_some();
        let lately = said.told.values().any(|told| now.since(told.began) < event::LONGEST_INTERVAL);
        if is_there && (!is_well || lately) {
            return None;
        }
        let note = AuditEntry { actor: "edge".to_owned(), action: "alert.forget", subject: key.clone() };
        let mut transaction = Transaction::new(note).if_at(said_key(key), kept.revision);
        if !is_well {
            let label = match &subject {
                Subject::Tunnel(id) => ("tunnel_id", id.to_string()),
                Subject::Pool(id) | Subject::Endpoint(id, _) => ("pool_id", id.clone()),
            };
            let event = Event {
                account: said.account.clone(),
                kind: subject.kind(),
                turn: Turn::End,
                correlation: said.correlation.clone(),
                text: "What this alert was about is not there any more.".to_owned(),
                labels: vec![label, subject.health(Health::Well)],
            };
            transaction = event.tell_once(snapshot, transaction, &mut said.told.clone(), now);
        }
        Some(transaction.remove(said_key(key)))
    });
    over.collect()
}

const EVERY: Duration = Duration::from_secs(1);
/// After a start nothing is told for so long.
const SETTLING: Duration = Duration::from_secs(15);
/// In one go.
const MOST_AT_ONCE: usize = 64;
/// A second, of what changes.
static LINES: LogLimiter = LogLimiter::new(20);
