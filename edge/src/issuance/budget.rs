//! How many certificates may be ordered: first of all those of one zone and one account, so that nobody uses up the
//! others' share, then of all together. Counted by what all edges of a state have ordered. Pure, told what time it is.

use std::time::Duration;

use crate::store::records::certificates::{Ledger, Ordered};
use crate::store::timestamp::Timestamp;

/// Orders that may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// For new names of one zone, and of one account, in an hour. Renewals are not counted.
    pub(crate) per_zone: usize,
    pub(crate) per_account: usize,
    /// Of all together in a minute, renewals included.
    pub(crate) in_all: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_zone: PER_ZONE, per_account: PER_ACCOUNT, in_all: IN_ALL }
    }
}

/// For whom an order would be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Share {
    pub(crate) account: String,
    pub(crate) zone: String,
}

/// Why there is no order now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    Zone,
    Account,
    All,
}

impl Limits {
    /// Whether one more order may begin.
    ///
    /// # Errors
    /// Whose share is spent.
    pub(crate) fn room(
        self,
        ledger: &Ledger,
        share: &Share,
        is_renewal: bool,
        now: Timestamp,
    ) -> Result<(), Spent> {
        let new = || ledger.orders.iter().filter(|one| !one.is_renewal && now.since(one.at) < HOUR);
        if !is_renewal
            && new().filter(|one| one.account == share.account && one.zone == share.zone).count()
                >= self.per_zone
        {
            return Err(Spent::Zone);
        }
        if !is_renewal && new().filter(|one| one.account == share.account).count() >= self.per_account {
            return Err(Spent::Account);
        }
        let of_late = ledger.orders.iter().filter(|one| now.since(one.at) < MINUTE).count();
        if of_late >= self.in_all { Err(Spent::All) } else { Ok(()) }
    }
}

/// Orders of an account in the last hour: who has had fewest goes first.
pub(crate) fn had(ledger: &Ledger, account: &str, now: Timestamp) -> usize {
    ledger.orders.iter().filter(|one| one.account == account && now.since(one.at) < HOUR).count()
}

/// The ledger with one order more, and without what no budget counts any more.
pub(crate) fn noted(ledger: &Ledger, share: &Share, is_renewal: bool, now: Timestamp) -> Ledger {
    let counts = |one: &&Ordered| now.since(one.at) < HOUR;
    let mut orders: Vec<Ordered> = ledger.orders.iter().filter(counts).cloned().collect();
    let Share { account, zone } = share.clone();
    orders.push(Ordered { at: now, account, zone, is_renewal });
    Ledger { orders }
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Below what public authorities allow for a domain in a week, and for an account in three hours.
pub(crate) const PER_ZONE: usize = 10;
pub(crate) const PER_ACCOUNT: usize = 20;
pub(crate) const IN_ALL: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_used_up_a_share_leaves_those_of_others() {
        let limits = Limits { per_zone: 2, per_account: 3, in_all: 4 };
        let share = |account: &str, zone: &str| Share { account: account.to_owned(), zone: zone.to_owned() };
        let (a, b, other) = (share("one", "a"), share("one", "b"), share("other", "c"));
        let now = Timestamp::now();
        let mut ledger = Ledger::default();
        for _ in 0..2 {
            assert_eq!(limits.room(&ledger, &a, false, now), Ok(()));
            ledger = noted(&ledger, &a, false, now);
        }
        assert_eq!(limits.room(&ledger, &a, false, now), Err(Spent::Zone));
        assert_eq!(limits.room(&ledger, &a, true, now), Ok(()), "a renewal is no new name");
        ledger = noted(&ledger, &b, false, now);
        assert_eq!(limits.room(&ledger, &b, false, now), Err(Spent::Account));
        assert_eq!(limits.room(&ledger, &other, false, now), Ok(()));
        ledger = noted(&ledger, &other, true, now);
        assert_eq!(limits.room(&ledger, &other, false, now), Err(Spent::All));
        assert_eq!(limits.room(&ledger, &a, true, now), Err(Spent::All));
        let later = now.after(MINUTE);
        assert_eq!(limits.room(&ledger, &other, false, later), Ok(()));
        assert_eq!(limits.room(&ledger, &a, false, later), Err(Spent::Zone));
        let tomorrow = now.after(HOUR);
        assert_eq!(limits.room(&ledger, &a, false, tomorrow), Ok(()));
        assert_eq!((had(&ledger, "one", now), had(&ledger, "one", tomorrow)), (3, 0));
        assert_eq!(noted(&ledger, &a, false, tomorrow).orders.len(), 1, "what counts no more is forgotten");
    }
}
