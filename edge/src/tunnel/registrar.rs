//! One connection's way into the registry, decided on plain values:
//!
//! ```text
//! Waiting --register, right secret--> Registered --unregister, or replaced--> leaving (see `Connection`)
//!    \-----register, anything else--> Refused
//! ```
//!
//! Whatever else is asked changes nothing. Knows who may register; does not know RPC or transports.

use std::sync::Arc;
use std::time::Duration;

use adit_net::log_limiter::LogLimiter;
use adit_protocol::rpc::{
    ConnectionDetails, ConnectionError, DUPLICATE_CONNECTION, Registration, RegistrationAnswer,
};
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tracing::{debug, info};

use crate::metrics::{Counters, Registration as Outcome};
use crate::registry::{AddError, Connection, ConnectionInfo, Registry, Report, Tunnel};
use crate::settings;
use crate::shutdown::Shutdown;
use crate::transport::connection::Transport;

/// How far a connection has come.
#[derive(Clone)]
pub(crate) enum Stage {
    Waiting,
    Registered(Arc<Tunnel>, Arc<Connection>),
    Refused,
}

pub(crate) struct Registrar {
    registry: Arc<Registry>,
    link: Transport,
    server: Arc<settings::Server>,
    shard: usize,
    stop: Shutdown,
    counters: Arc<Counters>,
    stage: watch::Sender<Stage>,
}

impl Registrar {
    pub(crate) fn new(
        registry: Arc<Registry>,
        link: Transport,
        server: Arc<settings::Server>,
        shard: usize,
        stop: Shutdown,
        counters: Arc<Counters>,
    ) -> Self {
        Self { registry, link, server, shard, stop, counters, stage: watch::Sender::new(Stage::Waiting) }
    }

    /// Follows the stage from outside.
    pub(crate) fn watch(&self) -> watch::Receiver<Stage> {
        self.stage.subscribe()
    }

    pub(crate) fn is_registered(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Registered(..))
    }

    /// registerConnection: the one call that makes a connection serve requests.
    pub(crate) fn register(&self, registration: Registration) -> RegistrationAnswer {
        if !matches!(*self.stage.borrow(), Stage::Waiting) {
            return self.refuse(Outcome::Repeated, "this connection has been registered before", None);
        }
        let answer = self.admit(registration);
        if let RegistrationAnswer::Refused(error) = &answer {
            // Strangers cause it, as often as they like.
            if let Some(unlogged) = REFUSALS.take() {
                info!(address = %self.link.remote_address(), server = self.server.name, reason = error.cause, unlogged, "refused");
            }
            self.stage.send_replace(Stage::Refused);
        }
        answer
    }

    fn admit(&self, registration: Registration) -> RegistrationAnswer {
        let Registration { auth, tunnel_id, conn_index, options } = registration;
        let Some(tunnel) = self.registry.authorise(&tunnel_id, &auth) else {
            let cause = "Unauthorized: this edge does not know the tunnel with this secret";
            return self.refuse(Outcome::Unauthorized, cause, None);
        };
        if self.stop.draining.is_fired() {
            let cause = "this edge server is about to stop: register with another one";
            return self.refuse(Outcome::Draining, cause, Some(RETRY_ELSEWHERE));
        }
        let live = Arc::new(Connection::new(ConnectionInfo {
            id: self.registry.order.next(),
            link: self.link.clone(),
            connector: options.client.client_id,
            index: conn_index,
            version: options.client.version,
            arch: options.client.arch,
            features: options.client.features,
            server: self.server.clone(),
            shard: self.shard,
        }));
        match tunnel.add(live.clone(), options.replace_existing) {
            Ok(()) => {}
            Err(AddError::Duplicate) => return self.refuse(Outcome::Duplicate, DUPLICATE_CONNECTION, None),
            Err(gone @ AddError::Gone) => return self.refuse(Outcome::Gone, &gone.to_string(), None),
            Err(full @ AddError::Full) => {
                return self.refuse(Outcome::Full, &full.to_string(), Some(RETRY_WHEN_FULL));
            }
        }
        self.count(Outcome::Registered);
        info!(
            tunnel = %tunnel.name(),
            connector = %live.connector,
            index = live.index,
            server = live.server.name,
            region = live.server.region,
            protocol = live.link.protocol(),
            version = live.version,
            "registered"
        );
        let details = ConnectionDetails {
            uuid: live.id,
            location_name: self.server.name.clone(),
            tunnel_is_remotely_managed: self.registry.fleet.wanted(&tunnel_id).is_some(),
        };
        self.stage.send_replace(Stage::Registered(tunnel.clone(), live));
        RegistrationAnswer::Registered(details)
    }

    fn refuse(&self, outcome: Outcome, cause: &str, retry_after: Option<Duration>) -> RegistrationAnswer {
        self.count(outcome);
        RegistrationAnswer::Refused(ConnectionError {
            cause: cause.to_owned(),
            retry_after: retry_after.unwrap_or_default(),
            should_retry: retry_after.is_some(),
        })
    }

    fn count(&self, outcome: Outcome) {
        self.counters.registration(self.shard, self.link.protocol(), outcome);
    }

    /// unregisterConnection: no request begins here from now on. False without a registration.
    pub(crate) fn unregister(&self) -> bool {
        let Stage::Registered(tunnel, live) = self.stage.borrow().clone() else { return false };
        if !live.is_leaving() {
            // Before the word is out, because a request may come right behind it.
            tunnel.leave(&live);
            info!(
                tunnel = %tunnel.name(),
                connector = %live.connector,
                index = live.index,
                server = live.server.name,
                "unregistered"
            );
        }
        true
    }

    /// updateLocalConfiguration: what the host serves by its own document. False without a
    /// registration.
    pub(crate) fn report(&self, config: &[u8]) -> bool {
        let Stage::Registered(tunnel, live) = self.stage.borrow().clone() else { return false };
        let digest = Sha256::digest(config);
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        debug!(tunnel = %tunnel.name(), connector = %live.connector, bytes = config.len(), digest, "configuration reported");
        live.set_report(Report { bytes: config.len(), digest });
        true
    }
}

/// Lines of the log in a second.
static REFUSALS: LogLimiter = LogLimiter::new(5);
/// Often enough to take the place of a replica that has left.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(10);
const RETRY_ELSEWHERE: Duration = Duration::from_secs(1);
