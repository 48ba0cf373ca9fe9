//! The WebAssembly engine: one per process, with every limit that plugins share.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use adit_code::{Code, Program};
use anyhow::Context;
use tracing::warn;
use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, PoolingAllocationConfig, Strategy, WasmBacktraceDetails};

use super::clock::Clock;
use super::compiler::COMPILER;
use super::imports;
use super::keep::Keep;
use super::store::State;

/// Instances of all plugins, in all shards and generations, that may exist at a time.
const INSTANCES: u32 = 1000;
/// A component of one module is made of about three core instances and as many tables; one in
/// Python of ten. The pool has room for so many times the instances.
const PARTS: u32 = 4;
/// What a component that is made to exhaust the pool alone can take of it.
const PARTS_PER_COMPONENT: u32 = 64;
const MEMORIES_PER_COMPONENT: u32 = 8;
/// Bytes of a slot that are cleared by writing rather than given back to the kernel, which then has to
/// tell every core: the largest lever on the cost of a fresh instance. Where the kernel says which pages
/// were written (Linux 6.7), only those count; elsewhere all are written, so that more would cost more.
const KEEP_MEMORY: usize = 128 * 1024;
const KEEP_WRITTEN: usize = 1024 * 1024;
const KEEP_TABLE: usize = 16 * 1024;
/// Stack of one call, bytes. What is left of the whole is for host functions.
const WASM_STACK: usize = 512 * 1024;
const WHOLE_STACK: usize = 2 * 1024 * 1024;
/// Frames of a guest's stack that a log line shows.
const FRAMES: NonZeroUsize = NonZeroUsize::new(20).expect("not zero");

/// What can be chosen when the engine is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineSettings {
    /// Instances of all plugins, in all shards and generations, that may exist at a time. Each
    /// reserves about 4 GiB of address space (not memory).
    pub instances: u32,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self { instances: INSTANCES }
    }
}

/// Compiles components and runs their instances. One per process; clones are the same engine.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    // Dropped first: its thread uses the engine.
    clock: Clock,
    wasm: wasmtime::Engine,
    linker: Linker<State>,
    keep: Keep,
    /// Compiles elsewhere and keeps what it compiled, if it may.
    code: Option<Code>,
}

impl Engine {
    /// For a program that is a compiler when its only argument is [`COMPILER`]: what it compiles, a
    /// child of it does, and it is kept where the environment says.
    pub fn of_this_program() -> anyhow::Result<Self> {
        // Whatever lies at its path by now, this is what runs.
        let program = Program::new("/proc/self/exe".into(), vec![COMPILER.into()]);
        let folder = adit_code::usual_folder();
        Self::with_code(EngineSettings::default(), Some(Code::new(program, folder.as_deref())))
    }

    /// One that compiles in this process.
    /// Where the machine has too little address space for the pool of instances, instances are
    /// made on demand, which costs a few times more for each.
    pub fn new(settings: EngineSettings) -> anyhow::Result<Self> {
        Self::with_code(settings, None)
    }

    pub(super) fn with_code(settings: EngineSettings, code: Option<Code>) -> anyhow::Result<Self> {
        let mut config = config();
        config.allocation_strategy(pool(settings));
        let wasm = wasmtime::Engine::new(&config).or_else(|error| {
            let error = error.root_cause().to_string();
            warn!(
                instances = settings.instances,
                error, "no pool for plugin instances, making them on demand"
            );
            wasmtime::Engine::new(&self::config())
        });
        let wasm = wasm.map_err(anyhow::Error::from).context("starting the plugin engine")?;
        let linker = imports::linker(&wasm).map_err(anyhow::Error::from).context("linking the imports")?;
        let ticking = wasm.clone();
        let clock = Clock::start(move || ticking.increment_epoch()).context("starting the plugin clock")?;
        Ok(Self { inner: Arc::new(Inner { clock, wasm, linker, keep: Keep::default(), code }) })
    }

    pub(super) fn wasm(&self) -> &wasmtime::Engine {
        &self.inner.wasm
    }

    pub(super) fn linker(&self) -> &Linker<State> {
        &self.inner.linker
    }

    pub(super) fn keep(&self) -> &Keep {
        &self.inner.keep
    }

    pub(super) fn code(&self) -> Option<&Code> {
        self.inner.code.as_ref()
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.inner.clock
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

/// An engine whose code runs in the others: it only lacks their pool.
pub(super) fn for_compiler() -> anyhow::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&config()).map_err(anyhow::Error::from).context("starting the compiler")
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_component_model(true)
        // Asynchronous exports are not part of our world; without them a call costs 30 % less.
        .concurrency_support(false)
        // No toolchain for components needs these: fewer ways into the engine.
        .wasm_threads(false)
        .gc_support(false)
        .epoch_interruption(true)
        .memory_init_cow(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(WHOLE_STACK)
        .wasm_backtrace_max_frames(Some(FRAMES))
        // Names are enough; a stranger's debug information is not parsed while serving.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        // A reload compiles while requests are served: one thread, so that the shards keep theirs.
        .parallel_compilation(false);
    config
}

fn pool(settings: EngineSettings) -> PoolingAllocationConfig {
    let parts = settings.instances.saturating_mul(PARTS);
    let keep = if PoolingAllocationConfig::is_pagemap_scan_available() { KEEP_WRITTEN } else { KEEP_MEMORY };
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(settings.instances)
        .total_core_instances(parts)
        .total_tables(parts)
        .total_memories(settings.instances)
        // An instance at rest keeps the stack of its last call.
        .total_stacks(settings.instances)
        .max_core_instances_per_component(PARTS_PER_COMPONENT)
        .max_tables_per_component(PARTS_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .linear_memory_keep_resident(keep)
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(KEEP_TABLE);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_does_not_fit_the_address_space_is_done_without() {
        let engine = Engine::new(EngineSettings { instances: 50_000_000 }).expect("falls back");
        drop(engine);
    }
}
