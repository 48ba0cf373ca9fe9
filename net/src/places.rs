//! Who has places that are held for long: so many in all. Where they run out, the source that has the most gives one to
//! a source that has fewer, so that no source can take them all. Knows sources and numbers; does not know what a place
//! is for.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Context;

use futures_util::task::AtomicWaker;

/// All that are taken.
#[derive(Debug)]
pub struct Places<P = Place> {
    open: usize,
    /// The places of each source, the newest last.
    of: HashMap<IpAddr, Vec<Arc<P>>>,
}

/// What a place is to who has it.
pub trait Lose {
    /// It is another source's from now on.
    fn lose(&self);
}

/// One place. Who has it looks whether somebody else was given it.
#[derive(Debug, Default)]
pub struct Place {
    is_lost: AtomicBool,
    waker: AtomicWaker,
}

impl<P> Default for Places<P> {
    fn default() -> Self {
        Self { open: 0, of: HashMap::new() }
    }
}

impl<P: Default + Lose> Places<P> {
    pub fn open(&self) -> usize {
        self.open
    }

    /// One more place for `source`, of `most` in all: a free one, or the newest of the source that has the most, if
    /// `source` has fewer even then.
    pub fn take(&mut self, source: IpAddr, most: usize) -> Option<Arc<P>> {
        if self.open >= most && !self.make_room(source) {
            return None;
        }
        self.open += 1;
        let place = Arc::<P>::default();
        self.of.entry(source).or_default().push(place.clone());
        Some(place)
    }

    /// Takes a place from the source that has the most, if `source` has fewer even with one more. It is free then.
    pub fn make_room(&mut self, source: IpAddr) -> bool {
        let own = self.of.get(&source).map_or(0, Vec::len);
        let most = self.of.values_mut().max_by_key(|places| places.len());
        let Some(lost) = most.filter(|places| places.len() > own + 1).and_then(Vec::pop) else {
            return false;
        };
        lost.lose();
        self.open -= 1;
        true
    }

    /// It is free again, unless somebody else has it.
    pub fn free(&mut self, source: IpAddr, place: &Arc<P>) {
        let Some(places) = self.of.get_mut(&source) else { return };
        if let Some(at) = places.iter().position(|known| Arc::ptr_eq(known, place)) {
            places.remove(at);
            self.open -= 1;
            if places.is_empty() {
                self.of.remove(&source);
            }
        }
    }
}

impl Lose for Place {
    fn lose(&self) {
        self.is_lost.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Place {
    /// Whether somebody else has it; the task of `cx` is woken if that changes.
    pub fn is_lost(&self, cx: &Context<'_>) -> bool {
        self.waker.register(cx.waker());
        self.is_lost.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::task::Waker;

    use super::*;

    fn source(last: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, last).into()
    }

    fn is_lost(place: &Place) -> bool {
        place.is_lost(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn one_source_may_have_all_places_until_another_one_comes() {
        let mut places = Places::<Place>::default();
        let first: Vec<_> = (0..4).map(|_| places.take(source(1), 4).unwrap()).collect();
        assert!(places.take(source(1), 4).is_none());
        assert!(first.iter().all(|place| !is_lost(place)));
        let second: Vec<_> = (0..2).map(|_| places.take(source(2), 4).unwrap()).collect();
        assert!(places.take(source(2), 4).is_none(), "as many as the first has left");
        let lost: Vec<_> = first.iter().map(|place| is_lost(place)).collect();
        assert_eq!(lost, [false, false, true, true], "the newest go");
        let third = places.take(source(3), 4).unwrap();
        assert!(places.take(source(4), 4).is_some());
        assert!(places.take(source(5), 4).is_none(), "nobody has more than one");
        assert!(!is_lost(&third));
        assert_eq!(places.open(), 4);
        for (place, from) in first.iter().map(|place| (place, 1)).chain(second.iter().map(|place| (place, 2)))
        {
            places.free(source(from), place);
        }
        places.free(source(3), &third);
        assert_eq!(places.open(), 1, "those that were lost do not count twice");
    }

    #[test]
    fn room_is_made_by_the_source_that_has_the_most_and_by_none_that_has_no_more_than_others() {
        let mut places = Places::<Place>::default();
        let first: Vec<_> = (0..2).map(|_| places.take(source(1), 3).unwrap()).collect();
        let second = places.take(source(2), 3).unwrap();
        assert!(!places.make_room(source(1)), "it has the most itself");
        assert!(places.make_room(source(3)) && is_lost(&first[1]));
        assert_eq!(places.open(), 2);
        assert!(!places.make_room(source(3)), "one each is fair");
        assert!(!is_lost(&first[0]) && !is_lost(&second));
    }

    #[test]
    fn whoever_waits_hears_that_its_place_is_lost() {
        let mut places = Places::<Place>::default();
        let first = places.take(source(1), 1).unwrap();
        assert!(places.take(source(2), 1).is_none(), "one each is fair");
        let mut places = Places::<Place>::default();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let taken: Vec<_> = (0..2).map(|_| places.take(source(1), 2).unwrap()).collect();
        assert!(!taken[1].is_lost(&Context::from_waker(&waker)));
        places.take(source(2), 2).unwrap();
        assert!(woken.0.load(Ordering::Relaxed) && taken[1].is_lost(&Context::from_waker(&waker)));
        drop(first);
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}
