//! Everything that a guest can reach: our own interfaces, WASI 0.2 and 0.3 with little behind them, so
//! that components of toolchains which always import them can be loaded, outbound `wasi:http`, and, for
//! middleware, what stands behind it.

mod clock;
pub(super) mod handler;
pub(super) mod http;
mod http_client;
pub(super) mod key_value;
pub(super) mod log;
pub(super) mod metrics;
mod secret;
mod wasi;

use adit_rules::grants::Grants;
use wasmtime::component::{Component, HasSelf, Linker};

use super::bindings::adit::plugin as bound;
use super::engine::Kind;
use super::store::State;

/// Packages of which every interface is linked, and the compatible versions of each.
const PACKAGES: [(&str, &[&str]); 7] = [
    ("wasi:cli", &["0.2", "0.3"]),
    ("wasi:clocks", &["0.2", "0.3"]),
    ("wasi:filesystem", &["0.2", "0.3"]),
    ("wasi:http", &["0.2", "0.3"]),
    ("wasi:io", &["0.2"]),
    ("wasi:random", &["0.2", "0.3"]),
    ("wasi:sockets", &["0.2", "0.3"]),
];
/// The interfaces of our own package that a guest may import. `types` has no functions.
const INTERFACES: [&str; 7] = [
    "adit:plugin/clock",
    "adit:plugin/http-client",
    "adit:plugin/key-value",
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
    bound::secret::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::key_value::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    bound::http_client::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
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
pub(super) struct Needs {
    /// Those of WASI, which a component may well never call.
    pub(super) unserved: Vec<String>,
    /// All others.
    pub(super) unknown: Vec<String>,
}

impl Needs {
    pub(super) fn of(component: &Component) -> Self {
        let ty = component.component_type();
        let others = ty.imports(component.engine()).map(|(name, _)| name).filter(|name| !is_known(name));
        let (unserved, unknown) = others.map(str::to_owned).partition(|name| name.starts_with("wasi:"));
        Self { unserved, unknown }
    }
}

/// The imports for which the document would have to grant something, and what. `wasi:http` is not
/// among them: what is not granted is refused when it is called.
pub(super) fn missing(component: &Component, grants: &Grants) -> Vec<(String, &'static str)> {
    let ty = component.component_type();
    let needs = |import: &str| match import.split_once('@')?.0 {
        "adit:plugin/secret" if grants.secrets.is_empty() => Some("secrets"),
        "adit:plugin/key-value" if grants.buckets.is_empty() => Some("buckets"),
        "adit:plugin/http-client" if grants.http.is_empty() => Some("http"),
        _ => None,
    };
    let imports = ty.imports(component.engine());
    imports.filter_map(|(name, _)| needs(name).map(|grant| (name.to_owned(), grant))).collect()
}

fn is_known(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    let is_fit = |wanted: &str| {
        version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    PACKAGES.iter().any(|(known, wanted)| package == *known && wanted.iter().any(|wanted| is_fit(wanted)))
        || (INTERFACES.contains(&interface) && is_fit(VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_known_by_interface_and_compatible_version() {
        for (import, known) in [
            ("adit:plugin/log@0.1.0", true),
            ("adit:plugin/log@0.1.7", true),
            ("adit:plugin/types@0.1.0", true),
            ("adit:plugin/log@0.2.0", false),
            ("adit:plugin/log@0.10.0", false),
            ("adit:plugin/log", false),
            ("adit:plugin/kv@0.1.0", false),
            ("adit:plugin/key-value@0.1.0", true),
            ("wasi:cli/stderr@0.2.9", true),
            ("wasi:io/poll@0.3.0", false),
            ("wasi:http/outgoing-handler@0.2.9", true),
            ("wasi:http/client@0.3.0", true),
            ("wasi:http/client@0.4.0", false),
            ("acme:store/keys@1.0.0", false),
        ] {
            assert_eq!(is_known(import), known, "{import}");
        }
    }
}
