//! Who goes first where many wait for room on one connection. QUIC wakes all of them at once, whoever waited last
//! first (quinn keeps them on a stack), so the few that are woken first take all the room, wait again, and are woken
//! first again: a short answer would wait until they have sent all that their streams allow.
//!
//! Knows writes by how much was sent before; does not know streams.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// What becomes of `write` on a stream on which so many bytes were sent before. Where that is much, and the write has
/// to wait beside many others of its thread, all that are woken with it have a turn before it goes on. May be dropped
/// midway as `write` may.
pub async fn give_way<T>(sent: u64, write: impl Future<Output = T>) -> T {
    let mut write = pin!(write);
    let mut waiting: Option<Waiting> = None;
    let mut has_waited = false;
    poll_fn(|cx| {
        if std::mem::take(&mut has_waited) && sent >= MUCH && WAITING.get() > FEW {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = write.as_mut().poll(cx);
        if polled.is_pending() {
            has_waited = true;
            waiting.get_or_insert_with(Waiting::begin);
        }
        polled
    })
    .await
}

/// A write that waits, among those of its thread.
struct Waiting;

impl Waiting {
    fn begin() -> Self {
        WAITING.set(WAITING.get() + 1);
        Self
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // Whoever is moved to another thread is missing there.
        WAITING.set(WAITING.get().saturating_sub(1));
    }
}

thread_local! {
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// Writes that wait on one thread without any of them giving way: each turn that a lone download gives away costs it a
/// sixth of its speed.
const FEW: usize = 8;
/// Bytes up to which an answer is a short one.
const MUCH: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local, yield_now};

    use super::*;

    #[tokio::test]
    async fn what_is_short_goes_before_what_has_sent_much_whoever_is_woken_first() {
        let (room, order, is_open) =
            (Rc::new(Notify::new()), Rc::new(RefCell::new(Vec::new())), Rc::new(Cell::new(false)));
        let all = LocalSet::new();
        all.run_until(async {
            // In the order in which they will be woken.
            for sent in [MUCH; FEW].into_iter().chain([1 << 30, 0, MUCH - 1]) {
                let (room, order, is_open) = (room.clone(), order.clone(), is_open.clone());
                spawn_local(async move {
                    let write = async {
                        while !is_open.get() {
                            room.notified().await;
                        }
                        order.borrow_mut().push(sent);
                    };
                    give_way(sent, write).await;
                });
            }
            yield_now().await;
            is_open.set(true);
            room.notify_waiters();
        })
        .await;
        all.await;
        assert_eq!(order.borrow()[..2], [0, MUCH - 1]);
        assert_eq!(WAITING.get(), 0);
    }
}
