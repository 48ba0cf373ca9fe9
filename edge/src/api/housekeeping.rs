//! What the edge notes and clears away by itself: when hosts came and went, for a tunnel's status after a
//! restart, and quick tunnels that nobody uses. Knows the registry and the state; answers nobody.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use uuid::Uuid;

use super::quick::QUICK;
use crate::nodes::duties::Duties;
use crate::registry::Registry;
use crate::state::snapshot::Snapshot;
use crate::state::{ChangeError, State};
use crate::store::records::objects::Kind;
use crate::store::records::sessions::SessionKeys;
use crate::store::records::{Seen, key, to_json};
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// Works until `stop`.
pub(crate) async fn run(
    state: State,
    registry: Arc<Registry>,
    node: Option<String>,
    stop: CancellationToken,
) {
    let (started, mut has_failed) = (Timestamp::now(), false);
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = Timestamp::now();
        let (connected, anywhere) = (connected(&registry), anywhere(&registry));
        // Hosts of before need a moment to come back; until then nobody is said to have gone.
        let settled = now.since(started) > SETTLING;
        let ever = ever_connected(&registry);
        let notes = state.read(|snapshot| {
            let duties = Duties::of(node.as_deref(), snapshot);
            notes(snapshot, (&connected, &anywhere), &ever, (node.as_deref(), &duties), now, settled)
        });
        let unused = state.read(|snapshot| unused(snapshot, &anywhere, now));
        let keys = state.read(|snapshot| session_keys(snapshot, now));
        let strangers = state.read(|snapshot| strangers(snapshot, &registry, node.is_some()));
        for transaction in notes.into_iter().chain(unused).chain(keys).chain(strangers) {
            let noted = state.change(transaction).await;
            // Another edge has noted something of it: that counts.
            if matches!(noted, Err(ChangeError::Conflict { .. })) {
                continue;
            }
            // Said once, however long it lasts.
            if let Err(error) = &noted
                && !has_failed
            {
                warn!(%error, "cannot note who is connected");
            }
            has_failed = noted.is_err();
            if has_failed {
                break;
            }
        }
    }
}

fn connected(registry: &Registry) -> HashSet<Uuid> {
    let tunnels = registry.tunnels();
    let serving =
        tunnels.iter().filter(|(_, tunnel)| tunnel.connections().iter().any(|live| live.is_serving()));
    serving.map(|(id, _)| *id).collect()
}

/// The same with those that are connected to another node of the fleet.
fn anywhere(registry: &Registry) -> HashSet<Uuid> {
    let tunnels = registry.tunnels();
    tunnels.iter().filter(|(_, tunnel)| tunnel.is_connected()).map(|(id, _)| *id).collect()
}

/// Those here with those whose last host has gone, however soon.
fn ever_connected(registry: &Registry) -> HashSet<Uuid> {
    registry.tunnels().iter().filter(|(_, tunnel)| tunnel.lost().is_some()).map(|(id, _)| *id).collect()
}

/// What is to be written about tunnels whose first host came or whose last host went. `ever` are those that had a host
/// since this process began. In a fleet whoever has noted that hosts came says that they went, or another node for one
/// that is not there any more; a node that still has some says so again.
fn notes(
    snapshot: &Snapshot,
    (connected, anywhere): (&HashSet<Uuid>, &HashSet<Uuid>),
    ever: &HashSet<Uuid>,
    (node, duties): (Option<&str>, &Duties),
    now: Timestamp,
    settled: bool,
) -> Vec<Transaction> {
    let known = |id: &Uuid| snapshot.tunnels.get(id).is_some_and(|tunnel| !tunnel.record.is_deleted());
    let is_new = |id: &Uuid| match snapshot.seen.get(id) {
        None => true,
        Some(seen) => seen.record.inactive_at.is_some() && connected.contains(id),
    };
    let came = ever.union(connected).filter(|id| known(id) && is_new(id));
    let came = came.map(|id| {
        (*id, "tunnel.active", Seen { active_at: now, inactive_at: None, by: node.map(str::to_owned) })
    });
    let is_own = |id: &Uuid, seen: &Seen| {
        let by = seen.by.as_deref();
        let is_gone = || by.is_none_or(|by| !snapshot.alive.contains_key(by));
        node.is_none() || by == node || (is_gone() && duties.has(id.as_bytes()))
    };
    let went = snapshot.seen.iter().filter(|(id, seen)| {
        let seen = &seen.record;
        let is_here = connected.contains(id) || anywhere.contains(id);
        settled && seen.inactive_at.is_none() && known(id) && !is_here && is_own(id, seen)
    });
    let went = went
        .map(|(id, seen)| (*id, "tunnel.inactive", Seen { inactive_at: Some(now), ..seen.record.clone() }));
    came.chain(went)
        .take(if node.is_some() { MOST_OF_NODE } else { MOST_AT_ONCE })
        .map(|(id, action, seen)| {
            let note = AuditEntry { actor: EDGE.to_owned(), action, subject: id.to_string() };
            let (transaction, key) = (Transaction::new(note), key::seen(id));
            let transaction = match snapshot.seen.get(&id) {
                Some(kept) => transaction.if_at(&key, kept.revision),
                None => transaction.if_absent(&key),
            };
            transaction.put(key, to_json(&seen))
        })
        .collect()
}

/// New keys for the cookies of load balancers, if it is time; the first ones when one has sessions.
fn session_keys(snapshot: &Snapshot, now: Timestamp) -> Option<Transaction> {
    let (kept, at) = (snapshot.session_keys.as_ref(), key::SESSION_KEYS);
    let keys = match kept {
        Some(kept) => kept.record.next(now)?,
        None => {
            let mut balancers = snapshot.objects.of(Kind::Balancer).values();
            balancers.find(|kept| kept.record.has_sessions())?;
            SessionKeys::new(now)?
        }
    };
    let note = AuditEntry { actor: EDGE.to_owned(), action: "session-keys.exchange", subject: at.to_owned() };
    let transaction = Transaction::new(note).put(at, to_json(&keys));
    Some(match kept {
        Some(kept) => transaction.if_at(at, kept.revision),
        None => transaction.if_absent(at),
    })
}

/// What was said of replicas that nobody knows any more is forgotten; in a fleet, where others may know them, with their
/// tunnel.
fn strangers(snapshot: &Snapshot, registry: &Registry, is_fleet: bool) -> Vec<Transaction> {
    let is_known = |tunnel: &Uuid, connector: &Uuid| {
        registry.tunnel(tunnel).is_some_and(|tunnel| is_fleet || tunnel.knows(connector))
    };
    let gone = snapshot.replicas.iter().filter(|((tunnel, connector), _)| !is_known(tunnel, connector));
    gone.take(MOST_AT_ONCE)
        .map(|((tunnel, connector), kept)| {
            let (key, subject) =
                (key::replica(*tunnel, *connector), format!("{connector} of tunnel {tunnel}"));
            let note = AuditEntry { actor: EDGE.to_owned(), action: "replica.forget", subject };
            Transaction::new(note).if_at(&key, kept.revision).remove(&key)
        })
        .collect()
}

/// Quick tunnels that nobody has used for a while go for good.
fn unused(snapshot: &Snapshot, connected: &HashSet<Uuid>, now: Timestamp) -> Vec<Transaction> {
    let quick = snapshot.tunnels.iter().filter(|(id, tunnel)| tunnel.record.quick && !connected.contains(id));
    let idle = quick.filter(|(id, tunnel)| {
        let since = match snapshot.seen.get(id) {
            None => Some(tunnel.record.created_at),
            // Somewhere, until that is taken back.
            Some(seen) => seen.record.inactive_at,
        };
        since.is_some_and(|since| now.since(since) > UNUSED)
    });
    idle.take(MOST_AT_ONCE)
        .map(|(id, tunnel)| {
            info!(tunnel = %id, "quick tunnel removed: nobody used it");
            let note =
                AuditEntry { actor: EDGE.to_owned(), action: "quick-tunnel.remove", subject: id.to_string() };
            let mut transaction = Transaction::new(note)
                .if_at(key::tunnel(*id), tunnel.revision)
                .remove(key::tunnel(*id))
                .remove(key::tunnel_name(QUICK, &tunnel.record.name))
                .remove(key::seen(*id));
            for (hostname, _) in snapshot.routes_of(*id) {
                transaction = transaction.remove(key::route(hostname));
            }
            transaction
        })
        .collect()
}

const EDGE: &str = "edge";
const EVERY: Duration = Duration::from_secs(1);
const SETTLING: Duration = Duration::from_secs(15);
const UNUSED: Duration = Duration::from_secs(5 * 60);
const MOST_AT_ONCE: usize = 64;
/// The same of who is connected, at each node of a fleet, whose store is one for all of them.
const MOST_OF_NODE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::snapshot::Changes;
    use crate::store::records::nodes::{Alive, alive_key};
    use crate::store::records::{Route, Tunnel};
    use crate::store::{Batch, Change, StoreRevision};

    /// A snapshot with one tunnel and what was noted about it.
    fn snapshot(quick: bool, created_at: Timestamp, seen: Option<Seen>) -> (Uuid, Snapshot) {
        let id = Uuid::from_u128(7);
        let tunnel = Tunnel {
            account: QUICK.to_owned(),
            name: "one".to_owned(),
            secret: None,
            previous: None,
            created_at,
            deleted_at: None,
            remote: false,
            quick,
            metadata: serde_json::Value::Null,
        };
        let route = Route::new(String::new(), id);
        let put = |key: String, value| Change { key, value: Some(value) };
        let mut changes =
            vec![put(key::tunnel(id), to_json(&tunnel)), put(key::route("a.try.test"), to_json(&route))];
        changes.extend(seen.map(|seen| put(key::seen(id), to_json(&seen))));
        let mut snapshot = Snapshot::default();
        snapshot.apply(Batch { revision: StoreRevision(1), changes }, &mut Changes::default());
        (id, snapshot)
    }

    #[test]
    fn coming_and_going_is_noted_once() {
        let now = Timestamp::now();
        let here = Seen { active_at: now, inactive_at: None, by: None };
        let gone = Seen { active_at: now, inactive_at: Some(now), by: None };
        for (seen, is_connected, settled, wanted) in [
            (None, true, false, 1),
            (None, false, true, 0),
            (Some(here.clone()), true, true, 0),
            (Some(here.clone()), false, true, 1),
            // Soon after a start hosts are not back yet.
            (Some(here), false, false, 0),
            (Some(gone.clone()), true, true, 1),
            (Some(gone.clone()), false, true, 0),
        ] {
            let (id, snapshot) = snapshot(false, now, seen.clone());
            let connected = if is_connected { HashSet::from([id]) } else { HashSet::new() };
            let alone = Duties::of(None, &snapshot);
            let noted =
                notes(&snapshot, (&connected, &connected), &connected, (None, &alone), now, settled).len();
            assert_eq!(noted, wanted, "{seen:?}, connected: {is_connected}, settled: {settled}");
        }
        // It came and went between two looks.
        for (seen, wanted) in [(None, 1), (Some(gone), 0)] {
            let (id, snapshot) = snapshot(false, now, seen);
            let (alone, none) = (Duties::of(None, &snapshot), HashSet::new());
            let noted = notes(&snapshot, (&none, &none), &HashSet::from([id]), (None, &alone), now, true);
            assert_eq!(noted.len(), wanted);
        }
    }

    #[test]
    fn a_node_takes_back_what_it_has_said_itself_and_what_a_node_has_that_is_gone() {
        let now = Timestamp::now();
        for (by, is_alive, wanted) in
            [(Some("a"), true, 1), (Some("b"), true, 0), (Some("b"), false, 1), (None, true, 1)]
        {
            let seen = Seen { active_at: now, inactive_at: None, by: by.map(str::to_owned) };
            let (_, mut snapshot) = snapshot(false, now, Some(seen));
            if is_alive {
                let alive = Alive { epoch: 1, version: String::new(), started_at: now };
                let change = Change { key: alive_key("b"), value: Some(to_json(&alive)) };
                snapshot.apply(
                    Batch { revision: StoreRevision(2), changes: vec![change] },
                    &mut Changes::default(),
                );
            }
            let duties = Duties::of(Some("a"), &snapshot);
            let (none, node) = (HashSet::new(), (Some("a"), &duties));
            assert_eq!(
                notes(&snapshot, (&none, &none), &none, node, now, true).len(),
                wanted,
                "{by:?} {is_alive}"
            );
            let there = HashSet::from([Uuid::from_u128(7)]);
            let noted = notes(&snapshot, (&none, &there), &none, node, now, true);
            assert!(noted.is_empty(), "another node has its hosts: {by:?} {is_alive}");
        }
    }

    #[test]
    fn only_quick_tunnels_that_nobody_uses_go() {
        let start = Timestamp::now();
        let later = start.after(UNUSED + Duration::from_secs(1));
        let left = Seen { active_at: start, inactive_at: Some(later), by: None };
        let there = Seen { active_at: start, inactive_at: None, by: Some("b".to_owned()) };
        for (quick, seen, is_connected, at, wanted) in [
            (true, None, false, later, 1),
            (true, None, false, start, 0),
            (true, None, true, later, 0),
            (true, Some(left.clone()), false, later, 0),
            (true, Some(there), false, later, 0),
            (true, Some(left), false, later.after(UNUSED + Duration::from_secs(1)), 1),
            (false, None, false, later, 0),
        ] {
            let (id, snapshot) = snapshot(quick, start, seen.clone());
            let connected = if is_connected { HashSet::from([id]) } else { HashSet::new() };
            assert_eq!(unused(&snapshot, &connected, at).len(), wanted, "{quick} {seen:?} {is_connected}");
        }
    }
}
