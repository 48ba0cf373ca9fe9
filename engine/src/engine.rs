//! The WebAssembly engine: one per process, with every limit that plugins share. What speaks of WASI
//! 0.3 runs in a variant of its own, since asynchronous exports make every call dearer.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use adit_compile_cache::{Code, Program};
use anyhow::Context;
use tracing::warn;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, PoolingAllocationConfig, Strategy, WasmBacktraceDetails};

use super::clock::Clock;
use super::compiler::COMPILER;
use super::failure::LoadError;
use super::imports;
use super::persistent::{BucketFolder, PersistentState};
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
    plain: EngineVariant,
    /// Made for the first component that needs it.
    concurrent: Arc<OnceLock<EngineVariant>>,
    settings: EngineSettings,
    persistent: PersistentState,
    /// Bytes of bodies that are gathered for plugins.
    gathered: Arc<AtomicUsize>,
    /// Compiles elsewhere and keeps what it compiled, if it may.
    code: Option<Code>,
}

impl Engine {
    /// From now on the buckets that documents want kept are kept there; without a place, such a document is refused.
    /// Before the first plugin is loaded.
    pub fn keep_buckets(&self, folder: Option<Arc<dyn BucketFolder>>) {
        self.inner.persistent.keep_in(folder);
    }

    /// Writes those that have changed, and says of which plugin which bucket could not be written. Blocks.
    pub fn save_buckets(&self) -> Vec<(String, String, std::io::Error)> {
        self.inner.persistent.save()
    }
}

/// What code is compiled for, runs in and is linked with. Nothing of one variant fits the other.
struct EngineVariant {
    wasm: wasmtime::Engine,
    linker: Linker<State>,
}

impl EngineVariant {
    fn new(kind: Kind, settings: EngineSettings) -> anyhow::Result<Self> {
        let mut config = config(kind);
        config.allocation_strategy(pool(settings));
        let wasm = wasmtime::Engine::new(&config).or_else(|error| {
            let error = error.root_cause().to_string();
            warn!(
                instances = settings.instances,
                error, "no pool for plugin instances, making them on demand"
            );
            wasmtime::Engine::new(&self::config(kind))
        });
        let wasm = wasm.map_err(anyhow::Error::from).context("starting the plugin engine")?;
        let linker = imports::linker(&wasm, kind).map_err(anyhow::Error::from);
        Ok(Self { wasm, linker: linker.context("linking the imports")? })
    }
}

/// Which variant a component belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    /// It may have asynchronous functions.
    Concurrent,
}

impl Kind {
    /// Read from the names of what it imports and exports, which lie in it as they are: a component that
    /// names an interface of WASI 0.3 anywhere is taken for one that needs it, which does no harm.
    pub(super) fn of(wasm: &[u8]) -> Self {
        let speaks = memchr::memmem::find_iter(wasm, WASI_03).any(|at| {
            let name = &wasm[at.saturating_sub(LONGEST_INTERFACE)..at];
            name.rsplit(|byte| !is_part_of_name(*byte)).next().is_some_and(|name| name.starts_with(b"wasi:"))
        });
        if speaks { Self::Concurrent } else { Self::Plain }
    }
}

/// How the version of such an interface begins.
const WASI_03: &[u8] = b"@0.3.";
/// More than `wasi:filesystem/preopens` and the like have, bytes.
const LONGEST_INTERFACE: usize = 64;

fn is_part_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b':' | b'/')
}

impl Engine {
    /// For a program that is a compiler when its only argument is [`COMPILER`]: what it compiles, a
    /// child of it does, and it is kept where the environment says.
    pub fn of_this_program() -> anyhow::Result<Self> {
        // Whatever lies at its path by now, this is what runs.
        let program = Program::new("/proc/self/exe".into(), vec![COMPILER.into()]);
        let folder = adit_compile_cache::usual_folder();
        Self::with_code(EngineSettings::default(), Some(Code::new(program, folder.as_deref())))
    }

    /// The same for one look at a component: what is compiled is not kept, and nothing that was kept is
    /// used.
    pub fn that_keeps_nothing() -> anyhow::Result<Self> {
        let program = Program::new("/proc/self/exe".into(), vec![COMPILER.into()]);
        Self::with_code(EngineSettings::default(), Some(Code::new(program, None)))
    }

    /// For the tools of somebody who writes plugins and waits: compiled in this process, with all of its
    /// priority, and kept where the environment says.
    pub fn that_compiles_here() -> anyhow::Result<Self> {
        let folder = adit_compile_cache::usual_folder();
        Self::with_code(EngineSettings::default(), Some(Code::that_compiles_here(folder.as_deref())))
    }

    /// One that compiles in this process.
    /// Where the machine has too little address space for the pool of instances, instances are
    /// made on demand, which costs a few times more for each.
    pub fn new(settings: EngineSettings) -> anyhow::Result<Self> {
        Self::with_code(settings, None)
    }

    pub(super) fn with_code(settings: EngineSettings, code: Option<Code>) -> anyhow::Result<Self> {
        let plain = EngineVariant::new(Kind::Plain, settings)?;
        let concurrent: Arc<OnceLock<EngineVariant>> = Arc::default();
        let ticking = (plain.wasm.clone(), concurrent.clone());
        let clock = Clock::start(move || {
            ticking.0.increment_epoch();
            if let Some(variant) = ticking.1.get() {
                variant.wasm.increment_epoch();
            }
        });
        let clock = clock.context("starting the plugin clock")?;
        Ok(Self {
            inner: Arc::new(Inner {
                clock,
                plain,
                concurrent,
                settings,
                persistent: PersistentState::default(),
                gathered: Arc::default(),
                code,
            }),
        })
    }

    /// What a component is to be compiled for.
    pub(super) fn wasm(&self, kind: Kind) -> Result<&wasmtime::Engine, LoadError> {
        self.variant(kind).map(|variant| &variant.wasm)
    }

    /// The imports for a component that was compiled for this engine.
    pub(super) fn linker(&self, component: &Component) -> Result<&Linker<State>, LoadError> {
        let is_plain = wasmtime::Engine::same(component.engine(), &self.inner.plain.wasm);
        self.variant(if is_plain { Kind::Plain } else { Kind::Concurrent }).map(|variant| &variant.linker)
    }

    fn variant(&self, kind: Kind) -> Result<&EngineVariant, LoadError> {
        let Inner { plain, concurrent, settings, .. } = &*self.inner;
        match (kind, concurrent.get()) {
            (Kind::Plain, _) => Ok(plain),
            (Kind::Concurrent, Some(variant)) => Ok(variant),
            (Kind::Concurrent, None) => {
                let made = EngineVariant::new(Kind::Concurrent, *settings);
                let made = made.map_err(|error| LoadError::NoEngine { reason: format!("{error:#}") })?;
                // Of two that were made at once one goes.
                Ok(concurrent.get_or_init(|| made))
            }
        }
    }

    pub(super) fn gathered(&self) -> &Arc<AtomicUsize> {
        &self.inner.gathered
    }

    pub(super) fn persistent(&self) -> &PersistentState {
        &self.inner.persistent
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

/// An engine whose code runs in the variant of this kind: it only lacks the pool.
pub(super) fn for_compiler(kind: Kind) -> anyhow::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&config(kind)).map_err(anyhow::Error::from).context("starting the compiler")
}

fn config(kind: Kind) -> Config {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .wasm_component_model(true)
        // Asynchronous exports are not part of our world; without them a call costs 30 % less.
        .concurrency_support(kind == Kind::Concurrent)
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
    fn a_component_that_speaks_of_wasi_0_3_is_known_by_the_names_in_it() {
        for (wasm, kind) in [
            (&b"\0\x1bwasi:http/handler@0.3.0\x05"[..], Kind::Concurrent),
            (b"wasi:cli/environment@0.3.0-rc-2026", Kind::Concurrent),
            (b"wasi:http/incoming-handler@0.2.6", Kind::Plain),
            (b"wasi:io/poll@0.2.0@0.3.", Kind::Plain),
            (b"acme:store/keys@0.3.0", Kind::Plain),
            (b"@0.3.0", Kind::Plain),
            (b"", Kind::Plain),
        ] {
            assert_eq!(Kind::of(wasm), kind, "{}", wasm.escape_ascii());
        }
    }

    #[test]
    fn a_pool_that_does_not_fit_the_address_space_is_done_without() {
        let engine = Engine::new(EngineSettings { instances: 50_000_000 }).expect("falls back");
        drop(engine);
    }
}
