//! Who may know whom: the directions of ARCHITECTURE.md. This file holds the tables: `layering/guard.rs`
//! holds every manifest and every source file against them, `layering/planted.rs` sees to it that it does.
//!
//! A new crate stands in [`CRATES`], a new module of the engine in [`ENGINE`], one of the host in [`HOST`], one
//! of the edge in [`EDGE`]; a new workspace stands in [`BESIDE`].

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
    krate("metrics", &[]),
    krate("compile-cache", &[]),
    krate("files", &[]),
    Crate { is_pure: true, ..krate("shelf", &[]) },
    krate("trust", &["adit-files"]),
    Crate { is_pure: true, ..krate("rules", &["adit-config-reader"]) },
    krate("oci", &["adit-files", "adit-rules", "adit-trust"]),
    krate("net", &["adit-trust"]),
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
                "adit-metrics",
                "adit-net",
                "adit-pace",
                "adit-rules",
                "adit-oci",
                "adit-shelf",
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
    krate("plugins", &["adit-address", "settings"]),
    krate("fuzz", &["adit-balance", "adit-engine", "adit-host", "adit-protocol", "adit-rules"]),
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
    ("hickory_resolver", &["host/src/tunnel/discovery/"]),
    ("clap", &["cli/src/"]),
    ("instant_acme", &["edge/src/issuance/"]),
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

/// The modules of the engine.
const ENGINE: &[Module] = &[
    ("background", &["bindings", "failure", "member", "meter", "store"], &["hyper"]),
    ("bindings", &[], &["hyper", "tokio"]),
    ("bodies", &["bindings"], &["hyper", "tokio", "wasmtime"]),
    (
        "body_filter",
        &["bindings", "bodies", "chain::Facts", "edit", "failure", "filter", "head"],
        &["hyper", "wasmtime", "std::fs"],
    ),
    ("chain", &["background::Served", "bodies", "edit", "failure", "filter"], &["hyper", "wasmtime"]),
    ("circuit_breaker", &[], &["hyper", "tokio", "wasmtime"]),
    ("clock", &[], &["hyper", "tokio", "http"]),
    ("compiler", &["component", "engine", "failure"], &["hyper", "http"]),
    ("component", &["bindings", "engine", "failure", "imports", "store"], &["hyper", "http"]),
    ("concurrent", &["failure", "imports::handler", "member", "meter", "service", "store"], &["std::fs"]),
    ("counters", &["failure"], &["hyper", "tokio", "wasmtime"]),
    ("yield_policy", &[], &["hyper", "http"]),
    ("edit", &["bindings", "failure"], &["hyper", "tokio", "wasmtime"]),
    ("engine", &["clock", "compiler", "failure", "imports", "persistent", "store"], &["hyper", "http"]),
    ("failure", &["meter", "text"], &["hyper", "http", "tokio"]),
    (
        "filter",
        &[
            "background",
            "bindings",
            "bodies",
            "chain::Facts",
            "compiler",
            "component",
            "counters",
            "edit",
            "engine",
            "failure",
            "head",
            "imports::handler::NextRequest",
            "imports::metrics",
            "member",
            "meter",
            "test_host::TestHost",
            "sandbox",
            "service",
            "store",
            "text",
        ],
        &["hyper", "std::fs"],
    ),
    ("head", &[], &["hyper", "tokio", "wasmtime"]),
    ("imports", &["bindings", "engine", "outbound", "sandbox", "store", "text"], &["std::fs", "tokio::fs"]),
    (
        "inspect",
        &[
            "compiler",
            "component",
            "engine",
            "failure",
            "filter",
            "imports",
            "meter",
            "sandbox",
            "store",
            "text",
        ],
        &["hyper", "std::fs"],
    ),
    ("persistent", &["imports::key_value", "imports::metrics"], &["hyper", "tokio", "wasmtime"]),
    (
        "member",
        &["circuit_breaker", "component", "engine", "failure", "meter", "pool", "sandbox", "store"],
        &["hyper", "std::fs"],
    ),
    ("meter", &["clock", "yield_policy"], &["hyper", "http"]),
    ("outbound", &[], &["wasmtime", "quinn", "tracing", "std::fs"]),
    ("pool", &["counters", "service", "store"], &["hyper", "http"]),
    (
        "test_host",
        &[
            "background",
            "compiler",
            "component",
            "engine",
            "failure",
            "filter",
            "imports::log",
            "outbound",
            "sandbox",
        ],
        &["hyper", "std::fs"],
    ),
    (
        "sandbox",
        &["failure", "imports", "persistent", "outbound", "test_host", "text"],
        &["hyper", "wasmtime", "std::fs"],
    ),
    (
        "service",
        &["component", "concurrent", "failure", "imports::handler", "member", "meter", "store"],
        &["std::fs"],
    ),
    ("store", &["bindings", "component", "failure", "imports", "meter", "sandbox"], &["hyper", "std::fs"]),
    ("text", &[], &["tokio", "wasmtime", "http"]),
];

/// The modules of the host.
const HOST: &[Module] = &[
    (
        "admin",
        &[
            "config::settings",
            "config::source",
            "generation",
            "health",
            "origin::Circuits",
            "proxy",
            "revision",
            "tunnel",
        ],
        &["quinn", "capnp"],
    ),
    ("component", &["config::source"], &["adit_engine", "adit_config_reader", "tokio", "tracing"]),
    ("config", &[], &["adit_engine", "hyper", "quinn", "tracing"]),
    ("config::reader", &["config::source"], &["tokio", "http", "hyper", "capnp", "quinn", "adit_engine"]),
    (
        "config::settings",
        &["config", "revision::history::History", "tunnel::state::Protocol", "tunnel::trust"],
        &["adit_engine", "hyper", "quinn"],
    ),
    ("config::source", &[], &["adit_engine", "adit_config_reader"]),
    ("contents", &["component"], &["adit_config_reader", "tokio", "tracing", "hyper", "quinn"]),
    (
        "generation",
        &["config::grants", "config::plan", "contents", "origin"],
        &["tokio", "quinn", "hyper", "adit_config_reader"],
    ),
    ("generation::lifetime", &[], &["tokio", "quinn", "hyper", "http", "tracing", "adit_engine"]),
    ("generation::routes", &["config::plan"], &["adit_engine", "hyper", "tokio", "tracing"]),
    (
        "health",
        &["proxy::Current", "proxy::probe", "tunnel"],
        &["http", "hyper", "adit_engine", "quinn", "capnp"],
    ),
    ("health::readiness", &["proxy::probe", "tunnel::status"], &["tokio", "http", "tracing"]),
    ("origin", &["config::plan"], &["adit_engine", "quinn", "capnp"]),
    ("proxy", &["generation", "origin"], &["quinn", "hyper", "capnp", "std::fs"]),
    ("proxy::respond", &["origin"], &["tokio", "quinn", "hyper"]),
    (
        "revision",
        &["config", "contents", "generation", "proxy::Current"],
        &["http", "hyper", "capnp", "quinn"],
    ),
    ("revision::bootstrap", &["config", "generation", "revision"], &["http", "hyper", "capnp", "quinn"]),
    (
        "revision::history",
        &["component", "contents::Content"],
        &["tokio", "quinn", "hyper", "http", "adit_engine"],
    ),
    ("revision::resolve", &["config"], &["http", "hyper", "capnp", "quinn"]),
    ("revision::watch", &["revision"], &["http", "hyper", "capnp", "quinn", "adit_engine"]),
    ("tunnel", &["proxy"], &["capnp_rpc", "hyper", "adit_engine"]),
    ("tunnel::control", &["proxy"], &["http", "hyper", "quinn"]),
    ("tunnel::discovery", &["config::settings", "tunnel::state"], &["adit_protocol", "quinn", "h2", "http"]),
    (
        "tunnel::discovery::addresses",
        &["tunnel::state"],
        &["tokio", "tracing", "hickory_resolver", "fastrand", "std::time::SystemTime"],
    ),
    (
        "tunnel::handler",
        &["origin", "proxy", "tunnel::notice", "tunnel::pace", "tunnel::slot::Shared"],
        &["quinn", "h2", "tokio"],
    ),
    (
        "tunnel::http2",
        &["origin", "proxy", "tunnel::control", "tunnel::handler", "tunnel::pace", "tunnel::suspicion"],
        &["capnp", "capnp_rpc", "fastrand", "quinn"],
    ),
    ("tunnel::notice", &["origin", "proxy", "tunnel::slot", "tunnel::status"], &["quinn", "h2"]),
    ("tunnel::pace", &["origin"], &["quinn", "h2", "hyper", "adit_protocol"]),
    (
        "tunnel::quic",
        &[
            "origin",
            "proxy",
            "tunnel::control",
            "tunnel::handler",
            "tunnel::pace",
            "tunnel::status::QuicPath",
            "tunnel::suspicion",
        ],
        &["capnp", "capnp_rpc", "fastrand"],
    ),
    // They are told what time it is.
    ("tunnel::state", &["tunnel::status"], &["tokio", "quinn", "tracing", "adit_protocol", "fastrand"]),
    ("tunnel::suspicion", &[], &["tokio", "quinn", "tracing", "fastrand"]),
];

/// The modules of the edge.
const EDGE: &[Module] = &[
    (
        "admin",
        &[
            "balancer::retry_budget",
            "balancer::weights",
            "certificates",
            "issuance",
            "metrics",
            "registry",
            "settings",
            "shutdown",
            "state",
            "steering",
            "store",
            "tunnel::control::Control",
            "tunnel::push",
            "tls::leaf",
            "tunnel::session::Unregistered",
            "visitor",
        ],
        &["quinn", "h2", "capnp"],
    ),
    (
        "alerts",
        &["api::connectors", "registry::Registry", "state", "steering", "store"],
        &["quinn", "h2", "hyper", "capnp", "std::fs", "tokio::net"],
    ),
    ("alerts::damping", &[], &["tokio", "http", "hyper", "tracing"]),
    ("alerts::signature", &["store"], &["tokio", "http", "hyper", "tracing"]),
    (
        "api",
        &[
            "alerts",
            "forward::ray",
            "metrics",
            "monitors",
            "registry::Registry",
            "settings::host_name",
            "state",
            "steering",
            "store",
            "tunnel::push",
        ],
        &["quinn", "h2", "capnp"],
    ),
    ("api::connectors", &["registry", "store::timestamp"], &["hyper", "quinn", "h2", "http"]),
    (
        "app::shard",
        &[
            "forward::Patience",
            "forward::ray::Rays",
            "limits",
            "metrics::Counters",
            "registry::Registry",
            "settings",
            "shutdown",
            "tls::Seed",
            "tunnel::accept_http2",
            "tunnel::accept_quic",
            "tunnel::control::Control",
            "tunnel::session",
            "app::watchdog",
            "certificates::challenges",
            "tls::CONNECTOR_NAMES",
            "visitor",
        ],
        &["hyper", "http", "capnp"],
    ),
    ("app::threads", &["app::shard::ShardPhase"], &["hyper", "quinn", "http"]),
    ("app::watchdog", &[], &["hyper", "quinn", "http", "tracing"]),
    ("balancer", &[], &["hyper", "quinn", "http", "tracing"]),
    ("balancer::affinity", &[], &["tokio", "quinn", "hyper", "tracing"]),
    ("balancer::queue", &[], &["hyper", "quinn", "http", "tracing"]),
    ("balancer::weights", &[], &["tokio", "tracing"]),
    ("certificates", &["state::snapshot::Kept", "store", "tls"], &["hyper", "quinn", "h2", "http", "capnp"]),
    ("certificates::by_name", &["certificates", "store"], &["tokio", "tracing", "std::fs"]),
    ("certificates::challenges", &["store", "tls::leaf"], &["tokio", "tracing", "std::fs"]),
    ("certificates::place", &["store::timestamp", "tls"], &["tokio", "tracing", "std::fs"]),
    (
        "dns",
        &["certificates::challenges", "state::State", "visitor::HostTable"],
        &["quinn", "h2", "hyper", "capnp", "std::fs"],
    ),
    ("dns::message", &["dns"], &["tokio", "tracing", "http"]),
    ("dns::nodes", &["dns::Node"], &["std::fs", "hickory_proto"]),
    ("dns::rate", &[], &["tokio", "tracing", "http", "hickory_proto"]),
    ("dns::zones", &["dns"], &["tokio", "tracing", "http", "hickory_proto"]),
    (
        "forward",
        &["balancer", "limits", "metrics::NoHold", "registry", "steering", "transport"],
        &["capnp", "rustls", "std::fs", "std::net", "tokio::net"],
    ),
    ("forward::headers", &["forward::ray::Ray"], &["tokio", "quinn", "tracing"]),
    ("forward::ray", &[], &["tokio", "quinn", "tracing"]),
    (
        "issuance",
        &["certificates", "settings::host_name", "state", "store", "tls::leaf"],
        &["quinn", "h2", "hyper", "capnp", "std::fs", "tokio::net"],
    ),
    ("issuance::budget", &["store"], &["tokio", "tracing", "http"]),
    (
        "issuance::wanted",
        &["issuance::budget", "settings::host_name", "state", "store"],
        &["tokio", "tracing", "http"],
    ),
    ("limits", &[], &["tokio", "hyper", "quinn", "http"]),
    ("limits::in_flight", &["limits::pace::Share", "limits::per_address"], &["hyper", "quinn"]),
    ("limits::pace", &[], &["hyper", "quinn", "http"]),
    ("listen", &[], &["hyper", "http", "quinn"]),
    ("metrics", &["balancer::retry_budget::Reason"], &["tokio", "hyper", "quinn", "http", "tracing"]),
    (
        "registry",
        &["balancer", "metrics::Place", "remote_config", "settings", "transport::connection::Transport"],
        &["quinn", "h2", "http", "hyper", "capnp", "std::fs"],
    ),
    ("registry::liveness", &["transport::signs"], &["hyper", "quinn", "h2", "http", "tracing"]),
    ("registry::warm_up", &["registry", "shutdown::Phase"], &["hyper", "http", "quinn"]),
    ("remote_config", &[], &["tokio", "hyper", "quinn", "capnp"]),
    (
        "settings",
        &[
            "alerts",
            "api::share",
            "balancer::affinity",
            "certificates",
            "dns",
            "forward::Patience",
            "issuance",
            "limits::per_address",
            "store::records::certificates",
            "tls",
            "visitor",
        ],
        &["tokio", "quinn", "hyper", "http", "tracing"],
    ),
    ("settings::dns", &["dns", "settings"], &["tokio", "quinn", "hyper", "tracing"]),
    ("settings::geography", &["settings", "visitor"], &["tokio", "quinn", "hyper", "tracing"]),
    (
        "settings::issuance",
        &["certificates::seal", "issuance", "settings", "store::records::certificates", "tls"],
        &["tokio", "quinn", "hyper", "tracing"],
    ),
    ("settings::secure", &["settings", "tls::TlsPolicy", "visitor"], &["tokio", "quinn", "hyper", "tracing"]),
    ("settings::host_name", &[], &["tokio", "hyper", "http", "tracing"]),
    ("shutdown", &[], &["hyper", "quinn", "http", "tracing"]),
    ("state", &["store"], &["quinn", "h2", "http", "hyper"]),
    ("state::provision", &["settings::host_name", "state", "store", "tls"], &["hyper", "quinn"]),
    (
        "state::publish",
        &[
            "balancer::weights",
            "certificates",
            "store::records",
            "registry",
            "settings::host_name",
            "state::snapshot",
            "steering",
            "tunnel::control::Control",
            "tunnel::push",
            "visitor",
        ],
        &["quinn", "h2", "http", "hyper", "capnp"],
    ),
    (
        "monitors",
        &[
            "forward::headers",
            "forward::ray",
            "registry",
            "state::snapshot::Kept",
            "store",
            "transport::exchange",
            "tunnel::notice",
        ],
        &["quinn", "h2", "hyper", "capnp"],
    ),
    (
        "steering",
        &["balancer", "monitors", "registry::Tunnel", "settings::host_name", "state::snapshot", "store"],
        &["tokio", "quinn", "h2", "hyper", "capnp"],
    ),
    ("store", &[], &["quinn", "h2", "http", "hyper"]),
    ("tls", &[], &["tokio", "hyper", "quinn", "http"]),
    ("transport", &[], &["capnp", "hyper", "tokio::net"]),
    ("transport::connection", &["transport"], &["http", "hyper", "h2", "capnp", "tracing"]),
    ("transport::http2", &["transport"], &["capnp", "quinn", "hyper", "tokio::net"]),
    ("transport::signs", &[], &["http", "hyper", "h2", "quinn", "capnp", "tokio", "tracing"]),
    ("transport::stream", &["transport"], &["capnp"]),
    ("tunnel", &[], &["tokio"]),
    (
        "tunnel::accept_http2",
        &["metrics", "tls", "transport", "tunnel::session"],
        &["h2", "capnp", "hyper", "http"],
    ),
    (
        "tunnel::accept_quic",
        &["metrics", "tls", "transport", "tunnel::session"],
        &["h2", "capnp", "hyper", "http"],
    ),
    (
        "tunnel::control",
        &["transport::connection::ControlStream", "tunnel::registrar"],
        &["http", "hyper", "quinn", "h2"],
    ),
    ("tunnel::notice", &["registry", "shutdown::Phase", "transport"], &["h2", "capnp", "hyper"]),
    (
        "tunnel::push",
        &["registry", "remote_config", "transport", "tunnel::control"],
        &["h2", "capnp", "hyper"],
    ),
    (
        "tunnel::registrar",
        &["metrics", "registry", "settings", "shutdown", "transport"],
        &["quinn", "h2", "capnp", "hyper", "http"],
    ),
    (
        "tunnel::session",
        &[
            "metrics",
            "registry",
            "settings",
            "shutdown",
            "transport",
            "tunnel::control",
            "tunnel::notice",
            "tunnel::push",
            "tunnel::registrar",
        ],
        &["quinn", "h2", "capnp", "hyper", "http"],
    ),
    (
        "visitor",
        &[
            "balancer::affinity",
            "balancer::retry_budget::Reason",
            "certificates::challenges",
            "forward",
            "limits",
            "listen",
            "metrics",
            "registry::Tunnel",
            "shutdown",
            "steering",
        ],
        &["quinn", "h2", "capnp", "std::fs"],
    ),
    (
        "visitor::error_page",
        &["forward::headers", "forward::ray::Ray", "steering::FixedResponse"],
        &["tokio", "quinn", "tracing"],
    ),
    (
        "visitor::host_table",
        &["registry::Tunnel", "settings::host_name", "steering::Balancer"],
        &["tokio", "hyper", "http"],
    ),
    (
        "visitor::line",
        &["forward::ray::Rays", "limits", "metrics", "visitor::error_page"],
        &["hyper", "tracing", "tokio::net"],
    ),
    ("visitor::secure", &["settings::host_name"], &["tokio", "hyper", "tracing"]),
    ("visitor::geography", &[], &["tokio", "hyper", "tracing"]),
    ("visitor::proxies", &[], &["tokio", "hyper", "tracing"]),
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
            "host/src/tunnel/notice.rs",
        ],
    ),
    (
        "edge/src",
        &[
            "edge/src/visitor/error_page.rs",
            "edge/src/admin.rs",
            "edge/src/admin/config.rs",
            "edge/src/admin/explain.rs",
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
