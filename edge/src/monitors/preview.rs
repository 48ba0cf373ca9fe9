//! A monitor that is tried out: what it would see of a tunnel, asked once, and nothing made of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use http::uri::Authority;

use super::ask::{self, Outcome};
use super::terms::Terms;
use crate::forward::ray::Rays;
use crate::registry::{Connection, Tunnel};
use crate::store::records::objects::Object;

/// See the module.
pub(crate) struct Preview(Terms);

impl Preview {
    /// `None` if the monitor is of a kind that asks nothing here.
    pub(crate) fn of(monitor: &Object) -> Option<Self> {
        Terms::of(monitor).map(Self)
    }

    /// Asks each replica of a tunnel, one after the other, as the host of the endpoint at this address, until one is
    /// well. `None` if nobody is connected. May be dropped midway.
    pub(crate) async fn look(
        &self,
        tunnel: &Tunnel,
        host: Option<&Authority>,
        address: &str,
        rays: &Rays,
    ) -> Option<Outcome> {
        let host = host.or(self.0.host()).cloned().or_else(|| address.parse().ok())?;
        let mut replicas: BTreeMap<_, Arc<Connection>> = BTreeMap::new();
        let now = Instant::now();
        for live in tunnel.connections().into_iter().filter(|live| live.is_serving()) {
            let known = replicas.get(&live.connector);
            if known.is_none_or(|known| known.is_silent(now) && !live.is_silent(now)) {
                replicas.insert(live.connector, live);
            }
        }
        let mut seen = None;
        for live in replicas.values() {
            let outcome = ask::ask(&self.0, &host, live, rays).await;
            let is_well = outcome.fault.is_none();
            seen = Some(outcome);
            if is_well {
                break;
            }
        }
        seen
    }
}
