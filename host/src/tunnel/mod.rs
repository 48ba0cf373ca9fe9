//! How requests arrive: slots, the connections they hold, and the control stream of each.

pub mod connection;
pub mod control;
pub mod discovery;
pub mod http2;
pub mod quic;
pub mod slot;
pub mod state;
pub mod status;
pub mod trust;

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::credentials::Credentials;
use uuid::Uuid;

/// Features that this host offers at registration. Only what it can do is listed.
pub const FEATURES: &[&str] = &["serialized_headers", "support_quic_eof"];

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
}

impl Identity {
    pub fn new(credentials: Credentials, grace: Duration) -> Arc<Self> {
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
        })
    }
}
