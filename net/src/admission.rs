//! Who may stay of those who have not proved anything yet, where there is room for so many. Room is shared
//! by source: who has the most there loses its oldest for whoever comes next, so that a source can only take
//! what no other wants. Knows addresses and numbers; does not know sockets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::network::source;

/// Room for so many guests. Its lock is taken when a guest comes, goes, or does something.
#[derive(Debug)]
pub struct Admission {
    most_waiting: usize,
    most_busy: usize,
    /// Both together.
    most: usize,
    room: Mutex<Room>,
    turned_away: AtomicU64,
}

#[derive(Debug, Default)]
struct Room {
    /// Of the last guest; those who came later or did something later have greater ones.
    number: u64,
    waiting: usize,
    busy: usize,
    /// Sources that have a guest waiting, each with its guests by their age.
    sources: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    /// Sources of which one has proved who it is, with the number at which it last did.
    known: HashMap<IpAddr, u64>,
}

/// One who is there, until it is dropped.
#[derive(Debug)]
pub struct Guest {
    admission: Arc<Admission>,
    source: IpAddr,
    dismissed: CancellationToken,
    /// Its place among those who wait, or [`BUSY`].
    number: Mutex<u64>,
}

/// As long as it lives, its guest is not sent away.
#[derive(Debug)]
pub struct Busy<'a>(Option<&'a Guest>);

impl Admission {
    /// Room for so many who wait, and for as many who are busy.
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        let most = most.max(1);
        Self::of(most, most, 2 * most)
    }

    /// Room for so many in all. Half of it is safe for those who are busy; a busy one beyond that has to go
    /// like one who waits, though later.
    #[must_use]
    pub fn shared(most: usize) -> Arc<Self> {
        let most = most.max(2);
        Self::of(most, most / 2, most)
    }

    fn of(most_waiting: usize, most_busy: usize, most: usize) -> Arc<Self> {
        let (room, turned_away) = (Mutex::default(), AtomicU64::new(0));
        Arc::new(Self { most_waiting, most_busy, most, room, turned_away })
    }

    /// Lets one more in, for whom another one may have to go.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Guest {
        let (source, dismissed) = (source(address), CancellationToken::new());
        let mut room = self.room();
        while room.waiting >= self.most_waiting || room.waiting + room.busy >= self.most {
            self.dismiss(&mut room);
        }
        let number = room.seat(source, dismissed.clone());
        drop(room);
        Guest { admission: self.clone(), source, dismissed, number: Mutex::new(number) }
    }

    /// Sends the one away who goes first, where the system has no room for more.
    pub fn relieve(&self) {
        self.dismiss(&mut self.room());
    }

    /// Somebody there has proved who it is, so others of its source go ahead from now on.
    pub fn know(&self, address: IpAddr) {
        self.room().know(source(address));
    }

    /// How many have not proved anything and are not busy.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.room().waiting
    }

    /// How many had to go so far because others came.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.turned_away.load(Ordering::Relaxed)
    }

    fn dismiss(&self, room: &mut Room) {
        if room.dismiss() {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        // No code panics while it holds the lock.
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    fn seat(&mut self, source: IpAddr, dismissed: CancellationToken) -> u64 {
        self.number += 1;
        self.waiting += 1;
        self.sources.entry(source).or_default().insert(self.number, dismissed);
        self.number
    }

    /// Gives the place up; `None` if it was taken away before.
    fn unseat(&mut self, source: IpAddr, number: u64) -> Option<CancellationToken> {
        let guests = self.sources.get_mut(&source)?;
        let dismissed = guests.remove(&number)?;
        if guests.is_empty() {
            self.sources.remove(&source);
        }
        self.waiting -= 1;
        Some(dismissed)
    }

    /// The oldest guest of the source that has the most, where those of a known one count less. Whether there
    /// was one.
    fn dismiss(&mut self) -> bool {
        let weight = |source: &IpAddr, guests: &BTreeMap<u64, CancellationToken>| {
            let is_known = self.known.contains_key(source);
            let count = if is_known { guests.len().div_ceil(KNOWN_FOR_ONE) } else { guests.len() };
            (count, !is_known, Reverse(guests.keys().next().copied()))
        };
        let fullest = self.sources.iter().max_by_key(|(source, guests)| weight(source, guests));
        let Some((source, oldest)) =
            fullest.and_then(|(source, guests)| Some((*source, *guests.keys().next()?)))
        else {
            self.waiting = 0;
            return false;
        };
        let Some(dismissed) = self.unseat(source, oldest) else { return false };
        dismissed.cancel();
        true
    }

    fn know(&mut self, source: IpAddr) {
        self.number += 1;
        if self.known.len() >= MOST_KNOWN && !self.known.contains_key(&source) {
            let last = self.known.iter().min_by_key(|(_, number)| **number).map(|(source, _)| *source);
            last.and_then(|source| self.known.remove(&source));
        }
        self.known.insert(source, self.number);
    }
}

impl Guest {
    /// Waits until it has to go. May be dropped midway.
    pub async fn dismissed(&self) {
        self.dismissed.cancelled().await;
    }

    /// What becomes of `work`, unless the guest has to go before.
    pub async fn unless_dismissed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.dismissed() => None,
            done = work => Some(done),
        }
    }

    /// It has done what an idler does not: it is the last again who has to go.
    pub fn step(&self) {
        let mut number = self.number();
        let mut room = self.admission.room();
        if let Some(dismissed) = room.unseat(self.source, *number) {
            *number = room.seat(self.source, dismissed);
        }
    }

    /// It has proved who it is, so others of its source go ahead from now on.
    pub fn vouch(&self) {
        self.admission.room().know(self.source);
    }

    /// It speaks for another address from now on, whose guest it is then.
    pub fn speak_for(&mut self, address: IpAddr) {
        let source = source(address);
        let mut number = self.number();
        let mut room = self.admission.room();
        if let Some(dismissed) = room.unseat(self.source, *number) {
            *number = room.seat(source, dismissed);
        }
        drop((number, room));
        self.source = source;
    }

    /// Keeps its place for as long as it is busy; when that is over it is the last who has to go.
    #[must_use]
    pub fn busy(&self) -> Busy<'_> {
        Busy(self.begin().then_some(self))
    }

    /// Keeps its place until [`Guest::end`], where there is room for one more who does. Otherwise it is now the
    /// last who has to go.
    pub fn begin(&self) -> bool {
        let mut number = self.number();
        let mut room = self.admission.room();
        let Some(dismissed) = room.unseat(self.source, *number) else { return false };
        if room.busy >= self.admission.most_busy {
            *number = room.seat(self.source, dismissed);
            return false;
        }
        room.busy += 1;
        *number = BUSY;
        true
    }

    /// It is not busy any more, if it was.
    pub fn end(&self) {
        let mut number = self.number();
        if *number != BUSY {
            return;
        }
        let mut room = self.admission.room();
        room.busy -= 1;
        *number = room.seat(self.source, self.dismissed.clone());
        // Who comes back may find the room full.
        if room.waiting > self.admission.most_waiting {
            self.admission.dismiss(&mut room);
        }
    }

    fn number(&self) -> MutexGuard<'_, u64> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let number = *self.number();
        let mut room = self.admission.room();
        if number == BUSY {
            room.busy -= 1;
        } else {
            room.unseat(self.source, number);
        }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(guest) = self.0 {
            guest.end();
        }
    }
}

/// The place of one who has none among those who wait. Those begin with 1.
const BUSY: u64 = 0;
/// So many guests of a known source count as one of another.
const KNOWN_FOR_ONE: usize = 4;
const MOST_KNOWN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn are_there(guests: &[Guest]) -> Vec<bool> {
        guests.iter().map(|guest| !guest.dismissed.is_cancelled()).collect()
    }

    #[test]
    fn a_source_takes_only_what_no_other_wants() {
        let admission = Admission::new(4);
        let mut many: Vec<_> = (0..6).map(|_| admission.admit(address(1))).collect();
        assert_eq!(are_there(&many), [false, false, true, true, true, true], "its own oldest go");
        let other = admission.admit(address(2));
        assert_eq!(are_there(&many), [false, false, false, true, true, true]);
        many.push(admission.admit(address(1)));
        assert!(!other.dismissed.is_cancelled(), "however many come, they come for their own");
        assert_eq!(are_there(&many), [false, false, false, false, true, true, true]);
        assert_eq!(admission.turned_away(), 4);
        drop((many, other));
        let room = admission.room();
        assert!(room.sources.is_empty() && room.waiting == 0 && room.busy == 0);
    }

    #[test]
    fn among_equals_the_oldest_goes_and_who_has_done_something_is_young_again() {
        let admission = Admission::new(3);
        let guests = [1, 2, 3].map(|last| admission.admit(address(last)));
        guests[0].step();
        let _next = admission.admit(address(4));
        assert_eq!(are_there(&guests), [true, false, true]);
        guests[1].step();
        assert_eq!(admission.waiting(), 3, "who was sent away does not come back");
    }

    #[test]
    fn who_has_proved_who_it_is_goes_ahead_when_it_comes_back() {
        let admission = Admission::new(4);
        admission.admit(address(1)).vouch();
        let known = [(); 4].map(|()| admission.admit(address(1)));
        let strangers = [2, 3, 4].map(|last| admission.admit(address(last)));
        // Four of a known source weigh as much as one of another, and among equals it goes last.
        assert_eq!(are_there(&known), [false, true, true, true]);
        assert_eq!(are_there(&strangers), [false, false, true]);
        let _another = admission.admit(address(5));
        assert_eq!(are_there(&known), [false, true, true, true]);
    }

    #[test]
    fn what_is_known_is_bounded() {
        let admission = Admission::new(1);
        for number in 0..2 * MOST_KNOWN as u32 {
            admission.admit(IpAddr::V4(number.into())).vouch();
        }
        let room = admission.room();
        assert_eq!(room.known.len(), MOST_KNOWN);
        assert!(room.known.contains_key(&IpAddr::V4((2 * MOST_KNOWN as u32 - 1).into())));
    }

    #[test]
    fn who_is_busy_is_not_sent_away_but_not_everybody_is() {
        let admission = Admission::new(2);
        let first = admission.admit(address(1));
        let busy = first.busy();
        let more: Vec<_> = (0..5).map(|_| admission.admit(address(1))).collect();
        assert!(!first.dismissed.is_cancelled());
        assert_eq!(are_there(&more), [false, false, false, true, true]);
        let too = [more[3].busy(), more[4].busy()];
        assert!(too[0].0.is_some() && too[1].0.is_none(), "no more are busy than there is room for");
        drop(busy);
        assert!(!first.dismissed.is_cancelled());
        assert_eq!(admission.waiting(), 2);
        drop(too);
        drop((first, more));
        assert!(admission.room().sources.is_empty());
    }

    #[test]
    fn those_who_wait_and_those_who_are_busy_may_share_one_room() {
        let admission = Admission::shared(6);
        let busy: Vec<_> = (0..4).map(|_| admission.admit(address(1))).collect();
        assert_eq!([0, 1, 2, 3].map(|index: usize| busy[index].begin()), [true, true, true, false]);
        let idle: Vec<_> = (0..3).map(|_| admission.admit(address(1))).collect();
        // The one that is busy beyond the half was the first to wait.
        assert_eq!(are_there(&busy), [true, true, true, false]);
        let others: Vec<_> = (2..6).map(|last| admission.admit(address(last))).collect();
        assert_eq!((are_there(&idle), are_there(&others)), (vec![false; 3], vec![false, true, true, true]));
        assert_eq!(are_there(&busy), [true, true, true, false], "who is busy stays");
        busy[0].end();
        busy[0].end();
        assert_eq!(admission.room().busy, 2);
        let _another = admission.admit(address(7));
        drop(busy);
        let room = admission.room();
        assert_eq!((room.busy, room.sources.contains_key(&address(1))), (0, false));
    }

    #[test]
    fn a_guest_counts_for_whom_it_speaks() {
        let admission = Admission::shared(4);
        let mut guests: Vec<_> = (0..3).map(|_| admission.admit(address(9))).collect();
        guests[0].speak_for(address(1));
        guests[1].speak_for("::ffff:192.0.2.1".parse().unwrap());
        let _more = [address(3), address(4)].map(|address| admission.admit(address));
        assert_eq!(are_there(&guests), [false, true, true], "two of one source, and of those the older");
        drop(guests);
        assert!(!admission.room().sources.contains_key(&address(1)));
    }

    #[tokio::test]
    async fn work_ends_when_its_guest_has_to_go() {
        let admission = Admission::new(1);
        let guest = admission.admit(address(1));
        assert_eq!(guest.unless_dismissed(std::future::ready(1)).await, Some(1));
        let _next = admission.admit(address(1));
        assert_eq!(guest.unless_dismissed(std::future::pending::<()>()).await, None);
    }
}
