//! From compiled code to a component that is known to fit: what it is, what it asks for, and which
//! phases it has.

use adit_rules::plan::PluginPlan;
use tracing::warn;
use wasmtime::component::{Component, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyIndices;
use wasmtime_wasi_http::p3::bindings::ServiceIndices;

use super::bindings::exports::adit::plugin::{
    access_log, decoding, lifecycle, probe, refresher, request_body_filter, request_filter,
    request_stream_filter, response_body_filter, response_filter, response_stream_filter, schema, ticker,
};
use super::engine::Engine;
use super::failure::LoadError;
use super::imports;
use super::store::State;

/// Largest component, bytes. The largest known, a Python interpreter with its library, has 22 MB.
pub const LARGEST_COMPONENT: usize = 64 * 1024 * 1024;

const LIFECYCLE: &str = "adit:plugin/lifecycle@0.1.0";
const SCHEMA: &str = "adit:plugin/schema@0.1.0";
const PROBE: &str = "adit:plugin/probe@0.1.0";
const REQUEST_FILTER: &str = "adit:plugin/request-filter@0.1.0";
const RESPONSE_FILTER: &str = "adit:plugin/response-filter@0.1.0";
const REQUEST_BODY_FILTER: &str = "adit:plugin/request-body-filter@0.1.0";
const RESPONSE_BODY_FILTER: &str = "adit:plugin/response-body-filter@0.1.0";
const REQUEST_STREAM_FILTER: &str = "adit:plugin/request-stream-filter@0.1.0";
const RESPONSE_STREAM_FILTER: &str = "adit:plugin/response-stream-filter@0.1.0";
const DECODING: &str = "adit:plugin/decoding@0.1.0";
const ACCESS_LOG: &str = "adit:plugin/access-log@0.1.0";
const TICKER: &str = "adit:plugin/ticker@0.1.0";
const REFRESHER: &str = "adit:plugin/refresher@0.1.0";
/// What a filter for this host or for another exports; its version follows.
const LIFECYCLE_OF_ANY: &str = "adit:plugin/lifecycle@";
/// Without any of these there is nothing to call, unless it takes whole exchanges.
const PHASES: [&str; 9] = [
    REQUEST_FILTER,
    RESPONSE_FILTER,
    REQUEST_BODY_FILTER,
    RESPONSE_BODY_FILTER,
    REQUEST_STREAM_FILTER,
    RESPONSE_STREAM_FILTER,
    ACCESS_LOG,
    TICKER,
    REFRESHER,
];
/// What makes a service, in any compatible version. One that imports the second as well is middleware.
const INCOMING_HANDLER: &str = "wasi:http/incoming-handler@0.2";
const HANDLER: &str = "wasi:http/handler@0.3";

/// The first bytes of every WebAssembly binary, and what follows in a module and in a component.
const MAGIC: &[u8] = b"\0asm";
const MODULE: &[u8] = &[1, 0, 0, 0];
const COMPONENT: &[u8] = &[13, 0, 1, 0];
/// Where such a module gets what it imports.
const PREVIEW_1: [&[u8]; 2] = [b"wasi_snapshot_preview1", b"wasi_unstable"];
const ELF: &[u8] = b"\x7fELF";

/// A compiled and linked component, from which instances are made. Exports are looked up by name
/// here, once. Clones share the code.
#[derive(Clone)]
pub(super) struct LinkedComponent {
    pub(super) component: Component,
    pub(super) pre: InstancePre<State>,
    /// Of a component that exports `lifecycle`.
    pub(super) phases: Option<Phases>,
    /// Of a component that takes whole exchanges.
    pub(super) handler: Option<Handler>,
}

/// How a component takes whole exchanges. Where it has both versions the older is taken, which is not
/// experimental.
#[derive(Clone)]
pub(super) enum Handler {
    /// A service of `wasi:http` 0.2.
    Wasi2(ProxyIndices),
    /// A service of `wasi:http` 0.3.
    Wasi3(ServiceIndices),
    /// One that hands requests on to what stands behind it.
    Middleware(ServiceIndices),
}

/// Which interfaces of ours a component exports.
#[derive(Clone)]
pub(super) struct Phases {
    pub(super) lifecycle: lifecycle::GuestIndices,
    pub(super) schema: Option<schema::GuestIndices>,
    pub(super) probe: Option<probe::GuestIndices>,
    pub(super) request: Option<request_filter::GuestIndices>,
    pub(super) response: Option<response_filter::GuestIndices>,
    pub(super) request_body: Option<request_body_filter::GuestIndices>,
    pub(super) response_body: Option<response_body_filter::GuestIndices>,
    pub(super) decoding: Option<decoding::GuestIndices>,
    pub(super) request_stream: Option<request_stream_filter::GuestIndices>,
    pub(super) response_stream: Option<response_stream_filter::GuestIndices>,
    pub(super) log: Option<access_log::GuestIndices>,
    pub(super) tick: Option<ticker::GuestIndices>,
    pub(super) refresh: Option<refresher::GuestIndices>,
}

impl LinkedComponent {
    /// Links; `name` is the plugin's, for the log.
    pub(super) fn link(engine: &Engine, name: &str, component: Component) -> Result<Self, LoadError> {
        let ty = component.component_type();
        let exports: Vec<String> = ty.exports(component.engine()).map(|(name, _)| name.to_owned()).collect();
        let exported = |prefix: &str| exports.iter().find(|name| is_version_of(name, prefix));
        // These compare versions as the component model does.
        let has = |name: &str| component.get_export_index(None, name).is_some();
        let is_filter = has(LIFECYCLE);
        let is_older = exported(INCOMING_HANDLER).is_some();
        let is_newer = exported(HANDLER).is_some() && !is_older;
        let takes_exchanges = is_older || is_newer;
        if !is_filter && !takes_exchanges {
            let version = exports.iter().find_map(|name| name.strip_prefix(LIFECYCLE_OF_ANY));
            return Err(match version {
                Some(version) => LoadError::OtherVersion { version: version.to_owned() },
                None => LoadError::NoRole { exports },
            });
        }
        if is_filter && !takes_exchanges && !PHASES.iter().any(|phase| has(phase)) {
            return Err(LoadError::NoPhase);
        }
        let needs = imports::Needs::of(&component);
        if !needs.unknown.is_empty() {
            return Err(LoadError::UnknownImports { imports: needs.unknown });
        }
        if !needs.drafts.is_empty() {
            return Err(LoadError::Drafts { imports: needs.drafts });
        }
        let linker = engine.linker(&component)?;
        let pre = if needs.unserved.is_empty() {
            linker.instantiate_pre(&component)
        } else {
            // Ordinary components import more of WASI than they use.
            let (plugin, imports) = (name, needs.unserved.join(", "));
            warn!(plugin, imports, "imports of WASI that are not served: a call of them is a trap");
            let mut linker = linker.clone();
            imports::unserved::link(&mut linker, &component, &needs.unserved).map_err(mismatch)?;
            linker.instantiate_pre(&component)
        };
        let pre = pre.map_err(mismatch)?;
        let phases = is_filter.then(|| phases(&pre, has)).transpose()?;
        let hands_on = ty.imports(component.engine()).any(|(name, _)| is_version_of(name, HANDLER));
        let handler = match (is_older, is_newer, hands_on) {
            (true, ..) => Some(Handler::Wasi2(ProxyIndices::new(&pre).map_err(mismatch)?)),
            (false, true, false) => Some(Handler::Wasi3(ServiceIndices::new(&pre).map_err(mismatch)?)),
            (false, true, true) => Some(Handler::Middleware(ServiceIndices::new(&pre).map_err(mismatch)?)),
            (false, false, _) => None,
        };
        Ok(Self { component, pre, phases, handler })
    }

    /// Whether a configuration has somewhere to go.
    pub(super) fn takes_configuration(&self) -> bool {
        self.phases.is_some() || imports::reads_configuration(&self.component)
    }

    /// Whether it can answer a rule.
    pub(super) fn serves(&self) -> bool {
        matches!(self.handler, Some(Handler::Wasi2(_) | Handler::Wasi3(_)))
    }

    /// Whether whole exchanges can pass through it.
    pub(super) fn mediates(&self) -> bool {
        matches!(self.handler, Some(Handler::Middleware(_)))
    }

    /// Whether its role is one that the document must ask for by name.
    pub(super) fn is_experimental(&self) -> bool {
        matches!(self.handler, Some(Handler::Wasi3(_) | Handler::Middleware(_)))
    }

    /// Checks what a plugin that is to be made of it has been granted and asked for.
    pub(super) fn check(&self, plan: &PluginPlan) -> Result<(), LoadError> {
        let imports = imports::missing(&self.component, &plan.grants);
        if !imports.is_empty() {
            return Err(LoadError::NotGranted { imports });
        }
        if self.is_experimental() {
            let role = if self.mediates() { "middleware" } else { "a service" };
            if !plan.experimental {
                return Err(LoadError::Experimental { role });
            }
            warn!(plugin = plan.name, "{role} of wasi:http 0.3, which is experimental");
        }
        Ok(())
    }
}

fn phases(pre: &InstancePre<State>, has: impl Fn(&str) -> bool) -> Result<Phases, LoadError> {
    let phases = (|| {
        Ok(Phases {
            lifecycle: lifecycle::GuestIndices::new(pre)?,
            schema: has(SCHEMA).then(|| schema::GuestIndices::new(pre)).transpose()?,
            probe: has(PROBE).then(|| probe::GuestIndices::new(pre)).transpose()?,
            request: has(REQUEST_FILTER).then(|| request_filter::GuestIndices::new(pre)).transpose()?,
            response: has(RESPONSE_FILTER).then(|| response_filter::GuestIndices::new(pre)).transpose()?,
            request_body: has(REQUEST_BODY_FILTER)
                .then(|| request_body_filter::GuestIndices::new(pre))
                .transpose()?,
            response_body: has(RESPONSE_BODY_FILTER)
                .then(|| response_body_filter::GuestIndices::new(pre))
                .transpose()?,
            decoding: has(DECODING).then(|| decoding::GuestIndices::new(pre)).transpose()?,
            request_stream: has(REQUEST_STREAM_FILTER)
                .then(|| request_stream_filter::GuestIndices::new(pre))
                .transpose()?,
            response_stream: has(RESPONSE_STREAM_FILTER)
                .then(|| response_stream_filter::GuestIndices::new(pre))
                .transpose()?,
            log: has(ACCESS_LOG).then(|| access_log::GuestIndices::new(pre)).transpose()?,
            tick: has(TICKER).then(|| ticker::GuestIndices::new(pre)).transpose()?,
            refresh: has(REFRESHER).then(|| refresher::GuestIndices::new(pre)).transpose()?,
        })
    })();
    phases.map_err(mismatch)
}

/// Whether `name` is the interface of `prefix` in a version that fits.
fn is_version_of(name: &str, prefix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Says what a file is that is not a component, before the parser says something about offsets.
pub(super) fn check(wasm: &[u8]) -> Result<(), LoadError> {
    if wasm.len() > LARGEST_COMPONENT {
        return Err(LoadError::TooLarge { size: wasm.len(), limit: LARGEST_COMPONENT });
    }
    let version = wasm.strip_prefix(MAGIC).and_then(|rest| rest.get(..4));
    let (found, way_out) = if version == Some(COMPONENT) {
        return Ok(());
    } else if version == Some(MODULE)
        && PREVIEW_1.iter().any(|name| memchr::memmem::find(wasm, name).is_some())
    {
        (
            "a core WebAssembly module for preview 1 of WASI, not a component",
            "build it for wasm32-wasip2, or wrap it with `wasm-tools component new --adapt`",
        )
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
            (b"\0asm\x01\0\0\0", "core WebAssembly module, not", "wasm32-wasip2"),
            (b"\0asm\x01\0\0\0..\x16wasi_snapshot_preview1", "for preview 1 of WASI", "--adapt"),
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
