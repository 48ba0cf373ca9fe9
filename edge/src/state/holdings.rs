//! What each account has of an edge's state, in numbers and bytes, kept as records come and go. Knows records; how much
//! an account may have is for the control API.

use std::collections::{BTreeSet, HashMap};

use uuid::Uuid;

use crate::store::records::Tunnel;
use crate::store::timestamp::Timestamp;

/// What there is of all accounts.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    accounts: HashMap<String, Tunnels>,
    /// By the zone that they are in.
    records: HashMap<String, Records>,
    /// Bytes of what load balancing and alerts consist of, by account.
    objects: HashMap<String, usize>,
}

#[derive(Debug, Default)]
struct Tunnels {
    living: usize,
    /// The oldest first.
    deleted: BTreeSet<(Timestamp, Uuid)>,
    /// With their configurations.
    bytes: usize,
}

/// What there is of some records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) count: usize,
    pub(crate) bytes: usize,
}

impl Holdings {
    /// `bytes` is what the record takes, and its configuration.
    pub(super) fn tunnel_came(&mut self, id: Uuid, tunnel: &Tunnel, bytes: usize) {
        if !self.accounts.contains_key(&tunnel.account) {
            self.accounts.insert(tunnel.account.clone(), Tunnels::default());
        }
        let Some(held) = self.accounts.get_mut(&tunnel.account) else { return };
        held.bytes += bytes;
        match tunnel.deleted_at {
            Some(at) => drop(held.deleted.insert((at, id))),
            None => held.living += 1,
        }
    }

    /// The reverse of [`Self::tunnel_came`], with the same values.
    pub(super) fn tunnel_went(&mut self, id: Uuid, tunnel: &Tunnel, bytes: usize) {
        let Some(held) = self.accounts.get_mut(&tunnel.account) else { return };
        held.bytes -= bytes;
        match tunnel.deleted_at {
            Some(at) => drop(held.deleted.remove(&(at, id))),
            None => held.living -= 1,
        }
    }

    pub(super) fn record_came(&mut self, zone: &str, bytes: usize) {
        if !self.records.contains_key(zone) {
            self.records.insert(zone.to_owned(), Records::default());
        }
        let Some(held) = self.records.get_mut(zone) else { return };
        held.count += 1;
        held.bytes += bytes;
    }

    pub(super) fn record_went(&mut self, zone: &str, bytes: usize) {
        let Some(held) = self.records.get_mut(zone) else { return };
        held.count -= 1;
        held.bytes -= bytes;
    }

    pub(super) fn object_came(&mut self, account: &str, bytes: usize) {
        match self.objects.get_mut(account) {
            Some(held) => *held += bytes,
            None => drop(self.objects.insert(account.to_owned(), bytes)),
        }
    }

    pub(super) fn object_went(&mut self, account: &str, bytes: usize) {
        if let Some(held) = self.objects.get_mut(account) {
            *held -= bytes;
        }
    }

    /// Bytes of the objects of an account.
    pub(crate) fn objects(&self, account: &str) -> usize {
        self.objects.get(account).copied().unwrap_or_default()
    }

    /// Tunnels of an account that are not deleted, and the bytes of all that it has, with their configurations.
    pub(crate) fn tunnels(&self, account: &str) -> (usize, usize) {
        self.accounts.get(account).map_or((0, 0), |held| (held.living, held.bytes))
    }

    /// The records of these zones.
    pub(crate) fn records<'z>(&self, zones: impl Iterator<Item = &'z String>) -> Records {
        zones.filter_map(|zone| self.records.get(zone)).fold(Records::default(), |all, zone| Records {
            count: all.count + zone.count,
            bytes: all.bytes + zone.bytes,
        })
    }

    /// The deleted tunnels of an account but for the newest `keep`, the oldest first.
    pub(crate) fn deleted_before(&self, account: &str, keep: usize) -> impl Iterator<Item = Uuid> + '_ {
        let deleted = self.accounts.get(account).map(|held| &held.deleted);
        let surplus = deleted.map_or(0, |deleted| deleted.len().saturating_sub(keep));
        deleted.into_iter().flatten().take(surplus).map(|(_, id)| *id)
    }
}
