//! The guard guards: what is forbidden is planted, one thing after the other, in each crate and in ten modules,
//! and each time the guard names the file and the rule.

use crate::guard::is_within;
use crate::{BESIDE, CRATES, Crate, Module, root, tree};

/// One way to name a path.
type Form = fn(&str) -> String;

const FORMS: [Form; 10] = [
    |path| format!("use {path};"),
    |path| format!("pub use {path} as planted;"),
    |path| format!("fn planted() {{ {path}(); }}"),
    |path| format!("fn planted(_: {path}) {{}}"),
    |path| format!("fn planted() {{ println!(\"{{}}\", {path}()); }}"),
    |path| format!("macro_rules! planted {{ () => {{ {path} }} }}"),
    |path| format!("#[serde(with = \"{path}\")] struct Planted;"),
    |path| {
        let (above, name) = path.rsplit_once("::").unwrap_or(("", path));
        format!("use {above} as elsewhere; fn planted() {{ elsewhere::{name}(); }}")
    },
    |path| format!("#[cfg(test)] mod before {{}} use {path};"),
    |path| format!("impl Planted {{ const PLANTED: Option<{path}> = None; }}"),
];

/// Something was planted at `path`, and nothing else is wrong.
fn is_seen(wrong: &[String], path: &str, rule: &str) {
    let is_named = |line: &String| line.starts_with(&format!("{path}:")) && line.contains(rule);
    assert!(!wrong.is_empty() && wrong.iter().all(is_named), "not only {path} and {rule}: {wrong:#?}");
}

#[test]
fn a_forbidden_crate_is_seen_in_every_crate() {
    let mut tree = tree();
    for (krate, form) in CRATES.iter().zip(FORMS.iter().cycle()) {
        let known =
            |package: &String| krate.knows.iter().chain(krate.tests_know).any(|known| known == package);
        let file = tree.root(krate.folder);
        let own = tree.package(krate.folder);
        // Not one whose name a module may have as well.
        let mut others = tree.packages().into_iter().filter(|(package, _)| package.starts_with("adit-"));
        let other = others.find(|(package, _)| *package != own && !known(package));
        let (package, ident) = other.unwrap();
        let mut planted = tree.clone();
        planted.add(&file, &form(&format!("{ident}::planted")));
        is_seen(&planted.violations_of(krate), &file, &format!("CRATES does not allow {package}"));
    }
}

#[test]
fn a_forbidden_crate_is_seen_in_every_crate_of_the_workspaces_beside() {
    let tree = tree();
    for rule in BESIDE {
        let (mut beside, crates) = tree.beside(root(), rule);
        for (krate, form) in crates.iter().zip(FORMS.iter().cycle()) {
            let file = beside.root(krate.folder);
            for (path, rule) in [
                ("adit_oci::planted", "CRATES does not allow adit-oci"),
                ("wasmtime::planted", "which KEPT_TO"),
            ] {
                let mut planted = beside.clone();
                planted.add(&file, &form(path));
                is_seen(&planted.violations_of(krate), &file, rule);
            }
        }
    }
}

#[test]
fn a_forbidden_module_is_seen_in_ten_modules() {
    let mut tree = tree();
    for krate in CRATES {
        let Some(modules) = krate.modules else { continue };
        let files = tree.modules(krate.folder);
        let step = modules.len() / 5;
        for ((module, allowed, _), form) in modules.iter().step_by(step).take(5).zip(FORMS.iter().cycle()) {
            let (file, own) = files.iter().find(|(_, own)| line(modules, own) == Some(*module)).unwrap();
            let may_know = |other: &str| {
                let mut known = allowed.iter().chain([module]);
                known.any(|known| is_within(known, other) || is_within(other, known))
            };
            let (other, ..) = modules.iter().find(|(other, ..)| !may_know(other)).unwrap();
            let rule = format!("{} does not allow that to `{module}`", krate.table);
            // From the root, and from where the file stands.
            let up = "super::".repeat(own.split("::").count());
            for path in [format!("crate::{other}::planted"), format!("{up}{other}::planted")] {
                let mut planted = tree.clone();
                planted.add(file, &form(&path));
                is_seen(&planted.violations_of(krate), file, &rule);
            }
        }
    }
}

/// The line of the table that speaks for a module.
fn line(modules: &[Module], module: &str) -> Option<&'static str> {
    let lines = modules.iter().filter(|(name, ..)| is_within(module, name));
    lines.max_by_key(|(name, ..)| name.len()).map(|(name, ..)| *name)
}

fn krate(folder: &str) -> &'static Crate {
    CRATES.iter().find(|krate| krate.folder == folder).unwrap()
}

#[test]
fn what_is_kept_to_a_place_is_seen_elsewhere() {
    let mut tree = tree();
    for (folder, text, rule) in [
        ("edge", "use wasmtime::Engine;", "wasmtime::Engine, which KEPT_TO"),
        ("edge", "use adit_oci::Reference;", "CRATES does not allow adit-oci"),
        (
            "host",
            "fn planted() { rusqlite::Connection::open() }",
            "rusqlite::Connection::open, which KEPT_TO",
        ),
        ("cli", "extern crate h2 as frames;", "h2, which KEPT_TO"),
        ("protocol", "use std::{fs::{self, File}, io};", "protocol is pure"),
        ("protocol", "use std as core; use core::time::Instant;", "protocol is pure"),
        ("edge", "fn planted() { let _ = http::StatusCode::BAD_GATEWAY; }", "makes the status BAD_GATEWAY"),
    ] {
        let file = &tree.root(folder);
        let mut planted = tree.clone();
        planted.add(file, text);
        is_seen(&planted.violations_of(krate(folder)), file, rule);
    }
}

#[test]
fn every_table_of_a_manifest_and_every_other_name_is_seen() {
    let mut tree = tree();
    let file = "edge/Cargo.toml";
    for (text, rule) in [
        ("[dependencies.adit-oci]\npath = \"../registry\"", "CRATES does not allow"),
        ("[build-dependencies]\nwasmtime = \"1\"", "[build-dependencies] has wasmtime, which KEPT_TO"),
        (
            "[target.'cfg(unix)'.dependencies]\nengine = { package = \"wasmtime\", version = \"1\" }",
            "KEPT_TO",
        ),
        ("[dev-dependencies.other]\npackage = \"adit-host\"\npath = \"../host\"", "CRATES does not allow"),
    ] {
        let mut planted = tree.clone();
        planted.add(file, text);
        is_seen(&planted.violations_of(krate("edge")), file, rule);
    }
    // What has another name in the manifest is known by it in the code.
    let source = &tree.root("edge");
    tree.add(file, "[target.'cfg(unix)'.dependencies]\nengine = { package = \"wasmtime\", version = \"1\" }");
    tree.add(source, "use engine::Store;");
    let wrong = tree.violations_of(krate("edge"));
    assert!(
        wrong.iter().any(|line| line.starts_with(source) && line.contains("wasmtime::Store")),
        "{wrong:?}"
    );
}

#[test]
fn what_is_in_no_table_is_said_to_be_missing_there() {
    let mut tree = tree();
    let mut planted = tree.clone();
    planted.plant("edge/src/planted.rs", "");
    is_seen(&planted.violations_of(krate("edge")), "edge/src/planted.rs", "no target of edge has this file");
    planted.add("edge/src/lib.rs", "mod planted;");
    is_seen(
        &planted.violations_of(krate("edge")),
        "edge/src/planted.rs",
        "in no line of EDGE: say in tests/layering/edge.rs",
    );
    tree.plant_member("planted", "[package]\nname = \"planted\"");
    is_seen(&tree.violations(), "planted/Cargo.toml", "in no line of CRATES: say in tests/layering.rs");
}
