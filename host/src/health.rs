//! Whether this host lives, and whether it is ready: facts from the shards, the slots and the origins,
//! brought together for whoever asks. Holds no state; does not know who asks.

mod heartbeat;
pub mod readiness;

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

pub use heartbeat::{Heartbeat, Heartbeats, Liveness};

use crate::proxy::Current;
use crate::proxy::probe::Prober;
use crate::tunnel::slot::Shared;
use readiness::{Facts, Readiness};

/// Asks a running host how it is. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Health {
    pub shared: Arc<Shared>,
    pub current: Arc<Current>,
    pub prober: Prober,
    pub heartbeats: Heartbeats,
    /// Connections that must serve.
    pub wanted: usize,
    /// Once cancelled, the host is not ready.
    pub stop: CancellationToken,
}

impl Health {
    /// Asks every thread that serves requests for a sign of life.
    pub async fn life(&self) -> Liveness {
        self.heartbeats.ask(heartbeat::SILENCE, self.stop.is_cancelled()).await
    }

    /// Looks at the connections and at the origins.
    pub async fn readiness(&self) -> Readiness {
        let probe = self.prober.probe().await;
        let slots = self.shared.status.slots();
        readiness::judge(&Facts {
            connector: self.shared.identity.connector,
            slots: &slots,
            wanted: self.wanted,
            is_stopping: self.stop.is_cancelled(),
            is_unconfigured: self.is_unconfigured(),
            probe: &probe,
            now: Instant::now(),
        })
    }

    /// Whether there is nothing to serve yet.
    pub fn is_unconfigured(&self) -> bool {
        self.current.load().is_unconfigured
    }

    /// Connections that serve, and all that there are to be.
    pub fn connections(&self) -> (usize, usize) {
        let slots = self.shared.status.slots();
        (readiness::serving(&slots).count(), slots.len())
    }
}
