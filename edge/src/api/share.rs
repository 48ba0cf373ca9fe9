//! What one account may have of an edge that others use too, whatever its tokens are worth. Knows numbers; what there
//! is already is counted by the state.

use adit_config_reader::size;
use uuid::Uuid;

use super::envelope::Problem;
use crate::state::snapshot::Snapshot;

/// Of each account. What would leave an account with more than this is refused unless it has less by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// That are not deleted.
    pub(crate) tunnels: usize,
    /// Of all its zones.
    pub(crate) records: usize,
    /// Of its tunnels, deleted ones too, their configurations, its records, and all that load balancing and alerts
    /// consist of, as they are kept.
    pub(crate) bytes: usize,
}

impl Share {
    /// Whether there may be another tunnel of so many bytes.
    pub(super) fn tunnel(&self, snapshot: &Snapshot, account: &str, bytes: usize) -> Result<(), Problem> {
        if snapshot.tunnels.len() >= MOST_TUNNELS {
            return Err(Problem::Conflict(format!("this edge keeps {MOST_TUNNELS} tunnels and no more")));
        }
        let Self { tunnels, .. } = self;
        if snapshot.holdings.tunnels(account).0 >= *tunnels {
            return Err(Problem::Conflict(format!(
                "this account has {tunnels} tunnels, which is its share of this edge; delete one first"
            )));
        }
        self.bytes(snapshot, account, 0, bytes)
    }

    /// Whether what takes `before` bytes may take `after`.
    pub(super) fn bytes(
        &self,
        snapshot: &Snapshot,
        account: &str,
        before: usize,
        after: usize,
    ) -> Result<(), Problem> {
        if after <= before {
            return Ok(());
        }
        let holdings = &snapshot.holdings;
        let has = holdings.tunnels(account).1 + records(snapshot, account).1 + holdings.objects(account);
        if has + (after - before) <= self.bytes {
            return Ok(());
        }
        Err(Problem::Conflict(format!(
            "this account's tunnels, configurations, records and load balancing would take more than {}, which is its \
             share of this edge",
            size::show(self.bytes)
        )))
    }

    /// Whether `gone` records may make way for `new` ones.
    pub(super) fn records(
        &self,
        snapshot: &Snapshot,
        account: &str,
        gone: usize,
        new: usize,
    ) -> Result<(), Problem> {
        let has = records(snapshot, account).0;
        if new <= gone || has + new - gone <= self.records {
            return Ok(());
        }
        Err(Problem::TooManyRecords(self.records))
    }
}

/// Deleted tunnels that an account need not be shown any more, now that another one is deleted.
pub(super) fn forgotten(snapshot: &Snapshot, account: &str) -> Vec<Uuid> {
    snapshot.holdings.deleted_before(account, KEPT_DELETED - 1).take(MOST_FORGOTTEN).collect()
}

/// Of all zones of an account: how many, and their bytes.
fn records(snapshot: &Snapshot, account: &str) -> (usize, usize) {
    let zones = snapshot.zones.iter().filter(|(_, zone)| zone.record.account == account);
    let held = snapshot.holdings.records(zones.map(|(id, _)| id));
    (held.count, held.bytes)
}

/// Of all accounts, deleted ones included.
const MOST_TUNNELS: usize = 1_000_000;
/// Deleted tunnels of one account that are shown, the newest.
const KEPT_DELETED: usize = 1_000;
/// So many are forgotten with one deletion.
const MOST_FORGOTTEN: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::snapshot::Changes;
    use crate::store::records::{Tunnel, key, to_json};
    use crate::store::timestamp::Timestamp;
    use crate::store::{Batch, Change, StoreRevision};

    #[test]
    fn with_each_deletion_the_oldest_of_too_many_deleted_tunnels_are_forgotten() {
        let now = Timestamp::now();
        let deleted = |number: u128| {
            let at = now.after(std::time::Duration::from_secs(number as u64));
            let tunnel = Tunnel {
                account: "a".to_owned(),
                name: "one".to_owned(),
                secret: None,
                previous: None,
                created_at: now,
                deleted_at: Some(at),
                remote: false,
                quick: false,
                metadata: serde_json::Value::Null,
            };
            Change { key: key::tunnel(Uuid::from_u128(number)), value: Some(to_json(&tunnel)) }
        };
        let mut snapshot = Snapshot::default();
        let delete = |snapshot: &mut Snapshot, numbers: std::ops::Range<u128>| {
            let changes = numbers.map(deleted).collect();
            snapshot.apply(Batch { revision: StoreRevision(1), changes }, &mut Changes::default());
            forgotten(snapshot, "a")
        };
        let kept = KEPT_DELETED as u128;
        assert!(delete(&mut snapshot, 1..kept).is_empty(), "one more is to come");
        let oldest = [1, 2].map(Uuid::from_u128);
        assert_eq!(delete(&mut snapshot, kept..kept + 2), oldest);
        assert_eq!(delete(&mut snapshot, kept + 2..3 * kept).len(), MOST_FORGOTTEN);
        assert!(forgotten(&snapshot, "b").is_empty());
    }
}
