//! Host names that lead to tunnels, as the reference CLI asks for them; `records` has the same as DNS records.
//! Knows the rules of names; serving them is for the directory.

use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::paging::{LONGEST_PAGE, Paging};
use super::query::Query;
use super::zones::{name_in_zone, own_zone};
use super::{Api, note};
use crate::state::snapshot::{Kept, Snapshot};
use crate::store::Transaction;
use crate::store::records::{Route, Tunnel, key, to_json};
use crate::store::timestamp::Timestamp;

#[derive(Deserialize)]
pub(super) struct PutRoute {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    user_hostname: String,
    #[serde(default)]
    overwrite_existing: bool,
    #[serde(default)]
    lb_name: String,
    #[serde(default)]
    lb_pool: String,
}

impl Api {
    /// Only within the zone of the path for a short name; a whole name finds its zone by itself, the one with
    /// the longest name, among those that the token may change.
    pub(super) async fn put_route(
        &self,
        who: &Identity,
        zone: &str,
        tunnel: Uuid,
        wanted: PutRoute,
    ) -> Result<Answer, Problem> {
        match wanted.kind.as_str() {
            "dns" => {}
            "lb" => {
                let (name, pool) = (&wanted.lb_name, &wanted.lb_pool);
                return self.route_to_balancer(who, zone, tunnel, name, pool).await;
            }
            _ => return Err(Problem::Invalid("`type` is `dns` or `lb`".to_owned())),
        }
        let plan = self.state.read(|snapshot| self.plan(who, snapshot, zone, tunnel, &wanted))?;
        let answer = |change: &str| {
            envelope::success(json!({ "cname": change, "name": plan.hostname, "zone": plan.zone }))
        };
        if plan.before.as_ref().is_some_and(|before| before.record.tunnel == tunnel) {
            return Ok(answer("unchanged"));
        }
        let key = key::route(&plan.hostname);
        let subject = format!("{} to {tunnel}", plan.hostname);
        // The tunnel must still be there when the route is.
        let transaction = Transaction::new(note(who, "route.put", subject))
            .if_at(key::tunnel(tunnel), plan.tunnel.revision);
        let transaction = match &plan.before {
            Some(before) => transaction.if_at(&key, before.revision),
            None => transaction.if_absent(&key),
        };
        let route = match plan.before.as_ref().map(|before| before.record.clone()) {
            // The same record with what is said in it, leading elsewhere.
            Some(before) => {
                let mut route = before.changed(&plan.hostname, Timestamp::now());
                (route.zone, route.tunnel) = (plan.zone.clone(), tunnel);
                route
            }
            None => Route::new(&plan.zone, tunnel),
        };
        let json = to_json(&route);
        let (gone, bytes) = plan.before.as_ref().map_or((0, 0), |before| (1, before.bytes));
        self.state.read(|snapshot| {
            self.share.records(snapshot, who.account(), gone, 1)?;
            self.share.bytes(snapshot, who.account(), bytes, json.len())
        })?;
        self.change(transaction.put(key, json), |_| Problem::ChangedMeanwhile).await?;
        Ok(answer(if plan.before.is_some() { "updated" } else { "new" }))
    }

    fn plan(
        &self,
        who: &Identity,
        snapshot: &Snapshot,
        zone: &str,
        tunnel: Uuid,
        wanted: &PutRoute,
    ) -> Result<Plan, Problem> {
        own_zone(who, snapshot, zone)?;
        let kept = snapshot.tunnel(who.account(), tunnel).filter(|kept| !kept.record.is_deleted());
        let kept = kept.ok_or(Problem::NotFound("tunnel"))?;
        let (name, zone) = name_in_zone(who, snapshot, zone, &wanted.user_hostname, "user_hostname")?;
        let hostname = name.to_string();
        if self.fixed.claims(&name) {
            return Err(Problem::Conflict(format!(
                "the edge's own configuration leads `{hostname}` elsewhere"
            )));
        }
        let before = snapshot.routes.get(&hostname).cloned();
        if !wanted.overwrite_existing && before.as_ref().is_some_and(|before| before.record.tunnel != tunnel)
        {
            return Err(Problem::Conflict(format!(
                "`{hostname}` leads to another tunnel already; overwrite it to change that"
            )));
        }
        Ok(Plan { hostname, zone: zone.to_owned(), tunnel: kept.clone(), before })
    }

    pub(super) async fn delete_route(
        &self,
        who: &Identity,
        zone: &str,
        hostname: &str,
    ) -> Result<Answer, Problem> {
        let before = self.state.read(|snapshot| {
            own_zone(who, snapshot, zone)?;
            let route = snapshot.routes.get(hostname).filter(|route| route.record.zone == zone);
            route.cloned().ok_or(Problem::NotFound("route"))
        })?;
        let key = key::route(hostname);
        let transaction =
            Transaction::new(note(who, "route.delete", hostname)).if_at(&key, before.revision).remove(key);
        self.change(transaction, |_| Problem::ChangedMeanwhile).await?;
        Ok(envelope::success(json!({ "name": hostname })))
    }

    pub(super) fn list_routes(&self, who: &Identity, zone: &str, query: &Query) -> Result<Answer, Problem> {
        let paging = Paging::of(query, LONGEST_PAGE)?;
        let routes: Vec<Value> = self.state.read(|snapshot| {
            own_zone(who, snapshot, zone)?;
            let routes = snapshot.routes.iter().filter(|(_, route)| route.record.zone == zone);
            Ok(routes
                .map(|(name, Kept { record, .. })| {
                    let tunnel_name = snapshot.tunnels.get(&record.tunnel).map(|tunnel| &tunnel.record.name);
                    json!({
                        "name": name,
                        "tunnel_id": record.tunnel,
                        "tunnel_name": tunnel_name,
                        "created_at": record.created_at,
                    })
                })
                .collect())
        })?;
        Ok(paging.cut(routes))
    }
}

/// What a route will be, as decided on one snapshot.
struct Plan {
    hostname: String,
    zone: String,
    tunnel: Kept<Tunnel>,
    before: Option<Kept<Route>>,
}
