//! One instance of a component: its store, its limits, and calls into it; those with bodies are in `bodies`.

mod bodies;

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store};

use super::bindings::adit::plugin::types::{Fault, RequestHead, ResponseHead};
use super::bindings::exports::adit::plugin::access_log::{self, Entry};
use super::bindings::exports::adit::plugin::lifecycle::{self, Manifest};
use super::bindings::exports::adit::plugin::request_filter::{self, RequestAction};
use super::bindings::exports::adit::plugin::response_filter::{self, ResponseAction};
use super::bindings::exports::adit::plugin::{
    decoding, probe, refresher, request_body_filter, request_stream_filter, response_body_filter,
    response_stream_filter, schema, ticker,
};
use super::component::{LinkedComponent, Phases};
use super::exchange::Exchange;
use super::failure::{CallError, FailureKind};
use super::imports::handler::Next;
use super::imports::http::Http;
use super::imports::wasi::Wasi;
use super::meter::{CallBudget, Meter, Stop, drive};
use super::sandbox::Sandbox;

pub(super) use bodies::Side;

/// Most bytes that one call of a guest into the host, or one answer of it, may copy into the host: the largest value of
/// a bucket with its names.
const HOSTCALL_FUEL: usize = (1024 + 64) * 1024;
/// Most resource handles and host resources that an instance may hold at a time.
const RESOURCES: usize = 1000;
/// Most core instances, memories and tables of one component instance. A component in Python is
/// made of about ten modules.
const CORE_INSTANCES: usize = 64;
const MEMORIES: usize = 8;
const TABLES: usize = 64;
/// Most elements of one table.
const TABLE_ELEMENTS: usize = 20_000;
/// About so many calls an instance of a filter serves before it makes room for another: whatever a
/// plugin forgets to free is bounded by that.
const FILTER_CALLS: u32 = 20_000;

/// What the host keeps for one instance.
pub(super) struct State {
    pub(super) sandbox: Arc<Sandbox>,
    /// The id of the request being handled; empty while there is none.
    pub(super) request: String,
    /// When the guest first looked at the clock.
    pub(super) first_look: Option<Instant>,
    /// Of one that asked for it.
    pub(super) wasi: Option<Box<Wasi>>,
    pub(super) http: Option<Box<Http>>,
    /// What stands behind middleware; nothing behind all others.
    pub(super) next: Option<Next>,
    /// The exchange that a plugin is called for which asks for it.
    pub(super) exchange: Option<Arc<Exchange>>,
    pub(super) resources: ResourceTable,
    limiter: Limiter,
}

/// An instance between calls. After a call that did not return, it must be dropped. It goes from hand to hand
/// for each call, so that it is one pointer.
pub(super) struct Instance(Box<Parts>);

struct Parts {
    store: Store<State>,
    meter: Arc<Meter>,
    exports: Exports,
    calls: CallLimit,
}

/// The functions of an instance by interface; what the component does not export is `None`.
struct Exports {
    lifecycle: lifecycle::Guest,
    schema: Option<schema::Guest>,
    probe: Option<probe::Guest>,
    request: Option<request_filter::Guest>,
    response: Option<response_filter::Guest>,
    request_body: Option<request_body_filter::Guest>,
    response_body: Option<response_body_filter::Guest>,
    decoding: Option<decoding::Guest>,
    request_stream: Option<request_stream_filter::Guest>,
    response_stream: Option<response_stream_filter::Guest>,
    log: Option<access_log::Guest>,
    tick: Option<ticker::Guest>,
    refresh: Option<refresher::Guest>,
}

impl Instance {
    pub(super) async fn new(
        linked_component: &LinkedComponent,
        phases: &Phases,
        sandbox: &Arc<Sandbox>,
        budget: CallBudget,
    ) -> Result<Self, CallError> {
        let meter = Arc::new(Meter::new());
        let mut store = store(linked_component, sandbox, &meter);
        let made = drive(&meter, budget, pin!(linked_component.pre.instantiate_async(&mut store))).await;
        let instance = made.map_err(|stop| trouble(&store, stop))?;
        let exports = bind(&mut store, phases, &instance)?;
        Ok(Self(Box::new(Parts { store, meter, exports, calls: CallLimit::after(FILTER_CALLS) })))
    }

    /// What the next calls are about.
    pub(super) fn attach(&mut self, exchange: Option<&Arc<Exchange>>) {
        self.0.store.data_mut().exchange = exchange.cloned();
    }

    /// Counts a call that has returned; whether there may be another.
    pub(super) fn stays(&mut self) -> bool {
        self.0.calls.stays()
    }

    pub(super) async fn describe(&mut self, budget: CallBudget) -> Result<Manifest, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        begin(store, "");
        let answer = drive(meter, budget, pin!(exports.lifecycle.call_describe(&mut *store))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    pub(super) async fn configure(
        &mut self,
        budget: CallBudget,
        config: &str,
    ) -> Result<Result<(), Vec<Fault>>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        begin(store, "");
        let answer = drive(meter, budget, pin!(exports.lifecycle.call_configure(&mut *store, config))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// The configuration's JSON Schema, if the component tells.
    pub(super) async fn schema(&mut self, budget: CallBudget) -> Result<Option<String>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let Some(schema) = &exports.schema else { return Ok(None) };
        begin(store, "");
        let answer = drive(meter, budget, pin!(schema.call_config_schema(&mut *store))).await;
        answer.map(Some).map_err(|stop| trouble(store, stop))
    }

    /// The component's own last test; fine if it has none.
    pub(super) async fn probe(&mut self, budget: CallBudget) -> Result<Result<(), Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let Some(probe) = &exports.probe else { return Ok(Ok(())) };
        begin(store, "");
        let answer = drive(meter, budget, pin!(probe.call_probe(&mut *store))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(super) async fn on_request(
        &mut self,
        budget: CallBudget,
        head: RequestHead<'_>,
    ) -> Result<Result<RequestAction, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.request.as_ref().expect("called only if the component has the request phase");
        begin(store, head.id);
        let answer = drive(meter, budget, pin!(phase.call_on_request(&mut *store, head))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(super) async fn on_response(
        &mut self,
        budget: CallBudget,
        head: ResponseHead<'_>,
    ) -> Result<Result<ResponseAction, Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.response.as_ref().expect("called only if the component has the response phase");
        begin(store, head.id);
        let answer = drive(meter, budget, pin!(phase.call_on_response(&mut *store, head))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(super) async fn on_log(
        &mut self,
        budget: CallBudget,
        entries: &[Entry<'_>],
        dropped: u64,
    ) -> Result<(), CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        let phase = exports.log.as_ref().expect("called only if the component has the log phase");
        begin(store, "");
        let answer = drive(meter, budget, pin!(phase.call_on_log(&mut *store, entries, dropped))).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// The regular work, in both of its forms where it has both.
    pub(super) async fn on_tick(&mut self, budget: CallBudget) -> Result<Result<(), Fault>, CallError> {
        let Parts { store, meter, exports, .. } = &mut *self.0;
        begin(store, "");
        let call = async {
            if let Some(phase) = &exports.tick {
                phase.call_on_tick(&mut *store).await?;
            }
            match &exports.refresh {
                Some(phase) => phase.call_on_refresh(&mut *store).await,
                None => Ok(Ok(())),
            }
        };
        let answer = drive(meter, budget, pin!(call)).await;
        answer.map_err(|stop| trouble(store, stop))
    }
}

fn bind(
    store: &mut Store<State>,
    phases: &Phases,
    instance: &wasmtime::component::Instance,
) -> Result<Exports, CallError> {
    let Phases {
        lifecycle,
        schema,
        probe,
        request,
        response,
        request_body,
        response_body,
        decoding,
        request_stream,
        response_stream,
        log,
        tick,
        refresh,
    } = phases;
    let fits = |interface: &str, error: wasmtime::Error| -> CallError {
        let reason: Vec<String> = error.chain().map(ToString::to_string).collect();
        let what = format!("its {interface} is not the published one: {}", reason.join(": "));
        FailureKind::invalid(what).into()
    };
    macro_rules! load {
        ($phase:expr, $interface:literal) => {
            $phase.load(&mut *store, instance).map_err(|error| fits($interface, error))
        };
        (maybe $phase:expr, $interface:literal) => {
            $phase.as_ref().map(|phase| load!(phase, $interface)).transpose()
        };
    }
    Ok(Exports {
        lifecycle: load!(lifecycle, "lifecycle")?,
        schema: load!(maybe schema, "schema")?,
        probe: load!(maybe probe, "probe")?,
        request: load!(maybe request, "request-filter")?,
        response: load!(maybe response, "response-filter")?,
        request_body: load!(maybe request_body, "request-body-filter")?,
        response_body: load!(maybe response_body, "response-body-filter")?,
        decoding: load!(maybe decoding, "decoding")?,
        request_stream: load!(maybe request_stream, "request-stream-filter")?,
        response_stream: load!(maybe response_stream, "response-stream-filter")?,
        log: load!(maybe log, "access-log")?,
        tick: load!(maybe tick, "ticker")?,
        refresh: load!(maybe refresh, "refresher")?,
    })
}

/// A store with every limit, for one instance.
pub(super) fn store(
    linked_component: &LinkedComponent,
    sandbox: &Arc<Sandbox>,
    meter: &Arc<Meter>,
) -> Store<State> {
    let mut resources = ResourceTable::new();
    resources.set_max_capacity(RESOURCES);
    let state = State {
        sandbox: sandbox.clone(),
        request: String::new(),
        first_look: None,
        wasi: None,
        http: None,
        next: None,
        exchange: None,
        resources,
        limiter: Limiter { memory: sandbox.memory, used: 0, added: 0, wanted: 0 },
    };
    let mut store = Store::new(linked_component.pre.engine(), state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(RESOURCES);
    let meter = meter.clone();
    store.epoch_deadline_callback(move |_| meter.interrupt());
    store.set_epoch_deadline(1);
    store
}

pub(super) fn begin(store: &mut Store<State>, request: &str) {
    store.set_epoch_deadline(1);
    let state = store.data_mut();
    state.request.clear();
    state.request.push_str(request);
    if let Some(wasi) = &state.wasi {
        wasi.begin(request);
    }
}

/// Adds to a trap what the guest itself cannot say: that it was out of memory.
pub(super) fn trouble(store: &Store<State>, stop: Stop) -> CallError {
    let mut trouble = CallError::from(stop);
    let limiter = &store.data().limiter;
    if let (FailureKind::Trap { reason }, true) = (&mut trouble.kind, limiter.wanted > 0) {
        reason.push_str(&format!(
            " (its memory limit of {} bytes was reached, and it asked for {} in all: `memory` of the plugin sets the limit)",
            limiter.memory, limiter.wanted
        ));
    }
    trouble
}

/// How many calls an instance may still serve. Drawn at random, so that those of one plugin do not all
/// go at once, and nobody comes to rely on the moment.
pub(super) struct CallLimit(u32);

impl CallLimit {
    /// After between half and one and a half times so many calls.
    pub(super) fn after(calls: u32) -> Self {
        Self(calls / 2 + fastrand::u32(..=calls))
    }

    /// Counts a call; whether there may be another.
    pub(super) fn stays(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

/// What one instance may take of the machine.
struct Limiter {
    /// Bytes of all linear memories together.
    memory: usize,
    used: usize,
    /// What the last growth added to `used`, taken back if it then failed for another reason.
    added: usize,
    /// What it asked for when it was refused more; 0 if it was not.
    wanted: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.added = desired.saturating_sub(current);
        let wanted = self.used.saturating_add(self.added);
        let fits = wanted <= self.memory;
        if fits {
            self.used = wanted;
        } else {
            self.added = 0;
            self.wanted = wanted;
        }
        Ok(fits)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.used -= std::mem::take(&mut self.added);
        Ok(())
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        TABLES
    }

    fn memories(&self) -> usize {
        MEMORIES
    }
}
