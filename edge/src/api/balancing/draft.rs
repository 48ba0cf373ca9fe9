//! What changes make of the objects of an account, decided on one snapshot before anything is written: the changes
//! see each other, and their transaction holds if no object of the account has changed meanwhile. Knows who may name
//! what; writes nothing.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use uuid::Uuid;

use super::form::{self, Known};
use super::view;
use crate::alerts::event::{self, AlertType, Event};
use crate::api::alerting;
use crate::api::envelope::Problem;
use crate::api::identity::Identity;
use crate::api::note;
use crate::settings::host_name::HostName;
use crate::state::publish::StaticTunnels;
use crate::state::snapshot::Snapshot;
use crate::store::records::alerts::{Fares, fares_key};
use crate::store::records::objects::{Kind, Object, tunnel_of, turn_key};
use crate::store::records::sessions::SessionKeys;
use crate::store::records::{key, to_json};
use crate::store::timestamp::Timestamp;
use crate::store::{StoreRevision, Transaction};

/// The objects of an account as they will be.
pub(in crate::api) struct Draft<'s> {
    who: &'s Identity,
    snapshot: &'s Snapshot,
    fixed: &'s StaticTunnels,
    now: Timestamp,
    /// Objects that change, as each will be.
    changed: BTreeMap<(Kind, String), Option<Object>>,
    /// Those that must still be there when the objects are.
    tunnels: BTreeMap<Uuid, StoreRevision>,
}

/// Where an object is looked for: those of the account, or those of one of its zones.
pub(in crate::api) type Zone<'z> = Option<&'z str>;

impl<'s> Draft<'s> {
    pub(super) fn of(who: &'s Identity, snapshot: &'s Snapshot, fixed: &'s StaticTunnels) -> Self {
        let (changed, tunnels) = (BTreeMap::new(), BTreeMap::new());
        Self { who, snapshot, fixed, now: Timestamp::now(), changed, tunnels }
    }

    pub(super) fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }

    /// Makes an object; its id.
    pub(in crate::api) fn create(
        &mut self,
        kind: Kind,
        zone: Zone<'_>,
        body: &Map<String, Value>,
    ) -> Result<String, Problem> {
        let most = match kind {
            Kind::Monitor => MOST_MONITORS,
            Kind::MonitorGroup | Kind::Pool | Kind::Balancer => MOST_OBJECTS,
            Kind::Webhook | Kind::Policy => MOST_OF_ALERTS,
        };
        if self.all(kind).count() >= most {
            let what = format!("an account has at most {most} of these; delete a {} first", kind.word());
            return Err(Problem::Conflict(what));
        }
        let id = Uuid::new_v4().simple().to_string();
        let object = self.trial(kind, zone, body)?;
        self.put(kind, &id, object)?;
        Ok(id)
    }

    /// An object as it would be made.
    pub(super) fn trial(
        &mut self,
        kind: Kind,
        zone: Zone<'_>,
        body: &Map<String, Value>,
    ) -> Result<Object, Problem> {
        let (said, name) = self.read(kind, zone, None, body)?;
        Ok(Object {
            account: self.who.account().to_owned(),
            zone: zone.map(str::to_owned),
            name,
            said,
            created_at: self.now,
            modified_at: self.now,
            modified_by: self.who.actor(),
            disabled_at: BTreeMap::new(),
            secrets: Vec::new(),
        })
    }

    /// As the caller says, whatever was there.
    pub(super) fn replace(
        &mut self,
        kind: Kind,
        zone: Zone<'_>,
        id: &str,
        body: &Map<String, Value>,
    ) -> Result<(), Problem> {
        let before = self.find(kind, zone, id)?.clone();
        let (said, name) = self.read(kind, zone, Some((id, &before)), body)?;
        self.put(kind, id, Object { said, name, ..before })
    }

    /// Only what the caller says; `null` takes a field back to what it usually is.
    pub(in crate::api) fn edit(
        &mut self,
        kind: Kind,
        zone: Zone<'_>,
        id: &str,
        body: &Map<String, Value>,
    ) -> Result<(), Problem> {
        let mut whole = self.find(kind, zone, id)?.said.clone();
        for (name, value) in body {
            whole.insert(name.clone(), value.clone());
        }
        self.replace(kind, zone, id, &whole)
    }

    /// Only what no other object names.
    pub(in crate::api) fn delete(&mut self, kind: Kind, zone: Zone<'_>, id: &str) -> Result<(), Problem> {
        self.find(kind, zone, id)?;
        if let Some((by, referrer, object)) = self.referrers(kind, id).next() {
            let name = view::name_of(by, object);
            let what = format!("{} {id} is named by {} {referrer} ({name})", kind.word(), by.word());
            return Err(Problem::Referenced(what));
        }
        self.changed.insert((kind, id.to_owned()), None);
        Ok(())
    }

    /// An object that the caller may see.
    pub(in crate::api) fn find(&self, kind: Kind, zone: Zone<'_>, id: &str) -> Result<&Object, Problem> {
        let found =
            self.get(kind, id).filter(|object| zone.is_none_or(|zone| object.zone.as_deref() == Some(zone)));
        found.ok_or(Problem::NotFound(kind.word()))
    }

    /// The objects that name this one.
    pub(super) fn referrers(&self, kind: Kind, id: &str) -> impl Iterator<Item = (Kind, &str, &Object)> {
        let names = move |by: Kind, object: &Object| match (kind, by) {
            (Kind::Monitor, Kind::Pool) => object.text("monitor") == Some(id),
            (Kind::Monitor, Kind::MonitorGroup) => view::members(object).any(|member| member == id),
            (Kind::MonitorGroup, Kind::Pool) => object.text("monitor_group") == Some(id),
            (Kind::Pool, Kind::Balancer) => form::mentions(object).contains(id),
            (Kind::Webhook, Kind::Policy) => event::webhooks(object).any(|webhook| webhook == id),
            _ => false,
        };
        let all = Kind::ALL.into_iter().flat_map(|by| self.all(by).map(move |(id, object)| (by, id, object)));
        all.filter(move |(by, _, object)| names(*by, object))
    }

    /// The pool of this name.
    pub(super) fn pool_named(&self, name: &str) -> Option<(String, &Object)> {
        let mut all = self.all(Kind::Pool);
        all.find(|(_, pool)| pool.name.as_deref() == Some(name)).map(|(id, pool)| (id.to_owned(), pool))
    }

    /// The load balancer of this host name, if it is one of this account.
    pub(super) fn balancer_named(&self, host: &str) -> Option<(String, &Object)> {
        let mut all = self.all(Kind::Balancer);
        all.find(|(_, one)| one.name.as_deref() == Some(host)).map(|(id, one)| (id.to_owned(), one))
    }

    /// What the objects that change take, and what they will.
    pub(super) fn bytes(&self) -> (usize, usize) {
        let before = |(kind, id): &(Kind, String)| {
            self.snapshot.objects.of(*kind).get(id).map_or(0, |kept| kept.bytes)
        };
        let after = self.changed.values().flatten().map(|object| to_json(object).len()).sum();
        (self.changed.keys().map(before).sum(), after)
    }

    /// Nothing if nothing changes.
    pub(super) fn into_transaction(self, action: &'static str) -> Option<Transaction> {
        let Self { who, snapshot, changed, tunnels, .. } = self;
        if changed.is_empty() {
            return None;
        }
        let said = changed.iter().map(|((kind, id), object)| {
            let before = || snapshot.objects.of(*kind).get(id).map(|kept| &kept.record);
            let name = object.as_ref().or_else(before).and_then(|object| object.name.as_ref());
            let name = name.map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{} {id}{name}{}", kind.word(), if object.is_some() { "" } else { " gone" })
        });
        let mut transaction = Transaction::new(note(who, action, said.collect::<Vec<_>>().join(", ")));
        let turn = turn_key(who.account());
        transaction = match snapshot.objects.turns.get(who.account()) {
            Some(revision) => transaction.if_at(&turn, *revision),
            None => transaction.if_absent(&turn),
        };
        for (tunnel, revision) in tunnels {
            transaction = transaction.if_at(key::tunnel(tunnel), revision);
        }
        let has_sessions = changed.values().flatten().any(Object::has_sessions);
        if snapshot.session_keys.is_none()
            && has_sessions
            && let Some(keys) = SessionKeys::new(Timestamp::now())
        {
            let at = key::SESSION_KEYS;
            transaction = transaction.if_absent(at).put(at, to_json(&keys));
        }
        let mut names = BTreeMap::new();
        for ((kind, id), after) in &changed {
            let before = snapshot.objects.of(*kind).get(id);
            let old = before.and_then(|before| before.record.name_key(*kind));
            let new = after.as_ref().and_then(|after| after.name_key(*kind));
            if old != new {
                if let Some(old) = old {
                    names.entry(old).or_insert(None);
                }
                if let Some(new) = new {
                    names.insert(new, Some(id.clone()));
                }
            }
        }
        for (name, id) in names {
            transaction = match snapshot.objects.named(&name) {
                Some(_) => transaction,
                // Of a host name another account could be the first.
                None => transaction.if_absent(&name),
            };
            transaction = match id {
                Some(id) => transaction.put(name, id),
                None => transaction.remove(name),
            };
        }
        for ((kind, id), after) in &changed {
            transaction = noted(snapshot, *kind, id, after.as_ref(), transaction);
        }
        for ((kind, id), after) in changed {
            transaction = match after {
                Some(object) => transaction.put(kind.key(&id), to_json(&object)),
                None => transaction.remove(kind.key(&id)),
            };
        }
        Some(transaction.put(turn, ""))
    }

    fn get(&self, kind: Kind, id: &str) -> Option<&Object> {
        match self.changed.get(&(kind, id.to_owned())) {
            Some(object) => object.as_ref(),
            None => self.snapshot.objects.get(self.who.account(), kind, id).map(|kept| &kept.record),
        }
    }

    /// All objects of the account, as they will be.
    pub(super) fn all(&self, kind: Kind) -> impl Iterator<Item = (&str, &Object)> {
        let account = self.who.account();
        let kept = self.snapshot.objects.of(kind).iter();
        let kept = kept.filter(move |(id, kept)| {
            kept.record.account == account && !self.changed.contains_key(&(kind, (*id).clone()))
        });
        let kept = kept.map(|(id, kept)| (id.as_str(), &kept.record));
        let changed = self.changed.iter().filter(move |((known, _), _)| *known == kind);
        kept.chain(changed.filter_map(|((_, id), object)| Some((id.as_str(), object.as_ref()?))))
    }

    fn read(
        &mut self,
        kind: Kind,
        zone: Zone<'_>,
        before: Option<(&str, &Object)>,
        body: &Map<String, Value>,
    ) -> Result<(Map<String, Value>, Option<String>), Problem> {
        let mut context = Context { draft: self, zone, before: before.map(|(_, object)| object), name: None };
        let said = form::read(kind, body, &mut context).map_err(Problem::Refused)?;
        let name = match kind {
            Kind::Balancer => context.name,
            Kind::Pool => said.get("name").and_then(Value::as_str).map(str::to_owned),
            Kind::Monitor | Kind::MonitorGroup | Kind::Webhook | Kind::Policy => None,
        };
        Ok((said, name))
    }

    fn put(&mut self, kind: Kind, id: &str, mut object: Object) -> Result<(), Problem> {
        if let Some(name) = object.name_key(kind) {
            let others = self.all(kind).any(|(other, known)| other != id && known.name == object.name);
            let foreign = self.snapshot.objects.named(&name).is_some_and(|known| {
                known != id && self.snapshot.objects.get(self.who.account(), kind, known).is_none()
            });
            if others || foreign {
                let (word, name) = (kind.word(), object.name.unwrap_or_default());
                return Err(Problem::Conflict(format!("there is a {word} `{name}` already")));
            }
        }
        let known = self.get(kind, id);
        let disabled = disabled(kind, &object).into_iter().map(|address| {
            let since = known.and_then(|known| known.disabled_at.get(&address).copied());
            (address, since.unwrap_or(self.now))
        });
        object.disabled_at = disabled.collect();
        let new = object.said.remove("secret").and_then(|secret| secret.as_str().map(str::to_owned));
        object.secrets = alerting::secrets(&object.secrets, new, self.now);
        // What is said again was not changed.
        if known.is_some_and(|known| known.said == object.said && known.secrets == object.secrets) {
            return Ok(());
        }
        (object.modified_at, object.modified_by) = (self.now, self.who.actor());
        self.changed.insert((kind, id.to_owned()), Some(object));
        Ok(())
    }
}

/// What of a change is worth an alert, and what it means for the webhooks that are told.
fn noted(
    snapshot: &Snapshot,
    kind: Kind,
    id: &str,
    after: Option<&Object>,
    transaction: Transaction,
) -> Transaction {
    let before = snapshot.objects.of(kind).get(id).map(|kept| &kept.record);
    match (kind, before, after) {
        (Kind::Pool, Some(before), Some(after)) if before.is_enabled() != after.is_enabled() => {
            let (name, is_enabled) = (event::brief(view::name_of(kind, after)), after.is_enabled());
            let word = if is_enabled { "enabled" } else { "disabled" };
            let text = format!("The pool {name} is {word}.");
            let labels =
                vec![("pool_id", id.to_owned()), ("pool_name", name), ("enabled", is_enabled.to_string())];
            let event = Event::once(&after.account, AlertType::PoolEnablement, text, labels);
            event.tell(snapshot, transaction, Timestamp::now())
        }
        (Kind::Webhook, _, None) => transaction.remove(fares_key(id)),
        // One that has changed is told again.
        (Kind::Webhook, Some(_), Some(_)) => match snapshot.alerts.fares.get(id) {
            Some(kept) => {
                let fares = Fares { not_before: None, gone_at: None, ..kept.record.clone() };
                transaction.put(fares_key(id), to_json(&fares))
            }
            None => transaction,
        },
        _ => transaction,
    }
}

/// The endpoints that are switched off, by address, and the pool itself, as an empty one.
fn disabled(kind: Kind, object: &Object) -> Vec<String> {
    if kind != Kind::Pool {
        return Vec::new();
    }
    let off = |said: &Map<String, Value>| said.get("enabled") == Some(&Value::Bool(false));
    let endpoints = object.endpoints().filter(|endpoint| off(endpoint));
    let mut disabled: Vec<String> =
        endpoints.filter_map(|endpoint| Some(endpoint.get("address")?.as_str()?.to_owned())).collect();
    if !object.is_enabled() {
        disabled.push(String::new());
    }
    disabled
}

/// What an object may name, by this draft.
struct Context<'c, 's> {
    draft: &'c mut Draft<'s>,
    zone: Zone<'c>,
    before: Option<&'c Object>,
    /// The host name of a load balancer, as visitors ask for it.
    name: Option<String>,
}

impl Known for Context<'_, '_> {
    fn has(&self, kind: Kind, id: &str) -> bool {
        self.draft.get(kind, id).is_some()
    }

    fn address(&mut self, address: &str) -> Result<(), &'static str> {
        let Some((id, _)) = tunnel_of(address, self.draft.fixed.domain.as_deref()) else { return Ok(()) };
        let is_said =
            |endpoint: &Map<String, Value>| endpoint.get("address").and_then(Value::as_str) == Some(address);
        // One whose tunnel was deleted may stay until it is taken out.
        if self.before.is_some_and(|before| before.endpoints().any(is_said)) {
            return Ok(());
        }
        let kept = self.draft.snapshot.tunnel(self.draft.who.account(), id);
        let kept = kept.filter(|kept| !kept.record.is_deleted()).ok_or("names a tunnel that is not there")?;
        self.draft.tunnels.insert(id, kept.revision);
        Ok(())
    }

    fn owns(&self, host: &str) -> bool {
        let Ok(host) = adit_address::host(host) else { return false };
        let zone = self.draft.snapshot.zone_of(&host);
        zone.is_some_and(|(_, zone)| zone.account == self.draft.who.account())
    }

    fn balancer_name(&mut self, name: &str) -> Result<(), String> {
        let parsed: HostName = name.parse().map_err(|error| format!("is no host name: {error}"))?;
        let whole = parsed.to_string();
        let bare = whole.strip_prefix("*.").unwrap_or(&whole);
        let zone = self.draft.snapshot.zone_of(bare).map(|(id, _)| id.as_str());
        if zone.is_none() || zone != self.zone {
            return Err("is not in this zone, or in a zone within it".to_owned());
        }
        if self.draft.fixed.claims(&parsed) {
            return Err("is led elsewhere by the edge's own configuration".to_owned());
        }
        self.name = Some(whole);
        Ok(())
    }
}

/// Objects of one kind that an account may have.
const MOST_OBJECTS: usize = 250;
const MOST_MONITORS: usize = 375;
/// The same for webhooks, and for policies.
const MOST_OF_ALERTS: usize = 50;
