//! One component with its configuration: how it is loaded and checked, and what it does with a request and its
//! response. Knows instances; does not know chains, routes or which status a failure becomes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_rules::plan::{OnError, PluginPlan};
use bytes::Bytes;
use http::{Request, Response, request, response};
use http_body::Body;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use crate::background::{self, Served, Waiting};
use crate::bindings::exports::adit::plugin::lifecycle::Manifest;
use crate::bindings::exports::adit::plugin::request_filter::RequestAction;
use crate::bindings::exports::adit::plugin::response_filter::ResponseAction;
use crate::bodies::BodyLimits;
use crate::chain::Facts;
use crate::compiler;
use crate::component::LinkedComponent;
use crate::counters::Counters;
use crate::edit::{self, Reply};
use crate::engine::Engine;
use crate::failure::{CallError, ConfigFault, FIRST_TICK, Failure, FailureKind, LoadError};
use crate::head::{self, Declared};
use crate::imports::handler::NextRequest;
use crate::imports::metrics::Number;
use crate::member::LoadedPlugin;
use crate::meter::{CallBudget, LOADING};
use crate::sandbox::{Given, Sandbox};
use crate::service::{self, MiddlewareOutcome, ServiceBody};
use crate::store::Instance;
use crate::test_host::TestHost;
use crate::text::printable;

/// Run time of one call of a filter, and of one exchange of a service, where none is configured.
const FILTER_RUN: Duration = Duration::from_millis(50);
const SERVICE_RUN: Duration = Duration::from_secs(10);
/// A call may last this many times its run time on the wall, where others get their turns, and
/// never less than [`LEAST_WALL`].
const WALL_FACTOR: u32 = 20;
const LEAST_WALL: Duration = Duration::from_secs(1);
/// The same for one that may send requests, or ask for shared buckets, and wait for answers.
const LEAST_WALL_OUTBOUND: Duration = Duration::from_secs(15);
/// What a component may take from its first instance to the last, for all of its set-up together.
const SETTING_UP: Duration = Duration::from_secs(120);
/// Faults of a refused configuration that are kept.
const FAULTS: usize = 100;
/// Longest name or version in a manifest that is kept, bytes.
pub(crate) const LONGEST_NAME: usize = 128;

/// One component with its configuration, ready for calls from every shard.
pub struct Plugin {
    pub(crate) member: Arc<LoadedPlugin>,
    name: String,
    version: String,
    schema: Option<String>,
    pub(crate) request_headers: Declared,
    pub(crate) response_headers: Declared,
    pub(crate) request_bodies: Option<BodyLimits>,
    pub(crate) response_bodies: Option<BodyLimits>,
    /// Whether compressed bodies of requests are undone for it, and those of answers.
    pub(crate) decodes_requests: bool,
    pub(crate) decodes_responses: bool,
    pub(crate) waiting: Arc<Waiting>,
    /// Ends with the plugin.
    _background: Option<AbortOnDropHandle<()>>,
}

/// What a plugin did with a request. Edits are applied already.
pub(crate) enum RequestStep {
    Next,
    Edited { carry: Vec<u8> },
    Respond(Reply),
}

/// What a plugin did with a response. Edits are applied already.
pub(crate) enum ResponseStep {
    Next,
    Edited,
    Respond(Reply),
}

/// All that a component does before it serves. Whoever asked for a change waits for it, and so do those behind.
pub(crate) async fn in_time(
    ready: impl Future<Output = Result<Plugin, LoadError>>,
) -> Result<Plugin, LoadError> {
    timeout(SETTING_UP, ready).await.unwrap_or(Err(LoadError::Slow { seconds: SETTING_UP.as_secs() }))
}

impl Plugin {
    /// Has the component compiled outside of the threads that serve, checks what the component exports and imports against its
    /// grants, lets it describe itself, read its configuration and test itself, and keeps an instance
    /// ready in each shard.
    ///
    /// `shards` is how many indices [`Chain`](crate::Chain) will be called with. Needs a tokio runtime with its
    /// timer. May be dropped midway.
    pub async fn load(
        engine: &Engine,
        plan: &Arc<PluginPlan>,
        wasm: &[u8],
        given: impl Into<Given>,
        shards: usize,
    ) -> Result<Self, LoadError> {
        let given = given.into();
        let component = compiler::component(engine, &plan.name, wasm).await?;
        let linked_component = LinkedComponent::link(engine, &plan.name, component)?;
        linked_component.check(plan)?;
        in_time(Self::ready(engine, plan, linked_component, &given, shards, None)).await
    }

    /// The same component with another configuration, other limits or grants: nothing is compiled.
    pub async fn load_again(
        &self,
        plan: &Arc<PluginPlan>,
        given: impl Into<Given>,
    ) -> Result<Self, LoadError> {
        let given = given.into();
        let LoadedPlugin { engine, linked_component, pool, .. } = &*self.member;
        linked_component.check(plan)?;
        in_time(Self::ready(engine, plan, linked_component.clone(), &given, pool.shards(), None)).await
    }

    pub(crate) async fn ready(
        engine: &Engine,
        plan: &Arc<PluginPlan>,
        linked_component: LinkedComponent,
        given: &Given,
        shards: usize,
        test_host: Option<&TestHost>,
    ) -> Result<Self, LoadError> {
        if !linked_component.takes_configuration() && plan.config != NO_CONFIGURATION {
            return Err(LoadError::NoConfiguration);
        }
        let mut sandbox = Sandbox::new(plan, given, engine.persistent())?;
        if let Some(test_host) = test_host {
            test_host.take_over(&mut sandbox);
        }
        let sandbox = Arc::new(sandbox);
        let default = if linked_component.handler.is_some() { SERVICE_RUN } else { FILTER_RUN };
        let run = plan.limits.timeout.unwrap_or(default);
        let waits = sandbox.outbound.is_some() || !plan.grants.shared.is_empty();
        let least = if waits { LEAST_WALL_OUTBOUND } else { LEAST_WALL };
        let budget = CallBudget { run, wall: run.saturating_mul(WALL_FACTOR).max(least), gives_way: true };
        let member =
            LoadedPlugin::new(plan.clone(), engine.clone(), linked_component, sandbox, shards, budget);
        let mut plugin = Self {
            member: Arc::new(member),
            name: String::new(),
            version: String::new(),
            schema: None,
            request_headers: Declared::Only(Box::default()),
            response_headers: Declared::Only(Box::default()),
            request_bodies: None,
            response_bodies: None,
            decodes_requests: false,
            decodes_responses: false,
            waiting: Arc::new(Waiting::new(shards)),
            _background: None,
        };
        if plugin.member.linked_component.phases.is_some() {
            let first = plugin.first_instance().await?;
            if plugin.filters() {
                plugin.fill(first).await;
            }
        }
        if plugin.member.linked_component.handler.is_some() && plan.reuse == Some(true) {
            service::probe(&plugin.member).await?;
        }
        // A test calls it when it likes.
        if test_host.is_none() {
            let started = background::start(&plugin.member, &plugin.waiting).await;
            plugin._background = started.map_err(broken(FIRST_TICK))?;
        }
        let names = plugin.member.sandbox.loaded();
        if !names.is_empty() {
            return Err(LoadError::Ungranted { names });
        }
        Ok(plugin)
    }

    /// Keeps an instance ready in each shard.
    async fn fill(&self, first: Instance) {
        let LoadedPlugin { plan, pool, .. } = &*self.member;
        pool.settle(0, first);
        for shard in 1..pool.shards() {
            match self.member.instance(shard, LOADING).await {
                Ok(instance) => pool.settle(shard, instance),
                // The first call of a shard that has none tries again and says what is wrong.
                Err(trouble) => {
                    debug!(plugin = plan.name, shard, kind = %trouble.kind, "no instance at load");
                    return;
                }
            }
        }
    }

    /// The name in the plan.
    pub fn name(&self) -> &str {
        &self.member.plan.name
    }

    /// The name and version that the component gives itself; empty if it has no lifecycle.
    pub fn component(&self) -> (&str, &str) {
        (&self.name, &self.version)
    }

    /// The JSON Schema of its configuration, if the component tells it.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    pub fn counters(&self) -> Counters {
        let mut counters = self.member.pool.counters();
        counters.denied = self.member.sandbox.denied();
        counters
    }

    /// The numbers that the plugin itself reports, by name.
    pub fn metrics(&self) -> Vec<(String, Number)> {
        self.member.sandbox.metrics.all()
    }

    /// Whether it can stand in a chain.
    pub fn filters(&self) -> bool {
        self.looks_at_requests() || self.looks_at_responses() || self.observes()
    }

    /// Whether it can stand behind a rule.
    pub fn serves(&self) -> bool {
        self.member.linked_component.serves()
    }

    /// Whether it is middleware, which stands in a chain and takes over all that comes after it.
    pub fn mediates(&self) -> bool {
        self.member.linked_component.mediates()
    }

    /// Gives a plugin that [mediates](Self::mediates) a request as [`Self::serve`] does. Its calls for what
    /// stands behind it come to the receiver; nobody answers one that is dropped.
    pub fn mediate<'a, B>(
        &'a self,
        shard: usize,
        id: &'a str,
        secure: bool,
        request: Request<B>,
    ) -> (impl Future<Output = Result<MiddlewareOutcome, Failure>> + use<'a, B>, mpsc::Receiver<NextRequest>)
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        service::mediate(&self.member, shard, id, secure, request)
    }

    /// Asks a plugin that [serves](Self::serves). The request's URI is absolute; `secure` says
    /// whether the visitor came by HTTPS. Returns with the head of the answer, whose body streams.
    /// May be dropped midway, which ends the guest.
    pub async fn serve<B>(
        &self,
        shard: usize,
        id: &str,
        secure: bool,
        request: Request<B>,
    ) -> Result<Response<ServiceBody>, Failure>
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        service::serve(&self.member, shard, id, secure, request).await
    }

    /// Whether it is called for requests, with their bodies or without.
    pub fn looks_at_requests(&self) -> bool {
        self.filters_requests() || self.request_bodies.is_some() || self.streams_requests()
    }

    /// Whether it is called for answers, with their bodies or without.
    pub fn looks_at_responses(&self) -> bool {
        self.filters_responses() || self.response_bodies.is_some() || self.streams_responses()
    }

    pub(crate) fn filters_requests(&self) -> bool {
        self.member.linked_component.phases.as_ref().is_some_and(|phases| phases.request.is_some())
    }

    pub(crate) fn filters_responses(&self) -> bool {
        self.member.linked_component.phases.as_ref().is_some_and(|phases| phases.response.is_some())
    }

    /// Whether it looks at bodies, of requests or of answers.
    pub fn filters_bodies(&self) -> bool {
        self.request_bodies.is_some()
            || self.response_bodies.is_some()
            || self.streams_requests()
            || self.streams_responses()
    }

    pub(crate) fn observes(&self) -> bool {
        self.logs() || self.ticks()
    }

    /// Whether it has regular work.
    pub fn ticks(&self) -> bool {
        self.member
            .linked_component
            .phases
            .as_ref()
            .is_some_and(|phases| phases.tick.is_some() || phases.refresh.is_some())
    }

    /// Whether it is told what was served.
    pub fn logs(&self) -> bool {
        self.member.linked_component.phases.as_ref().is_some_and(|phases| phases.log.is_some())
    }

    pub(crate) fn sees_exchanges(&self) -> bool {
        self.member.sees_exchanges
    }

    /// What becomes of a request whose call has failed like this.
    pub(crate) fn on_failure(&self, kind: &FailureKind) -> OnError {
        match kind {
            FailureKind::Away(_) => self.member.plan.on_away,
            FailureKind::Fault { .. }
            | FailureKind::Trap { .. }
            | FailureKind::Timeout
            | FailureKind::Busy
            | FailureKind::Resting
            | FailureKind::Invalid { .. } => self.member.plan.on_error,
        }
    }

    pub(crate) fn observe(&self, shard: usize, served: Served) {
        self.waiting.add(shard, served);
    }

    pub(crate) async fn on_request(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
    ) -> Result<RequestStep, Failure> {
        let step = self.ask_request(shard, facts, head).await;
        step.map_err(|trouble| self.member.report(shard, facts.id, trouble))
    }

    pub(crate) async fn on_response(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut response::Parts,
        carry: &[u8],
    ) -> Result<ResponseStep, Failure> {
        let step = self.ask_response(shard, facts, head, carry).await;
        step.map_err(|trouble| self.member.report(shard, facts.id, trouble))
    }

    async fn ask_request(
        &self,
        shard: usize,
        facts: &Facts<'_>,
        head: &mut request::Parts,
    ) -> Result<RequestStep, CallError> {
        let (_place, mut instance) = self.member.enter(shard, facts).await?;
        let answer = {
            let mut repaired = Vec::new();
            let headers = self.request_headers.pairs(&head.headers, &mut repaired);
            let shown = head::of_request(facts, head, &headers);
            let _running = self.member.engine.clock().running(shard);
            instance.on_request(self.member.budget, shown).await?
        };
        self.member.returned();
        self.member.rest(shard, instance);
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
    ) -> Result<ResponseStep, CallError> {
        let (_place, mut instance) = self.member.enter(shard, facts).await?;
        let answer = {
            let mut repaired = Vec::new();
            let headers = self.response_headers.pairs(&head.headers, &mut repaired);
            let shown = head::of_response(facts, head, &headers, carry);
            let _running = self.member.engine.clock().running(shard);
            instance.on_response(self.member.budget, shown).await?
        };
        self.member.returned();
        self.member.rest(shard, instance);
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

    /// The instance that says whether this component can be a plugin.
    async fn first_instance(&mut self) -> Result<Instance, LoadError> {
        let member = self.member.clone();
        let mut instance = member.raw_instance(0, LOADING).await.map_err(broken("instantiation"))?;
        let _running = member.engine.clock().running(0);
        let Manifest { name, version, request_headers, response_headers } =
            instance.describe(LOADING).await.map_err(broken("describe"))?;
        let parse = |list, names: &[String]| {
            Declared::parse(list, names).map_err(|reason| LoadError::Manifest { reason })
        };
        self.request_headers = parse("request-headers", &request_headers)?;
        self.response_headers = parse("response-headers", &response_headers)?;
        self.name = printable(&name, LONGEST_NAME).into_owned();
        self.version = printable(&version, LONGEST_NAME).into_owned();

        self.schema = instance.schema(LOADING).await.map_err(broken("config-schema"))?;

        let configured = instance.configure(LOADING, &member.plan.config).await;
        if let Err(faults) = configured.map_err(broken("configure"))? {
            let faults = faults.iter().take(FAULTS);
            let faults = faults.map(|fault| ConfigFault::new(&fault.code, &fault.message)).collect();
            return Err(LoadError::Refused { faults });
        }
        let limits = instance.body_limits(LOADING).await.map_err(broken("body limits"))?;
        let check = |limits: Option<_>| limits.map(BodyLimits::check).transpose();
        let [requests, responses] = limits.map(check);
        self.request_bodies = requests.map_err(|reason| LoadError::Manifest { reason })?;
        self.response_bodies = responses.map_err(|reason| LoadError::Manifest { reason })?;
        let decoded = instance.decoded(LOADING).await.map_err(broken("decoded"))?;
        (self.decodes_requests, self.decodes_responses) = (decoded.requests, decoded.responses);
        match instance.probe(LOADING).await.map_err(broken("probe"))? {
            Ok(()) => Ok(instance),
            Err(fault) => Err(LoadError::Probe { fault: ConfigFault::new(&fault.code, &fault.message) }),
        }
    }
}

/// What a step of a load that broke makes of it.
fn broken(during: &'static str) -> impl FnOnce(CallError) -> LoadError {
    move |trouble| LoadError::Broken { during, kind: trouble.kind, backtrace: trouble.backtrace }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The configuration may hold secrets.
        f.debug_struct("Plugin").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The configuration of a plugin without one.
const NO_CONFIGURATION: &str = "{}";
