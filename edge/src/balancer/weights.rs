//! How much of a tunnel's requests each replica is to get: what an operator has said, kept for as long as
//! the replica is there and for a while after it left. Knows connector ids; does not know connections.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use adit_balance::MOST_WEIGHT;
use uuid::Uuid;

/// What one replica is to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Weight {
    /// 0 to [`MOST_WEIGHT`], compared with the weights of the other replicas.
    pub(crate) weight: u8,
    /// It gets nothing new as long as anybody else is there. Kept apart from the weight, so that the end of
    /// it brings the weight back.
    pub(crate) is_draining: bool,
}

impl Default for Weight {
    fn default() -> Self {
        Self { weight: MOST_WEIGHT, is_draining: false }
    }
}

impl Weight {
    /// What counts in the end.
    pub(crate) fn effective(self) -> u8 {
        if self.is_draining { 0 } else { self.weight }
    }
}

/// The shares that an operator has changed.
#[derive(Default)]
pub(crate) struct Shares(HashMap<Uuid, Kept>);

struct Kept {
    share: Weight,
    /// Since when the replica is not there.
    absent: Option<Instant>,
}

impl Shares {
    pub(crate) fn of(&self, connector: &Uuid) -> Weight {
        self.0.get(connector).map_or_else(Weight::default, |kept| kept.share)
    }

    pub(crate) fn knows(&self, connector: &Uuid) -> bool {
        self.0.contains_key(connector)
    }

    /// What is remembered of replicas that are not there.
    pub(crate) fn absent(&self) -> impl Iterator<Item = (Uuid, Weight)> {
        self.0
            .iter()
            .filter(|(_, kept)| kept.absent.is_some())
            .map(|(connector, kept)| (*connector, kept.share))
    }

    pub(crate) fn set(&mut self, connector: Uuid, share: Weight) {
        let before = self.0.remove(&connector);
        if share != Weight::default() {
            self.0.insert(connector, Kept { share, absent: before.and_then(|kept| kept.absent) });
        }
    }

    /// Takes note of who is there, and forgets who left long ago.
    pub(crate) fn see(&mut self, now: Instant, is_there: impl Fn(&Uuid) -> bool) {
        // First, because whoever comes back after a long time is somebody new.
        self.0.retain(|_, kept| {
            kept.absent.is_none_or(|since| now.saturating_duration_since(since) < REMEMBERED)
        });
        for (connector, kept) in &mut self.0 {
            kept.absent = if is_there(connector) { None } else { kept.absent.or(Some(now)) };
        }
        while self.0.len() > MOST_REMEMBERED {
            let absent = self.0.iter().filter_map(|(connector, kept)| Some((kept.absent?, *connector)));
            let Some((_, longest)) = absent.min() else { return };
            self.0.remove(&longest);
        }
    }
}

/// How long a replica may be away until its share is the usual one again.
const REMEMBERED: Duration = Duration::from_secs(60 * 60);
/// Shares of one tunnel; those who are there can be no more than its connections.
const MOST_REMEMBERED: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const LIGHT: Weight = Weight { weight: 10, is_draining: false };

    #[test]
    fn a_share_outlives_its_replica_for_an_hour() {
        let (mut shares, one, began) = (Shares::default(), Uuid::from_u128(1), Instant::now());
        shares.set(one, LIGHT);
        shares.see(began, |_| false);
        let later = began + REMEMBERED - Duration::from_secs(1);
        shares.see(later, |_| false);
        assert_eq!(shares.of(&one), LIGHT);
        // Coming back begins a new hour.
        shares.see(later, |_| true);
        shares.see(later + REMEMBERED, |_| true);
        assert_eq!(shares.of(&one), LIGHT);
        shares.see(later + REMEMBERED, |_| false);
        // Nobody looks until it comes again.
        shares.see(later + 2 * REMEMBERED, |_| true);
        assert_eq!(shares.of(&one), Weight::default());
    }

    #[test]
    fn whoever_left_first_is_forgotten_first() {
        let (mut shares, began) = (Shares::default(), Instant::now());
        for id in 0..2 * MOST_REMEMBERED as u128 {
            shares.set(Uuid::from_u128(id), LIGHT);
            shares.see(began + Duration::from_millis(id as u64), |known| known.as_u128() == 0);
        }
        assert_eq!(shares.0.len(), MOST_REMEMBERED);
        assert!(shares.knows(&Uuid::from_u128(0)) && !shares.knows(&Uuid::from_u128(1)));
        assert!(shares.knows(&Uuid::from_u128(2 * MOST_REMEMBERED as u128 - 1)));
    }
}
