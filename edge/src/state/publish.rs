//! Makes what is served from what is known: the tunnels and names of the document, which never change,
//! and those of the state. The only writer of the registry's tunnels and of the directory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_balance::MOST_WEIGHT;
use adit_protocol::credentials::Credentials;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::balancer::weights::Weight;
use crate::certificates::Certificates;
use crate::registry::{Keys, Registry};
use crate::settings::host_name::{HostName, HostNames};
use crate::state::snapshot::{Changes, Snapshot};
use crate::steering::{Balancer, Balancers};
use crate::store::records::ReplicaShare;
use crate::tunnel::control::Control;
use crate::tunnel::push;
use crate::visitor::{Destination, HostTable, Table};

/// What the document says, and where what is served goes.
pub(crate) struct Publisher {
    pub(crate) registry: Arc<Registry>,
    pub(crate) directory: Arc<HostTable>,
    pub(crate) fixed: Arc<StaticTunnels>,
    pub(crate) balancers: Arc<Balancers>,
    pub(crate) certificates: Arc<Certificates>,
    /// How long a tunnel of the state that has lost its connections keeps requests waiting.
    pub(crate) hold: Duration,
    pub(crate) control: Control,
    pub(crate) pushing: Pushing,
    pub(crate) weighed: Weighed,
}

/// What was taken over last of what operators have said of replicas, by tunnel and connector.
#[derive(Default)]
pub(crate) struct Weighed(Mutex<HashMap<(Uuid, Uuid), ReplicaShare>>);

/// The tunnels whose replicas are being given a configuration. A later one takes the place of an earlier.
#[derive(Default)]
pub(crate) struct Pushing(Mutex<HashMap<Uuid, AbortOnDropHandle<()>>>);

/// The tunnels of the document. They win over the state.
pub(crate) struct StaticTunnels {
    pub(crate) tunnels: Vec<(String, Credentials)>,
    pub(crate) names: Vec<(HostName, Uuid)>,
    /// Every tunnel is reached under its id before this, if there is one.
    pub(crate) domain: Option<String>,
}

impl StaticTunnels {
    /// Whether a route may not have this name.
    pub(crate) fn claims(&self, name: &HostName) -> bool {
        self.names.iter().any(|(known, _)| known == name)
    }

    /// The table for tunnels of the document alone.
    pub(crate) fn table(&self, registry: &Registry) -> Table {
        self.table_with(registry, std::iter::empty(), Vec::new())
    }

    fn table_with(
        &self,
        registry: &Registry,
        routes: impl Iterator<Item = (HostName, Uuid)>,
        balancers: Vec<(HostName, Arc<Balancer>)>,
    ) -> Table {
        let tunnels = registry.tunnels();
        let to_tunnel = |(name, id)| Some((name, Destination::Tunnel(tunnels.get(&id)?.clone())));
        let to_balancer = |(name, balancer)| (name, Destination::Balancer(balancer));
        // The last of a name counts.
        let names = routes.filter_map(to_tunnel).chain(balancers.into_iter().map(to_balancer));
        let names = names.chain(self.names.iter().cloned().filter_map(to_tunnel));
        let domain = self.domain.as_ref().map(|domain| format!(".{domain}"));
        Table { names: HostNames::new(names), domain, tunnels: tunnels.clone() }
    }
}

impl From<ReplicaShare> for Weight {
    fn from(share: ReplicaShare) -> Self {
        Self { weight: share.weight.min(MOST_WEIGHT), is_draining: share.draining }
    }
}

impl Publisher {
    /// Serves by this snapshot from now on.
    pub(crate) fn publish(&self, snapshot: &Snapshot, touched: &Changes) {
        if touched.tunnels {
            let fixed = self.fixed.tunnels.iter().map(|(name, credentials)| {
                (credentials.tunnel_id, name.clone(), Keys::from(credentials.clone()))
            });
            let kept = snapshot.tunnels.iter().filter_map(|(id, tunnel)| {
                let tunnel = &tunnel.record;
                let previous = tunnel.previous.as_ref();
                let previous = previous.map(|previous| (previous.secret.clone(), previous.until.into()));
                let keys = Keys { account: tunnel.account.clone(), secret: tunnel.secret.clone()?, previous };
                (!tunnel.is_deleted()).then(|| (*id, tunnel.name.clone(), keys))
            });
            self.registry.replace(kept.chain(fixed), self.hold);
        }
        if touched.replicas {
            self.weigh(snapshot);
        }
        if touched.tunnels || touched.objects {
            self.balancers.follow(snapshot, &self.registry.tunnels(), self.fixed.domain.as_deref());
        }
        if touched.tunnels || touched.routes || touched.objects {
            let routes = snapshot.routes.iter();
            let routes = routes.filter_map(|(name, route)| Some((name.parse().ok()?, route.record.tunnel)));
            let balancers = self.balancers.serving(snapshot);
            self.directory.replace(self.fixed.table_with(&self.registry, routes, balancers));
        }
        if touched.certificates {
            self.certificates.publish(snapshot.certificates.iter(), snapshot.challenges.values());
        }
        if touched.configurations || touched.tunnels {
            let kept = snapshot.configurations.iter();
            let kept = kept
                .filter(|(id, _)| snapshot.tunnels.get(id).is_some_and(|tunnel| !tunnel.record.is_deleted()));
            let kept = kept.map(|(id, kept)| (*id, kept.record.version, &kept.record.config));
            for id in self.registry.fleet.follow(kept) {
                self.give(id);
            }
        }
    }

    /// What an operator has said of replicas, here or at another edge. Only what has changed is taken over: what this
    /// edge has just been told is in the store a moment later.
    fn weigh(&self, snapshot: &Snapshot) {
        let now: HashMap<(Uuid, Uuid), ReplicaShare> =
            snapshot.replicas.iter().map(|(id, kept)| (*id, kept.record)).collect();
        let mut known = self.weighed.0.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = now.iter().filter(|(id, share)| known.get(id) != Some(share));
        let changed =
            changed.map(|((tunnel, connector), share)| (*tunnel, (*connector, Weight::from(*share))));
        let gone = known.keys().filter(|id| !now.contains_key(id));
        let gone = gone.map(|(tunnel, connector)| (*tunnel, (*connector, Weight::default())));
        let mut by_tunnel: HashMap<Uuid, Vec<(Uuid, Weight)>> = HashMap::new();
        for (tunnel, share) in changed.chain(gone) {
            by_tunnel.entry(tunnel).or_default().push(share);
        }
        for (tunnel, shares) in by_tunnel {
            if let Some(tunnel) = self.registry.tunnel(&tunnel) {
                tunnel.recall(shares.into_iter());
            }
        }
        *known = now;
    }

    /// Gives the replicas of a tunnel what it wants now. Those that come later are given it when they do.
    fn give(&self, id: Uuid) {
        let Some(tunnel) = self.registry.tunnel(&id).filter(|tunnel| !tunnel.connections().is_empty()) else {
            return;
        };
        let (fleet, control) = (self.registry.fleet.clone(), self.control.clone());
        let push = tokio::spawn(async move { push::to_all(&fleet, id, &tunnel, &control).await });
        let mut pushing = self.pushing.0.lock().unwrap_or_else(PoisonError::into_inner);
        pushing.retain(|_, push| !push.is_finished());
        pushing.insert(id, AbortOnDropHandle::new(push));
    }
}
