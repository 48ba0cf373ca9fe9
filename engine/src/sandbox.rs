//! What all instances of one plugin share: who they are, what they may take and reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adit_rules::plan::PluginPlan;

use super::failure::LoadError;
use super::imports::key_value::Bucket;
use super::imports::log::GuestLog;
use super::imports::metrics::Metrics;
use super::imports::standard;
use super::persistent::PersistentState;
use super::test_host::Time;
use super::text::printable;
use crate::outbound::Outbound;

/// Names that are kept of those that a plugin asks for in vain while it is loaded, and bytes of one.
const MOST_NAMES: usize = 16;
const LONGEST_NAME: usize = 64;

/// Secrets by name, as they were read for a plugin.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, Vec<u8>>);

/// One plugin's surroundings.
pub(super) struct Sandbox {
    pub(super) log: Arc<GuestLog>,
    /// Bytes that an instance may have.
    pub(super) memory: usize,
    pub(super) metrics: Arc<Metrics>,
    pub(super) secrets: Secrets,
    /// By key, for components that read it so.
    pub(super) config: BTreeMap<String, String>,
    /// With the bytes that each may hold.
    pub(super) buckets: BTreeMap<String, (Arc<Bucket>, usize)>,
    pub(super) outbound: Option<Arc<Outbound>>,
    pub(super) time: Time,
    /// Calls into the host that were refused for lack of a grant.
    denied: AtomicU64,
    /// What was asked for by name and is not granted, while it is loaded.
    ungranted: Mutex<Option<BTreeSet<String>>>,
}

impl Sandbox {
    pub(super) fn new(
        plan: &PluginPlan,
        secrets: &Secrets,
        persistent: &PersistentState,
    ) -> Result<Self, LoadError> {
        let grants = &plan.grants;
        let buckets = grants.buckets.iter();
        let outbound = (!grants.http.is_empty()).then(|| Outbound::new(grants)).transpose();
        let outbound = outbound.map_err(|error| LoadError::Sandbox { reason: format!("{error:#}") })?;
        let bucket = |name: &String| match grants.kept.contains(name) {
            true => persistent.kept_bucket(&plan.name, name).map_err(|reason| LoadError::Sandbox { reason }),
            false => Ok(persistent.bucket(&plan.name, name)),
        };
        let buckets =
            buckets.map(|(name, quota)| Ok::<_, LoadError>((name.clone(), (bucket(name)?, *quota))));
        let buckets = buckets.collect::<Result<_, LoadError>>()?;
        Ok(Self {
            log: Arc::new(GuestLog::new(&plan.name)),
            memory: plan.limits.memory,
            metrics: persistent.metrics(&plan.name),
            secrets: secrets.clone(),
            config: standard::configuration(&plan.config),
            buckets,
            outbound: outbound.map(Arc::new),
            time: Time::default(),
            denied: AtomicU64::new(0),
            ungranted: Mutex::new(Some(BTreeSet::new())),
        })
    }

    pub(super) fn deny(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
    }

    /// Refuses a secret or a bucket of a name that is not granted.
    pub(super) fn deny_name(&self, kind: &str, name: &str) {
        self.deny();
        let mut ungranted = self.ungranted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = ungranted.as_mut().filter(|names| names.len() < MOST_NAMES) {
            names.insert(format!("{kind} {:?}", printable(name, LONGEST_NAME)));
        }
    }

    /// Ends the load: what it asked for by name and is not granted. From now on that is counted only.
    pub(super) fn loaded(&self) -> Vec<String> {
        let names = self.ungranted.lock().unwrap_or_else(PoisonError::into_inner).take();
        names.unwrap_or_default().into_iter().collect()
    }

    pub(super) fn denied(&self) -> u64 {
        self.denied.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
