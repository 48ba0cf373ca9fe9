//! The child's side: takes its own rights away, then compiles what it is given.

use std::io::{Read, Write};

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use wasmtime::Engine;

use super::seal::seal;
use super::{CPU_LIMIT, LARGEST_CODE, MEMORY_LIMIT};

/// The exit code for a component that cannot be compiled; why is on standard error.
pub(super) const REFUSED: i32 = 65;
/// The exit code for everything else that goes wrong.
const FAILED: i32 = 70;
/// A tenth of the share of whoever serves. Less, and on a machine that is always busy a second's work takes
/// minutes.
const NICENESS: i32 = 10;
/// Descriptors that may be open: the three pipes and what a library opens for a moment.
const DESCRIPTORS: u64 = 32;

/// Limits this process to what compiling takes: it yields to everybody, and cannot write a file,
/// nor use memory or time without end.
///
/// # Errors
/// If the system does not let it.
pub fn confine() -> std::io::Result<()> {
    nice(NICENESS)?;
    let limits = [
        (Resource::Cpu, CPU_LIMIT.as_secs()),
        (Resource::As, MEMORY_LIMIT),
        // What it makes goes through a pipe, which is not a file.
        (Resource::Fsize, 0),
        (Resource::Core, 0),
        (Resource::Nofile, DESCRIPTORS),
    ];
    for (resource, limit) in limits {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

/// Compiles standard input, at most `largest` bytes, to standard output. `engine` makes one that is set up
/// as that in which the parent will run the component. Hands back the exit code.
pub fn compile(engine: impl FnOnce(&[u8]) -> Result<Engine, String>, largest: u64) -> i32 {
    let mut wasm = Vec::new();
    if let Err(error) = std::io::stdin().take(largest + 1).read_to_end(&mut wasm) {
        return say(FAILED, &format!("reading the component: {error}"));
    }
    if wasm.len() as u64 > largest {
        return say(REFUSED, &format!("it has over {largest} bytes"));
    }
    let engine = match engine(&wasm) {
        Ok(engine) => engine,
        Err(error) => return say(FAILED, &error),
    };
    // It has all that it needs, and has looked at none of it yet.
    if let Err(reason) = seal() {
        let _ = writeln!(std::io::stderr(), "compiling without a filter for system calls: {reason}");
    }
    let code = match engine.precompile_component(&wasm) {
        Ok(code) => code,
        Err(error) => return say(REFUSED, &error.root_cause().to_string()),
    };
    if code.len() as u64 > LARGEST_CODE {
        return say(REFUSED, &format!("its machine code has over {LARGEST_CODE} bytes"));
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(&code).and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) => say(FAILED, &format!("handing the code back: {error}")),
    }
}

fn say(code: i32, reason: &str) -> i32 {
    // Not `eprintln!`, which panics when nobody reads.
    let _ = writeln!(std::io::stderr(), "{reason}");
    code
}
