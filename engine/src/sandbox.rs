//! What all instances of one plugin share: who they are, what they may take and reach.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use adit_rules::plan::PluginPlan;

use super::failure::LoadError;
use super::imports::key_value::Bucket;
use super::imports::log::GuestLog;
use super::imports::metrics::Metrics;
use super::persistent::PersistentState;
use super::test_host::Time;
use crate::outbound::Outbound;

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
    /// With the bytes that each may hold.
    pub(super) buckets: BTreeMap<String, (Arc<Bucket>, usize)>,
    pub(super) outbound: Option<Arc<Outbound>>,
    pub(super) time: Time,
    /// Calls into the host that were refused for lack of a grant.
    denied: AtomicU64,
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
        Ok(Self {
            log: Arc::new(GuestLog::new(&plan.name)),
            memory: plan.limits.memory,
            metrics: persistent.metrics(&plan.name),
            secrets: secrets.clone(),
            buckets: buckets
                .map(|(name, quota)| (name.clone(), (persistent.bucket(&plan.name, name), *quota)))
                .collect(),
            outbound: outbound.map(Arc::new),
            time: Time::default(),
            denied: AtomicU64::new(0),
        })
    }

    pub(super) fn deny(&self) {
        self.denied.fetch_add(1, Ordering::Relaxed);
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
