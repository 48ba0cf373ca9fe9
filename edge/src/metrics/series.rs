//! Which tunnels are shown by themselves. Their number has an end, because each costs every scrape some lines:
//! tunnels beyond it count together. Room is shared by account: the one that has the most gives up its youngest
//! for an account that has less.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwapOption;
use uuid::Uuid;

use super::traffic::{Totals, Traffic};

/// Where a tunnel counts; nowhere before its first request.
#[derive(Default)]
pub(crate) struct Place(ArcSwapOption<Traffic>);

/// All that tunnels count.
#[derive(Default)]
pub(crate) struct Series {
    seats: Mutex<Vec<Seat>>,
    /// Of all tunnels that have no seat.
    others: Arc<Traffic>,
    /// Of requests that lead to no tunnel.
    none: Traffic,
}

struct Seat {
    tunnel: Uuid,
    account: String,
    /// Gone with its tunnel.
    place: Weak<Place>,
    traffic: Arc<Traffic>,
}

impl Place {
    /// Counts something. The tunnel has a place from its first request on.
    pub(crate) fn count(&self, count: impl FnOnce(&Traffic)) {
        if let Some(traffic) = &*self.0.load() {
            count(traffic);
        }
    }

    fn is(&self, traffic: &Arc<Traffic>) -> bool {
        self.0.load().as_ref().is_some_and(|own| Arc::ptr_eq(own, traffic))
    }
}

impl Series {
    /// Gives a tunnel its place, if it has none yet. Takes a lock only then.
    pub(crate) fn seat(&self, place: &Arc<Place>, tunnel: Uuid, account: impl FnOnce() -> String) {
        if place.0.load().is_some() {
            return;
        }
        let mut seats = self.seats();
        if place.0.load().is_some() {
            return;
        }
        let account = account();
        if seats.len() >= MOST && !make_room(&mut seats, &account, &self.others) {
            return place.0.store(Some(self.others.clone()));
        }
        seats.push(Seat::new(place, tunnel, account));
    }

    /// Gives a tunnel that counts with the others a place of its own, if there is room again.
    pub(crate) fn promote(&self, place: &Arc<Place>, tunnel: Uuid, account: impl FnOnce() -> String) {
        if !place.is(&self.others) {
            return;
        }
        let mut seats = self.seats();
        if seats.len() < MOST {
            seats.push(Seat::new(place, tunnel, account()));
        }
    }

    /// Of requests that lead to no tunnel.
    pub(crate) fn none(&self) -> &Traffic {
        &self.none
    }

    /// What every tunnel with a place of its own has counted, those that still exist.
    pub(crate) fn own(&self) -> HashMap<Uuid, Totals> {
        let mut seats = self.seats();
        seats.retain(Seat::is_there);
        seats.iter().map(|seat| (seat.tunnel, seat.traffic.read())).collect()
    }

    /// What all others have.
    pub(crate) fn others(&self) -> Totals {
        self.others.read()
    }

    fn seats(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn new(place: &Arc<Place>, tunnel: Uuid, account: String) -> Self {
        let traffic = Arc::<Traffic>::default();
        place.0.store(Some(traffic.clone()));
        Self { tunnel, account, place: Arc::downgrade(place), traffic }
    }

    fn is_there(&self) -> bool {
        self.place.strong_count() > 0
    }
}

/// Frees a seat for a tunnel of `account`, if that is fair.
fn make_room(seats: &mut Vec<Seat>, account: &str, others: &Arc<Traffic>) -> bool {
    seats.retain(Seat::is_there);
    if seats.len() < MOST {
        return true;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for seat in seats.iter() {
        *counts.entry(&seat.account).or_default() += 1;
    }
    let own = counts.get(account).copied().unwrap_or_default();
    let Some((fullest, most)) = counts.into_iter().max_by_key(|(_, count)| *count) else { return false };
    if own + 1 >= most {
        return false;
    }
    let Some(at) = seats.iter().rposition(|seat| seat.account == fullest) else { return false };
    let seat = seats.remove(at);
    if let Some(place) = seat.place.upgrade() {
        place.0.store(Some(others.clone()));
    }
    true
}

/// Tunnels that are shown by themselves.
pub(crate) const MOST: usize = 200;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::Speaks;

    fn tunnel(series: &Series, account: &str) -> (Uuid, Arc<Place>) {
        let (id, place) = (Uuid::new_v4(), Arc::<Place>::default());
        series.seat(&place, id, || account.to_owned());
        place.count(|traffic| traffic.answered(1, Speaks::Http1, 200, Duration::from_millis(1)));
        (id, place)
    }

    fn answers(totals: &Totals) -> u64 {
        totals.answers.iter().flatten().sum()
    }

    #[test]
    fn tunnels_beyond_the_most_count_together_and_nothing_is_lost() {
        let series = Series::default();
        let tunnels: Vec<_> = (0..MOST + 50).map(|_| tunnel(&series, "one")).collect();
        let own = series.own();
        assert_eq!(own.len(), MOST);
        assert!(tunnels[..MOST].iter().all(|(id, _)| answers(&own[id]) == 1), "who was first stays");
        assert_eq!(answers(&series.others()), 50);
        assert_eq!(answers(&series.none().read()), 0);
    }

    #[test]
    fn one_account_does_not_take_the_room_of_another() {
        let series = Series::default();
        let mut many: Vec<_> = (0..MOST).map(|_| tunnel(&series, "many")).collect();
        let few: Vec<_> = (0..3).map(|_| tunnel(&series, "few")).collect();
        let own = series.own();
        assert_eq!(own.len(), MOST);
        assert!(few.iter().all(|(id, _)| own.contains_key(id)));
        assert!(many[MOST - 3..].iter().all(|(id, _)| !own.contains_key(id)), "the youngest go");
        // However many more come, they come for their own.
        many.extend((0..10).map(|_| tunnel(&series, "many")));
        assert!(few.iter().all(|(id, _)| series.own().contains_key(id)));
        let half: Vec<_> = (0..MOST).map(|_| tunnel(&series, "few")).collect();
        let own = series.own();
        let left = many.iter().filter(|(id, _)| own.contains_key(id)).count();
        assert!(left.abs_diff(MOST / 2) <= 1, "{left}");
        drop(half);
    }

    #[test]
    fn a_tunnel_that_is_deleted_leaves_its_room_to_another() {
        let series = Series::default();
        let mut tunnels: Vec<_> = (0..=MOST).map(|_| tunnel(&series, "one")).collect();
        let (last, place) = tunnels.pop().unwrap();
        drop(tunnels);
        assert!(series.own().is_empty());
        series.promote(&place, last, || "one".to_owned());
        place.count(|traffic| traffic.left(0, Speaks::Http2));
        assert_eq!(answers(&series.own()[&last]), 1, "it begins anew");
        assert_eq!(answers(&series.others()), 1, "and what it had is not counted twice");
    }
}
