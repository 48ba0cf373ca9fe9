//! What all instances of one plugin share: who they are, what they may take and reach.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use adit_rules::plan::PluginPlan;

use super::failure::LoadError;
use super::imports::key_value::Store;
use super::imports::log::GuestLog;
use super::imports::metrics::Metrics;
use super::imports::standard;
use super::persistent::PersistentState;
use super::test_host::Time;
use super::text::printable;
use crate::outbound::Outbound;
use crate::shared::{BucketServer, SharedBucket};

/// Names that are kept of those that a plugin asks for in vain while it is loaded, and bytes of one.
const MOST_NAMES: usize = 16;
const LONGEST_NAME: usize = 64;

/// Secrets by name, as they were read for a plugin.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub BTreeMap<String, Vec<u8>>);

/// What a document has for a plugin besides its plan.
#[derive(Clone, Default)]
pub struct Given {
    pub secrets: Secrets,
    /// Of the buckets that the plugin shares with those of other hosts.
    pub bucket_server: Option<Arc<dyn BucketServer>>,
}

impl PartialEq for Given {
    fn eq(&self, other: &Self) -> bool {
        let is_same = match (&self.bucket_server, &other.bucket_server) {
            (Some(server), Some(other)) => Arc::ptr_eq(server, other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        is_same && self.secrets == other.secrets
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_server = self.bucket_server.is_some();
        f.debug_struct("Given").field("secrets", &self.secrets).field("bucket_server", &has_server).finish()
    }
}

impl From<&Secrets> for Given {
    fn from(secrets: &Secrets) -> Self {
        Self { secrets: secrets.clone(), bucket_server: None }
    }
}

/// One plugin's surroundings.
pub(super) struct Sandbox {
    pub(super) log: Arc<GuestLog>,
    /// Bytes that an instance may have.
    pub(super) memory: usize,
    pub(super) metrics: Arc<Metrics>,
    pub(super) secrets: Secrets,
    /// By key, for components that read it so.
    pub(super) config: BTreeMap<String, String>,
    pub(super) buckets: BTreeMap<String, Store>,
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
        given: &Given,
        persistent: &PersistentState,
    ) -> Result<Self, LoadError> {
        let grants = &plan.grants;
        let buckets = grants.buckets.iter();
        let outbound = (!grants.http.is_empty()).then(|| Outbound::new(grants)).transpose();
        let outbound = outbound.map_err(|error| LoadError::Sandbox { reason: format!("{error:#}") })?;
        // A tool that looks at a configuration asks no server, as it reads no file.
        let server = given.bucket_server.as_ref().filter(|_| persistent.serves());
        let store = |name: &String, quota| match (grants.shared.contains(name), server) {
            (true, Some(server)) => {
                let shared = SharedBucket::new(server.clone(), &plan.name, name);
                Ok(Store::shared(shared, quota))
            }
            (true, None) | (false, _) if !grants.kept.contains(name) => {
                Ok(Store::here(persistent.bucket(&plan.name, name), quota))
            }
            _ => {
                let kept = persistent.kept_bucket(&plan.name, name);
                Ok(Store::here(kept.map_err(|reason| LoadError::Sandbox { reason })?, quota))
            }
        };
        let buckets = buckets.map(|(name, quota)| Ok::<_, LoadError>((name.clone(), store(name, *quota)?)));
        let buckets = buckets.collect::<Result<_, LoadError>>()?;
        Ok(Self {
            log: Arc::new(GuestLog::new(&plan.name)),
            memory: plan.limits.memory,
            metrics: persistent.metrics(&plan.name),
            secrets: given.secrets.clone(),
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
