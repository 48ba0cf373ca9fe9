//! What host names lead to right now: those of the document, the load balancers and routes of the state, and
//! `ID.DOMAIN` for every tunnel. Replaced as a whole; knows nothing about where either comes from.

use std::collections::HashMap;
use std::sync::Arc;

use adit_protocol::management::{HOSTNAME, is_host};
use arc_swap::ArcSwap;
use uuid::Uuid;

use crate::registry::Tunnel;
use crate::settings::host_name::HostNames;
use crate::steering::Balancer;

/// The current table. A request looks once.
pub(crate) struct HostTable(ArcSwap<Table>);

/// What a host name leads to.
#[derive(Clone)]
pub(crate) enum Destination {
    Tunnel(Arc<Tunnel>),
    Balancer(Arc<Balancer>),
}

pub(crate) struct Table {
    pub(crate) names: HostNames<Destination>,
    /// In lower case, with a dot in front.
    pub(crate) domain: Option<String>,
    pub(crate) tunnels: Arc<HashMap<Uuid, Arc<Tunnel>>>,
}

impl HostTable {
    pub(crate) fn new(table: Table) -> Self {
        Self(ArcSwap::from_pointee(table))
    }

    pub(crate) fn replace(&self, table: Table) {
        self.0.store(Arc::new(table));
    }

    /// What the host of an authority leads to.
    pub(crate) fn find(&self, authority: &str) -> Option<Destination> {
        // Hosts believe who asks as this one. Of nearly all names the length says it.
        if authority.len() >= HOSTNAME.len() && is_host(authority) {
            return None;
        }
        let table = self.0.load();
        // A tunnel's own name cannot be led elsewhere by whoever has the zone.
        let own = table.by_id(authority).map(|tunnel| Destination::Tunnel(tunnel.clone()));
        own.or_else(|| table.names.find(authority).cloned())
    }

    /// Every name and what it leads to, in their order, and the domain of tunnels' own names.
    pub(crate) fn all(&self) -> (Vec<(String, Destination)>, Option<String>) {
        let table = self.0.load();
        let named = table.names.all().map(|(name, leads)| (name.to_string(), leads.clone()));
        let mut named: Vec<_> = named.collect();
        named.sort_by(|(one, _), (other, _)| one.cmp(other));
        (named, table.domain.clone())
    }

    /// By which name it does, for people.
    pub(super) fn name_of(&self, authority: &str) -> Option<String> {
        let table = self.0.load();
        match table.by_id(authority) {
            Some(tunnel) => Some(tunnel.id.to_string() + table.domain.as_deref().unwrap_or_default()),
            None => table.names.name_of(authority).map(|name| name.to_string()),
        }
    }
}

impl Table {
    fn by_id(&self, authority: &str) -> Option<&Arc<Tunnel>> {
        let domain = self.domain.as_deref()?;
        let host = adit_address::host(authority).ok()?;
        let at = host.len().checked_sub(domain.len())?;
        let (id, rest) = (host.get(..at)?, host.get(at..)?);
        if id.len() != HYPHENATED || rest != domain {
            return None;
        }
        self.tunnels.get(&id.parse::<Uuid>().ok()?)
    }
}

/// A UUID as it is usually written.
const HYPHENATED: usize = 36;
