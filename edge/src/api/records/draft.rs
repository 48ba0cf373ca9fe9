//! What changes make of a zone's records, decided on one snapshot before anything is written: the changes see each
//! other, and their transaction holds if nothing that they looked at has changed meanwhile. Knows the rules of
//! names and of who may lead what where; writes nothing.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use uuid::Uuid;

use super::form::{View, Wish};
use crate::api::envelope::Problem;
use crate::api::identity::Identity;
use crate::api::note;
use crate::api::share::Share;
use crate::api::zones::own_zone;
use crate::settings::host_name::HostName;
use crate::state::publish::StaticTunnels;
use crate::state::snapshot::Snapshot;
use crate::store::records::{Remarks, Route, Zone, key, to_json};
use crate::store::timestamp::Timestamp;
use crate::store::{StoreRevision, Transaction};

/// The records of a zone as they will be.
pub(super) struct Draft<'s> {
    who: &'s Identity,
    snapshot: &'s Snapshot,
    fixed: &'s StaticTunnels,
    zone: &'s str,
    zone_record: &'s Zone,
    now: Timestamp,
    /// Host names that change, with the route that each will have.
    changed: BTreeMap<String, Option<Route>>,
    /// The host names among them that have a record, by its id.
    by_record: HashMap<String, String>,
    /// Those that must still be there when the routes are.
    tunnels: BTreeMap<Uuid, StoreRevision>,
}

impl<'s> Draft<'s> {
    pub(super) fn of(
        who: &'s Identity,
        snapshot: &'s Snapshot,
        zone: &'s str,
        fixed: &'s StaticTunnels,
    ) -> Result<Self, Problem> {
        Ok(Self {
            who,
            snapshot,
            fixed,
            zone,
            zone_record: own_zone(who, snapshot, zone)?,
            now: Timestamp::now(),
            changed: BTreeMap::new(),
            by_record: HashMap::new(),
            tunnels: BTreeMap::new(),
        })
    }

    pub(super) fn create(&mut self, wish: Wish) -> Result<Value, Problem> {
        wish.check_kind(true)?;
        let name = self.name(&wish)?.ok_or_else(|| missing("name"))?;
        let tunnel = self.tunnel(&wish)?.ok_or_else(|| missing("content"))?;
        self.claim(&name)?;
        let mut route = Route::new(self.zone, tunnel.0);
        (route.created_at, route.remarks) = (self.now, self.remarks(tunnel.1));
        wish.apply(&mut route.remarks, self.now)?;
        Ok(self.put(name, route))
    }

    /// As the caller says, whatever was there.
    pub(super) fn replace(&mut self, id: &str, wish: Wish) -> Result<Value, Problem> {
        let (old, mut route) = self.find(id)?;
        wish.check_kind(true)?;
        let name = self.name(&wish)?.ok_or_else(|| missing("name"))?;
        let tunnel = self.tunnel(&wish)?.ok_or_else(|| missing("content"))?;
        let before = std::mem::replace(&mut route.remarks, self.remarks(tunnel.1));
        route.tunnel = tunnel.0;
        wish.apply(&mut route.remarks, self.now)?;
        // What is said again was not changed.
        if route.remarks.comment == before.comment {
            route.remarks.comment_at = before.comment_at;
        }
        if route.remarks.tags == before.tags {
            route.remarks.tags_at = before.tags_at;
        }
        self.move_to(old, name, route)
    }

    /// Only what the caller says.
    pub(super) fn edit(&mut self, id: &str, wish: Wish) -> Result<Value, Problem> {
        let (old, mut route) = self.find(id)?;
        wish.check_kind(false)?;
        let name = self.name(&wish)?.unwrap_or_else(|| old.clone());
        if let Some((tunnel, by_reference)) = self.tunnel(&wish)? {
            (route.tunnel, route.remarks.by_reference) = (tunnel, Some(by_reference));
        }
        wish.apply(&mut route.remarks, self.now)?;
        self.move_to(old, name, route)
    }

    /// The record as it was.
    pub(super) fn delete(&mut self, id: &str) -> Result<Value, Problem> {
        let (name, route) = self.find(id)?;
        let gone = self.view(&name, &route);
        self.by_record.remove(id);
        self.changed.insert(name, None);
        Ok(gone)
    }

    /// Nothing if nothing changes.
    ///
    /// # Errors
    /// It would be more than the account's share.
    pub(super) fn into_transaction(
        self,
        action: &'static str,
        share: &Share,
    ) -> Result<Option<Transaction>, Problem> {
        let Self { who, snapshot, changed, tunnels, .. } = self;
        let changed: Vec<_> = changed
            .into_iter()
            .filter(|(name, after)| snapshot.routes.get(name).map(|kept| &kept.record) != after.as_ref())
            .collect();
        if changed.is_empty() {
            return Ok(None);
        }
        let changed: Vec<_> = changed
            .into_iter()
            .map(|(name, route)| (name, route.map(|route| (to_json(&route), route))))
            .collect();
        let before = || changed.iter().filter_map(|(name, _)| snapshot.routes.get(name));
        let after = || changed.iter().filter_map(|(_, after)| after.as_ref());
        share.records(snapshot, who.account(), before().count(), after().count())?;
        let bytes = before().map(|kept| kept.bytes).sum();
        share.bytes(snapshot, who.account(), bytes, after().map(|(json, _)| json.len()).sum())?;
        let said = changed.iter().take(MOST_NOTED).map(|(name, route)| match route {
            Some((_, route)) => format!("{name} to {}", route.tunnel),
            None => format!("{name} gone"),
        });
        let mut subject = said.collect::<Vec<_>>().join(", ");
        if let Some(more) = changed.len().checked_sub(MOST_NOTED).filter(|more| *more > 0) {
            subject.push_str(&format!(", and {more} more"));
        }
        let mut transaction = Transaction::new(note(who, action, subject));
        for (tunnel, revision) in tunnels {
            transaction = transaction.if_at(key::tunnel(tunnel), revision);
        }
        for (name, route) in changed {
            let key = key::route(&name);
            transaction = match snapshot.routes.get(&name) {
                Some(before) => transaction.if_at(&key, before.revision),
                None => transaction.if_absent(&key),
            };
            transaction = match route {
                Some((json, _)) => transaction.put(key, json),
                None => transaction.remove(key),
            };
        }
        Ok(Some(transaction))
    }

    fn move_to(&mut self, old: String, new: String, route: Route) -> Result<Value, Problem> {
        if new != old {
            self.claim(&new)?;
        }
        let is_same = new == old && self.route(&old).is_some_and(|before| *before == route);
        let route = if is_same { route } else { route.changed(&old, self.now) };
        if new != old {
            self.changed.insert(old, None);
        }
        Ok(self.put(new, route))
    }

    fn put(&mut self, name: String, route: Route) -> Value {
        let view = self.view(&name, &route);
        self.by_record.insert(route.id(&name), name.clone());
        self.changed.insert(name, Some(route));
        view
    }

    fn view(&self, name: &str, route: &Route) -> Value {
        let view = View::of(name, route, self.fixed.domain.as_deref());
        serde_json::to_value(view).expect("records have a JSON form")
    }

    /// Of a record that was made as one.
    fn remarks(&self, by_reference: bool) -> Remarks {
        Remarks { proxied: Some(false), by_reference: Some(by_reference), ..Remarks::default() }
    }

    fn route(&self, name: &str) -> Option<&Route> {
        match self.changed.get(name) {
            Some(route) => route.as_ref(),
            None => self.snapshot.routes.get(name).map(|kept| &kept.record),
        }
    }

    /// The record of this zone with this id.
    fn find(&self, id: &str) -> Result<(String, Route), Problem> {
        let found = self.by_record.get(id).or_else(|| {
            // What was taken away before is not there any more.
            self.snapshot.by_record.get(id).filter(|name| !self.changed.contains_key(*name))
        });
        let found = found.and_then(|name| Some((name, self.route(name)?)));
        let (name, route) = found.filter(|(_, route)| route.zone == self.zone).ok_or(Problem::NoRecord)?;
        Ok((name.clone(), route.clone()))
    }

    /// The whole name that is asked for, which must be in this zone and in none within it.
    fn name(&self, wish: &Wish) -> Result<Option<String>, Problem> {
        let Some(name) = &wish.name else { return Ok(None) };
        let zone = &self.zone_record.name;
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_whole =
            name.strip_suffix(zone.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        let whole = match name.as_str() {
            "@" => zone.clone(),
            _ if is_whole => name,
            _ => format!("{name}.{zone}"),
        };
        let parsed = whole.parse::<HostName>();
        let parsed = parsed.map_err(|error| Problem::Invalid(format!("`name` is no host name: {error}")))?;
        let whole = parsed.to_string();
        let bare = whole.strip_prefix("*.").unwrap_or(&whole);
        if self.snapshot.zone_of(bare).is_none_or(|(id, _)| id != self.zone) {
            return Err(Problem::Invalid(format!(
                "`{whole}` is not in the zone {zone}, but in one within it"
            )));
        }
        if self.fixed.claims(&parsed) {
            return Err(Problem::Conflict(format!("the edge's own configuration leads `{whole}` elsewhere")));
        }
        Ok(Some(whole))
    }

    /// The tunnel that the record leads to, and whether it was named as the reference does.
    fn tunnel(&mut self, wish: &Wish) -> Result<Option<(Uuid, bool)>, Problem> {
        let Some(target) = wish.target(self.fixed.domain.as_deref())? else { return Ok(None) };
        let kept = self.snapshot.tunnel(self.who.account(), target.tunnel);
        let kept = kept.filter(|kept| !kept.record.is_deleted() && self.who.reaches_tunnel(&target.tunnel));
        let kept = kept.ok_or_else(|| {
            Problem::NoTarget(format!("`content` names the tunnel {}, which is not there", target.tunnel))
        })?;
        self.tunnels.insert(target.tunnel, kept.revision);
        Ok(Some((target.tunnel, target.by_reference)))
    }

    /// A host name leads to one tunnel.
    fn claim(&self, name: &str) -> Result<(), Problem> {
        if self.route(name).is_some() { Err(Problem::RecordTaken(name.to_owned())) } else { Ok(()) }
    }
}

fn missing(what: &str) -> Problem {
    Problem::Invalid(format!("`{what}` is missing"))
}

/// Names in one line of the audit log.
const MOST_NOTED: usize = 8;
