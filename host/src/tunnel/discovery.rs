//! Which edge server a slot dials: finds the addresses, keeps them fresh, hands them out.
//!
//! [`addresses`] decides who gets which; `source` says where they come from; `dns` asks name servers.
//! Here is what joins them: the one task of a process that looks addresses up.

pub mod addresses;
mod dns;
mod source;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::state::{Action, Event, Goal, State, Verdict};
use crate::config::settings::{Edges, IpVersion};
use addresses::Allocation;
use source::Source;

/// The edge's addresses and who holds them. Slots of all shards share one.
pub struct Addresses {
    allocation: Arc<Mutex<Allocation>>,
    asks: mpsc::Sender<Ask>,
    failed: Arc<Notify>,
    found: watch::Sender<u64>,
    patience: Duration,
    _lookups: AbortOnDropHandle<()>,
}

/// Somebody waits for the outcome of a lookup.
type Ask = oneshot::Sender<Result<(), Unresolved>>;

/// Why there is no address to dial. One lookup may be waited for by every slot, so it is shared.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Unresolved(Arc<LookupError>);

/// Why a lookup brought no addresses.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error("edge address {entry} cannot be resolved: {why}")]
    Listed { entry: String, why: String },
    #[error("looking up {what} at {server}: {why}")]
    Dns { what: String, server: String, why: String },
    #[error("no target of the SRV records of {service} has an address{}", family(*ip_version))]
    NoAddress { service: String, ip_version: IpVersion },
    #[error("the SRV records of {service} lead to one region only ({region}), and two are needed")]
    OneRegion { service: String, region: String },
    #[error("no address of the edge is known")]
    Nothing,
    #[error("looking up the edge took longer than {LOOKUP_LIMIT:?}")]
    TimedOut,
}

/// A data centre of the edge, as DNS or the configuration tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Region {
    name: String,
    addresses: Vec<SocketAddr>,
}

impl Addresses {
    /// Starts the task that looks up; it ends with this value. Call it on the runtime that shall run it.
    pub fn start(edges: Edges, slots: usize) -> Self {
        Self::start_with(edges, slots, PACE)
    }

    fn start_with(edges: Edges, slots: usize, pace: Pace) -> Self {
        let allocation = Arc::new(Mutex::new(Allocation::new(slots)));
        let failed = Arc::new(Notify::new());
        let (asks, inbox) = mpsc::channel(MOST_ASKS);
        let source = Source::new(edges);
        let patience = source.patience();
        let lookups = Lookups {
            source,
            allocation: allocation.clone(),
            inbox,
            failed: failed.clone(),
            pace,
            known: Vec::new(),
        };
        let task = tokio::spawn(lookups.run());
        let found = watch::Sender::new(0);
        Self { allocation, asks, failed, found, patience, _lookups: AbortOnDropHandle::new(task) }
    }

    /// The address that this slot tries for `goal`; `None` says that there is none. Waits for a lookup only
    /// where no address is known, or where host names are listed: these are resolved for each dial. May be
    /// dropped midway.
    ///
    /// # Errors
    /// No address is known, and why the lookup brought none.
    pub async fn seek(&self, slot: usize, goal: Goal) -> Result<Option<SocketAddr>, Unresolved> {
        if self.allocation().is_empty() {
            self.look_up().await?;
        } else if !self.patience.is_zero() {
            // Whatever comes of it: there are addresses to go on with.
            let _ = timeout(self.patience, self.look_up()).await;
        }
        let sought = self.allocation().seek(slot, goal, now());
        match (sought, goal) {
            (None, Goal::Connect) => Err(Unresolved(Arc::new(LookupError::Nothing))),
            (sought, _) => Ok(sought),
        }
    }

    /// See [`Allocation::follow`]. Has the addresses looked up again soon after a failure, and tells the
    /// other slots when this one found an edge.
    pub fn follow(&self, slot: usize, event: Event, state: &State, action: &Action) {
        self.allocation().follow(slot, event, state, action, now());
        if matches!(action, Action::Promote { .. }) {
            self.found.send_modify(|count| *count += 1);
        }
        if let Action::Wait { verdict, .. } | Action::Rest { verdict, .. } | Action::ReportLoss { verdict } =
            action
            && matches!(verdict, Verdict::Unreachable | Verdict::Unfit)
        {
            self.failed.notify_one();
        }
    }

    /// Whether this slot should move: see [`Allocation::is_misplaced`].
    pub fn is_misplaced(&self, slot: usize) -> bool {
        self.allocation().is_misplaced(slot, now())
    }

    /// Changes whenever a slot was registered.
    pub fn found(&self) -> watch::Receiver<u64> {
        self.found.subscribe()
    }

    async fn look_up(&self) -> Result<(), Unresolved> {
        let (answer, outcome) = oneshot::channel();
        let asked = self.asks.send(answer).await;
        match (asked, outcome.await) {
            (Ok(()), Ok(outcome)) => outcome,
            // The task lives as long as this value, unless its runtime is going down.
            _ => Err(Unresolved(Arc::new(LookupError::Nothing))),
        }
    }

    fn allocation(&self) -> MutexGuard<'_, Allocation> {
        lock(&self.allocation)
    }
}

/// The task: one lookup at a time, when somebody waits for one, soon after a failure, and at intervals.
struct Lookups {
    source: Source,
    allocation: Arc<Mutex<Allocation>>,
    inbox: mpsc::Receiver<Ask>,
    failed: Arc<Notify>,
    pace: Pace,
    /// What the last successful lookup found, to tell changes.
    known: Vec<Region>,
}

impl Lookups {
    async fn run(mut self) {
        let mut last: Option<Instant> = None;
        let mut due = Instant::now() + self.pace.interval;
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                ask = self.inbox.recv() => match ask {
                    Some(ask) => waiting.push(ask),
                    None => return,
                },
                () = self.failed.notified() => {
                    due = due.min(last.map_or_else(Instant::now, |last| last + self.pace.least_pause));
                    continue;
                }
                () = sleep_until(due) => {}
            }
            let outcome = timeout(LOOKUP_LIMIT, self.source.look_up(&self.known)).await;
            let outcome = self.take(outcome.unwrap_or(Err(LookupError::TimedOut)));
            // Whoever asked in the meantime is served by the same answer.
            while let Ok(ask) = self.inbox.try_recv() {
                waiting.push(ask);
            }
            let now = Instant::now();
            last = Some(now);
            due = now + if outcome.is_ok() { self.pace.interval } else { self.pace.after_failure };
            for ask in waiting {
                let _ = ask.send(outcome.clone());
            }
        }
    }

    /// Takes over what was found; where nothing was, the addresses that are known stay.
    fn take(&mut self, found: Result<Vec<Region>, LookupError>) -> Result<(), Unresolved> {
        let regions = found.map_err(|error| {
            if !self.known.is_empty() {
                warn!(%error, "looking up the edge failed; the addresses that are known stay in use");
            }
            Unresolved(Arc::new(error))
        })?;
        lock(&self.allocation).refresh(self.source.arrange(&regions));
        if sets(&regions) != sets(&self.known) {
            let shown: Vec<String> = regions
                .iter()
                .map(|region| format!("{} ({})", region.name, region.addresses.len()))
                .collect();
            info!(regions = shown.join(", "), "edge addresses found");
            if regions.len() < 2 && matches!(self.source, Source::Domain { .. }) {
                warn!("the edge has one region only: nothing serves while that is down");
            }
        }
        self.known = regions;
        Ok(())
    }
}

/// When addresses are looked up though nobody waits for them.
#[derive(Clone, Copy)]
struct Pace {
    /// While nothing fails.
    interval: Duration,
    /// The same after a lookup that failed.
    after_failure: Duration,
    /// The least time from one lookup to the next that a failing connection causes.
    least_pause: Duration,
}

fn sets(regions: &[Region]) -> Vec<(&str, HashSet<SocketAddr>)> {
    regions.iter().map(|it| (it.name.as_str(), it.addresses.iter().copied().collect())).collect()
}

fn family(version: IpVersion) -> &'static str {
    match version {
        IpVersion::Auto => "",
        IpVersion::V4 => " of IPv4",
        IpVersion::V6 => " of IPv6",
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A whole lookup, every server and every name of it.
const LOOKUP_LIMIT: Duration = Duration::from_secs(15);
const PACE: Pace = Pace {
    interval: Duration::from_secs(300),
    after_failure: Duration::from_secs(60),
    least_pause: Duration::from_secs(10),
};
/// Slots that may wait for a lookup at once; others wait to ask.
const MOST_ASKS: usize = 16;
