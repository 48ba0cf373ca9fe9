//! Who may know whom: the directions of ARCHITECTURE.md, read from manifests and imports.

// Every line here is part of a test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A crate, and which of ours it may name.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("document", &[]),
    ("code", &[]),
    ("registry", &[]),
    ("host", &["adit-protocol", "adit-document", "adit-code", "adit-registry"]),
    ("edge", &["adit-protocol", "adit-document"]),
    ("cli", &["adit-protocol", "adit-host", "adit-edge", "adit-registry"]),
    ("tests", &["adit-protocol", "adit-host", "adit-edge", "adit-registry"]),
    ("bench", &[]),
    ("bench/plugins", &["adit-host"]),
    ("xtask", &[]),
];

/// A dependency, and the only files that may name it; a folder ends in a slash. `tests/` as a whole
/// is free but for what it may depend on: its stand-in edge needs an RPC system of its own.
const KEPT_TO: &[(&str, &[&str])] = &[
    ("wasmtime", &["code/src/", "host/src/plugin/", "bench/plugins/src/"]),
    ("wasmtime_wasi", &["host/src/plugin/"]),
    ("wasmtime_wasi_http", &["host/src/plugin/"]),
    (
        "capnp_rpc",
        &[
            "host/src/tunnel/control.rs",
            "edge/src/tunnel/control.rs",
            "tests/src/stand_in.rs",
            "bench/src/scale/connector.rs",
        ],
    ),
    (
        "h2",
        &[
            "host/src/origin/http2.rs",
            "host/src/origin/replay.rs",
            "host/src/tunnel/http2.rs",
            "host/src/tunnel/http2/",
            "edge/src/tunnel/http2.rs",
            "edge/src/tunnel/http2/",
        ],
    ),
    ("hickory_resolver", &["host/src/tunnel/discovery/"]),
    ("clap", &["cli/src/"]),
    ("rusqlite", &["edge/src/store/"]),
];

/// What a pure crate does without: I/O, clock, tasks, logging.
const IMPURE: &[&str] = &[
    "tokio",
    "quinn",
    "hyper",
    "rustls",
    "tracing",
    "capnp-rpc",
    "std::net::TcpStream",
    "std::fs",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// A module of the host, what it may know of the others, and what it must not know besides.
const MODULES: &[(&str, &[&str], &[&str])] = &[
    ("config::document", &[], &["tokio", "wasmtime", "http", "std::fs"]),
    ("config::plan", &["config"], &["tokio", "wasmtime", "hyper", "quinn", "std::fs", "std::net"]),
    ("config::source", &[], &["wasmtime", "adit_document"]),
    ("config::files", &[], &["tokio", "wasmtime", "std::fs"]),
    ("config", &["config", "settings"], &["wasmtime", "hyper", "quinn", "tracing"]),
    ("settings", &["config", "tunnel::state::Protocol"], &["wasmtime", "hyper", "quinn"]),
    ("route", &["config::plan"], &["wasmtime", "hyper", "tokio", "tracing"]),
    ("outbound", &["outbound", "config::grants"], &["wasmtime", "quinn", "tracing", "std::fs"]),
    (
        "plugin",
        &["plugin", "config::plan", "config::grants", "outbound"],
        &["hyper", "quinn", "std::fs", "tokio::fs"],
    ),
    ("origin", &["origin", "config::plan"], &["wasmtime", "quinn", "capnp"]),
    (
        "generation",
        &["config::plan", "config::grants", "report", "route", "plugin", "origin", "tenure"],
        &["tokio", "quinn", "hyper", "adit_document"],
    ),
    ("tenure", &[], &["tokio", "quinn", "hyper", "http", "tracing", "wasmtime"]),
    ("history", &["history"], &["tokio", "quinn", "hyper", "http", "wasmtime"]),
    (
        "reload",
        &[
            "config",
            "settings",
            "generation",
            "history",
            "plugin::Engine",
            "proxy::Current",
            "supply",
            "tenure::Tenures",
        ],
        &["http", "hyper", "capnp", "quinn"],
    ),
    ("watch", &["reload", "history::Source"], &["http", "hyper", "capnp", "quinn", "wasmtime"]),
    (
        "start",
        &["config", "settings", "generation", "history", "plugin::Engine", "reload"],
        &["http", "hyper", "capnp", "quinn"],
    ),
    (
        "supply",
        &["config", "settings", "plugin::LARGEST_COMPONENT"],
        &["http", "hyper", "capnp", "quinn", "wasmtime"],
    ),
    ("report", &["config::plan"], &["tokio", "quinn"]),
    ("health::readiness", &["proxy::probe", "tunnel::status"], &["tokio", "http", "tracing"]),
    ("health", &["health", "proxy::probe", "tunnel"], &["http", "hyper", "wasmtime", "quinn", "capnp"]),
    ("proxy::respond", &["plugin", "origin"], &["tokio", "quinn", "hyper", "wasmtime"]),
    (
        "proxy",
        &["proxy", "generation", "plugin", "origin", "route", "tenure"],
        &["quinn", "hyper", "capnp", "wasmtime", "std::fs"],
    ),
    // They are told what time it is.
    ("tunnel::state", &["tunnel::status"], &["tokio", "quinn", "tracing", "adit_protocol", "fastrand"]),
    ("tunnel::suspicion", &[], &["tokio", "quinn", "tracing", "fastrand"]),
    (
        "tunnel::quic",
        &[
            "tunnel::control",
            "tunnel::handler",
            "tunnel::status::QuicPath",
            "tunnel::suspicion",
            "proxy",
            "origin",
        ],
        &["capnp", "capnp_rpc", "fastrand"],
    ),
    (
        "tunnel::http2",
        &["tunnel::control", "tunnel::handler", "tunnel::suspicion", "proxy", "origin"],
        &["capnp", "capnp_rpc", "fastrand", "quinn"],
    ),
    (
        "tunnel::handler",
        &["tunnel::notice", "tunnel::slot::Shared", "proxy", "origin"],
        &["quinn", "h2", "tokio"],
    ),
    ("tunnel::notice", &["tunnel::slot", "tunnel::status", "proxy", "origin"], &["quinn", "h2"]),
    ("tunnel::control", &["proxy"], &["http", "hyper", "quinn"]),
    (
        "tunnel::discovery::addresses",
        &["tunnel::state"],
        &["tokio", "tracing", "hickory_resolver", "fastrand", "std::time::SystemTime"],
    ),
    (
        "tunnel::discovery",
        &["tunnel::discovery", "tunnel::state", "settings"],
        &["adit_protocol", "quinn", "h2", "http"],
    ),
    ("tunnel", &["tunnel", "proxy"], &["capnp_rpc", "hyper", "wasmtime"]),
    ("control::guard", &[], &["tokio", "hyper"]),
    (
        "control",
        &[
            "control",
            "health",
            "plugin::Number",
            "proxy",
            "tunnel",
            "reload",
            "history::Source",
            "config::source",
            "generation",
            "report",
            "settings",
            "tenure",
        ],
        &["wasmtime", "quinn", "capnp"],
    ),
];

/// Where failures become statuses, besides the admin APIs and what the edge itself asks a host.
const STATUSES: &[(&str, &[&str])] = &[
    (
        "host/src",
        &[
            "host/src/proxy/respond.rs",
            "host/src/control.rs",
            "host/src/control/config.rs",
            "host/src/control/explain.rs",
            "host/src/tunnel/notice.rs",
        ],
    ),
    (
        "edge/src",
        &["edge/src/pages.rs", "edge/src/admin.rs", "edge/src/admin/config.rs", "edge/src/api/envelope.rs"],
    ),
];

#[test]
fn crates_depend_only_on_those_below_them() {
    for (name, allowed) in CRATES {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies =
            manifest.split("\n[dependencies]").nth(1).unwrap_or_default().split("\n[").next().unwrap();
        for line in dependencies.lines().filter(|line| !line.starts_with('#') && line.contains('=')) {
            let dependency = line.split(['.', ' ', '=']).next().unwrap();
            let ours = ["adit-protocol", "adit-document", "adit-code", "adit-host", "adit-edge"]
                .contains(&dependency);
            assert!(!ours || allowed.contains(&dependency), "{name} depends on {dependency}");
            assert!(*name != "protocol" || !IMPURE.contains(&dependency), "{name} depends on {dependency}");
            let is_kept = KEPT_TO.iter().find(|(kept, _)| kept.replace('_', "-") == dependency);
            let prefix = format!("{name}/");
            let is_theirs =
                is_kept.is_none_or(|(_, files)| files.iter().any(|file| file.starts_with(&prefix)));
            assert!(is_theirs, "{name} depends on {dependency}");
        }
    }
}

#[test]
fn what_is_kept_to_a_file_is_named_nowhere_else() {
    for (name, _) in CRATES {
        for (file, paths) in sources(name) {
            for (kept, files) in KEPT_TO {
                let is_home =
                    files.iter().any(|home| file == *home || (home.ends_with('/') && file.starts_with(home)));
                let named = paths.iter().find(|path| is_within(path, kept));
                assert!(is_home || named.is_none(), "{file} names {}", named.unwrap());
            }
            let impure =
                paths.iter().find(|path| IMPURE.iter().any(|word| is_within(path, &word.replace('-', "_"))));
            assert!(*name != "protocol" || impure.is_none(), "{file} names {}", impure.unwrap());
        }
    }
}

#[test]
fn modules_of_the_host_know_only_those_below_them() {
    let mut seen = BTreeSet::new();
    for (file, paths) in sources("host") {
        let module = module(&file);
        // `app` wires and may know all; the most exact line of the table counts.
        let Some((name, allowed, forbidden)) = MODULES.iter().find(|(name, ..)| is_within(&module, name))
        else {
            assert!(["", "app"].contains(&module.as_str()), "{file} is in no line of the table");
            continue;
        };
        seen.insert(*name);
        for path in &paths {
            assert!(!forbidden.iter().any(|word| is_within(path, word)), "{file} names {path}");
            let Some(known) = path.strip_prefix("crate::") else { continue };
            let is_allowed =
                is_within(known, name) || allowed.iter().any(|allowed| is_within(known, allowed));
            assert!(is_allowed, "{file} ({name}) names {path}");
        }
    }
    assert_eq!(seen.len(), MODULES.len(), "a line of the table is about nothing: {seen:?}");
}

#[test]
fn failures_become_statuses_in_one_file_on_each_side() {
    let statuses =
        ["BAD_GATEWAY", "GATEWAY_TIMEOUT", "INTERNAL_SERVER_ERROR", "SERVICE_UNAVAILABLE", "NOT_FOUND"];
    for (folder, homes) in STATUSES {
        for (file, paths) in sources(folder.split('/').next().unwrap()) {
            let built = paths
                .iter()
                .find(|path| statuses.iter().any(|status| path.ends_with(&format!("::{status}"))));
            assert!(homes.contains(&file.as_str()) || built.is_none(), "{file} builds {}", built.unwrap());
        }
    }
}

#[test]
fn every_form_of_a_path_is_read() {
    let text = "use super::slot::{self, Slot, x::{Y, Z}};\nuse crate::proxy;\nfn f() -> crate::route::Routes { quinn::VarInt::from(0) }";
    let mut paths = BTreeSet::new();
    read_paths(text, "tunnel::quic", &mut paths);
    let wanted = ["tunnel::slot::Slot", "tunnel::slot::x::Y", "tunnel::slot::x::Z", "proxy", "route::Routes"];
    for path in
        wanted.map(|path| format!("crate::{path}")).iter().map(String::as_str).chain(["quinn::VarInt::from"])
    {
        assert!(paths.contains(path), "{path} is not in {paths:?}");
    }
    assert_eq!(
        (module("host/src/tunnel/mod.rs"), module("host/src/lib.rs")),
        ("tunnel".into(), String::new())
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every source file of a crate, without its tests, with the paths that it names; those that lead
/// into the crate begin with `crate::`.
fn sources(krate: &str) -> Vec<(String, BTreeSet<String>)> {
    let (mut folders, mut found) = (vec![root().join(krate).join("src")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let is_test = ["tests", "tests.rs"].iter().any(|name| entry.ends_with(name));
            if entry.is_dir() && !is_test {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") && !is_test {
                let text = fs::read_to_string(&entry).unwrap();
                let file = entry.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                let text = text.split("#[cfg(test)]").next().unwrap();
                let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
                let mut paths = BTreeSet::new();
                read_paths(&lines.collect::<Vec<_>>().join("\n"), &module(&file), &mut paths);
                found.push((file, paths));
            }
        }
    }
    assert!(found.len() > 1, "{krate} has no sources");
    found
}

/// `host/src/tunnel/quic.rs` is `tunnel::quic`; the root of a crate is empty.
fn module(file: &str) -> String {
    let path = file.split_once("src/").unwrap().1.trim_end_matches(".rs");
    let path = path.trim_end_matches("/mod").replace('/', "::");
    if ["lib", "main", "mod"].contains(&path.as_str()) { String::new() } else { path }
}

fn is_within(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Adds every `a::b` of the text, groups in braces spelled out.
fn read_paths(text: &str, module: &str, paths: &mut BTreeSet<String>) {
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let mut rest = text;
    while let Some(at) = rest.find("::") {
        let start = rest[..at].rfind(|c| !is_part(c)).map_or(0, |before| before + 1);
        let end = rest[at..].find(|c| !is_part(c)).map_or(rest.len(), |length| at + length);
        let path = rest[start..end].trim_start_matches(':');
        rest = &rest[end..];
        match path.strip_suffix("::") {
            Some(prefix) if rest.starts_with('{') => rest = read_group(prefix, &rest[1..], module, paths),
            _ => drop(paths.insert(absolute(path, module))),
        }
    }
}

/// Adds the members of a group whose brace has just been opened; hands back what follows it.
fn read_group<'a>(prefix: &str, text: &'a str, module: &str, paths: &mut BTreeSet<String>) -> &'a str {
    let mut rest = text;
    loop {
        let Some(end) = rest.find(['{', ',', '}']) else { return "" };
        let member = format!("{prefix}::{}", rest[..end].trim());
        let (stop, after) = (rest.as_bytes()[end], &rest[end + 1..]);
        rest = match stop {
            b'{' => read_group(member.trim_end_matches("::"), after, module, paths),
            _ => after,
        };
        paths.insert(absolute(member.trim_end_matches("::"), module));
        if stop == b'}' {
            return rest;
        }
    }
}

/// `super::` and `self::` counted from where they stand.
fn absolute(path: &str, module: &str) -> String {
    let mut here: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts = path.split("::").peekable();
    let is_relative = matches!(parts.peek(), Some(&("super" | "self")));
    while let Some(step) = parts.next_if(|part| ["super", "self"].contains(part)) {
        if step == "super" {
            here.pop();
        }
    }
    if !is_relative {
        return path.to_owned();
    }
    here.extend(parts);
    format!("crate::{}", here.join("::"))
}
