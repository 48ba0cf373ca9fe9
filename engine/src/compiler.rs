//! From the bytes of a file to machine code: in a child process if this program can start itself as
//! one, else here.

use std::sync::Arc;
use std::time::Instant;

use adit_compile_cache::{CodeError, Origin};
use tracing::{debug, warn};
use wasmtime::component::Component;

use super::component::{LARGEST_COMPONENT, check};
use super::engine::{self, Engine, Kind};
use super::failure::LoadError;

/// The argument that makes this program a compiler; it then calls [`be_compiler`].
pub const COMPILER: &str = "compile-plugin";

/// Compiles standard input to standard output, with little rights and no urgency. Hands back the exit
/// code.
pub fn be_compiler() -> i32 {
    match adit_compile_cache::confine() {
        Ok(()) => {
            let engine =
                |wasm: &[u8]| engine::for_compiler(Kind::of(wasm)).map_err(|error| format!("{error:#}"));
            adit_compile_cache::compile(engine, LARGEST_COMPONENT as u64)
        }
        Err(error) => {
            use std::io::Write;
            // Not `eprintln!`, which panics when nobody reads.
            let _ = writeln!(std::io::stderr(), "{error}");
            1
        }
    }
}

/// The code of a component. `name` is the plugin's, for the log. May be dropped midway.
pub(super) async fn component(engine: &Engine, name: &str, wasm: &[u8]) -> Result<Component, LoadError> {
    check(wasm)?;
    let (wasm, begun) = (Arc::<[u8]>::from(wasm), Instant::now());
    let variant = engine.wasm(Kind::of(&wasm))?.clone();
    if let Some(code) = engine.code() {
        match code.component(&variant, wasm.clone()).await {
            Ok((component, origin)) => {
                let kept = origin == Origin::Kept;
                debug!(plugin = name, kept, took = ?begun.elapsed(), "machine code of a plugin is ready");
                return Ok(component);
            }
            Err(CodeError::Refused { reason }) => return Err(LoadError::Malformed { reason }),
            Err(CodeError::NoChild { reason }) => {
                warn!(plugin = name, reason, "a plugin is compiled in the process that serves");
            }
        }
    }
    let compiled = tokio::task::spawn_blocking(move || compile(&variant, &wasm)).await;
    compiled
        .unwrap_or_else(|error| Err(LoadError::Malformed { reason: format!("the compiler failed: {error}") }))
}

/// Takes from milliseconds to minutes of CPU. Not for a thread that serves.
fn compile(engine: &wasmtime::Engine, wasm: &[u8]) -> Result<Component, LoadError> {
    let compiled = Component::from_binary(engine, wasm);
    compiled.map_err(|error| LoadError::Malformed { reason: error.root_cause().to_string() })
}
