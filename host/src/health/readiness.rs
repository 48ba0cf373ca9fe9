//! What being ready means: pure, from facts to a judgement with its reasons.

use std::time::{Duration, Instant};

use serde::Serialize;
use uuid::Uuid;

use crate::proxy::probe::{Checked, Probe};
use crate::tunnel::status::{SERVING, SlotStatus};

/// An edge that probes does it every 10 s; one that has not for so long may not reach this host any more.
const PROBED_WITHIN: Duration = Duration::from_secs(30);

/// What a judgement rests on.
pub struct Facts<'a> {
    pub connector: Uuid,
    pub slots: &'a [SlotStatus],
    /// Connections that must serve.
    pub wanted: usize,
    pub is_stopping: bool,
    /// There are no rules yet: they come from the edge.
    pub is_unconfigured: bool,
    pub probe: &'a Probe,
    pub now: Instant,
}

/// Whether requests of visitors would be served, and what stands against it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    pub ready: bool,
    /// One sentence each; none if it is ready.
    pub reasons: Vec<String>,
    pub connector_id: Uuid,
    pub ready_connections: usize,
    pub wanted_connections: usize,
    /// Whether the edge probes this host. Only then do origins count: no other edge asks for them.
    pub edge_probes: bool,
    pub connections: Vec<Connection>,
    pub origins: Vec<Checked>,
}

/// A slot, and when the edge last sent a probe over its connection.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    #[serde(flatten)]
    pub slot: SlotStatus,
    /// `None` if it never did: then it is an edge that sends none, or a new connection.
    pub probed_seconds_ago: Option<u64>,
}

/// The slots that serve.
pub fn serving(slots: &[SlotStatus]) -> impl Iterator<Item = &SlotStatus> {
    slots.iter().filter(|slot| slot.state == SERVING)
}

/// Ready means: enough connections serve, there is something to serve, no stop was asked for, and, for an edge that probes, it still does
/// so over each of them and every origin can be reached.
pub fn judge(facts: &Facts<'_>) -> Readiness {
    let ago = |slot: &SlotStatus| slot.probed.map(|probed| facts.now.saturating_duration_since(probed.at));
    let ready_connections = serving(facts.slots).count();
    let edge_probes = serving(facts.slots).any(|slot| slot.probed.is_some());
    let mut reasons = Vec::new();
    if facts.is_stopping {
        reasons.push("the host is stopping".to_owned());
    }
    if facts.is_unconfigured {
        reasons.push(
            "there is no configuration to serve: none has come from the edge that this host takes".to_owned(),
        );
    }
    if ready_connections < facts.wanted {
        reasons.push(format!("{ready_connections} connections serve, {} are needed", facts.wanted));
    }
    let late = |slot: &&SlotStatus| ago(slot).is_some_and(|ago| ago > PROBED_WITHIN);
    reasons.extend(serving(facts.slots).filter(late).map(|slot| {
        let seconds = ago(slot).unwrap_or_default().as_secs();
        format!("the edge has not probed connection {} for {seconds} s", slot.index)
    }));
    if edge_probes {
        reasons.extend(facts.probe.origins.iter().filter_map(|checked| {
            let error = checked.error.as_ref()?;
            Some(format!("origin {} of rule {}: {error}", checked.origin, checked.rule))
        }));
    }
    Readiness {
        ready: reasons.is_empty(),
        reasons,
        connector_id: facts.connector,
        ready_connections,
        wanted_connections: facts.wanted,
        edge_probes,
        connections: facts
            .slots
            .iter()
            .map(|slot| Connection {
                slot: slot.clone(),
                probed_seconds_ago: ago(slot).map(|ago| ago.as_secs()),
            })
            .collect(),
        origins: facts.probe.origins.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::status::Probed;

    fn slot(index: usize, state: &'static str, probed: Option<u64>) -> SlotStatus {
        // Counted from a start in the past, because an Instant need not reach far back.
        let at = |seconds| start() + Duration::from_secs(100 - seconds);
        SlotStatus {
            index,
            state,
            probed: probed.map(|ago| Probed { at: at(ago), ready: true }),
            ..SlotStatus::default()
        }
    }

    fn start() -> Instant {
        static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *START.get_or_init(Instant::now)
    }

    fn origin(error: Option<&str>) -> Checked {
        Checked {
            rule: "app".into(),
            origin: "http://a".into(),
            ok: error.is_none(),
            error: error.map(str::to_owned),
        }
    }

    fn reasons(slots: &[SlotStatus], wanted: usize, is_stopping: bool, origins: Vec<Checked>) -> Vec<String> {
        let probe = Probe { ready: origins.iter().all(|origin| origin.ok), origins };
        let now = start() + Duration::from_secs(100);
        let judged = judge(&Facts {
            connector: Uuid::nil(),
            slots,
            wanted,
            is_stopping,
            is_unconfigured: wanted == 0,
            probe: &probe,
            now,
        });
        assert_eq!(judged.ready, judged.reasons.is_empty());
        judged.reasons
    }

    #[test]
    fn enough_connections_make_it_ready_until_a_stop() {
        let slots = [slot(0, SERVING, None), slot(1, "waiting", None), slot(2, "draining", None)];
        assert!(reasons(&slots, 1, false, vec![]).is_empty());
        assert_eq!(reasons(&slots, 2, false, vec![]), ["1 connections serve, 2 are needed"]);
        assert_eq!(reasons(&slots, 1, true, vec![]), ["the host is stopping"]);
        assert_eq!(reasons(&[], 1, false, vec![]), ["0 connections serve, 1 are needed"]);
    }

    #[test]
    fn a_host_that_has_nothing_to_serve_is_not_ready_however_well_it_is_connected() {
        // Where none is wanted there are no rules either.
        let slots = [slot(0, SERVING, None)];
        let [reason] = &reasons(&slots, 0, false, vec![])[..] else { panic!("one reason") };
        assert!(reason.contains("no configuration to serve"), "{reason}");
    }

    #[test]
    fn an_edge_that_probes_must_go_on_over_each_connection_that_serves() {
        let recent = [slot(0, SERVING, Some(30)), slot(1, SERVING, None), slot(2, "waiting", Some(90))];
        assert!(reasons(&recent, 1, false, vec![]).is_empty());
        let late = [slot(0, SERVING, Some(2)), slot(1, SERVING, Some(31))];
        assert_eq!(reasons(&late, 1, false, vec![]), ["the edge has not probed connection 1 for 31 s"]);
    }

    #[test]
    fn origins_count_only_for_an_edge_that_probes() {
        let origins = || vec![origin(None), origin(Some("connection refused"))];
        assert!(reasons(&[slot(0, SERVING, None)], 1, false, origins()).is_empty());
        assert_eq!(
            reasons(&[slot(0, SERVING, Some(1))], 1, false, origins()),
            ["origin http://a of rule app: connection refused"]
        );
        assert!(reasons(&[slot(0, SERVING, Some(1))], 1, false, vec![origin(None)]).is_empty());
    }
}
