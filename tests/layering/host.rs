//! The modules of `host/`.

use super::Module;

/// The modules of the host.
pub(super) const HOST: &[Module] = &[
    (
        "admin",
        &[
            "config::settings",
            "config::source",
            "generation",
            "health",
            "management::Tail",
            "origin::Circuits",
            "proxy",
            "revision",
            "tunnel",
        ],
        &["quinn", "capnp"],
    ),
    ("bucket_server", &[], &["http", "hyper", "capnp", "quinn"]),
    ("buckets", &[], &["http", "hyper", "capnp", "quinn"]),
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
        &["bucket_server::Server", "config::grants", "config::plan", "contents", "origin"],
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
    ("management", &["origin"], &["quinn", "h2", "hyper", "capnp", "tracing"]),
    ("management::tail", &[], &["quinn", "h2", "hyper", "http", "capnp", "tracing"]),
    ("proxy", &["generation", "management::Management", "origin"], &["quinn", "hyper", "capnp", "std::fs"]),
    ("proxy::respond", &["origin"], &["tokio", "quinn", "hyper"]),
    (
        "revision",
        &["config", "contents", "generation", "proxy::Current"],
        &["http", "hyper", "capnp", "quinn"],
    ),
    (
        "revision::bootstrap",
        &["buckets", "config", "generation", "revision"],
        &["http", "hyper", "capnp", "quinn"],
    ),
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
