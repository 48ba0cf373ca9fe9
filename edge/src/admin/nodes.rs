//! What the admin API says of the fleet: its nodes as the state has them, and how far this one is. Translates; asks
//! nobody.

use std::time::SystemTime;

use serde::Serialize;
use uuid::Uuid;

use super::SILENT;
use crate::nodes::OwnNode;
use crate::state::State;
use crate::store::timestamp::Timestamp;

/// `/nodes`
#[derive(Serialize)]
pub(super) struct Nodes {
    pub(super) fleet: Option<Uuid>,
    /// Which of them answers.
    pub(super) own: Option<String>,
    /// Up to where it serves.
    pub(super) revision: u64,
    /// `there`, or since when nothing was heard of it.
    pub(super) store: String,
    pub(super) nodes: Vec<NodeView>,
}

#[derive(Serialize)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) region: String,
    /// What an operator wants of it: `active`, `draining` or `left`.
    pub(super) wanted: &'static str,
    pub(super) addresses: Vec<String>,
    /// SHA-256 of its public key.
    pub(super) pin: String,
    pub(super) joined_at: String,
    /// Of its last start; `null`: the store has not heard of it for some seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) alive: Option<AliveView>,
}

#[derive(Serialize)]
pub(super) struct AliveView {
    pub(super) epoch: u64,
    pub(super) version: String,
    pub(super) started_at: String,
}

impl Nodes {
    pub(super) fn of(state: &State, own: Option<&OwnNode>) -> Self {
        let silence = Some(state.silent_for()).filter(|silence| *silence > SILENT);
        let since = silence.and_then(|silence| SystemTime::now().checked_sub(silence));
        let store = since.map(|since| format!("stale since {}", Timestamp::from(since)));
        let nodes = state.read(|snapshot| {
            let nodes = snapshot.nodes.iter().map(|(name, kept)| {
                let node = &kept.record;
                let alive = snapshot.alive.get(name).map(|kept| AliveView {
                    epoch: kept.record.epoch,
                    version: kept.record.version.clone(),
                    started_at: kept.record.started_at.to_string(),
                });
                NodeView {
                    name: name.clone(),
                    region: node.region.clone(),
                    wanted: node.wanted.word(),
                    addresses: node.addresses.iter().map(ToString::to_string).collect(),
                    pin: node.pin.to_string(),
                    joined_at: node.joined_at.to_string(),
                    alive,
                }
            });
            nodes.collect()
        });
        Self {
            fleet: state.fleet(),
            own: own.map(|own| own.name.clone()),
            revision: state.served().0,
            store: store.unwrap_or_else(|| "there".to_owned()),
            nodes,
        }
    }
}
