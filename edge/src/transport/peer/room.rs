//! What one tunnel may have of the connections to another node, so that the visitors of others find room there too.
//! Knows tunnels by their ids; does not know what is asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// Those of all tunnels at one other node.
pub(super) struct Rooms {
    /// Requests of one tunnel.
    most: usize,
    list: Mutex<List>,
}

#[derive(Default)]
struct List {
    of: HashMap<Uuid, Weak<Room>>,
    /// When so many are there, those that are gone are looked for.
    tidy_at: usize,
}

impl Rooms {
    pub(super) fn new(connections: usize) -> Self {
        Self { most: connections * MOST_OF_TUNNEL, list: Mutex::default() }
    }

    /// That of a tunnel, which all ways to its replicas share.
    pub(super) fn of(&self, tunnel: Uuid) -> Arc<Room> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = list.of.get(&tunnel).and_then(Weak::upgrade) {
            return room;
        }
        if list.of.len() >= list.tidy_at {
            list.of.retain(|_, room| room.strong_count() > 0);
            list.tidy_at = 2 * list.of.len() + FEW;
        }
        let room = Arc::new(Room {
            most: self.most,
            open: AtomicUsize::new(0),
            freed: Notify::new(),
            small: SmallFrames::new(),
        });
        list.of.insert(tunnel, Arc::downgrade(&room));
        room
    }
}

/// What one tunnel may have under way.
pub(super) struct Room {
    most: usize,
    open: AtomicUsize,
    freed: Notify,
    small: SmallFrames,
}

/// A place in it; given back when dropped.
pub(in crate::transport) struct Place(Arc<Room>);

impl Room {
    /// Waits for a place. May be dropped midway.
    pub(super) async fn place(self: &Arc<Self>) -> Place {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // From here on no place that becomes free is missed.
            freed.as_mut().enable();
            let more = |open| (open < self.most).then_some(open + 1);
            if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
                return Place(self.clone());
            }
            freed.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

impl Place {
    /// Waits until one more small frame of the tunnel may be sent. May be dropped midway.
    pub(in crate::transport) async fn small_frame(&self) {
        while let Err(due) = self.0.small.take(Instant::now()) {
            sleep_until(due).await;
        }
    }
}

/// How many small frames go to another node: each that is not read there yet costs that node some hundred bytes, and for
/// too many of them it would end a connection that all tunnels share. Bytes that wait become fewer frames meanwhile.
struct SmallFrames(Mutex<(u32, Instant)>);

impl SmallFrames {
    fn new() -> Self {
        Self(Mutex::new((SMALL_AT_ONCE, Instant::now())))
    }

    /// Takes one, or says when there may be one.
    fn take(&self, now: Instant) -> Result<(), Instant> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, counted) = &mut *held;
        let passed = now.saturating_duration_since(*counted).as_nanos() / SMALL_EVERY.as_nanos();
        if passed > 0 {
            *left = left.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX)).min(SMALL_AT_ONCE);
            *counted = now;
        }
        *left = left.checked_sub(1).ok_or(*counted + SMALL_EVERY)?;
        Ok(())
    }
}

/// Requests of one tunnel under way at another node, for each connection to it: a quarter of what one takes.
const MOST_OF_TUNNEL: usize = 256;
/// Small frames of one tunnel that are sent to another node as they come, and the time for each one after that.
const SMALL_AT_ONCE: u32 = 10_000;
const SMALL_EVERY: Duration = Duration::from_micros(100);
const FEW: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_frames_go_at_once_until_they_are_many_and_then_at_their_rate() {
        let (small, begun) = (SmallFrames::new(), Instant::now());
        assert!((0..SMALL_AT_ONCE).all(|_| small.take(begun).is_ok()));
        let due = small.take(begun).unwrap_err();
        assert!(due > begun && due <= begun + 2 * SMALL_EVERY, "{:?}", due - begun);
        assert!(small.take(due).is_ok() && small.take(due).is_err());
        let later = due + 100 * SMALL_EVERY;
        assert_eq!((0..200).filter(|_| small.take(later).is_ok()).count(), 100);
        let much_later = later + 2 * SMALL_AT_ONCE * SMALL_EVERY;
        assert_eq!(
            (0..2 * SMALL_AT_ONCE).filter(|_| small.take(much_later).is_ok()).count(),
            SMALL_AT_ONCE as usize
        );
    }

    #[tokio::test]
    async fn a_tunnel_that_has_its_room_full_waits_for_itself_alone() {
        let rooms = Rooms::new(2);
        let (one, other) = (rooms.of(Uuid::from_u128(1)), rooms.of(Uuid::from_u128(2)));
        assert!(Arc::ptr_eq(&one, &rooms.of(Uuid::from_u128(1))));
        let mut places = Vec::new();
        for _ in 0..2 * MOST_OF_TUNNEL {
            places.push(one.place().await);
        }
        let mut next = std::pin::pin!(one.place());
        assert!(futures_util::FutureExt::now_or_never(next.as_mut()).is_none());
        let _its_own = other.place().await;
        places.pop();
        next.await;
    }
}
