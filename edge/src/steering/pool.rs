//! A pool and its endpoints, and what is known of them beside what was said.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use adit_balance::affinity::Keys;
use adit_balance::eject::{Change, Tally};
use adit_balance::health::{PoolHealth, Signs, State};
use adit_balance::steer::{Peak, Point, Standing};
use adit_balance::{Key, Minute};
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use http::uri::Authority;
use serde_json::Value;
use tracing::{info, warn};
use uuid::Uuid;

use super::keeper::{Board, Keeper, Member};
use super::{Policy, said, session};
use crate::balancer::turns::Turns;
use crate::balancer::under_way::{Begun, UnderWay};
use crate::monitors::{self, Outcome, Watch};
use crate::registry::Tunnel;
use crate::state::snapshot::Kept;
use crate::store::StoreRevision;
use crate::store::records::objects::{Object, tunnel_of};
use crate::store::timestamp::Timestamp;

/// One pool.
pub(crate) struct Pool {
    pub(crate) id: String,
    pub(super) name: String,
    pub(crate) is_enabled: bool,
    /// With fewer endpoints that are up it does not serve.
    pub(crate) minimum: usize,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) policy: Policy,
    /// Where it is.
    pub(super) place: Option<Point>,
    /// Since when it is switched off, if it is.
    pub(super) disabled_at: Option<Timestamp>,
    pub(super) hash: u64,
    /// What requests read. Made anew by the first that finds it out of date; nobody waits for that.
    board: ArcSwap<Board>,
    keeper: Mutex<Keeper>,
    pub(super) around: Around,
    revision: StoreRevision,
}

/// What everything that is steered has in common.
#[derive(Clone)]
pub(super) struct Around {
    pub(super) turns: Turns,
    /// From where time is counted.
    pub(super) began: Instant,
    /// Where this edge is.
    pub(super) here: Option<Point>,
    /// What cookies are signed with.
    pub(super) keys: Arc<ArcSwapOption<Keys>>,
}

impl Around {
    pub(super) fn at(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// One endpoint of a pool.
pub(crate) struct Endpoint {
    pub(crate) address: String,
    pub(crate) weight: u8,
    pub(crate) is_enabled: bool,
    /// As which host its requests ask, if not as which the visitor did.
    pub(crate) host: Option<Authority>,
    /// `None` where the address is not the name of a tunnel that is there.
    pub(crate) tunnel: Option<Arc<Tunnel>>,
    named: Option<Uuid>,
    /// By which cookies know it.
    pub(super) session_id: Option<u128>,
    /// Since when it is switched off, if it is.
    pub(super) disabled_at: Option<Timestamp>,
    /// The same for the same endpoint of the same pool, whatever else changes.
    hash: u64,
    /// Who asks how it is.
    pub(crate) watches: Vec<Watch>,
    pub(crate) condition: Arc<Condition>,
}

/// What is known of an endpoint beside what was said of it.
pub(crate) struct Condition {
    requests: Arc<Begun>,
    /// Attempts that began, by seconds since `since`.
    lately: Minute,
    since: Instant,
    /// What became of them.
    tally: Tally,
    /// How long they took, where endpoints are chosen by that.
    peak: Peak,
    is_ejected: AtomicBool,
}

impl Condition {
    /// Of an endpoint that is new at this time.
    fn new(now: Duration) -> Self {
        Self {
            requests: Arc::default(),
            lately: Minute::default(),
            since: Instant::now(),
            tally: Tally::default(),
            peak: Peak::new(now),
            is_ejected: AtomicBool::default(),
        }
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.under_way()
    }

    /// Attempts that began in the last minute.
    pub(crate) fn last_minute(&self, now: Instant) -> u64 {
        self.lately.sum(self.second(now))
    }

    /// Attempts that began since it is known.
    pub(crate) fn total(&self) -> u64 {
        self.requests.total()
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.since).as_secs()).unwrap_or(u32::MAX)
    }
}

/// What an attempt says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Good,
    Bad,
    /// Whatever it was, the endpoint has nothing to do with it.
    Nothing,
}

impl Pool {
    pub(super) fn follow(
        id: &str,
        kept: &Kept<Object>,
        before: Option<&Arc<Self>>,
        tunnel: impl Fn(&Uuid) -> Option<Arc<Tunnel>>,
        mut watches: impl FnMut(&Arc<Tunnel>, Option<&Authority>, &str) -> Vec<Watch>,
        own_domain: Option<&str>,
        around: &Around,
    ) -> Arc<Self> {
        let mut is_same = |endpoint: &Endpoint| {
            let now = endpoint.named.as_ref().and_then(&tunnel);
            let Some(now) = now else { return endpoint.tunnel.is_none() };
            let watches = watches(&now, endpoint.host.as_ref(), &endpoint.address);
            endpoint.tunnel.as_ref().is_some_and(|before| Arc::ptr_eq(before, &now))
                && watches.len() == endpoint.watches.len()
                && watches.iter().zip(&endpoint.watches).all(|(one, other)| one.is_same(other))
        };
        if let Some(before) = before
            && before.revision == kept.revision
            && before.endpoints.iter().filter(|endpoint| !is_same(endpoint)).count() == 0
        {
            return before.clone();
        }
        let object = &kept.record;
        let known = before.map_or(&[][..], |pool| &pool.endpoints);
        let said = object.endpoints().take(MOST_ENDPOINTS);
        let new = || Arc::new(Condition::new(around.at(Instant::now())));
        let (endpoints, places): (Vec<_>, Vec<_>) = said
            .filter_map(|said| {
                let address = said.get("address")?.as_str()?;
                let place = known.iter().position(|known| known.address == address);
                let named = tunnel_of(address, own_domain).map(|(id, _)| id);
                let host = said.get("header").and_then(|header| header.get("Host")?.get(0)?.as_str());
                let host: Option<Authority> = host.and_then(|host| host.parse().ok());
                let tunnel = named.as_ref().and_then(&tunnel);
                let watched = tunnel.iter().map(|tunnel| watches(tunnel, host.as_ref(), address));
                let endpoint = Endpoint {
                    watches: watched.flatten().collect(),
                    address: address.to_owned(),
                    weight: said::hundredths(said.get("weight")),
                    is_enabled: said.get("enabled") != Some(&Value::Bool(false)),
                    host,
                    tunnel,
                    named,
                    session_id: named.map(|tunnel| session::endpoint_id(id, tunnel)),
                    disabled_at: object.disabled_at.get(address).copied(),
                    hash: Key::of(format!("{id} {address}").as_bytes()).0,
                    condition: place.map_or_else(new, |place| known[place].condition.clone()),
                };
                Some((endpoint, place))
            })
            .unzip();
        let minimum = object.said.get("minimum_origins").and_then(Value::as_u64).unwrap_or(1);
        let minimum = usize::try_from(minimum).unwrap_or(usize::MAX).max(1);
        let mut keeper = match before {
            Some(before) => before.keep().rearranged(&places),
            None => Keeper::new(endpoints.len()),
        };
        let is_enabled = object.is_enabled();
        let board = look(&mut keeper, id, &endpoints, (is_enabled, minimum), around, Instant::now());
        Arc::new(Self {
            id: id.to_owned(),
            name: object.text("name").unwrap_or_default().to_owned(),
            is_enabled,
            minimum,
            endpoints,
            policy: said::policy_of(object),
            place: said::place_of(object),
            disabled_at: object.disabled_at.get("").copied(),
            hash: Key::of(id.as_bytes()).0,
            board: ArcSwap::from_pointee(board),
            keeper: Mutex::new(keeper),
            around: around.clone(),
            revision: kept.revision,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What its endpoints are together.
    pub(crate) fn health(&self) -> PoolHealth {
        self.board(Instant::now()).health
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.endpoints.iter().map(|endpoint| endpoint.condition.requests()).sum()
    }

    /// Its endpoints as they stand.
    pub(super) fn board(&self, now: Instant) -> Guard<Arc<Board>> {
        let board = self.board.load();
        if board.turn == self.around.turns.now() && self.around.at(now) < board.until {
            return board;
        }
        // Whoever comes meanwhile goes by the one before.
        match self.keeper.try_lock() {
            Ok(mut keeper) => self.look(&mut keeper, now),
            Err(TryLockError::Poisoned(poisoned)) => self.look(&mut poisoned.into_inner(), now),
            Err(TryLockError::WouldBlock) => return board,
        }
        self.board.load()
    }

    fn look(&self, keeper: &mut Keeper, now: Instant) {
        let pool = (self.is_enabled, self.minimum);
        self.board.store(Arc::new(look(keeper, &self.id, &self.endpoints, pool, &self.around, now)));
    }

    /// Held for one look, and on the path of a request only by one whose attempt failed.
    fn keep(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a request that begins at one of its endpoints.
    pub(super) fn begin(&self, at: usize, now: Instant) -> UnderWay {
        let condition = &self.endpoints[at].condition;
        condition.lately.add(condition.second(now));
        condition.requests.begin()
    }

    /// Takes note of what became of it after it was asked, for whom `source` is of.
    pub(super) fn end(&self, at: usize, end: End, asked: Instant, is_trial: bool, source: Key) {
        let now = Instant::now();
        let Condition { tally, peak, .. } = &*self.endpoints[at].condition;
        let elapsed = self.around.at(now);
        if self.policy == Policy::Peak {
            let took = now.saturating_duration_since(asked);
            match end {
                End::Good => peak.answered(elapsed, took),
                End::Bad => peak.failed(elapsed, took),
                End::Nothing => {}
            }
        }
        if is_trial {
            let mut keeper = self.keep();
            let change = match end {
                End::Good | End::Bad => {
                    keeper.ejector.end_trial(at, end == End::Good, elapsed, tally, fastrand::u64(..))
                }
                End::Nothing => {
                    keeper.ejector.leave_trial(at, elapsed);
                    None
                }
            };
            if let Some(change) = change {
                tell(&self.id, &self.endpoints, change);
            }
            return self.look(&mut keeper, now);
        }
        match end {
            End::Good => tally.good(elapsed),
            End::Bad if tally.bad(elapsed, source.0) => self.look(&mut self.keep(), now),
            End::Bad | End::Nothing => {}
        }
    }

    /// An ejected endpoint that this request may try, if there is one that is `open`.
    pub(super) fn trial(
        &self,
        open: impl Fn(usize) -> bool,
        is_repeatable: bool,
        now: Instant,
    ) -> Option<usize> {
        let (board, elapsed) = (self.board(now), self.around.at(now));
        board.next_trial.filter(|due| elapsed >= *due)?;
        // Another request is about to.
        let mut keeper = self.keeper.try_lock().ok()?;
        let is_open = |at: &usize| board.states[*at] == State::Ejected && open(*at);
        let mut ejected = (0..self.endpoints.len()).filter(is_open);
        let found = ejected.find(|at| keeper.ejector.begin_trial(*at, elapsed, is_repeatable))?;
        self.look(&mut keeper, now);
        Some(found)
    }

    /// The endpoint for a request, among those that may serve and were not tried, for a `last` resort also those
    /// that a monitor holds for down; a `key` chooses in the place of chance.
    pub(super) fn choose(
        &self,
        tried: u128,
        is_last: bool,
        visitor: Key,
        key: Option<Key>,
        now: Instant,
    ) -> Option<usize> {
        let board = self.board(now);
        let may_serve =
            |at: usize| is_last || board.states[at].standing().is_some_and(|is| is != Standing::Down);
        let open = |at: usize| tried & (1 << at) == 0 && may_serve(at);
        let ballot = &board.ballot;
        match (self.policy, key) {
            (_, Some(key)) => ballot.hashed(key, open),
            (Policy::Hash, None) => ballot.hashed(visitor, open),
            (Policy::Least, None) => {
                let load = |at: usize| open(at).then(|| self.endpoints[at].condition.requests());
                ballot.least(load, fastrand::u64(..))
            }
            (Policy::Peak, None) => {
                let elapsed = self.around.at(now);
                let seen = |condition: &Condition| (condition.peak.value(elapsed), condition.requests());
                let load = |at: usize| open(at).then(|| seen(&self.endpoints[at].condition));
                ballot.quickest(load, fastrand::u64(..))
            }
            (Policy::Random | Policy::Off | Policy::Quickest | Policy::Nearest, None) => {
                ballot.random(open, fastrand::u64(..))
            }
        }
    }

    /// What monitors see of it: the mean of its endpoints that serve.
    pub(super) fn latency(&self, now: Instant) -> Option<f64> {
        let board = self.board(now);
        let serving = self.endpoints.iter().zip(&board.states);
        let serving = serving.filter(|(_, state)| matches!(state, State::Up | State::Unknown));
        let latencies = serving.filter_map(|(endpoint, _)| monitors::latency(&endpoint.watches));
        let (sum, count) = latencies.fold((0.0, 0_u32), |(sum, count), one| (sum + one, count + 1));
        (count > 0).then(|| sum / f64::from(count))
    }
}

impl Endpoint {
    /// What is known of it.
    pub(crate) fn state(&self) -> State {
        Signs { is_ejected: self.condition.is_ejected.load(Ordering::Relaxed), ..self.signs() }.state()
    }

    /// By which result of its monitors it is what it is: of several the one that is not content says most.
    pub(crate) fn last(&self) -> Outcome {
        let last = self.watches.iter().filter_map(|watch| watch.watched.last());
        last.max_by_key(|last| last.fault.is_some()).unwrap_or_default()
    }

    /// Why it is in a state.
    pub(crate) fn why(&self, state: State) -> String {
        match state {
            State::Up => "No failures".to_owned(),
            State::Unknown => "no result of its monitor yet".to_owned(),
            State::Disabled => "disabled".to_owned(),
            State::NotConnected if self.named.is_none() => "not the name of a tunnel".to_owned(),
            State::NotConnected if self.tunnel.is_none() => "the tunnel was deleted".to_owned(),
            State::NotConnected => "no host of the tunnel is connected".to_owned(),
            State::Down => self.last().fault.unwrap_or_else(|| "its monitor failed before".to_owned()),
            State::Ejected => "its requests failed lately".to_owned(),
            State::Overdue | State::Draining => state.word().to_owned(),
        }
    }

    /// Whether nobody says that it is down.
    pub(crate) fn may_serve(&self) -> bool {
        matches!(self.state().standing(), Some(Standing::Up | Standing::Unknown))
    }

    /// Whether it could serve, if it were not switched off.
    pub(super) fn is_well(&self) -> bool {
        matches!(Signs { is_enabled: true, ..self.signs() }.state(), State::Up | State::Unknown)
    }

    /// Without a word about ejection.
    fn signs(&self) -> Signs {
        Signs {
            is_enabled: self.is_enabled,
            is_connected: Some(self.tunnel.as_ref().is_some_and(|tunnel| tunnel.is_connected())),
            active: monitors::active(&self.watches),
            is_ejected: false,
            is_draining: false,
        }
    }
}

/// Makes a board.
fn look(
    keeper: &mut Keeper,
    pool: &str,
    endpoints: &[Endpoint],
    (is_enabled, minimum): (bool, usize),
    around: &Around,
    now: Instant,
) -> Board {
    let turn = around.turns.now();
    let members = endpoints.iter().map(|endpoint| {
        let Endpoint { weight, hash, condition, .. } = endpoint;
        Member { signs: endpoint.signs(), weight: *weight, hash: *hash, tally: &condition.tally }
    });
    let members: Vec<Member<'_>> = members.collect();
    let health = |states: &[State]| PoolHealth::new(is_enabled, minimum, states.iter().copied());
    let (board, changes) = keeper.look((turn, around.at(now)), &members, health, fastrand::u64(..));
    for (at, endpoint) in endpoints.iter().enumerate() {
        endpoint.condition.is_ejected.store(keeper.ejector.is_out(at), Ordering::Relaxed);
    }
    for change in changes {
        tell(pool, endpoints, change);
    }
    board
}

fn tell(pool: &str, endpoints: &[Endpoint], change: Change) {
    match change {
        Change::Ejected { at, why, lasts } => {
            let address = &endpoints[at].address;
            warn!(pool, address, ?why, ?lasts, "an endpoint is left out, because its requests fail");
        }
        Change::Returned { at } => {
            info!(pool, address = endpoints[at].address, "an endpoint is back: a request was answered");
        }
        Change::Released { at } => {
            info!(pool, address = endpoints[at].address, "an endpoint is back, because others have gone");
        }
    }
}

/// As many as a way remembers.
const MOST_ENDPOINTS: usize = u128::BITS as usize;
