//! One instance of a component: its store, its limits, and calls into it.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime::{ResourceLimiter, Store};
use wasmtime_wasi::WasiCtx;

use super::bindings::adit::plugin::types::{Fault, RequestHead, ResponseHead};
use super::bindings::exports::adit::plugin::lifecycle::{self, Manifest};
use super::bindings::exports::adit::plugin::request_filter::{self, RequestAction};
use super::bindings::exports::adit::plugin::response_filter::{self, ResponseAction};
use super::component::Blueprint;
use super::failure::{FailureKind, Trouble};
use super::imports::log::GuestLog;
use super::meter::{Allowance, Meter, Stop, drive};

/// Most bytes that one call of a guest into the host, or one answer of it, may copy into the host.
const HOSTCALL_FUEL: usize = 1024 * 1024;
/// Most resource handles and host resources that an instance may hold at a time.
const RESOURCES: usize = 1000;
/// Most core instances, memories and tables of one component instance. A component in Python is
/// made of about ten modules.
const CORE_INSTANCES: usize = 64;
const MEMORIES: usize = 8;
const TABLES: usize = 64;
/// Most elements of one table.
const TABLE_ELEMENTS: usize = 20_000;

/// What the host keeps for one instance.
pub(super) struct State {
    pub(super) log: Arc<GuestLog>,
    /// The id of the request being handled; empty while there is none.
    pub(super) request: String,
    pub(super) wasi: Option<WasiCtx>,
    pub(super) resources: ResourceTable,
    limiter: Limiter,
}

/// An instance between calls. After a call that did not return, it must be dropped.
pub(super) struct Instance {
    store: Store<State>,
    meter: Arc<Meter>,
    lifecycle: lifecycle::Guest,
    request: Option<request_filter::Guest>,
    response: Option<response_filter::Guest>,
}

impl Instance {
    pub(super) async fn new(blueprint: &Blueprint, allowance: Allowance) -> Result<Self, Trouble> {
        let meter = Arc::new(Meter::new());
        let mut store = store(blueprint, &meter);
        let made = drive(&meter, allowance, blueprint.pre.instantiate_async(&mut store)).await;
        let instance = made.map_err(|stop| trouble(&store, stop))?;
        let bind = |store: &mut Store<State>| {
            let lifecycle = blueprint.lifecycle.load(&mut *store, &instance)?;
            let request = blueprint.request.as_ref().map(|phase| phase.load(&mut *store, &instance));
            let response = blueprint.response.as_ref().map(|phase| phase.load(&mut *store, &instance));
            Ok((lifecycle, request.transpose()?, response.transpose()?))
        };
        let (lifecycle, request, response) =
            bind(&mut store).map_err(|error| Trouble::from(Stop::Trapped(error)))?;
        Ok(Self { store, meter, lifecycle, request, response })
    }

    pub(super) async fn describe(&mut self, allowance: Allowance) -> Result<Manifest, Trouble> {
        let Self { store, meter, lifecycle, .. } = self;
        begin(store, "");
        let answer = drive(meter, allowance, lifecycle.call_describe(&mut *store)).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    pub(super) async fn configure(
        &mut self,
        allowance: Allowance,
        config: &str,
    ) -> Result<Result<(), Vec<Fault>>, Trouble> {
        let Self { store, meter, lifecycle, .. } = self;
        begin(store, "");
        let answer = drive(meter, allowance, lifecycle.call_configure(&mut *store, config)).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(super) async fn on_request(
        &mut self,
        allowance: Allowance,
        head: RequestHead<'_>,
    ) -> Result<Result<RequestAction, Fault>, Trouble> {
        let Self { store, meter, request, .. } = self;
        let phase = request.as_ref().expect("called only if the component exports the request phase");
        begin(store, head.id);
        let answer = drive(meter, allowance, phase.call_on_request(&mut *store, head)).await;
        answer.map_err(|stop| trouble(store, stop))
    }

    /// Only for a component with this phase.
    pub(super) async fn on_response(
        &mut self,
        allowance: Allowance,
        head: ResponseHead<'_>,
    ) -> Result<Result<ResponseAction, Fault>, Trouble> {
        let Self { store, meter, response, .. } = self;
        let phase = response.as_ref().expect("called only if the component exports the response phase");
        begin(store, head.id);
        let answer = drive(meter, allowance, phase.call_on_response(&mut *store, head)).await;
        answer.map_err(|stop| trouble(store, stop))
    }
}

fn store(blueprint: &Blueprint, meter: &Arc<Meter>) -> Store<State> {
    let mut resources = ResourceTable::new();
    resources.set_max_capacity(RESOURCES);
    let state = State {
        log: blueprint.log.clone(),
        request: String::new(),
        wasi: None,
        resources,
        limiter: Limiter { memory: blueprint.memory, used: 0, added: 0, refused: false },
    };
    let mut store = Store::new(blueprint.pre.engine(), state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_FUEL);
    store.set_max_component_handles(RESOURCES);
    let meter = meter.clone();
    store.epoch_deadline_callback(move |_| meter.interrupt());
    store.set_epoch_deadline(1);
    store
}

fn begin(store: &mut Store<State>, request: &str) {
    store.set_epoch_deadline(1);
    let state = store.data_mut();
    state.request.clear();
    state.request.push_str(request);
}

/// Adds to a trap what the guest itself cannot say: that it was out of memory.
fn trouble(store: &Store<State>, stop: Stop) -> Trouble {
    let mut trouble = Trouble::from(stop);
    let limiter = &store.data().limiter;
    if let (FailureKind::Trap { reason }, true) = (&mut trouble.kind, limiter.refused) {
        reason.push_str(&format!(" (its memory limit of {} bytes was reached)", limiter.memory));
    }
    trouble
}

/// What one instance may take of the machine.
struct Limiter {
    /// Bytes of all linear memories together.
    memory: usize,
    used: usize,
    /// What the last growth added to `used`, taken back if it then failed for another reason.
    added: usize,
    refused: bool,
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
            self.refused = true;
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
