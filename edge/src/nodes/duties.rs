//! What is to be done once in a fleet, by one of its nodes: rendezvous over those that are alive, so that each node knows
//! by itself which of them it is, and little moves when one goes. For a moment two may think that it is theirs, or none:
//! what depends on its being done once compares and sets besides. Pure; knows the records.

use adit_balance::Key;

use crate::state::snapshot::Snapshot;
use crate::store::records::nodes::Wanted;

/// Whose duties are whose, at one revision.
pub(crate) struct Duties {
    /// `None`: there is nobody else.
    own: Option<Key>,
    others: Vec<Key>,
}

impl Duties {
    /// Those of this node; an edge that is no node has all.
    pub(crate) fn of(own: Option<&str>, snapshot: &Snapshot) -> Self {
        let Some(own) = own else { return Self { own: None, others: Vec::new() } };
        let others = snapshot.nodes.iter().filter(|(name, kept)| {
            **name != own && kept.record.wanted == Wanted::Active && snapshot.alive.contains_key(*name)
        });
        let others = others.map(|(name, _)| Key::of(name.as_bytes())).collect();
        Self { own: Some(Key::of(own.as_bytes())), others }
    }

    /// Whether this node is the one that does this.
    pub(crate) fn has(&self, what: &[u8]) -> bool {
        let Some(own) = self.own else { return true };
        let what = Key::of(what).0;
        let bid = own.with(what);
        self.others.iter().all(|other| other.with(what) <= bid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::snapshot::Changes;
    use crate::store::records::nodes::{Alive, NodeRecord, Pin, alive_key, node_key};
    use crate::store::records::to_json;
    use crate::store::timestamp::Timestamp;
    use crate::store::{Batch, Change, StoreRevision};

    fn snapshot(names: &[&str], wanted: Wanted) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let now = Timestamp::now();
        for name in names {
            let record = NodeRecord {
                region: "west".to_owned(),
                addresses: Vec::new(),
                pin: Pin::of(name.as_bytes()),
                generation: 0,
                wanted,
                joined_at: now,
            };
            let alive = Alive { epoch: 1, version: String::new(), started_at: now };
            let changes = vec![
                Change { key: node_key(name), value: Some(to_json(&record)) },
                Change { key: alive_key(name), value: Some(to_json(&alive)) },
            ];
            snapshot.apply(Batch { revision: StoreRevision(1), changes }, &mut Changes::default());
        }
        snapshot
    }

    #[test]
    fn each_duty_is_one_nodes_and_only_those_of_a_node_that_goes_move() {
        let names = ["a", "b", "c", "d"];
        let all = snapshot(&names, Wanted::Active);
        let holders = |snapshot: &Snapshot, names: &[&'static str], what: &str| {
            let has = |name: &&&str| Duties::of(Some(name), snapshot).has(what.as_bytes());
            names.iter().filter(has).copied().collect::<Vec<_>>()
        };
        let mut counts = [0; 4];
        for number in 0..1_000 {
            let what = format!("duty {number}");
            let [holder] = holders(&all, &names, &what)[..] else { panic!("{what}") };
            counts[names.iter().position(|name| *name == holder).unwrap()] += 1;
            let fewer = snapshot(&names[..3], Wanted::Active);
            let [after] = holders(&fewer, &names[..3], &what)[..] else { panic!("{what}") };
            assert!(after == holder || holder == "d", "{what}");
        }
        assert!(counts.iter().all(|count| (150..350).contains(count)), "{counts:?}");
    }

    #[test]
    fn an_edge_alone_has_all_duties_and_one_that_drains_has_none_that_others_could_do() {
        assert!(Duties::of(None, &Snapshot::default()).has(b"x"));
        assert!(Duties::of(Some("a"), &Snapshot::default()).has(b"x"));
        let draining = snapshot(&["b", "c"], Wanted::Draining);
        assert!((0..100_u8).all(|what| Duties::of(Some("a"), &draining).has(&[what])));
    }
}
