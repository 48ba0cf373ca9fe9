//! How requests arrive: slots, the connections they hold, and the control stream of each.

pub mod connection;
pub mod control;
pub mod discovery;
pub mod handler;
pub mod http2;
pub mod notice;
pub mod pace;
pub mod quic;
pub mod reconnect;
pub mod registered;
pub mod slot;
pub mod state;
pub mod status;
pub mod suspicion;
pub mod trust;

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use adit_protocol::{extensions, management};
use uuid::Uuid;

/// Features that this host offers at registration. Only what it can do is listed.
pub const FEATURES: &[&str] = &[management::FEATURE, "serialized_headers", "support_quic_eof"];
/// The same, to an edge that may be one of ours.
pub const OWN_FEATURES: &[&str] = &[
    extensions::FEATURE_INSTEAD,
    extensions::FEATURE_NOTICES,
    extensions::FEATURE_TRAILERS,
    extensions::FEATURE_VISITOR,
    extensions::FEATURE_WAITED,
];

/// Of one that takes its rules from the edge.
pub const PUSH_FEATURE: &str = "allow_remote_config";

/// What every slot of this host shares.
pub struct Identity {
    pub credentials: Credentials,
    /// Names this process among the replicas of its tunnel; made at start, never stored.
    pub connector: Uuid,
    pub version: String,
    /// Operating system and processor, such as `linux_amd64`.
    pub arch: String,
    /// How long requests may take to finish once a stop was asked for.
    pub grace: Duration,
    /// Whether the edge may be one of ours. Elsewhere our own words would be any visitor's to say, because
    /// nobody takes them out of requests.
    pub speaks_own: bool,
    /// Whether it takes rules that the edge pushes.
    pub takes_pushes: bool,
}

impl Identity {
    pub fn new(credentials: Credentials, grace: Duration, speaks_own: bool, takes_pushes: bool) -> Arc<Self> {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Arc::new(Self {
            credentials,
            connector: Uuid::new_v4(),
            version: concat!("adit/", env!("CARGO_PKG_VERSION")).to_owned(),
            arch: format!("{}_{arch}", std::env::consts::OS),
            grace,
            speaks_own,
            takes_pushes,
        })
    }

    /// What is offered at registration.
    pub fn features(&self) -> impl Iterator<Item = &'static str> {
        let own: &[&str] = if self.speaks_own { OWN_FEATURES } else { &[] };
        FEATURES.iter().chain(own).copied().chain(self.takes_pushes.then_some(PUSH_FEATURE))
    }
}
