//! Load balancing by the control API: monitors, groups of them, pools and load balancers, in the form of the
//! reference. Knows the calls; what an object may say is in `form`, what changes make of an account's objects in
//! `draft`, which every change goes through, and how objects are shown in `view`.

pub(super) mod draft;
mod fields;
mod form;
mod health;
pub(super) mod preview;
mod regions;
mod route;
mod status;
mod view;

use serde_json::{Map, Value, json};

use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::paging::{LONGEST_PAGE, Paging};
use super::query::Query;
use super::zones::own_zone;
use super::{Api, parse};
use crate::state::snapshot::Snapshot;
use crate::store::records::objects::{Kind, Object};
use draft::{Draft, Zone};

/// What is asked about objects of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    List(Kind),
    Create(Kind),
    /// Something about all pools at once.
    EditAll,
    Look(Kind, String),
    Replace(Kind, String),
    Edit(Kind, String),
    Delete(Kind, String),
    /// Of a pool.
    Health(String),
    /// Of a load balancer.
    Status(String),
    References(Kind, String),
    /// Trying a monitor out, on a pool or alone.
    StartPreview(Kind, String),
    Preview(String),
    Regions,
    Region(String),
    Search,
}

impl Ask {
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::List(_)
            | Self::Look(..)
            | Self::Health(_)
            | Self::Status(_)
            | Self::References(..)
            | Self::Preview(_)
            | Self::Regions
            | Self::Region(_)
            | Self::Search => true,
            Self::Create(_)
            | Self::EditAll
            | Self::Replace(..)
            | Self::Edit(..)
            | Self::Delete(..)
            | Self::StartPreview(..) => false,
        }
    }
}

impl Api {
    /// A call about the objects of an account, or about those of a `zone`, which must be one of the caller's.
    pub(super) async fn balancing(
        &self,
        who: &Identity,
        zone: Zone<'_>,
        ask: Ask,
        query: &Query,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        if let Some(zone) = zone {
            self.state.read(|snapshot| own_zone(who, snapshot, zone).map(|_| ()))?;
        }
        match ask {
            Ask::List(kind) => self.list_objects(who, zone, kind, query),
            Ask::Look(kind, id) => self.look_at_object(who, zone, kind, &id),
            Ask::Create(kind) => {
                let body: Map<String, Value> = parse(body)?;
                let made = |draft: &mut Draft<'_>| draft.create(kind, zone, &body).map(|id| (kind, id));
                self.change_object(who, created(kind), made).await
            }
            Ask::Replace(kind, id) => {
                let body: Map<String, Value> = parse(body)?;
                let replace = |draft: &mut Draft<'_>| {
                    draft.replace(kind, zone, &id, &body).map(|()| (kind, id.clone()))
                };
                self.change_object(who, replaced(kind), replace).await
            }
            Ask::Edit(kind, id) => {
                let body: Map<String, Value> = parse(body)?;
                let edit =
                    |draft: &mut Draft<'_>| draft.edit(kind, zone, &id, &body).map(|()| (kind, id.clone()));
                self.change_object(who, edited(kind), edit).await
            }
            Ask::Delete(kind, id) => {
                let delete = |draft: &mut Draft<'_>| draft.delete(kind, zone, &id);
                self.change_objects(who, deleted(kind), delete, |_, ()| json!({ "id": id })).await
            }
            Ask::EditAll => self.edit_pools(who, parse(body)?).await,
            Ask::References(kind, id) => self.references(who, kind, &id, query),
            Ask::Health(id) => self.pool_health(who, &id),
            Ask::Status(id) => self.balancer_status(who, zone, &id),
            Ask::StartPreview(kind, id) => self.start_preview(who, kind, &id, body),
            Ask::Preview(id) => self.look_at_preview(who, &id),
            Ask::Regions => regions::list(query),
            Ask::Region(code) => regions::look(&code),
            Ask::Search => Err(Problem::Later("searches")),
        }
    }

    fn list_objects(
        &self,
        who: &Identity,
        zone: Zone<'_>,
        kind: Kind,
        query: &Query,
    ) -> Result<Answer, Problem> {
        let paging = Paging::of(query, PAGE)?;
        let monitor = if kind == Kind::Pool { query.text("monitor")? } else { None };
        let fits = |object: &Object| {
            zone.is_none_or(|zone| object.zone.as_deref() == Some(zone))
                && monitor.is_none_or(|monitor| object.text("monitor") == Some(monitor))
        };
        let (shown, count) = self.state.read(|snapshot| {
            let mut all = snapshot.objects.list(who.account(), kind);
            all.retain(|(_, kept)| fits(&kept.record));
            let on_page = all.iter().enumerate().filter(|(place, _)| paging.has(*place));
            let shown = on_page.map(|(_, (id, kept))| show(snapshot, kind, id, &kept.record));
            (shown.collect::<Vec<_>>(), all.len())
        });
        Ok(paging.answer(&shown, count))
    }

    fn look_at_object(
        &self,
        who: &Identity,
        zone: Zone<'_>,
        kind: Kind,
        id: &str,
    ) -> Result<Answer, Problem> {
        self.state.read(|snapshot| {
            let draft = self.drafted(who, snapshot);
            Ok(envelope::success(show(snapshot, kind, id, draft.find(kind, zone, id)?)))
        })
    }

    /// The only thing that can be changed of all pools: whom they write to about their health.
    async fn edit_pools(&self, who: &Identity, body: Map<String, Value>) -> Result<Answer, Problem> {
        let is_empty = body.get("notification_email").and_then(Value::as_str).is_some_and(str::is_empty);
        if !is_empty || body.len() != 1 {
            let reasons = vec!["`notification_email` is what can be changed here, and only to an empty text: validation failed".to_owned()];
            return Err(Problem::Refused(reasons));
        }
        let edit = |draft: &mut Draft<'_>| {
            let ids: Vec<String> = draft.all(Kind::Pool).map(|(id, _)| id.to_owned()).collect();
            ids.iter().try_for_each(|id| draft.edit(Kind::Pool, None, id, &body))?;
            Ok(ids)
        };
        let shown = |snapshot: &Snapshot, ids: Vec<String>| {
            let found = ids.iter().filter_map(|id| Some((id, snapshot.objects.of(Kind::Pool).get(id)?)));
            found.map(|(id, kept)| show(snapshot, Kind::Pool, id, &kept.record)).collect::<Value>()
        };
        self.change_objects(who, "pools.edit", edit, shown).await
    }

    fn references(&self, who: &Identity, kind: Kind, id: &str, query: &Query) -> Result<Answer, Problem> {
        let wanted = query.one_of("reference_type", &["*", "referral", "referrer"])?.unwrap_or("*");
        let paging = Paging::of(query, LONGEST_PAGE)?;
        self.state.read(|snapshot| {
            let draft = self.drafted(who, snapshot);
            let object = draft.find(kind, None, id)?;
            let line = |kind: Kind, id: &str, object: &Object, how: &str| {
                json!({
                    "reference_type": how,
                    "resource_id": id,
                    "resource_name": view::name_of(kind, object),
                    "resource_type": resource(kind),
                })
            };
            let mut lines = Vec::new();
            if wanted != "referral" {
                lines.extend(
                    draft.referrers(kind, id).map(|(by, id, object)| line(by, id, object, "referrer")),
                );
            }
            let named = [("monitor", Kind::Monitor), ("monitor_group", Kind::MonitorGroup)];
            for (name, kind) in named.into_iter().filter(|_| wanted != "referrer") {
                let id = object.text(name).unwrap_or_default();
                lines.extend(draft.find(kind, None, id).ok().map(|found| line(kind, id, found, "referral")));
            }
            Ok(paging.cut(lines))
        })
    }

    /// Makes the changes of a plan, or none, and shows one object as it is then.
    async fn change_object(
        &self,
        who: &Identity,
        action: &'static str,
        plan: impl Fn(&mut Draft<'_>) -> Result<(Kind, String), Problem>,
    ) -> Result<Answer, Problem> {
        let made = self.perform_draft(who, action, plan).await?;
        self.state.read(|snapshot| {
            let (kind, id) = made;
            let kept = snapshot.objects.get(who.account(), kind, &id).ok_or(Problem::ChangedMeanwhile)?;
            let own_domain = self.fixed.domain.as_deref();
            let lines = form::without_effect(kind, &kept.record, own_domain);
            Ok(envelope::success_with(show(snapshot, kind, &id, &kept.record), &lines))
        })
    }

    /// Makes the changes of a plan, or none, and shows something else.
    async fn change_objects<T>(
        &self,
        who: &Identity,
        action: &'static str,
        plan: impl Fn(&mut Draft<'_>) -> Result<T, Problem>,
        shown: impl FnOnce(&Snapshot, T) -> Value,
    ) -> Result<Answer, Problem> {
        let made = self.perform_draft(who, action, plan).await?;
        Ok(envelope::success(self.state.read(|snapshot| shown(snapshot, made))))
    }

    /// Plans anew if another object of the account was changed meanwhile, which takes its turn first.
    pub(super) async fn perform_draft<T>(
        &self,
        who: &Identity,
        action: &'static str,
        plan: impl Fn(&mut Draft<'_>) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        for _ in 0..MOST_TURNS {
            let (made, transaction) = self.state.read(|snapshot| {
                let mut draft = self.drafted(who, snapshot);
                let made = plan(&mut draft)?;
                let (before, after) = draft.bytes();
                self.share.bytes(snapshot, who.account(), before, after)?;
                Ok::<_, Problem>((made, draft.into_transaction(action)))
            })?;
            let Some(transaction) = transaction else { return Ok(made) };
            match self.change(transaction, |_| Problem::ChangedMeanwhile).await {
                Ok(()) => return Ok(made),
                Err(Problem::ChangedMeanwhile) => self.state.catch_up().await,
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::ChangedMeanwhile)
    }

    pub(super) fn drafted<'s>(&'s self, who: &'s Identity, snapshot: &'s Snapshot) -> Draft<'s> {
        Draft::of(who, snapshot, &self.fixed)
    }
}

fn show(snapshot: &Snapshot, kind: Kind, id: &str, object: &Object) -> Value {
    let zone = object.zone.as_ref().and_then(|zone| snapshot.zones.get(zone));
    view::of(kind, id, object, zone.map(|zone| zone.record.name.as_str()))
}

/// What the reference calls a kind in lists of references.
fn resource(kind: Kind) -> &'static str {
    match kind {
        Kind::Monitor => "monitor",
        Kind::MonitorGroup => "monitor_group",
        Kind::Pool => "pool",
        Kind::Balancer => "load_balancer",
        Kind::Webhook => "webhook",
        Kind::Policy => "policy",
    }
}

pub(super) fn created(kind: Kind) -> &'static str {
    match kind {
        Kind::Monitor => "monitor.create",
        Kind::MonitorGroup => "monitor-group.create",
        Kind::Pool => "pool.create",
        Kind::Balancer => "balancer.create",
        Kind::Webhook => "webhook.create",
        Kind::Policy => "alert-policy.create",
    }
}

fn replaced(kind: Kind) -> &'static str {
    match kind {
        Kind::Monitor => "monitor.replace",
        Kind::MonitorGroup => "monitor-group.replace",
        Kind::Pool => "pool.replace",
        Kind::Balancer => "balancer.replace",
        Kind::Webhook => "webhook.replace",
        Kind::Policy => "alert-policy.replace",
    }
}

pub(super) fn edited(kind: Kind) -> &'static str {
    match kind {
        Kind::Monitor => "monitor.edit",
        Kind::MonitorGroup => "monitor-group.edit",
        Kind::Pool => "pool.edit",
        Kind::Balancer => "balancer.edit",
        Kind::Webhook => "webhook.edit",
        Kind::Policy => "alert-policy.edit",
    }
}

pub(super) fn deleted(kind: Kind) -> &'static str {
    match kind {
        Kind::Monitor => "monitor.delete",
        Kind::MonitorGroup => "monitor-group.delete",
        Kind::Pool => "pool.delete",
        Kind::Balancer => "balancer.delete",
        Kind::Webhook => "webhook.delete",
        Kind::Policy => "alert-policy.delete",
    }
}

/// Objects on a page where nothing is said.
const PAGE: usize = 25;
/// How often a change is planned at most while others change the same account.
const MOST_TURNS: usize = 16;
