//! From the bytes of a file to a component that is known to fit: what it is, what it asks for, and
//! which phases it has.

use std::sync::Arc;

use wasmtime::component::{Component, InstancePre};

use super::bindings::exports::adit::plugin::{lifecycle, request_filter, response_filter};
use super::engine::Engine;
use super::failure::LoadError;
use super::imports::{self, log::GuestLog};
use super::store::State;

/// Largest component, bytes. The largest known, a Python interpreter with its library, has 22 MB.
pub const LARGEST_COMPONENT: usize = 64 * 1024 * 1024;

const LIFECYCLE: &str = "adit:plugin/lifecycle@0.1.0";
const REQUEST_FILTER: &str = "adit:plugin/request-filter@0.1.0";
const RESPONSE_FILTER: &str = "adit:plugin/response-filter@0.1.0";

/// The first bytes of every WebAssembly binary, and what follows in a module and in a component.
const MAGIC: &[u8] = b"\0asm";
const MODULE: &[u8] = &[1, 0, 0, 0];
const COMPONENT: &[u8] = &[13, 0, 1, 0];
const ELF: &[u8] = b"\x7fELF";

/// A compiled and linked component, from which instances are made. Exports are looked up by name
/// here, once.
pub(super) struct Blueprint {
    pub(super) pre: InstancePre<State>,
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) request: Option<request_filter::GuestIndices>,
    pub(super) response: Option<response_filter::GuestIndices>,
    pub(super) log: Arc<GuestLog>,
    /// Bytes that an instance may have.
    pub(super) memory: usize,
}

impl Blueprint {
    /// The same code for another plugin.
    pub(super) fn copy(&self, log: Arc<GuestLog>, memory: usize) -> Self {
        Self {
            pre: self.pre.clone(),
            lifecycle: self.lifecycle.clone(),
            request: self.request.clone(),
            response: self.response.clone(),
            log,
            memory,
        }
    }

    /// Compiles; takes from milliseconds to minutes of CPU. Not for a thread that serves.
    pub(super) fn compile(
        engine: &Engine,
        wasm: &[u8],
        log: Arc<GuestLog>,
        memory: usize,
    ) -> Result<Self, LoadError> {
        check(wasm)?;
        let component = Component::from_binary(engine.wasm(), wasm)
            .map_err(|error| LoadError::Malformed { reason: error.root_cause().to_string() })?;
        let exports = |name: &str| component.get_export_index(None, name).is_some();
        if !exports(LIFECYCLE) {
            let ty = component.component_type();
            let names = ty.exports(engine.wasm()).map(|(name, _)| name.to_owned()).collect();
            return Err(LoadError::NoLifecycle { exports: names });
        }
        let (has_request, has_response) = (exports(REQUEST_FILTER), exports(RESPONSE_FILTER));
        if !has_request && !has_response {
            return Err(LoadError::NoPhase);
        }
        let unknown = imports::unknown(&component, engine.wasm());
        if !unknown.is_empty() {
            return Err(LoadError::UnknownImports { imports: unknown });
        }
        let pre = engine.linker().instantiate_pre(&component).map_err(mismatch)?;
        let lifecycle = lifecycle::GuestIndices::new(&pre).map_err(mismatch)?;
        let request = has_request.then(|| request_filter::GuestIndices::new(&pre)).transpose();
        let response = has_response.then(|| response_filter::GuestIndices::new(&pre)).transpose();
        let (request, response) = (request.map_err(mismatch)?, response.map_err(mismatch)?);
        Ok(Self { pre, lifecycle, request, response, log, memory })
    }
}

/// Says what a file is that is not a component, before the parser says something about offsets.
fn check(wasm: &[u8]) -> Result<(), LoadError> {
    if wasm.len() > LARGEST_COMPONENT {
        return Err(LoadError::TooLarge { size: wasm.len(), limit: LARGEST_COMPONENT });
    }
    let version = wasm.strip_prefix(MAGIC).and_then(|rest| rest.get(..4));
    let (found, way_out) = if version == Some(COMPONENT) {
        return Ok(());
    } else if version == Some(MODULE) {
        (
            "a core WebAssembly module, not a component",
            "build it for wasm32-wasip2, or wrap it with `wasm-tools component new`",
        )
    } else if wasm.is_empty() {
        ("an empty file", "give the component's .wasm file")
    } else if version.is_some() {
        ("WebAssembly of an unknown kind", "build it with a toolchain for component model 1.0")
    } else if wasm.starts_with(ELF) {
        (
            "machine code, perhaps a precompiled .cwasm",
            "give the .wasm file: foreign machine code is never run",
        )
    } else if wasm.trim_ascii_start().starts_with(b"(") || wasm.trim_ascii_start().starts_with(b";;") {
        ("WebAssembly as text", "turn it into a binary with `wasm-tools parse`")
    } else {
        ("not a WebAssembly file", "give the component's .wasm file")
    };
    Err(LoadError::NotAComponent { found, way_out })
}

fn mismatch(error: wasmtime::Error) -> LoadError {
    let reason: Vec<String> = error.chain().map(ToString::to_string).collect();
    LoadError::Mismatch { reason: reason.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_component_is_named_with_a_way_out() {
        for (wasm, found, way_out) in [
            (&b""[..], "empty file", ".wasm"),
            (b"(component)", "as text", "wasm-tools parse"),
            (b"  ;; a comment\n(module)", "as text", "wasm-tools parse"),
            (b"\0asm\x01\0\0\0", "core WebAssembly module", "wasm32-wasip2"),
            (b"\0asm\x0c\0\x01\0", "unknown kind", "component model 1.0"),
            (b"\0asm", "not a WebAssembly file", ".wasm"),
            (b"\x7fELF\x02\x01\x01", "precompiled .cwasm", "never run"),
            (b"#!/bin/sh\n", "not a WebAssembly file", ".wasm"),
        ] {
            let error = check(wasm).expect_err("not a component").to_string();
            assert!(error.contains(found) && error.contains(way_out), "{wasm:?}: {error}");
        }
        check(b"\0asm\x0d\0\x01\0").expect("a component");
    }

    #[test]
    fn a_component_over_the_limit_is_refused_unread() {
        let error = check(&vec![0; LARGEST_COMPONENT + 1]).expect_err("too large");
        assert!(matches!(error, LoadError::TooLarge { limit: LARGEST_COMPONENT, .. }), "{error}");
    }
}
