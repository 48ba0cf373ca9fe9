//! Frames of little data that were handed to the library for a connection over HTTP/2 and are not written yet.
//!
//! The library bounds what waits there by its bytes. A frame of one byte costs it some hundred, and who sends
//! many of them while the peer stands still would have it keep that for each. Here each stream may have so many of
//! them waiting, and then waits itself.
//!
//! Knows streams and frames; does not know what they mean.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::unread::SMALL;

/// Those of all streams of one connection.
#[derive(Debug, Clone, Default)]
pub struct Unsent(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    streams: Mutex<HashMap<u32, Waiting>>,
    /// How many streams are there, for who finds none.
    counted: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: usize,
    sender: Option<Waker>,
}

/// Those of one stream. Its own sender alone asks.
#[derive(Debug)]
pub struct OfStream {
    unsent: Unsent,
    stream: u32,
    /// Frames of little data that were ever handed over.
    handed: usize,
}

impl Unsent {
    #[must_use]
    pub fn of(&self, stream: u32) -> OfStream {
        OfStream { unsent: self.clone(), stream, handed: 0 }
    }

    pub(crate) fn written(&self, stream: u32) {
        if self.0.counted.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut streams = self.streams();
        let Some(waiting) = streams.get_mut(&stream) else { return };
        // Those were written too that were not counted, and what the library cut off others.
        waiting.frames = waiting.frames.saturating_sub(1);
        if waiting.frames <= MOST / 2
            && let Some(sender) = waiting.sender.take()
        {
            drop(streams);
            sender.wake();
        }
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Waiting>> {
        // No code panics while it holds the lock.
        self.0.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfStream {
    /// Whether another frame may be handed over.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.handed <= UNCOUNTED {
            return Poll::Ready(());
        }
        let mut streams = self.unsent.streams();
        match streams.get_mut(&self.stream) {
            Some(waiting) if waiting.frames >= MOST => {
                waiting.sender = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(_) | None => Poll::Ready(()),
        }
    }

    /// Data of so many bytes was handed over.
    pub fn handed(&mut self, bytes: usize) {
        if !(1..SMALL).contains(&bytes) {
            return;
        }
        self.handed = self.handed.saturating_add(1);
        if self.handed > UNCOUNTED {
            let mut streams = self.unsent.streams();
            streams.entry(self.stream).or_default().frames += 1;
            self.unsent.0.counted.store(streams.len(), Ordering::Relaxed);
        }
    }
}

impl Drop for OfStream {
    fn drop(&mut self) {
        if self.handed > UNCOUNTED {
            let mut streams = self.unsent.streams();
            streams.remove(&self.stream);
            self.unsent.0.counted.store(streams.len(), Ordering::Relaxed);
        }
    }
}

/// Frames of little data of one stream that wait to be written.
const MOST: usize = 1024;
/// The first ones of a stream are not counted: most have no more.
const UNCOUNTED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_waits_while_too_many_of_its_small_frames_are_not_written_and_no_other_does() {
        let unsent = Unsent::default();
        let (mut one, mut other) = (unsent.of(1), unsent.of(3));
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..UNCOUNTED + MOST {
            assert!(one.poll_room(&mut cx).is_ready());
            one.handed(1);
        }
        assert!(one.poll_room(&mut cx).is_pending());
        other.handed(1);
        // What is large is bounded by its bytes.
        (0..2 * MOST).for_each(|_| other.handed(SMALL));
        assert!(other.poll_room(&mut cx).is_ready());
        unsent.written(3);
        assert!(one.poll_room(&mut cx).is_pending());
        unsent.written(1);
        assert!(one.poll_room(&mut cx).is_ready());
        drop(one);
        unsent.written(1);
        assert_eq!(unsent.0.counted.load(Ordering::Relaxed), 0);
        assert!(unsent.streams().is_empty());
    }
}
