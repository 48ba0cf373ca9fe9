//! Everything that a guest can reach: our `log` interface, and WASI 0.2 with nothing behind it, so
//! that components of toolchains which always import it can be loaded.

pub(super) mod log;
mod wasi;

use wasmtime::component::{Component, HasSelf, Linker};

use super::bindings::adit::plugin::log as bound;
use super::store::State;

/// Packages of which every interface is linked, and the compatible version of each.
const PACKAGES: [(&str, &str); 6] = [
    ("wasi:cli", "0.2"),
    ("wasi:clocks", "0.2"),
    ("wasi:filesystem", "0.2"),
    ("wasi:io", "0.2"),
    ("wasi:random", "0.2"),
    ("wasi:sockets", "0.2"),
];
/// The interfaces of our own package that a guest may import. `types` has no functions.
const INTERFACES: [(&str, &str); 2] = [("adit:plugin/log", "0.1"), ("adit:plugin/types", "0.1")];

pub(super) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    bound::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Ok(linker)
}

/// The component's imports that nothing here answers to.
pub(super) fn unknown(component: &Component, engine: &wasmtime::Engine) -> Vec<String> {
    let ty = component.component_type();
    ty.imports(engine).map(|(name, _)| name).filter(|name| !is_known(name)).map(str::to_owned).collect()
}

fn is_known(import: &str) -> bool {
    let Some((interface, version)) = import.split_once('@') else { return false };
    let package = interface.split_once('/').map_or(interface, |(package, _)| package);
    let fits = |name: &str, (known, wanted): &(&str, &str)| {
        name == *known
            && version.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    PACKAGES.iter().any(|known| fits(package, known)) || INTERFACES.iter().any(|known| fits(interface, known))
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
            ("wasi:cli/stderr@0.2.9", true),
            ("wasi:io/poll@0.3.0", false),
            ("wasi:http/outgoing-handler@0.2.9", false),
            ("acme:store/keys@1.0.0", false),
        ] {
            assert_eq!(is_known(import), known, "{import}");
        }
    }
}
