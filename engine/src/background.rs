//! A plugin's life beside requests: what was served is handed to it in batches, and its regular work
//! is called. One task for each plugin that exports such a phase, with an instance of its own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::task::AbortOnDropHandle;

use super::bindings::exports::adit::plugin::access_log::Entry;
use super::failure::{CallError, Failure, FailureKind};
use super::member::LoadedPlugin;
use super::meter::{SETUP, WORK};
use super::store::Instance;

/// How often what was served is handed over.
const FLUSH: Duration = Duration::from_millis(250);
/// Most entries of one call, as the WIT says.
const BATCH: usize = 256;
/// Entries of one shard that wait; more are dropped and counted.
const WAITING: usize = 8192;

/// One exchange that is over.
#[derive(Debug, Clone)]
pub struct Served {
    pub id: String,
    /// The name of the ingress rule.
    pub rule: String,
    pub method: String,
    pub authority: String,
    pub path_with_query: String,
    pub client_ip: String,
    pub status: u16,
    pub started: SystemTime,
    /// From the start to the head of the answer, and to its end.
    pub head_after: Duration,
    pub done_after: Duration,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// Whether the body went out to its end.
    pub complete: bool,
}

/// What waits for a plugin's access log, in each shard its own list.
pub(super) struct Waiting {
    shards: Box<[Mutex<Vec<Served>>]>,
    dropped: AtomicU64,
}

impl Waiting {
    pub(super) fn new(shards: usize) -> Self {
        let shards = (0..shards.max(1)).map(|_| Mutex::default()).collect();
        Self { shards, dropped: AtomicU64::new(0) }
    }

    pub(super) fn add(&self, shard: usize, served: Served) {
        let shard = &self.shards[shard % self.shards.len()];
        let mut list = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if list.len() < WAITING {
            list.push(served);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn take(&self) -> (Vec<Served>, u64) {
        let take = |list: &Mutex<Vec<Served>>| {
            std::mem::take(&mut *list.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let served = self.shards.iter().flat_map(take).collect();
        (served, self.dropped.swap(0, Ordering::Relaxed))
    }

    fn give_up(&self, count: usize) {
        self.dropped.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Calls the regular work for the first time, whose outcome the plugin does not serve without, and starts the task, if
/// the component has any such phase. The task ends when the handle is dropped.
pub(super) async fn start(
    member: &Arc<LoadedPlugin>,
    waiting: &Arc<Waiting>,
) -> Result<Option<AbortOnDropHandle<()>>, CallError> {
    let Some(phases) = &member.linked_component.phases else { return Ok(None) };
    let (logs, ticks) = (phases.log.is_some(), phases.tick.is_some() || phases.refresh.is_some());
    if !logs && !ticks {
        return Ok(None);
    }
    let mut work = Work::new(member, waiting);
    if ticks {
        work.first_tick().await?;
    }
    Ok(Some(AbortOnDropHandle::new(tokio::spawn(work.run(logs, ticks)))))
}

/// The calls themselves, one after the other.
pub(super) struct Work {
    member: Arc<LoadedPlugin>,
    waiting: Arc<Waiting>,
    /// Kept from call to call; gone after one that broke.
    instance: Option<Instance>,
}

impl Work {
    pub(super) fn new(member: &Arc<LoadedPlugin>, waiting: &Arc<Waiting>) -> Self {
        Self { member: member.clone(), waiting: waiting.clone(), instance: None }
    }

    async fn run(mut self, logs: bool, ticks: bool) {
        let mut flush = interval_at(Instant::now() + FLUSH, FLUSH);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let tick = self.member.plan.tick;
        let mut tick = interval_at(Instant::now() + tick, tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // What fails is counted and logged where it does.
                _ = flush.tick(), if logs => drop(self.flush().await),
                _ = tick.tick(), if ticks => drop(self.tick().await),
            }
        }
    }

    /// Hands over what waits; says which call failed last.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        let (served, mut dropped) = self.waiting.take();
        let mut outcome = Ok(());
        for batch in served.chunks(BATCH) {
            let entries: Vec<Entry<'_>> = batch.iter().map(entry).collect();
            let result = self.log(&entries, dropped).await;
            dropped = 0;
            if let Err(trouble) = result {
                self.waiting.give_up(batch.len());
                outcome = Err(self.member.report(0, "", trouble));
            }
        }
        outcome
    }

    async fn log(&mut self, entries: &[Entry<'_>], dropped: u64) -> Result<(), CallError> {
        let mut instance = self.instance().await?;
        let running = self.member.engine.clock().running(0);
        instance.on_log(WORK, entries, dropped).await?;
        drop(running);
        self.keep(instance);
        Ok(())
    }

    pub(super) async fn tick(&mut self) -> Result<(), Failure> {
        let done = self.work().await;
        done.map_err(|trouble| self.member.report(0, "", trouble))
    }

    /// Of a plugin that does not serve yet: whoever loads it is told what went wrong.
    async fn first_tick(&mut self) -> Result<(), CallError> {
        self.work().await
    }

    async fn work(&mut self) -> Result<(), CallError> {
        let mut instance = self.instance().await?;
        let running = self.member.engine.clock().running(0);
        let done = instance.on_tick(WORK).await?;
        drop(running);
        self.keep(instance);
        done.map_err(|fault| FailureKind::fault(&fault.code, &fault.message).into())
    }

    async fn instance(&mut self) -> Result<Instance, CallError> {
        self.member.admit(0)?;
        match self.instance.take() {
            Some(instance) => Ok(instance),
            None => self.member.instance(0, SETUP).await,
        }
    }

    fn keep(&mut self, instance: Instance) {
        self.member.returned();
        self.instance = Some(instance);
    }
}

fn entry(served: &Served) -> Entry<'_> {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let started = served.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Entry {
        id: &served.id,
        rule: &served.rule,
        method: &served.method,
        authority: &served.authority,
        path_with_query: &served.path_with_query,
        client_ip: &served.client_ip,
        status: served.status,
        started: u64::try_from(started.as_millis()).unwrap_or(u64::MAX),
        head_after: micros(served.head_after),
        done_after: micros(served.done_after),
        sent: served.sent,
        complete: served.complete,
    }
}
