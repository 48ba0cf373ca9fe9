//! What all calls of one plugin share, those of requests and those in the background: its code, its
//! surroundings, its instances, and how its failures are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use adit_net::log_limiter::LogLimiter;
use adit_rules::plan::PluginPlan;
use tracing::{debug, warn};

use super::chain::Facts;
use super::circuit_breaker::CircuitBreaker;
use super::component::{LinkedComponent, Phases};
use super::engine::Engine;
use super::failure::{CallError, Failure, FailureKind};
use super::imports;
use super::meter::{CallBudget, SETUP};
use super::pool::{BodyPlace, Permit, Pool};
use super::sandbox::Sandbox;
use super::store::Instance;

/// Failures that are logged of one plugin in a second; all are counted.
const FAILURES_PER_SECOND: u64 = 20;

pub(super) struct LoadedPlugin {
    pub(super) plan: Arc<PluginPlan>,
    pub(super) engine: Engine,
    pub(super) linked_component: LinkedComponent,
    pub(super) sandbox: Arc<Sandbox>,
    pub(super) pool: Arc<Pool>,
    pub(super) budget: CallBudget,
    /// Whether an instance of a service answers more than one request.
    pub(super) guests_stay: AtomicBool,
    /// Whether it asks what is known of an exchange.
    pub(super) sees_exchanges: bool,
    circuit_breaker: CircuitBreaker,
    failures: LogLimiter,
}

impl LoadedPlugin {
    pub(super) fn new(
        plan: Arc<PluginPlan>,
        engine: Engine,
        linked_component: LinkedComponent,
        sandbox: Arc<Sandbox>,
        shards: usize,
        budget: CallBudget,
    ) -> Self {
        let pool = Arc::new(Pool::new(shards, plan.limits.concurrency));
        let sees_exchanges = imports::sees_exchanges(&linked_component.component);
        let failures = LogLimiter::new(FAILURES_PER_SECOND);
        Self {
            plan,
            engine,
            linked_component,
            sandbox,
            pool,
            budget,
            sees_exchanges,
            guests_stay: AtomicBool::new(false),
            circuit_breaker: CircuitBreaker::new(),
            failures,
        }
    }

    /// The interfaces of a component that has some.
    pub(super) fn phases(&self) -> &Phases {
        self.linked_component.phases.as_ref().expect("only a component with a lifecycle is called by phase")
    }

    /// Whether a call may begin at all; counts it.
    pub(super) fn admit(&self, shard: usize) -> Result<(), FailureKind> {
        self.pool.tally(shard).calls.fetch_add(1, Ordering::Relaxed);
        if self.circuit_breaker.admits() { Ok(()) } else { Err(FailureKind::Resting) }
    }

    /// A place in the shard and an instance for one call.
    pub(super) async fn enter(
        &self,
        shard: usize,
        facts: &Facts<'_>,
    ) -> Result<(Permit<'_>, Instance), CallError> {
        self.admit(shard)?;
        let (place, at_rest) = self.pool.enter(shard, || facts.source()).ok_or(FailureKind::Busy)?;
        let mut instance = match at_rest {
            Some(instance) => instance,
            None => self.instance(shard, SETUP).await?,
        };
        if self.sees_exchanges {
            instance.attach(facts.exchange);
        }
        Ok((place, instance))
    }

    /// The same for the calls of a body that passes by.
    pub(super) async fn stay(
        self: &Arc<Self>,
        shard: usize,
        facts: &Facts<'_>,
    ) -> Result<(BodyPlace, Instance), CallError> {
        self.admit(shard)?;
        let place = self.pool.stay(shard, facts.source()).ok_or(FailureKind::Busy)?;
        let mut instance = match self.pool.take(shard) {
            Some(instance) => instance,
            None => self.instance(shard, SETUP).await?,
        };
        if self.sees_exchanges {
            instance.attach(facts.exchange);
        }
        Ok((place, instance))
    }

    /// Keeps an instance whose call has returned, unless it has served its time: another is then made for
    /// the shard beside its requests.
    pub(super) fn rest(self: &Arc<Self>, shard: usize, mut instance: Instance) {
        if self.plan.reuse == Some(false) {
            return;
        }
        if self.sees_exchanges {
            instance.attach(None);
        }
        if instance.stays() {
            self.pool.settle(shard, instance);
            return;
        }
        let member = self.clone();
        // It ends by itself, at the latest with the time that setting up may take.
        tokio::spawn(async move {
            match member.instance(shard, SETUP).await {
                Ok(instance) => member.pool.settle(shard, instance),
                // The next call tries again and says what is wrong.
                Err(trouble) => {
                    debug!(plugin = member.plan.name, shard, kind = %trouble.kind, "no instance to follow")
                }
            }
        });
    }

    /// A call came back, whatever its answer.
    pub(super) fn returned(&self) {
        self.circuit_breaker.returned();
    }

    /// A configured instance.
    pub(super) async fn instance(&self, shard: usize, budget: CallBudget) -> Result<Instance, CallError> {
        let mut instance = self.raw_instance(shard, budget).await?;
        let _running = self.engine.clock().running(shard);
        match instance.configure(budget, &self.plan.config).await? {
            Ok(()) => Ok(instance),
            Err(faults) => {
                // The first instance took the same configuration.
                let first = faults.first().map(|fault| (fault.code.as_str(), fault.message.as_str()));
                let (code, message) = first.unwrap_or(("configure", "refuses its configuration"));
                Err(FailureKind::fault(code, message).into())
            }
        }
    }

    /// An instance that is not configured yet.
    pub(super) async fn raw_instance(&self, shard: usize, budget: CallBudget) -> Result<Instance, CallError> {
        let _running = self.engine.clock().running(shard);
        let instance = Instance::new(&self.linked_component, self.phases(), &self.sandbox, budget).await?;
        self.pool.tally(shard).instantiations.fetch_add(1, Ordering::Relaxed);
        Ok(instance)
    }

    /// Counts a failed call and logs it, once.
    pub(super) fn report(&self, shard: usize, id: &str, trouble: CallError) -> Failure {
        let CallError { kind, backtrace } = trouble;
        self.pool.tally(shard).count(&kind);
        let plugin = &self.plan.name;
        if matches!(kind, FailureKind::Trap { .. } | FailureKind::Timeout)
            && let Some(rest) = self.circuit_breaker.broke()
        {
            warn!(plugin, ?rest, "plugin broke too often in a row and rests");
        }
        if let Some(unlogged) = self.failures.take() {
            let (word, policy) = (kind.word(), self.plan.on_error);
            warn!(plugin, kind = word, id, ?policy, backtrace, unlogged, "plugin failed: {kind}");
        }
        Failure { plugin: plugin.clone(), kind }
    }
}
