//! Ids of connections, of which the newer is always the greater, at whichever nodes of a fleet two of them were drawn:
//! a node that has heard of one draws only greater ones, whatever its clock says. Knows the clock; does not know who has
//! the connections.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

/// The newest moment that an id has said so far, in milliseconds since 1970.
#[derive(Default)]
pub(crate) struct Order(AtomicU64);

impl Order {
    /// Greater than all that were drawn or heard before.
    pub(crate) fn next(&self) -> Uuid {
        let now = now();
        let newer = |last: u64| Some(now.max(last + 1));
        let last = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, newer).unwrap_or_default();
        let mut chance = [0; 10];
        chance.copy_from_slice(&Uuid::new_v4().as_bytes()[6..]);
        Builder::from_unix_timestamp_millis(now.max(last + 1), &chance).into_uuid()
    }

    /// Another node has drawn it.
    pub(crate) fn hear(&self, id: Uuid) {
        let moment = (id.as_u128() >> 80) as u64;
        // What is further ahead is no clock that is merely wrong, and would use up the numbers.
        if moment <= now() + FURTHEST {
            self.0.fetch_max(moment, Ordering::Relaxed);
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds that the clock of another node may be ahead.
const FURTHEST: u64 = 24 * 60 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_heard_of_an_id_draws_a_greater_one_whatever_its_clock_says() {
        let (ahead, behind) = (Order(AtomicU64::new(now() + 3_600_000)), Order::default());
        let older = ahead.next();
        assert!(behind.next() < older, "it has not heard of it yet");
        behind.hear(older);
        let ids: Vec<Uuid> = (0..1_000).map(|_| behind.next()).collect();
        assert!(ids[0] > older && ids.is_sorted() && ids.iter().all(|id| id.get_version_num() == 7));
        behind.hear(Uuid::max());
        assert!(behind.next() < Uuid::from_u128(u128::from(now() + FURTHEST) << 80), "it is no clock");
    }
}
