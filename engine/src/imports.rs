//! Everything that a guest can reach: our own interfaces, WASI 0.2 and 0.3 with little behind them, so
//! that components of toolchains which always import them can be loaded, outbound `wasi:http`, and, for
//! middleware, what stands behind it.

mod clock;
mod crypto;
mod exchange;
pub(super) mod handler;
pub(super) mod http;
mod http_client;
pub(super) mod key_value;
mod keyed;
pub(super) mod log;
pub(super) mod metrics;
mod secret;
pub(super) mod standard;
pub(super) mod unserved;
pub(super) mod wasi;

use adit_rules::grants::Grants;
use wasmtime::component::{Component, HasSelf, Linker};

use super::bindings::adit::plugin as bound;
use super::engine::Kind;
use super::store::State;

/// The interfaces of WASI that are linked: by package those of 0.2 and those of 0.3.
const WASI: [(&str, &[&str], &[&str]); 7] = [
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
        ],
        &[
            "environment",
            "exit",
            "stderr",
            "stdin",
            "stdout",
            "terminal-input",
            "terminal-output",
            "terminal-stderr",
            "terminal-stdin",
            "terminal-stdout",
            "types",
        ],
    ),
    ("wasi:clocks", &["monotonic-clock", "wall-clock"], &["monotonic-clock", "system-clock", "types"]),
    ("wasi:filesystem", &["preopens", "types"], &["preopens", "types"]),
    ("wasi:http", &["outgoing-handler", "types"], &["client", "handler", "types"]),
    ("wasi:io", &["error", "poll", "streams"], &[]),
    ("wasi:random", &["insecure", "insecure-seed", "random"], &["insecure", "insecure-seed", "random"]),
    (
        "wasi:sockets",
        &[
            "instance-network",
            "ip-name-lookup",
            "network",
            "tcp",
            "tcp-create-socket",
            "udp",
            "udp-create-socket",
        ],
        &["ip-name-lookup", "types"],
    ),
];
/// The interfaces of our own package that a guest may import. `types`, `bodies` and `body-streams` have no functions.
const INTERFACES: [&str; 12] = [
    "adit:plugin/bodies",
    "adit:plugin/body-streams",
    "adit:plugin/clock",
    "adit:plugin/crypto",
    "adit:plugin/exchange",
    "adit:plugin/http-client",
    "adit:plugin/key-value",
    "adit:plugin/keyed",
    "adit:plugin/log",
    "adit:plugin/metrics",
    "adit:plugin/secret",
    "adit:plugin/types",
];
const VERSION: &str = "0.1";

pub(super) fn linker(engine: &wasmtime::Engine, kind: Kind) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    bound::log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::metrics::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::clock::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::exchange::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::secret::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::crypto::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::keyed::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::key_value::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::http_client::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    standard::add_to_linker(&mut linker)?;
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if kind == Kind::Concurrent {
        // Beside the older version: what is made for the newer often imports both.
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
        handler::add_to_linker(&mut linker)?;
    }
    Ok(linker)
}

/// The component's imports that are not linked.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Those of WASI, which a component may well never call.
    pub(super) unserved: Vec<String>,
    /// Those of drafts of what WASI has become.
    pub(super) drafts: Vec<String>,
    /// All others.
    pub(super) unknown: Vec<String>,
}

impl Needs {
    pub(super) fn of(component: &Component) -> Self {
        let ty = component.component_type();
        let mut needs = Self::default();
        for (name, _) in ty.imports(component.engine()) {
            let list = match served(name) {
                Served::Yes => continue,
                Served::No if name.starts_with("wasi:") => &mut needs.unserved,
                Served::No => &mut needs.unknown,
                Served::Draft => &mut needs.drafts,
            };
            list.push(name.to_owned());
        }
        needs
    }
}

/// The imports for which the document would have to grant something, and what. `wasi:http` is not
/// among them, see [`useful`].
pub(super) fn missing(component: &Component, grants: &Grants) -> Vec<(String, &'static str)> {
    grants_of(component, |interface| match interface {
        "adit:plugin/secret" | "adit:plugin/keyed" if grants.secrets.is_empty() => Some("secrets"),
        "adit:plugin/key-value" if grants.buckets.is_empty() => Some("buckets"),
        "adit:plugin/http-client" if grants.http.is_empty() => Some("http"),
        _ => None,
    })
}

/// The imports that are of no use without a grant, and which. A component that has them may well never call them, so
/// that it is loaded all the same, and what is not granted is refused when it is called.
pub(super) fn useful(component: &Component) -> Vec<(String, &'static str)> {
    grants_of(component, |interface| match interface {
        "wasi:http/outgoing-handler" | "wasi:http/client" => Some("http"),
        "wasi:keyvalue/store" => Some("buckets"),
        _ => None,
    })
}

fn grants_of(
    component: &Component,
    grant: impl Fn(&str) -> Option<&'static str>,
) -> Vec<(String, &'static str)> {
    let ty = component.component_type();
    let imports = ty.imports(component.engine()).filter_map(|(name, _)| {
        let (interface, _) = name.split_once('@')?;
        Some((name.to_owned(), grant(interface)?))
    });
    imports.collect()
}

/// Whether a component asks what is known of an exchange.
pub(super) fn sees_exchanges(component: &Component) -> bool {
    let ty = component.component_type();
    ty.imports(component.engine()).any(|(name, _)| name.starts_with("adit:plugin/exchange@"))
}

/// Whether a component reads its configuration as others standardise it.
pub(super) fn reads_configuration(component: &Component) -> bool {
    let ty = component.component_type();
    ty.imports(component.engine()).any(|(name, _)| standard::is_configuration(name))
}

/// What the host has of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Served {
    Yes,
    No,
    /// A version of before its release, which fits no other.
    Draft,
}

/// Compares versions as the linker does: a version before a release fits itself alone, and within 0.x all
/// patches fit each other.
fn served(import: &str) -> Served {
    if standard::serves(import) {
        return Served::Yes;
    }
    let Some((name, version)) = import.split_once('@') else { return Served::No };
    let (package, interface) = name.split_once('/').unwrap_or((name, ""));
    let is_draft = version.contains('-');
    let is_of = |wanted: &str| {
        version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    if INTERFACES.contains(&name) {
        return if is_of(VERSION) && !is_draft { Served::Yes } else { Served::No };
    }
    let Some((_, older, newer)) = WASI.iter().find(|(known, ..)| *known == package) else {
        return Served::No;
    };
    match [("0.2", older), ("0.3", newer)].iter().find(|(version, _)| is_of(version)) {
        Some((_, interfaces)) if !interfaces.contains(&interface) => Served::No,
        Some(_) if is_draft => Served::Draft,
        Some(_) => Served::Yes,
        None => Served::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_known_by_interface_and_compatible_version() {
        use Served::*;
        for (import, known) in [
            ("adit:plugin/log@0.1.0", Yes),
            ("adit:plugin/log@0.1.7", Yes),
            ("adit:plugin/types@0.1.0", Yes),
            ("adit:plugin/log@0.2.0", No),
            ("adit:plugin/log@0.10.0", No),
            ("adit:plugin/log", No),
            ("adit:plugin/kv@0.1.0", No),
            ("adit:plugin/key-value@0.1.0", Yes),
            ("adit:plugin/crypto@0.1.0", Yes),
            ("adit:plugin/keyed@0.1.1", Yes),
            ("wasi:cli/stderr@0.2.9", Yes),
            ("wasi:cli/stderr@0.2.0-rc-2023-11-10", Draft),
            ("wasi:cli/stderr@0.20.0", No),
            ("wasi:clocks/timezone@0.2.9", No),
            ("wasi:io/poll@0.3.0", No),
            ("wasi:http/outgoing-handler@0.2.9", Yes),
            ("wasi:http/incoming-handler@0.2.9", No),
            ("wasi:http/client@0.3.0", Yes),
            ("wasi:http/client@0.3.0-rc-2026-03-15", Draft),
            ("wasi:http/client@0.4.0", No),
            ("wasi:blobstore/container@0.2.0-draft", No),
            ("acme:store/keys@1.0.0", No),
            ("wasi:keyvalue/store@0.2.0-draft2", Yes),
            ("wasi:keyvalue/store@0.2.0-draft3", No),
            ("wasi:keyvalue/batch@0.2.0-draft", Yes),
            ("wasi:config/store@0.2.0-draft-2024-09-27", Yes),
            ("wasi:config/store@0.2.0-draft", No),
            ("wasi:logging/logging", Yes),
        ] {
            assert_eq!(served(import), known, "{import}");
        }
    }
}
