//! Everything that the store holds, as values and with the lookups that are needed. Knows records; does not
//! know where they come from or what is done with them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use tracing::error;
use uuid::Uuid;

use crate::state::holdings::Holdings;
use crate::store::records::alerts::{self, Fares, Message, Said, Sent};
use crate::store::records::certificates::{self, AuthorityAccount, Certificate, Challenge, Ledger, Order};
use crate::store::records::management::{self, IssuerKey};
use crate::store::records::nodes::{self, Alive, Invitation, NodeAuthority, NodeRecord};
use crate::store::records::objects::{Kind, Object, TURN};
use crate::store::records::sessions::SessionKeys;
use crate::store::records::{
    self, Account, Configuration, ReplicaShare, Route, Seen, Token, Tunnel, Zone, key,
};
use crate::store::timestamp::Timestamp;
use crate::store::{Batch, Listing, StoreRevision};

/// A record and the revision that a transaction compares with.
#[derive(Debug, Clone)]
pub(crate) struct Kept<T> {
    pub(crate) record: T,
    pub(crate) revision: StoreRevision,
    /// As it is kept.
    pub(crate) bytes: usize,
}

/// One revision of the state.
#[derive(Default)]
pub(crate) struct Snapshot {
    pub(crate) revision: StoreRevision,
    pub(crate) accounts: HashMap<String, Kept<Account>>,
    pub(crate) zones: HashMap<String, Kept<Zone>>,
    /// The deleted ones too.
    pub(crate) tunnels: HashMap<Uuid, Kept<Tunnel>>,
    /// The same, oldest first.
    pub(crate) by_age: BTreeSet<(Timestamp, Uuid)>,
    pub(crate) routes: BTreeMap<String, Kept<Route>>,
    /// The host name of the route with this id.
    pub(crate) by_record: HashMap<String, String>,
    pub(crate) tokens: HashMap<String, Kept<Token>>,
    pub(crate) configurations: HashMap<Uuid, Kept<Configuration>>,
    pub(crate) seen: HashMap<Uuid, Kept<Seen>>,
    /// By tunnel and connector.
    pub(crate) replicas: HashMap<(Uuid, Uuid), Kept<ReplicaShare>>,
    pub(crate) objects: Objects,
    pub(crate) session_keys: Option<Kept<SessionKeys>>,
    /// What management tokens are signed with.
    pub(crate) issuer: Option<IssuerKey>,
    pub(crate) alerts: Alerts,
    /// What authorities have issued, by host name, and the same for what leads to it.
    pub(crate) certificates: HashMap<String, Kept<Certificate>>,
    pub(crate) orders: HashMap<String, Kept<Order>>,
    pub(crate) challenges: HashMap<String, Kept<Challenge>>,
    pub(crate) authorities: HashMap<String, Kept<AuthorityAccount>>,
    pub(crate) order_ledger: Option<Kept<Ledger>>,
    /// The nodes of the fleet, by name, those of them that run, and who is invited to become one.
    pub(crate) nodes: BTreeMap<String, Kept<NodeRecord>>,
    pub(crate) alive: HashMap<String, Kept<Alive>>,
    pub(crate) invitations: HashMap<String, Kept<Invitation>>,
    pub(crate) node_authority: Option<Kept<NodeAuthority>>,
    /// What each account has of these.
    pub(crate) holdings: Holdings,
}

/// What load balancing consists of.
#[derive(Default)]
pub(crate) struct Objects {
    by_kind: [HashMap<String, Arc<Kept<Object>>>; Kind::ALL.len()],
    /// The ids of those that have a name, by [`Object::name_key`].
    by_name: HashMap<String, String>,
    /// By account, see [`turn_key`](records::objects::turn_key).
    pub(crate) turns: HashMap<String, StoreRevision>,
}

/// What is noted about alerts.
#[derive(Default)]
pub(crate) struct Alerts {
    pub(crate) messages: HashMap<String, Kept<Message>>,
    /// By the subject.
    pub(crate) said: HashMap<String, Kept<Said>>,
    /// By account, moment and id.
    pub(crate) sent: BTreeMap<String, Kept<Sent>>,
    /// By webhook.
    pub(crate) fares: HashMap<String, Kept<Fares>>,
    /// How many messages each account has.
    waiting: HashMap<String, usize>,
}

impl Alerts {
    /// Messages of an account that are to be sent.
    pub(crate) fn waiting(&self, account: &str) -> usize {
        self.waiting.get(account).copied().unwrap_or_default()
    }

    /// What became of an account's messages, the oldest first.
    pub(crate) fn sent_of(&self, account: &str) -> impl DoubleEndedIterator<Item = (&String, &Kept<Sent>)> {
        // No account's id has a character beyond `/` in its place.
        let (from, to) = (format!("{account}/"), format!("{account}0"));
        self.sent.range(from..to)
    }

    fn set_message(&mut self, whole: &str, id: &str, value: Option<&[u8]>, revision: StoreRevision) {
        if let Some(old) = self.messages.get(id)
            && let Some(count) = self.waiting.get_mut(&old.record.account)
        {
            *count -= 1;
        }
        set(&mut self.messages, whole, Some(id.to_owned()), value, revision);
        if let Some(new) = self.messages.get(id) {
            *self.waiting.entry(new.record.account.clone()).or_default() += 1;
        }
    }

    fn set_sent(&mut self, whole: &str, name: &str, value: Option<&[u8]>, revision: StoreRevision) {
        match value.map(records::from_json::<Sent>) {
            Some(Ok(record)) => {
                let bytes = value.map_or(0, <[u8]>::len);
                self.sent.insert(name.to_owned(), Kept { record, revision, bytes });
            }
            Some(Err(error)) => unreadable(whole, &error),
            None => drop(self.sent.remove(name)),
        }
    }
}

impl Objects {
    pub(crate) fn of(&self, kind: Kind) -> &HashMap<String, Arc<Kept<Object>>> {
        &self.by_kind[kind as usize]
    }

    /// An object of this account.
    pub(crate) fn get(&self, account: &str, kind: Kind, id: &str) -> Option<&Arc<Kept<Object>>> {
        self.of(kind).get(id).filter(|kept| kept.record.account == account)
    }

    /// Who has this name, whosever it is.
    pub(crate) fn named(&self, name_key: &str) -> Option<&String> {
        self.by_name.get(name_key)
    }

    /// Those of an account, oldest first.
    pub(crate) fn list(&self, account: &str, kind: Kind) -> Vec<(&String, &Arc<Kept<Object>>)> {
        let own = self.of(kind).iter().filter(|(_, kept)| kept.record.account == account);
        let mut own: Vec<_> = own.collect();
        own.sort_by_key(|(id, kept)| (kept.record.created_at, *id));
        own
    }

    fn set(&mut self, whole: &str, kind: Kind, id: &str, value: Option<&[u8]>, revision: StoreRevision) {
        let new = match value.map(records::from_json::<Object>) {
            Some(Ok(record)) => {
                let bytes = value.map_or(0, <[u8]>::len);
                Some(Arc::new(Kept { record, revision, bytes }))
            }
            Some(Err(error)) => return unreadable(whole, &error),
            None => None,
        };
        let known = &mut self.by_kind[kind as usize];
        let name = new.as_ref().and_then(|kept| kept.record.name_key(kind));
        let old = match new {
            Some(new) => known.insert(id.to_owned(), new),
            None => known.remove(id),
        };
        if let Some(old) = old.and_then(|old| old.record.name_key(kind))
            && self.by_name.get(&old).is_some_and(|known| known == id)
        {
            self.by_name.remove(&old);
        }
        if let Some(name) = name {
            self.by_name.insert(name, id.to_owned());
        }
    }
}

/// What a change was about, as far as what is served depends on it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) tunnels: bool,
    pub(crate) routes: bool,
    pub(crate) configurations: bool,
    pub(crate) objects: bool,
    pub(crate) certificates: bool,
    pub(crate) nodes: bool,
    pub(crate) replicas: bool,
}

impl Changes {
    pub(crate) fn all() -> Self {
        Self {
            tunnels: true,
            routes: true,
            configurations: true,
            objects: true,
            certificates: true,
            nodes: true,
            replicas: true,
        }
    }
}

impl Snapshot {
    pub(crate) fn from_listing(listing: Listing) -> Self {
        let mut snapshot = Self { revision: listing.revision, ..Self::default() };
        for entry in listing.entries {
            snapshot.set(&entry.key, Some(&entry.value), entry.revision, &mut Changes::default());
        }
        snapshot
    }

    pub(crate) fn apply(&mut self, batch: Batch, touched: &mut Changes) {
        for change in batch.changes {
            self.set(&change.key, change.value.as_deref(), batch.revision, touched);
        }
        self.revision = batch.revision;
    }

    /// A tunnel of this account, deleted or not.
    pub(crate) fn tunnel(&self, account: &str, id: Uuid) -> Option<&Kept<Tunnel>> {
        self.tunnels.get(&id).filter(|tunnel| tunnel.record.account == account)
    }

    /// The zone with the longest name that `hostname` ends with, whosever it is.
    pub(crate) fn zone_of(&self, hostname: &str) -> Option<(&String, &Zone)> {
        let fits = |zone: &Zone| {
            let rest = hostname.strip_suffix(zone.name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        let zones = self.zones.iter().map(|(id, zone)| (id, &zone.record));
        zones.filter(|(_, zone)| fits(zone)).max_by_key(|(_, zone)| zone.name.len())
    }

    pub(crate) fn zone_names(&self) -> Vec<String> {
        self.zones.values().map(|zone| zone.record.name.clone()).collect()
    }

    pub(crate) fn routes_of(&self, tunnel: Uuid) -> impl Iterator<Item = (&String, &Kept<Route>)> {
        self.routes.iter().filter(move |(_, route)| route.record.tunnel == tunnel)
    }

    fn set(&mut self, whole: &str, value: Option<&[u8]>, revision: StoreRevision, touched: &mut Changes) {
        let Some(at) = whole.find('/') else { return };
        let (kind, name) = whole.split_at(at + 1);
        match kind {
            key::ACCOUNT => set(&mut self.accounts, whole, Some(name.to_owned()), value, revision),
            key::ZONE => set(&mut self.zones, whole, Some(name.to_owned()), value, revision),
            key::TUNNEL => {
                touched.tunnels = true;
                let Some(id) = name.parse().ok() else { return };
                let configured = self.configured(&id);
                if let Some(old) = self.tunnels.get(&id) {
                    self.by_age.remove(&(old.record.created_at, id));
                    self.holdings.tunnel_went(id, &old.record, old.bytes + configured);
                }
                set(&mut self.tunnels, whole, Some(id), value, revision);
                if let Some(new) = self.tunnels.get(&id) {
                    self.by_age.insert((new.record.created_at, id));
                    self.holdings.tunnel_came(id, &new.record, new.bytes + configured);
                }
            }
            key::ROUTE => {
                touched.routes = true;
                match value.map(records::from_json::<Route>) {
                    Some(Ok(record)) => {
                        self.forget_record(name);
                        self.by_record.insert(record.id(name), name.to_owned());
                        let bytes = value.map_or(0, <[u8]>::len);
                        self.holdings.record_came(&record.zone, bytes);
                        self.routes.insert(name.to_owned(), Kept { record, revision, bytes });
                    }
                    Some(Err(error)) => unreadable(whole, &error),
                    None => {
                        self.forget_record(name);
                        self.routes.remove(name);
                    }
                }
            }
            key::TOKEN => set(&mut self.tokens, whole, Some(name.to_owned()), value, revision),
            key::CONFIGURATION => {
                touched.configurations = true;
                let Some(id) = name.parse().ok() else { return };
                let before = self.configured(&id);
                set(&mut self.configurations, whole, Some(id), value, revision);
                let after = self.configured(&id);
                // One that is listed before its tunnel is counted with it.
                if let Some(Kept { record, bytes, .. }) = self.tunnels.get(&id) {
                    self.holdings.tunnel_went(id, record, bytes + before);
                    self.holdings.tunnel_came(id, record, bytes + after);
                }
            }
            key::REPLICA => {
                touched.replicas = true;
                let id = name.split_once('/');
                let id =
                    id.and_then(|(tunnel, connector)| Some((tunnel.parse().ok()?, connector.parse().ok()?)));
                set(&mut self.replicas, whole, id, value, revision);
            }
            key::SEEN => set(&mut self.seen, whole, name.parse().ok(), value, revision),
            key::SESSIONS => {
                touched.objects = true;
                match value.map(records::from_json) {
                    Some(Ok(record)) => {
                        let bytes = value.map_or(0, <[u8]>::len);
                        self.session_keys = Some(Kept { record, revision, bytes });
                    }
                    Some(Err(error)) => unreadable(whole, &error),
                    None => self.session_keys = None,
                }
            }
            management::MANAGEMENT => {
                self.issuer = value.and_then(|value| match records::from_json(value) {
                    Ok(record) => Some(record),
                    Err(error) => {
                        unreadable(whole, &error);
                        self.issuer.take()
                    }
                });
            }
            certificates::CERTIFICATE => {
                touched.certificates = true;
                set(&mut self.certificates, whole, Some(name.to_owned()), value, revision);
            }
            certificates::CHALLENGE => {
                touched.certificates = true;
                set(&mut self.challenges, whole, Some(name.to_owned()), value, revision);
            }
            certificates::ORDER => set(&mut self.orders, whole, Some(name.to_owned()), value, revision),
            certificates::AUTHORITY => {
                set(&mut self.authorities, whole, Some(name.to_owned()), value, revision);
            }
            certificates::LEDGER => {
                self.order_ledger = value.and_then(|value| match records::from_json(value) {
                    Ok(record) => Some(Kept { record, revision, bytes: value.len() }),
                    Err(error) => {
                        unreadable(whole, &error);
                        self.order_ledger.take()
                    }
                });
            }
            nodes::NODE => {
                touched.nodes = true;
                match value.map(records::from_json) {
                    Some(Ok(record)) => {
                        let bytes = value.map_or(0, <[u8]>::len);
                        self.nodes.insert(name.to_owned(), Kept { record, revision, bytes });
                    }
                    Some(Err(error)) => unreadable(whole, &error),
                    None => drop(self.nodes.remove(name)),
                }
            }
            nodes::ALIVE => {
                touched.nodes = true;
                set(&mut self.alive, whole, Some(name.to_owned()), value, revision);
            }
            nodes::INVITATION => set(&mut self.invitations, whole, Some(name.to_owned()), value, revision),
            nodes::NODE_AUTHORITY => {
                touched.nodes = true;
                match value.map(records::from_json) {
                    Some(Ok(record)) => {
                        let bytes = value.map_or(0, <[u8]>::len);
                        self.node_authority = Some(Kept { record, revision, bytes });
                    }
                    Some(Err(error)) => unreadable(whole, &error),
                    None => self.node_authority = None,
                }
            }
            alerts::MESSAGE => self.alerts.set_message(whole, name, value, revision),
            alerts::SAID => set(&mut self.alerts.said, whole, Some(name.to_owned()), value, revision),
            alerts::SENT => self.alerts.set_sent(whole, name, value, revision),
            alerts::FARES => set(&mut self.alerts.fares, whole, Some(name.to_owned()), value, revision),
            TURN => match value {
                Some(_) => drop(self.objects.turns.insert(name.to_owned(), revision)),
                None => drop(self.objects.turns.remove(name)),
            },
            _ => {
                // A newer version of this program may keep more.
                let Some(kind) = Kind::ALL.into_iter().find(|known| known.prefix() == kind) else { return };
                touched.objects |= kind.is_served();
                if let Some(old) = self.objects.of(kind).get(name) {
                    self.holdings.object_went(&old.record.account, old.bytes);
                }
                self.objects.set(whole, kind, name, value, revision);
                if let Some(new) = self.objects.of(kind).get(name) {
                    self.holdings.object_came(&new.record.account, new.bytes);
                }
            }
        }
    }

    /// Bytes of a tunnel's configuration.
    fn configured(&self, tunnel: &Uuid) -> usize {
        self.configurations.get(tunnel).map_or(0, |kept| kept.bytes)
    }

    fn forget_record(&mut self, hostname: &str) {
        let Some(Kept { record, bytes, .. }) = self.routes.get(hostname) else { return };
        self.holdings.record_went(&record.zone, *bytes);
        let id = record.id(hostname);
        // Under another name by now, perhaps.
        if self.by_record.get(&id).is_some_and(|known| known == hostname) {
            self.by_record.remove(&id);
        }
    }
}

fn set<K: Eq + std::hash::Hash, T: DeserializeOwned>(
    into: &mut HashMap<K, Kept<T>>,
    whole: &str,
    name: Option<K>,
    value: Option<&[u8]>,
    revision: StoreRevision,
) {
    let Some(name) = name else { return };
    match value.map(records::from_json) {
        Some(Ok(record)) => {
            let bytes = value.map_or(0, <[u8]>::len);
            into.insert(name, Kept { record, revision, bytes });
        }
        // What was known before is better than nothing.
        Some(Err(error)) => unreadable(whole, &error),
        None => drop(into.remove(&name)),
    }
}

fn unreadable(key: &str, error: &serde_json::Error) {
    error!(key, line = error.line(), column = error.column(), "a record of the state cannot be read");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Change;

    fn snapshot(zones: &[&str]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for name in zones {
            let record =
                Zone { account: "a".to_owned(), name: (*name).to_owned(), created_at: Timestamp::now() };
            snapshot
                .zones
                .insert(format!("id of {name}"), Kept { record, revision: StoreRevision(1), bytes: 0 });
        }
        snapshot
    }

    #[test]
    fn the_zone_of_a_name_is_the_one_with_the_longest_suffix() {
        let snapshot = snapshot(&["example.com", "deep.example.com", "other.org"]);
        for (hostname, zone) in [
            ("example.com", Some("example.com")),
            ("*.example.com", Some("example.com")),
            ("a.b.example.com", Some("example.com")),
            ("a.deep.example.com", Some("deep.example.com")),
            ("deep.example.com", Some("deep.example.com")),
            ("notdeep.example.com", Some("example.com")),
            ("notexample.com", None),
            ("com", None),
        ] {
            assert_eq!(snapshot.zone_of(hostname).map(|(_, zone)| &*zone.name), zone, "{hostname}");
        }
    }

    #[test]
    fn a_route_that_was_kept_without_an_id_has_one_and_keeps_it_under_another_name() {
        let json = r#"{"zone":"z","tunnel":"f0b1d4d0-1111-4222-8333-444455556666","created_at":"2026-01-01T00:00:00Z"}"#;
        let old: Route = records::from_json(json.as_bytes()).unwrap();
        let (id, other) = (old.id("a.test"), old.id("b.test"));
        assert_eq!((id.len(), id == other), (32, false));
        let moved = old.clone().changed("a.test", Timestamp::now());
        assert_eq!(moved.id("b.test"), id);
        let (from, to) = (key::route("a.test"), key::route("b.test"));
        let gone = Change { key: from.clone(), value: None };
        let put =
            |key: &String, route: &Route| Change { key: key.clone(), value: Some(records::to_json(route)) };
        for changes in [vec![gone.clone(), put(&to, &moved)], vec![put(&to, &moved), gone.clone()]] {
            let mut snapshot = Snapshot::default();
            for (number, changes) in [vec![put(&from, &old)], changes].into_iter().enumerate() {
                let revision = StoreRevision(number as u64 + 1);
                snapshot.apply(Batch { revision, changes }, &mut Changes::default());
            }
            assert_eq!(snapshot.by_record.get(&id).map(String::as_str), Some("b.test"));
            assert_eq!(snapshot.by_record.len(), 1);
        }
    }

    #[test]
    fn what_an_account_has_follows_its_records_in_whatever_order_they_come() {
        let (id, account) = (Uuid::from_u128(7), "a".to_owned());
        let tunnel = |metadata: &str, deleted_at| Tunnel {
            account: account.clone(),
            name: "one".to_owned(),
            secret: None,
            previous: None,
            created_at: Timestamp::now(),
            deleted_at,
            remote: false,
            quick: false,
            metadata: metadata.into(),
        };
        let configuration =
            |text: &str| Configuration { version: 1, config: text.into(), created_at: Timestamp::now() };
        let json = |text: String, value: Option<bytes::Bytes>| Change { key: text, value };
        let (small, large) =
            (records::to_json(&tunnel("", None)), records::to_json(&tunnel("metadata", None)));
        let (one, other) =
            (records::to_json(&configuration("1")), records::to_json(&configuration("another")));
        let deleted = records::to_json(&tunnel("", Some(Timestamp::now())));
        let route = records::to_json(&Route::new("z", id));
        let put = |key: String, value: &bytes::Bytes| json(key, Some(value.clone()));
        let (by_tunnel, by_configuration) = (key::tunnel(id), key::configuration(id));
        let (by_route, zones) = (key::route("a.test"), ["z".to_owned()]);
        let mut snapshot = Snapshot::default();
        for (change, tunnels, bytes, records) in [
            // As a listing has it.
            (put(by_configuration.clone(), &one), 0, 0, 0),
            (put(by_route.clone(), &route), 0, 0, 1),
            (put(by_tunnel.clone(), &small), 1, small.len() + one.len(), 1),
            (put(by_tunnel.clone(), &large), 1, large.len() + one.len(), 1),
            (put(by_configuration.clone(), &other), 1, large.len() + other.len(), 1),
            (put(by_tunnel.clone(), &"{".into()), 1, large.len() + other.len(), 1),
            (put(by_route.clone(), &route), 1, large.len() + other.len(), 1),
            (json(by_route.clone(), None), 1, large.len() + other.len(), 0),
            (json(by_route, None), 1, large.len() + other.len(), 0),
            (json(by_configuration, None), 1, large.len(), 0),
            (put(by_tunnel.clone(), &deleted), 0, deleted.len(), 0),
        ] {
            let said = format!("{change:?}");
            snapshot
                .apply(Batch { revision: StoreRevision(1), changes: vec![change] }, &mut Changes::default());
            assert_eq!(snapshot.holdings.tunnels(&account), (tunnels, bytes), "{said}");
            let held = snapshot.holdings.records(zones.iter());
            assert_eq!((held.count, held.bytes), (records, records * route.len()), "{said}");
        }
        assert_eq!(snapshot.holdings.deleted_before(&account, 0).collect::<Vec<_>>(), [id]);
        assert_eq!(snapshot.holdings.deleted_before(&account, 1).count(), 0);
        let gone = json(by_tunnel, None);
        snapshot.apply(Batch { revision: StoreRevision(2), changes: vec![gone] }, &mut Changes::default());
        assert_eq!(snapshot.holdings.tunnels(&account), (0, 0));
        assert_eq!(snapshot.holdings.deleted_before(&account, 0).count(), 0);
    }
}
