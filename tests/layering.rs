//! Who may know whom: the directions of ARCHITECTURE.md. This file holds the tables: `layering/guard.rs`
//! holds every manifest and every source file against them, `layering/planted.rs` sees to it that it does.
//!
//! A new crate stands in [`CRATES`], a new module of the host in [`HOST`], one of the edge in [`EDGE`].

// Every line here is part of a test.
#![allow(clippy::unwrap_used, clippy::expect_used)]
// The forms of Rust are an open set in the library that reads them.
#![allow(clippy::wildcard_enum_match_arm)]

#[path = "layering/guard.rs"]
mod guard;
#[path = "layering/imports.rs"]
mod imports;
#[path = "layering/manifest.rs"]
mod manifest;
#[path = "layering/planted.rs"]
mod planted;

use std::path::Path;
use std::sync::LazyLock;

use guard::Tree;

/// A crate, and what it may name of ours.
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
    Crate { is_pure: true, ..krate("document", &[]) },
    krate("pace", &[]),
    krate("code", &[]),
    krate("files", &[]),
    krate("trust", &["adit-files"]),
    Crate { is_pure: true, ..krate("rules", &["adit-document"]) },
    krate("registry", &["adit-files", "adit-rules", "adit-trust"]),
    krate("net", &[]),
    Crate {
        modules: Some(HOST),
        table: "HOST",
        ..krate(
            "host",
            &[
                "adit-trust",
                "adit-protocol",
                "adit-address",
                "adit-document",
                "adit-code",
                "adit-files",
                "adit-net",
                "adit-pace",
                "adit-rules",
                "adit-registry",
            ],
        )
    },
    Crate {
        modules: Some(EDGE),
        table: "EDGE",
        ..krate(
            "edge",
            &[
                "adit-protocol",
                "adit-address",
                "adit-document",
                "adit-files",
                "adit-net",
                "adit-pace",
                "adit-rules",
            ],
        )
    },
    krate(
        "cli",
        &[
            "adit-trust",
            "adit-protocol",
            "adit-address",
            "adit-document",
            "adit-files",
            "adit-host",
            "adit-edge",
            "adit-net",
            "adit-registry",
            "adit-rules",
        ],
    ),
    krate("tests", &["adit-protocol", "adit-registry"]),
    Crate { tests_know: &["adit-protocol", "e2e"], ..krate("bench", &[]) },
    krate("bench/plugins", &["adit-host"]),
    krate("xtask", &[]),
];

/// A dependency, and the only files that may name it; a folder ends in a slash. Tests are free.
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
            "edge/src/tunnel/http2.rs",
            "edge/src/tunnel/http2/",
            "tests/src/stand_in/",
        ],
    ),
    ("hickory_resolver", &["host/src/tunnel/discovery/"]),
    ("clap", &["cli/src/"]),
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

/// The modules of the host.
const HOST: &[Module] = &[
    ("config::source", &[], &["wasmtime", "adit_document"]),
    ("config", &["config", "settings"], &["wasmtime", "hyper", "quinn", "tracing"]),
    (
        "settings",
        &["config", "history::History", "tunnel::state::Protocol", "tunnel::trust"],
        &["wasmtime", "hyper", "quinn"],
    ),
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
        &["config::plan", "config::grants", "route", "plugin", "origin", "tenure"],
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
            "reader",
            "supply",
            "tenure::Tenures",
        ],
        &["http", "hyper", "capnp", "quinn"],
    ),
    ("watch", &["reload", "history::Source"], &["http", "hyper", "capnp", "quinn", "wasmtime"]),
    (
        "start",
        &["config", "settings", "generation", "history", "plugin::Engine", "reader", "reload"],
        &["http", "hyper", "capnp", "quinn"],
    ),
    ("reader", &["config::source"], &["tokio", "http", "hyper", "capnp", "quinn", "wasmtime"]),
    (
        "supply",
        &["config", "settings", "plugin::LARGEST_COMPONENT"],
        &["http", "hyper", "capnp", "quinn", "wasmtime"],
    ),
    ("health::readiness", &["proxy::probe", "tunnel::status"], &["tokio", "http", "tracing"]),
    (
        "health",
        &["health", "proxy::Current", "proxy::probe", "tunnel"],
        &["http", "hyper", "wasmtime", "quinn", "capnp"],
    ),
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
            "tunnel::pace",
            "tunnel::status::QuicPath",
            "tunnel::suspicion",
            "proxy",
            "origin",
        ],
        &["capnp", "capnp_rpc", "fastrand"],
    ),
    (
        "tunnel::http2",
        &["tunnel::control", "tunnel::handler", "tunnel::pace", "tunnel::suspicion", "proxy", "origin"],
        &["capnp", "capnp_rpc", "fastrand", "quinn"],
    ),
    (
        "tunnel::handler",
        &["tunnel::notice", "tunnel::pace", "tunnel::slot::Shared", "proxy", "origin"],
        &["quinn", "h2", "tokio"],
    ),
    ("tunnel::notice", &["tunnel::slot", "tunnel::status", "proxy", "origin"], &["quinn", "h2"]),
    ("tunnel::pace", &["origin"], &["quinn", "h2", "hyper", "adit_protocol"]),
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
            "settings",
            "tenure",
        ],
        &["wasmtime", "quinn", "capnp"],
    ),
];

/// The modules of the edge.
const EDGE: &[Module] = &[
    ("activity", &["pace::Share", "visitor::Source"], &["hyper", "quinn"]),
    (
        "admin",
        &[
            "registry",
            "retry::Counts",
            "settings",
            "state::State",
            "stop",
            "store",
            "tunnel::control::Control",
            "tunnel::push",
            "warm_up",
        ],
        &["quinn", "h2", "capnp"],
    ),
    (
        "api",
        &[
            "presence",
            "registry::Registry",
            "serving::Fixed",
            "state",
            "store",
            "tunnel::push",
            "visitor::HostName",
        ],
        &["quinn", "h2", "capnp"],
    ),
    ("certificates", &[], &["tokio", "hyper", "quinn", "http"]),
    ("fleet", &[], &["tokio", "hyper", "quinn", "capnp"]),
    (
        "forward",
        &[
            "activity",
            "headers",
            "hold",
            "liveness",
            "pace",
            "ray::Ray",
            "registry",
            "retry",
            "stickiness::Key",
            "tunnel::http2",
            "tunnel::link",
        ],
        &["capnp", "rustls", "std::fs", "std::net", "tokio::net"],
    ),
    ("headers", &["ray::Ray"], &["tokio", "quinn", "tracing"]),
    ("hold", &[], &["tokio", "hyper", "quinn", "http", "tracing"]),
    (
        "ledger",
        &["api::identity", "api::name", "certificates", "state::snapshot", "store", "visitor::HostName"],
        &["hyper", "quinn"],
    ),
    ("liveness", &[], &["hyper", "quinn", "h2", "http", "tracing"]),
    ("pace", &[], &["hyper", "quinn", "http"]),
    ("pages", &["headers", "ray::Ray"], &["tokio", "quinn", "tracing"]),
    ("presence", &["registry", "store::moment"], &["hyper", "quinn", "h2", "http"]),
    ("ray", &[], &["tokio", "quinn", "tracing"]),
    // Numbers in, a number out: chance is handed in.
    ("registry::selection", &["registry::shares"], &["tokio", "tracing", "std::time", "fastrand"]),
    ("registry::shares", &[], &["tokio", "tracing"]),
    (
        "registry",
        &[
            "fleet::Fleet",
            "hold",
            "liveness::Liveness",
            "retry::Retries",
            "settings",
            "stickiness",
            "tunnel::link::Link",
        ],
        &["quinn", "h2", "http", "hyper", "capnp", "std::fs"],
    ),
    ("retry", &[], &["tokio", "hyper", "quinn", "http", "tracing"]),
    (
        "serving",
        &["registry", "state::snapshot", "tunnel::control::Control", "tunnel::push", "visitor"],
        &["quinn", "h2", "http", "hyper", "capnp"],
    ),
    (
        "settings",
        &["certificates", "forward::Patience", "stickiness", "visitor"],
        &["tokio", "quinn", "hyper", "http", "tracing"],
    ),
    (
        "shard",
        &[
            "certificates::Seed",
            "forward::Patience",
            "ray::Rays",
            "registry::Registry",
            "settings",
            "stop",
            "tunnel::control::Control",
            "tunnel::http2",
            "tunnel::quic",
            "tunnel::reception",
            "visitor",
        ],
        &["hyper", "http", "capnp"],
    ),
    ("sockets", &[], &["hyper", "http", "quinn"]),
    ("state", &["store"], &["quinn", "h2", "http", "hyper"]),
    ("stickiness", &[], &["tokio", "quinn", "hyper", "tracing"]),
    ("stop", &[], &["hyper", "quinn", "http", "tracing"]),
    ("store", &[], &["quinn", "h2", "http", "hyper"]),
    ("threads", &["shard::Milestone"], &["hyper", "quinn", "http"]),
    ("tunnel::control", &["tunnel::registrar"], &["http", "hyper", "quinn", "h2"]),
    (
        "tunnel::http2",
        &["certificates::PROBE_NAME", "liveness", "tunnel::control", "tunnel::link", "tunnel::reception"],
        &["capnp", "quinn", "hyper"],
    ),
    (
        "tunnel::link",
        &["liveness::Signs", "tunnel::http2"],
        &["http", "hyper", "h2", "capnp", "tokio", "tracing"],
    ),
    (
        "tunnel::notice",
        &["registry", "stop::Moment", "tunnel::http2", "tunnel::link"],
        &["h2", "capnp", "hyper"],
    ),
    ("tunnel::push", &["fleet", "registry", "tunnel::control", "tunnel::link"], &["h2", "capnp", "hyper"]),
    (
        "tunnel::quic",
        &["certificates", "tunnel::control", "tunnel::link", "tunnel::reception"],
        &["h2", "capnp", "hyper", "http"],
    ),
    (
        "tunnel::reception",
        &[
            "liveness",
            "registry",
            "settings",
            "stop",
            "tunnel::control",
            "tunnel::link",
            "tunnel::notice",
            "tunnel::push",
            "tunnel::registrar",
        ],
        &["quinn", "h2", "capnp", "hyper", "http"],
    ),
    (
        "tunnel::registrar",
        &["registry", "settings", "stop", "tunnel::link"],
        &["quinn", "h2", "capnp", "hyper", "http"],
    ),
    ("tunnel", &[], &["tokio"]),
    ("visitor::directory", &["registry::Tunnel", "visitor::names"], &["tokio", "hyper", "http"]),
    ("visitor::line", &["activity", "pages", "ray::Rays"], &["hyper", "tracing", "tokio::net"]),
    ("visitor::names", &[], &["tokio", "hyper", "http", "tracing"]),
    ("visitor::proxies", &[], &["tokio", "hyper", "tracing"]),
    ("visitor::sources", &[], &["tokio", "hyper", "http"]),
    (
        "visitor",
        &["activity", "forward", "headers", "pace", "pages", "ray", "retry::Reason", "sockets", "stop"],
        &["quinn", "h2", "capnp", "std::fs"],
    ),
    ("warm_up", &["registry", "stop::Moment"], &["hyper", "http", "quinn"]),
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
fn crates_and_modules_know_only_those_below_them() {
    let wrong = tree().violations();
    assert!(
        wrong.is_empty(),
        "{} breaches of the tables in tests/layering.rs:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// The workspace, read once.
fn tree() -> Tree {
    static TREE: LazyLock<Tree> = LazyLock::new(|| {
        let mut tree = Tree::load(Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap());
        // From here on copies know what was read.
        tree.violations();
        tree
    });
    TREE.clone()
}
