//! Who may know whom: the directions of ARCHITECTURE.md. This file holds the table of
//! crates, `layering/engine.rs`, `host.rs` and `edge.rs` those of modules: `layering/guard.rs` holds every manifest
//! and every source file against them, `layering/planted.rs` sees to it that it does.
//!
//! A new crate stands in [`CRATES`], a new module of the engine in [`ENGINE`], one of the host in [`HOST`], one
//! of the edge in [`EDGE`]; a new workspace stands in [`BESIDE`].

// Every line here is part of a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// The forms of Rust are an open set in the library that reads them.
#![allow(clippy::wildcard_enum_match_arm)]

#[path = "layering/edge.rs"]
mod edge;
#[path = "layering/engine.rs"]
mod engine;
#[path = "layering/guard.rs"]
mod guard;
#[path = "layering/host.rs"]
mod host;
#[path = "layering/imports.rs"]
mod imports;
#[path = "layering/manifest.rs"]
mod manifest;
#[path = "layering/planted.rs"]
mod planted;

use std::path::Path;
use std::sync::LazyLock;

use edge::EDGE;
use engine::ENGINE;
use guard::Tree;
use host::HOST;

/// A crate, and what it may name of ours.
#[derive(Clone, Copy)]
struct Crate {
    folder: &'static str,
    /// Packages of ours.
    knows: &'static [&'static str],
    /// What its tests may name besides.
    tests_know: &'static [&'static str],
    /// It does without what [`IMPURE`] lists.
    is_pure: bool,
    /// Its modules, and the name of their table here.
    modules: Option<&'static [Module]>,
    table: &'static str,
}

/// A module, what it may know of the others of its crate, and what it must not know besides. The most exact
/// line counts; it speaks for all modules below.
type Module = (&'static str, &'static [&'static str], &'static [&'static str]);

const fn krate(folder: &'static str, knows: &'static [&'static str]) -> Crate {
    Crate { folder, knows, tests_know: &[], is_pure: false, modules: None, table: "" }
}

const CRATES: &[Crate] = &[
    Crate { is_pure: true, ..krate("protocol", &[]) },
    Crate { is_pure: true, ..krate("address", &[]) },
    Crate { is_pure: true, ..krate("config-reader", &[]) },
    krate("pace", &[]),
    Crate { is_pure: true, ..krate("balance", &[]) },
    krate("inspector", &[]),
    krate("metrics", &[]),
    krate("pages", &[]),
    krate("compile-cache", &[]),
    krate("files", &[]),
    Crate { is_pure: true, ..krate("shelf", &[]) },
    krate("trust", &["adit-files"]),
    Crate { is_pure: true, ..krate("rules", &["adit-config-reader"]) },
    krate("oci", &["adit-files", "adit-rules", "adit-trust"]),
    krate("net", &["adit-trust"]),
    krate("traces", &["adit-net"]),
    Crate {
        modules: Some(ENGINE),
        table: "ENGINE",
        ..krate("engine", &["adit-compile-cache", "adit-net", "adit-rules"])
    },
    Crate {
        modules: Some(HOST),
        table: "HOST",
        ..krate(
            "host",
            &[
                "adit-trust",
                "adit-protocol",
                "adit-address",
                "adit-config-reader",
                "adit-compile-cache",
                "adit-engine",
                "adit-files",
                "adit-inspector",
                "adit-metrics",
                "adit-net",
                "adit-pace",
                "adit-pages",
                "adit-rules",
                "adit-oci",
                "adit-shelf",
                "adit-traces",
            ],
        )
    },
    Crate {
        modules: Some(EDGE),
        table: "EDGE",
        ..krate(
            "edge",
            &[
                "adit-balance",
                "adit-protocol",
                "adit-address",
                "adit-config-reader",
                "adit-files",
                "adit-metrics",
                "adit-net",
                "adit-pace",
                "adit-pages",
                "adit-rules",
                "adit-traces",
            ],
        )
    },
    krate(
        "cli",
        &[
            "adit-trust",
            "adit-protocol",
            "adit-address",
            "adit-config-reader",
            "adit-engine",
            "adit-files",
            "adit-host",
            "adit-edge",
            "adit-net",
            "adit-oci",
            "adit-rules",
            "adit-shelf",
        ],
    ),
    krate("release", &["adit-oci"]),
    krate("tests", &["adit-protocol", "adit-oci", "adit-release"]),
    Crate { tests_know: &["adit-protocol", "e2e"], ..krate("bench", &[]) },
    krate("bench/plugins", &["adit-engine", "adit-rules"]),
    krate("xtask", &[]),
];

/// Workspaces beside this one, and what each of their members may name of ours.
const BESIDE: &[Crate] = &[
    krate("plugins", &["adit-address", "jose", "settings"]),
    krate("fuzz", &["adit-balance", "adit-edge", "adit-engine", "adit-host", "adit-protocol", "adit-rules"]),
];

/// A dependency, and the only files that may name it; a folder ends in a slash. Tests are free.
const KEPT_TO: &[(&str, &[&str])] = &[
    ("wasmtime", &["compile-cache/src/", "engine/src/", "bench/plugins/src/"]),
    ("wasmtime_wasi", &["engine/src/"]),
    ("wasmtime_wasi_http", &["engine/src/"]),
    (
        "capnp_rpc",
        &[
            "host/src/tunnel/control.rs",
            "edge/src/tunnel/control.rs",
            "tests/src/stand_in.rs",
            "tests/src/stand_in/",
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
            "edge/src/transport/http2.rs",
            "edge/src/transport/http2/",
            "net/src/unread.rs",
            "tests/src/stand_in/",
        ],
    ),
    ("hickory_proto", &["edge/src/dns/message.rs"]),
    ("hickory_resolver", &["host/src/tunnel/discovery/", "edge/src/issuance/ahead.rs"]),
    ("clap", &["cli/src/"]),
    ("instant_acme", &["edge/src/issuance/"]),
    ("prost", &["edge/src/store/etcd.rs", "edge/src/store/etcd/"]),
    ("rusqlite", &["edge/src/store/"]),
    ("rustls_native_certs", &["trust/src/"]),
    ("webpki", &["trust/src/"]),
];

/// What a pure crate does without: I/O, clock, tasks, logging.
const IMPURE: &[&str] = &[
    "tokio",
    "quinn",
    "hyper",
    "rustls",
    "tracing",
    "capnp_rpc",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Where failures become statuses, besides the admin APIs and what the edge itself asks a host.
const STATUSES: &[(&str, &[&str])] = &[
    (
        "host/src",
        &[
            "host/src/proxy/respond.rs",
            "host/src/admin.rs",
            "host/src/admin/config.rs",
            "host/src/admin/explain.rs",
            "host/src/admin/ui.rs",
            "host/src/admin/ui/replay.rs",
            "host/src/tunnel/notice.rs",
            "host/src/management.rs",
        ],
    ),
    (
        "edge/src",
        &[
            "edge/src/visitor/error_page.rs",
            "edge/src/admin.rs",
            "edge/src/admin/config.rs",
            "edge/src/admin/explain.rs",
            "edge/src/admin/ui.rs",
            "edge/src/admin/ui/nodes.rs",
            "edge/src/peers/asked.rs",
            "edge/src/api/management.rs",
            "edge/src/api/envelope.rs",
        ],
    ),
];

#[test]
fn crates_and_modules_know_only_those_below_them() {
    let mut tree = tree();
    let mut wrong = tree.violations();
    for (mut tree, crates) in BESIDE.iter().map(|rule| tree.beside(root(), rule)) {
        wrong.extend(crates.iter().flat_map(|krate| tree.violations_of(krate)));
    }
    assert!(
        wrong.is_empty(),
        "{} breaches of the tables in tests/layering.rs:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// The workspace, read once.
fn tree() -> Tree {
    static TREE: LazyLock<Tree> = LazyLock::new(|| {
        let mut tree = Tree::load(root());
        // From here on copies know what was read.
        tree.violations();
        tree
    });
    TREE.clone()
}
