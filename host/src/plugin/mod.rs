//! WebAssembly plugins: loading them, and calling them for each request.
//!
//! Knows the WIT package and its slice of the plan; does not know routes, tunnels, files, or which
//! status a failure becomes. Read in this order: [`Engine`] (one per process), [`Plugin`] (one
//! component with its configuration), [`Chain`] (the plugins of a rule).
//!
//! An instance serves one call at a time and is used again for the next. After a trap, a time-out
//! or a call that was dropped midway it is never used again, and the next call gets a fresh one.

mod bindings;
mod chain;
mod clock;
mod component;
mod counters;
mod edit;
mod engine;
mod failure;
mod head;
mod imports;
mod meter;
mod pool;
mod shelf;
mod store;
mod text;

#[cfg(test)]
mod tests;

pub use chain::{Chain, Facts, Passage, RequestOutcome, ResponseOutcome};
pub use component::LARGEST_COMPONENT;
pub use counters::Counters;
pub use edit::Reply;
pub use engine::{Engine, EngineSettings};
pub use failure::{ConfigFault, Failure, FailureKind, LoadError};

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{request, response};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use crate::config::plan::{OnError, PluginPlan};
use bindings::adit::plugin::types::{RequestHead, ResponseHead};
use bindings::exports::adit::plugin::lifecycle::Manifest;
use bindings::exports::adit::plugin::request_filter::RequestAction;
use bindings::exports::adit::plugin::response_filter::ResponseAction;
use component::Blueprint;
use failure::Trouble;
use head::Declared;
use imports::log::{GuestLog, Ration};
use meter::Allowance;
use pool::{Place, Pool};
use store::Instance;
use text::printable;

/// What an instance may take to start and to read its configuration.
const SETUP: Allowance = Allowance { run: Duration::from_secs(5), wall: Duration::from_secs(30) };
/// A call may last this many times its run time on the wall, where others get their turns, and
/// never less than [`LEAST_WALL`].
const WALL_FACTOR: u32 = 20;
const LEAST_WALL: Duration = Duration::from_secs(1);
/// Faults of a refused configuration that are kept.
const FAULTS: usize = 100;
/// Longest name or version in a manifest that is kept, bytes.
const LONGEST_NAME: usize = 128;
/// Failures that are logged of one plugin in a second; all are counted.
const FAILURES_PER_SECOND: u64 = 20;

/// One component with its configuration, ready for calls from every shard.
pub struct Plugin {
    plan: Arc<PluginPlan>,
    engine: Engine,
    blueprint: Blueprint,
    pool: Pool,
    name: String,
    version: String,
    request_headers: Declared,
    response_headers: Declared,
    allowance: Allowance,
    failures: Ration,
}

/// What a plugin did with a request. Edits are applied already.
enum RequestStep {
    Next,
    Edited { carry: Vec<u8> },
    Respond(Reply),
}

/// What a plugin did with a response. Edits are applied already.
enum ResponseStep {
    Next,
    Edited,
    Respond(Reply),
}

impl Plugin {
    /// Compiles on a thread of its own, checks what the component exports and imports, lets it
    /// describe itself and read its configuration, and keeps an instance ready in each shard.
    ///
    /// `shards` is how many indices [`Chain`] will be called with. `beside` says that something serves
    /// meanwhile, which then goes first. Needs a tokio runtime with its timer. May be dropped midway.
    pub async fn load(
        engine: &Engine,
        plan: &Arc<PluginPlan>,
        wasm: &[u8],
        shards: usize,
        beside: bool,
    ) -> Result<Self, LoadError> {
        Self::ready(engine, plan, compile(engine, plan, wasm, beside).await?, shards).await
    }

    /// The same component with another configuration or other limits: nothing is compiled.
    pub async fn load_again(&self, plan: &Arc<PluginPlan>) -> Result<Self, LoadError> {
        let log = Arc::new(GuestLog::new(&plan.name));
        let blueprint = self.blueprint.copy(log, plan.limits.memory);
        Self::ready(&self.engine, plan, blueprint, self.pool.shards()).await
    }

    async fn ready(
        engine: &Engine,
        plan: &Arc<PluginPlan>,
        blueprint: Blueprint,
        shards: usize,
    ) -> Result<Self, LoadError> {
        let run = plan.limits.timeout;
        let allowance = Allowance { run, wall: run.saturating_mul(WALL_FACTOR).max(LEAST_WALL) };
        let mut plugin = Self {
            plan: plan.clone(),
            engine: engine.clone(),
            pool: Pool::new(shards, plan.limits.concurrency),
            blueprint,
            name: String::new(),
            version: String::new(),
            request_headers: Declared::Only(Box::default()),
            response_headers: Declared::Only(Box::default()),
            allowance,
            failures: Ration::new(FAILURES_PER_SECOND),
        };
        let first = plugin.first_instance().await?;
        plugin.pool.settle(0, first);
        for shard in 1..plugin.pool.shards() {
            match plugin.instance(shard).await {
                Ok(instance) => plugin.pool.settle(shard, instance),
                // The first call of that shard tries again and says what is wrong.
                Err(trouble) => {
                    debug!(plugin = plan.name, shard, kind = %trouble.kind, "no instance at load")
                }
            }
        }
        Ok(plugin)
    }

    /// The name in the plan.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// The name and version that the component gives itself.
    pub fn component(&self) -> (&str, &str) {
        (&self.name, &self.version)
    }

    pub fn counters(&self) -> Counters {
        self.pool.counters()
    }

    fn filters_requests(&self) -> bool {
        self.blueprint.request.is_some()
    }

    fn filters_responses(&self) -> bool {
        self.blueprint.response.is_some()
    }

    fn on_error(&self) -> OnError {
        self.plan.on_error
    }

    async fn on_request(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
    ) -> Result<RequestStep, Failure> {
        let step = self.ask_request(shard, facts, head).await;
        step.map_err(|trouble| self.report(shard, facts.id, trouble))
    }

    async fn on_response(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        carry: &[u8],
    ) -> Result<ResponseStep, Failure> {
        let step = self.ask_response(shard, facts, head, carry).await;
        step.map_err(|trouble| self.report(shard, facts.id, trouble))
    }

    async fn ask_request(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
    ) -> Result<RequestStep, Trouble> {
        let (place, mut instance) = self.enter(shard).await?;
        let answer = {
            let repaired = self.request_headers.repaired(&head.headers);
            let shown = RequestHead {
                id: facts.id,
                method: head.method.as_str(),
                scheme: facts.scheme,
                authority: head::authority(head),
                path_with_query: head::path_with_query(head),
                client_ip: facts.client_ip,
                headers: &self.request_headers.pairs(&head.headers, &repaired),
            };
            let _running = self.engine.clock().running(shard);
            instance.on_request(self.allowance, shown).await?
        };
        place.rest(instance);
        match answer {
            Ok(RequestAction::Next) => Ok(RequestStep::Next),
            Ok(RequestAction::Edit(edits)) => {
                let carry = edit::request(head, edits, facts.scheme)?;
                Ok(RequestStep::Edited { carry })
            }
            Ok(RequestAction::Respond(reply)) => Ok(RequestStep::Respond(Reply::check(reply)?)),
            Err(fault) => Err(FailureKind::fault(&fault.code, &fault.message).into()),
        }
    }

    async fn ask_response(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        carry: &[u8],
    ) -> Result<ResponseStep, Trouble> {
        let (place, mut instance) = self.enter(shard).await?;
        let answer = {
            let repaired = self.response_headers.repaired(&head.headers);
            let shown = ResponseHead {
                id: facts.id,
                status: head.status.as_u16(),
                headers: &self.response_headers.pairs(&head.headers, &repaired),
                carry,
            };
            let _running = self.engine.clock().running(shard);
            instance.on_response(self.allowance, shown).await?
        };
        place.rest(instance);
        match answer {
            Ok(ResponseAction::Next) => Ok(ResponseStep::Next),
            Ok(ResponseAction::Edit(edits)) => {
                edit::response(head, edits)?;
                Ok(ResponseStep::Edited)
            }
            Ok(ResponseAction::Respond(reply)) => Ok(ResponseStep::Respond(Reply::check(reply)?)),
            Err(fault) => Err(FailureKind::fault(&fault.code, &fault.message).into()),
        }
    }

    /// A place in the shard and an instance for one call.
    async fn enter(&self, shard: usize) -> Result<(Place<'_>, Instance), Trouble> {
        self.pool.tally(shard).calls.fetch_add(1, Ordering::Relaxed);
        let (place, at_rest) = self.pool.enter(shard).ok_or(FailureKind::Busy)?;
        let instance = match at_rest {
            Some(instance) => instance,
            None => self.instance(shard).await?,
        };
        Ok((place, instance))
    }

    /// Counts a failed call and logs it, once.
    fn report(&self, shard: usize, id: &str, trouble: Trouble) -> Failure {
        let Trouble { kind, backtrace } = trouble;
        self.pool.tally(shard).count(&kind);
        if let Some(unlogged) = self.failures.take() {
            let (plugin, word, policy) = (&self.plan.name, kind.word(), self.plan.on_error);
            warn!(plugin, kind = word, id, ?policy, backtrace, unlogged, "plugin failed: {kind}");
        }
        Failure { plugin: self.plan.name.clone(), kind }
    }

    /// A configured instance.
    async fn instance(&self, shard: usize) -> Result<Instance, Trouble> {
        let _running = self.engine.clock().running(shard);
        let mut instance = Instance::new(&self.blueprint, SETUP).await?;
        self.pool.tally(shard).instantiations.fetch_add(1, Ordering::Relaxed);
        match instance.configure(SETUP, &self.plan.config).await? {
            Ok(()) => Ok(instance),
            Err(faults) => {
                // The first instance took the same configuration.
                let first = faults.first().map(|fault| (fault.code.as_str(), fault.message.as_str()));
                let (code, message) = first.unwrap_or(("configure", "refuses its configuration"));
                Err(FailureKind::fault(code, message).into())
            }
        }
    }

    /// The instance that says whether this component can be a plugin.
    async fn first_instance(&mut self) -> Result<Instance, LoadError> {
        let broken = |during| {
            move |trouble: Trouble| LoadError::Broken {
                during,
                kind: trouble.kind,
                backtrace: trouble.backtrace,
            }
        };
        let _running = self.engine.clock().running(0);
        let mut instance = Instance::new(&self.blueprint, SETUP).await.map_err(broken("instantiation"))?;
        self.pool.tally(0).instantiations.fetch_add(1, Ordering::Relaxed);

        let Manifest { name, version, request_headers, response_headers } =
            instance.describe(SETUP).await.map_err(broken("describe"))?;
        let parse = |list, names: &[String]| {
            Declared::parse(list, names).map_err(|reason| LoadError::Manifest { reason })
        };
        self.request_headers = parse("request-headers", &request_headers)?;
        self.response_headers = parse("response-headers", &response_headers)?;
        self.name = printable(&name, LONGEST_NAME).into_owned();
        self.version = printable(&version, LONGEST_NAME).into_owned();

        match instance.configure(SETUP, &self.plan.config).await.map_err(broken("configure"))? {
            Ok(()) => Ok(instance),
            Err(faults) => {
                let faults = faults.iter().take(FAULTS);
                let faults = faults.map(|fault| ConfigFault::new(&fault.code, &fault.message)).collect();
                Err(LoadError::Refused { faults })
            }
        }
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold secrets.
        f.debug_struct("Plugin").field("name", &self.plan.name).finish_non_exhaustive()
    }
}

/// On a thread of its own; beside what serves at the lowest priority. A process that does not serve yet is
/// in a hurry: on a busy machine the lowest priority is next to nothing.
async fn compile(
    engine: &Engine,
    plan: &PluginPlan,
    wasm: &[u8],
    beside: bool,
) -> Result<Blueprint, LoadError> {
    let log = Arc::new(GuestLog::new(&plan.name));
    let memory = plan.limits.memory;
    let digest = Sha256::digest(wasm).into();
    if let Some(blueprint) = engine.shelf().find(&digest, &log, memory) {
        return Ok(blueprint);
    }
    let failed = |reason: String| LoadError::Malformed { reason: format!("the compiler failed: {reason}") };
    let (compiler, wasm) = (engine.clone(), wasm.to_vec());
    let size = wasm.len();
    let (done, compiled) = oneshot::channel();
    let spawned = std::thread::Builder::new().name("compiler".into()).spawn(move || {
        // Where the system refuses, it compiles as fast as the others work.
        if beside && cfg!(target_os = "linux") {
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
        }
        let _ = done.send(Blueprint::compile(&compiler, &wasm, log, memory));
    });
    spawned.map_err(|error| failed(error.to_string()))?;
    let blueprint = compiled.await.unwrap_or_else(|_| Err(failed("it ended by a panic".to_owned())))?;
    engine.shelf().keep(digest, size, &blueprint);
    Ok(blueprint)
}

/// The highest value of nice(2). Only on Linux is it that of one thread.
const LOWEST_PRIORITY: i32 = 19;
