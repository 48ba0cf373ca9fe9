//! A plugin under test: the same engine and the same imports, but what it says is heard, its work beside requests
//! is done when somebody says so, and if they like time stands still until it is moved, and requests to elsewhere
//! are answered by whoever tests. Knows no files and no expectations.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use adit_rules::plan::PluginPlan;

use super::background::{Served, Work};
use super::compiler;
use super::engine::Engine;
use super::failure::{Failure, LoadError};
use super::imports::key_value::Store;
use super::imports::log::{CapturedLogs, GuestLog};
use super::sandbox::{Sandbox, Secrets};
use crate::component::LinkedComponent;
use crate::filter::Plugin;
use crate::outbound::{Outbound, Script};

/// What stands in for the world; what is left out is real.
#[derive(Clone, Default)]
pub struct TestHost {
    pub clock: Option<ManualClock>,
    /// Answers what passes the plugin's grants.
    pub script: Option<Script>,
    /// Where its messages go besides the log.
    pub heard: CapturedLogs,
}

/// A component whose machine code is ready, for as many plugins as a test likes.
pub struct Compiled {
    engine: Engine,
    linked_component: LinkedComponent,
}

/// A plugin's life beside requests, which happens when a test says so. Like in a host it has an instance of
/// its own, kept from call to call.
pub struct BackgroundDriver<'a> {
    plugin: &'a Plugin,
    work: Work,
}

/// A clock that stands still until it is moved. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<Mutex<ManualTime>>);

#[derive(Debug, Clone, Copy)]
struct ManualTime {
    since_1970: Duration,
    instant: Instant,
}

/// Where a plugin's clocks get their time.
#[derive(Debug, Default)]
pub(super) enum Time {
    #[default]
    Real,
    Staged(ManualClock),
}

impl ManualClock {
    /// `since_1970` is UTC.
    pub fn at(since_1970: Duration) -> Self {
        Self(Arc::new(Mutex::new(ManualTime { since_1970, instant: Instant::now() })))
    }

    pub fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.moment().since_1970
    }

    pub fn advance(&self, by: Duration) {
        let mut moment = self.moment();
        moment.since_1970 = moment.since_1970.saturating_add(by);
        moment.instant = moment.instant.checked_add(by).unwrap_or(moment.instant);
    }

    fn moment(&self) -> MutexGuard<'_, ManualTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Time {
    /// Milliseconds, UTC.
    pub(super) fn since_1970(&self) -> u64 {
        let since = match self {
            Self::Real => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            Self::Staged(clock) => clock.moment().since_1970,
        };
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn instant(&self) -> Instant {
        match self {
            Self::Real => Instant::now(),
            Self::Staged(clock) => clock.moment().instant,
        }
    }
}

impl TestHost {
    pub(super) fn take_over(&self, sandbox: &mut Sandbox) {
        if let Some(clock) = &self.clock {
            sandbox.time = Time::Staged(clock.clone());
        }
        sandbox.log = Arc::new(GuestLog::heard(&sandbox.log.plugin, self.heard.clone()));
        if let (Some(outbound), Some(script)) = (&sandbox.outbound, &self.script) {
            sandbox.outbound = Some(Arc::new(Outbound::scripted(outbound, script.clone())));
        }
    }
}

impl Compiled {
    /// `name` is for the log.
    pub async fn new(engine: &Engine, name: &str, wasm: &[u8]) -> Result<Self, LoadError> {
        let component = compiler::component(engine, name, wasm).await?;
        let linked_component = LinkedComponent::link(engine, name, component)?;
        Ok(Self { engine: engine.clone(), linked_component })
    }

    /// What [`Plugin::load`] makes for one shard, with a test_host in place of the world.
    pub async fn plugin(
        &self,
        plan: &Arc<PluginPlan>,
        secrets: &Secrets,
        test_host: &TestHost,
    ) -> Result<Plugin, LoadError> {
        self.linked_component.check(plan)?;
        Plugin::ready(&self.engine, plan, self.linked_component.clone(), &secrets.into(), 1, Some(test_host))
            .await
    }
}

impl Plugin {
    /// Of one that is [`Compiled::plugin`]: nothing else calls its work.
    pub fn background_driver(&self) -> BackgroundDriver<'_> {
        BackgroundDriver { plugin: self, work: Work::new(&self.member, &self.waiting) }
    }

    /// Puts a value into a granted bucket; whether there was such a bucket, and room in it.
    pub fn store(&self, bucket: &str, key: &str, value: &[u8]) -> bool {
        let sandbox = &self.member.sandbox;
        let now = sandbox.time.instant();
        let found = sandbox.buckets.get(bucket).and_then(Store::of_this_process);
        found.is_some_and(|(bucket, quota)| {
            bucket.put(key.to_owned(), value.to_vec(), None, quota, now).is_ok()
        })
    }

    /// What lies in a granted bucket.
    pub fn stored(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let sandbox = &self.member.sandbox;
        let (bucket, _) = sandbox.buckets.get(bucket)?.of_this_process()?;
        bucket.value(key, sandbox.time.instant())
    }
}

impl BackgroundDriver<'_> {
    /// Calls the regular work, only of a plugin that [ticks](Plugin::ticks).
    pub async fn tick(&mut self) -> Result<(), Failure> {
        self.work.tick().await
    }

    /// Hands over what was served, only to a plugin that [logs](Plugin::logs).
    pub async fn log(&mut self, served: impl Iterator<Item = Served>) -> Result<(), Failure> {
        for served in served {
            self.plugin.observe(0, served);
        }
        self.work.flush().await
    }
}

impl fmt::Debug for TestHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestHost").field("clock", &self.clock).finish_non_exhaustive()
    }
}
