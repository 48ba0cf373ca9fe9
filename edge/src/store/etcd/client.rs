//! Calls to whichever member of etcd answers. Knows which members there are, what each must be to be used, and when
//! etcd was heard last; does not know what the records mean.
//!
//! A call is made again, at the next member, until its time is over: reads change nothing, and a transaction is done
//! once however often it is sent (`writing`).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

use super::Terms;
use super::channel::{CallError, Code, Connection};
use super::messages::{
    Compare, CompareResult, CompareTarget, PutRequest, RangeRequest, RangeResponse, Request, StatusRequest,
    StatusResponse, TxnRequest, TxnResponse,
};
use super::writing::Keys;
use crate::store::StoreError;
use crate::store::timestamp::Timestamp;

pub(super) struct Client {
    terms: Terms,
    pub(super) keys: Keys,
    /// Whether the fleet may be one that is not there yet.
    is_founding: bool,
    current: tokio::sync::Mutex<Current>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Current {
    connection: Option<Arc<Member>>,
    /// Which member is tried first.
    next: usize,
}

/// A member that may be used.
pub(super) struct Member {
    pub(super) connection: Connection,
    /// What it says about progress can be ahead of what it has sent.
    pub(super) is_old: bool,
}

struct Known {
    fleet: Option<Uuid>,
    mark: Option<Mark>,
    heard: Option<Instant>,
    /// When old lines of the audit log are removed next.
    prune: Instant,
}

/// The mark of the last change that is known, see `writing`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) revision: i64,
    pub(super) value: Bytes,
}

/// What says which fleet this is.
#[derive(Debug, Serialize, Deserialize)]
struct Fleet {
    id: Uuid,
    /// Of all records; see [`FORMAT`].
    format: u32,
    made_at: Timestamp,
}

/// How a call failed for good.
#[derive(Debug)]
pub(super) enum Failure {
    Store(StoreError),
    Call(CallError),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Client {
    pub(super) fn new(terms: Terms, is_founding: bool) -> Self {
        let keys = Keys::of(&terms.address.fleet);
        let now = Instant::now();
        // Not all edges at the same moment, and not a command that is over soon.
        let prune = now + PRUNE.mul_f64(fastrand::f64().max(0.01));
        let known = Mutex::new(Known { fleet: None, mark: None, heard: None, prune });
        Self { terms, keys, is_founding, current: tokio::sync::Mutex::default(), known }
    }

    /// The answer of whichever member gives one first, asked one after the other for so long.
    pub(super) async fn ask<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: &Q,
        span: Duration,
    ) -> Result<A, Failure> {
        let until = Instant::now() + span;
        let mut pause = SHORTEST_PAUSE;
        loop {
            let failed = match self.member(until).await {
                Ok(member) => {
                    let each = (Instant::now() + EACH).min(until);
                    match member.connection.call(method, question, each).await {
                        Ok(answer) => {
                            self.heard();
                            return Ok(answer);
                        }
                        Err(error @ (CallError::NotSent(_) | CallError::Broken(_))) => {
                            self.leave(&member).await;
                            Failure::Call(error)
                        }
                        Err(error @ CallError::Refused { code: Code::Unavailable, .. }) => {
                            self.leave(&member).await;
                            Failure::Call(error)
                        }
                        Err(error) => return Err(Failure::Call(error)),
                    }
                }
                Err(error @ Failure::Call(_)) => error,
                Err(error @ Failure::Store(_)) => return Err(error),
            };
            if Instant::now() + pause >= until {
                return Err(failed);
            }
            // Not all edges at the same moment.
            sleep(pause.mul_f64(fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// The member that is used now, or the next one that can be.
    pub(super) async fn member(&self, until: Instant) -> Result<Arc<Member>, Failure> {
        let mut current = self.current.lock().await;
        if let Some(member) = current.connection.as_ref().filter(|member| !member.connection.is_closed()) {
            return Ok(member.clone());
        }
        current.connection = None;
        let endpoints = &self.terms.address.endpoints;
        let mut last = Failure::Call(CallError::NotSent("there was no time to ask".to_owned()));
        for _ in 0..endpoints.len() {
            if Instant::now() >= until {
                break;
            }
            let endpoint = &endpoints[current.next % endpoints.len()];
            let opened = match Connection::open(endpoint, self.terms.tls.as_ref()).await {
                Ok(connection) => self.greet(connection, endpoint).await,
                Err(error) => Err(Failure::Call(error)),
            };
            match opened {
                Ok(member) => {
                    self.heard();
                    return Ok(current.connection.insert(Arc::new(member)).clone());
                }
                Err(error) => last = error,
            }
            current.next = (current.next + 1) % endpoints.len();
        }
        Err(last)
    }

    /// Nobody asks this member again before the others were tried.
    pub(super) async fn leave(&self, member: &Arc<Member>) {
        let mut current = self.current.lock().await;
        if current.connection.as_ref().is_some_and(|used| Arc::ptr_eq(used, member)) {
            current.connection = None;
            current.next = (current.next + 1) % self.terms.address.endpoints.len();
        }
    }

    /// Whether this member may be used: its version, whether it has a leader, and whose records it has.
    async fn greet(&self, connection: Connection, endpoint: &impl fmt::Display) -> Result<Member, Failure> {
        let until = Instant::now() + EACH;
        let status: StatusResponse =
            connection.call(STATUS, &StatusRequest {}, until).await.map_err(Failure::Call)?;
        let version = status.version;
        let is_old = !is_new_enough(&version);
        if is_old && !self.terms.allow_old {
            let version: String = version.chars().filter(char::is_ascii_graphic).take(40).collect();
            return Err(self.unusable(format!(
                "{endpoint} is etcd {version}, which is older than {}: such versions lose changes that were \
                 made; use a newer one, or write `allow-old = true` where nothing can be lost",
                FLOOR.map(|part| part.to_string()).join(".")
            )));
        }
        if status.leader == 0 {
            return Err(Failure::Call(CallError::NotSent(format!("{endpoint} has no leader"))));
        }
        let question = RangeRequest { key: self.keys.fleet().into(), ..RangeRequest::default() };
        let found: RangeResponse = connection.call(RANGE, &question, until).await.map_err(Failure::Call)?;
        let Some(record) = found.kvs.first() else {
            if self.is_founding && self.known().fleet.is_none() {
                return Ok(Member { connection, is_old });
            }
            let fleet = &self.terms.address.fleet;
            return Err(self.unusable(format!(
                "there is no fleet `{fleet}`; `adit edge init --store {}` makes it, and `adit edge migrate` moves \
                 the state of an edge there",
                self.terms.address
            )));
        };
        let fleet: Fleet = serde_json::from_slice(&record.value)
            .map_err(|error| self.unusable(format!("what says which fleet it is cannot be read: {error}")))?;
        if fleet.format > FORMAT {
            let place = self.terms.address.to_string();
            return Err(StoreError::TooNew { place, found: fleet.format, known: FORMAT }.into());
        }
        let expected = *self.known().fleet.get_or_insert(fleet.id);
        if expected != fleet.id {
            return Err(self.unusable(format!(
                "{endpoint} has the state of another fleet ({}) than this edge serves ({expected})",
                fleet.id
            )));
        }
        Ok(Member { connection, is_old })
    }

    /// Makes the fleet if it is not there yet.
    pub(super) async fn found(&self) -> Result<(), StoreError> {
        let fleet = Fleet { id: Uuid::new_v4(), format: FORMAT, made_at: Timestamp::now() };
        let key: Bytes = self.keys.fleet().into();
        let absent = Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Create.into(),
            key: key.clone(),
            create_revision: Some(0),
            mod_revision: None,
        };
        let value = serde_json::to_vec(&fleet).expect("it has a JSON form").into();
        let question = TxnRequest {
            compare: vec![absent],
            success: vec![Request::Put(PutRequest { key: key.clone(), value, lease: 0 }).into()],
            failure: Vec::new(),
        };
        let made: Result<TxnResponse, _> = self.ask(TXN, &question, PATIENCE).await;
        if made.map_err(|error| self.store_error(error))?.succeeded {
            info!(fleet = self.terms.address.fleet, id = %fleet.id, "a fleet was made");
        }
        // Whoever was first: that is the one.
        let question = RangeRequest { key, ..RangeRequest::default() };
        let found: RangeResponse =
            self.ask(RANGE, &question, PATIENCE).await.map_err(|error| self.store_error(error))?;
        let record = found.kvs.first().ok_or_else(|| self.unavailable("the fleet was taken away again"))?;
        let fleet: Fleet =
            serde_json::from_slice(&record.value).map_err(|error| self.unavailable(&error.to_string()))?;
        self.known().fleet = Some(fleet.id);
        Ok(())
    }

    /// Which fleet this is, once that is known.
    pub(super) fn fleet(&self) -> Option<Uuid> {
        self.known().fleet
    }

    /// Holds every member to this fleet from the first answer on.
    pub(super) fn expect(&self, fleet: Uuid) {
        self.known().fleet = Some(fleet);
    }

    pub(super) fn mark(&self) -> Option<Mark> {
        self.known().mark.clone()
    }

    pub(super) fn set_mark(&self, mark: Option<Mark>) {
        self.known().mark = mark;
    }

    pub(super) fn heard(&self) {
        self.known().heard = Some(Instant::now());
    }

    /// Whether it is time; then it is said once.
    pub(super) fn is_prune_due(&self) -> bool {
        let (mut known, now) = (self.known(), Instant::now());
        let is_due = now >= known.prune;
        if is_due {
            known.prune = now + PRUNE;
        }
        is_due
    }

    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.known().heard.map(|heard| heard.elapsed())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable { place: self.terms.address.to_string(), reason: reason.to_owned() }
    }

    fn unusable(&self, reason: String) -> Failure {
        Failure::Store(self.unavailable(&reason))
    }

    pub(super) fn store_error(&self, failure: Failure) -> StoreError {
        match failure {
            Failure::Store(error) => error,
            Failure::Call(CallError::Refused { code: Code::ResourceExhausted, message })
                if message.contains("space") =>
            {
                warn!(%message, "etcd takes no changes");
                self.unavailable(&format!(
                    "{message}: its quota is used up; compact and defragment it (etcdctl compact, etcdctl \
                     defrag), then `etcdctl alarm disarm`"
                ))
            }
            Failure::Call(error) => self.unavailable(&error.to_string()),
        }
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().ok());
    let mut part = || parts.next().flatten();
    let (Some(major), Some(minor), Some(patch)) = (part(), part(), part()) else { return false };
    [major, minor, patch] >= FLOOR
}

pub(super) const RANGE: &str = "KV/Range";
pub(super) const TXN: &str = "KV/Txn";
pub(super) const WATCH: &str = "Watch/Watch";
pub(super) const STATUS: &str = "Maintenance/Status";
/// Of the records in etcd; a fleet with a newer one is left as it is.
const FORMAT: u32 = 1;
/// Before it, watches lose changes (etcd's issues 18089, 15220) and data is damaged when a member is killed.
const FLOOR: [u32; 3] = [3, 5, 18];
/// How long a call is tried at all members.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);
/// How long one member may take.
const EACH: Duration = Duration::from_secs(3);
/// How often an edge that writes removes old lines of the audit log.
const PRUNE: Duration = Duration::from_secs(6 * 60 * 60);
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_below_the_floor_or_without_sense_is_old() {
        for (version, is_new) in [
            ("3.5.18", true),
            ("3.5.21", true),
            ("3.6.0", true),
            ("3.6.0-rc.1", true),
            ("4.0.0", true),
            ("3.5.17", false),
            ("3.4.99", false),
            ("3.5", false),
            ("", false),
            ("x.y.z", false),
        ] {
            assert_eq!(is_new_enough(version), is_new, "{version}");
        }
    }
}
