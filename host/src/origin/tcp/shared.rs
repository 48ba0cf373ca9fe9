//! What the two directions of a circuit tell each other. They live on one thread.

use std::cell::{Cell, RefCell};
use std::task::{Context, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::counts::Seat;

/// Known to both directions.
pub(super) struct Shared {
    pub(super) seat: Seat,
    visitor: Cell<Visitor>,
    /// The answer to the last frame that asked for one (RFC 6455, 5.5.3).
    pong: RefCell<Option<Bytes>>,
    /// When the visitor was last heard of, and when a byte last moved.
    heard: Cell<Instant>,
    moved: Cell<Instant>,
    /// Of whoever waits for the direction to the visitor.
    waker: RefCell<Option<Waker>>,
}

/// What has become of the direction from the visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visitor {
    Speaks,
    /// It has said all, and hears the rest.
    Said,
    /// It wants no more.
    Closed,
    /// It broke off.
    Lost,
    /// It sends what are no frames.
    Unreadable,
}

impl Shared {
    pub(super) fn new(seat: Seat) -> Self {
        let now = Instant::now();
        Self {
            seat,
            visitor: Cell::new(Visitor::Speaks),
            pong: RefCell::default(),
            heard: Cell::new(now),
            moved: Cell::new(now),
            waker: RefCell::default(),
        }
    }

    pub(super) fn visitor(&self) -> Visitor {
        self.visitor.get()
    }

    pub(super) fn become_of(&self, visitor: Visitor) {
        self.visitor.set(visitor);
        self.wake();
    }

    pub(super) fn answer(&self, pong: Bytes) {
        self.pong.replace(Some(pong));
        self.wake();
    }

    pub(super) fn take_pong(&self) -> Option<Bytes> {
        self.pong.take()
    }

    pub(super) fn hear(&self) {
        self.heard.set(Instant::now());
    }

    pub(super) fn moves(&self) {
        self.moved.set(Instant::now());
    }

    pub(super) fn heard(&self) -> Instant {
        self.heard.get()
    }

    pub(super) fn moved(&self) -> Instant {
        self.moved.get()
    }

    pub(super) fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if waker.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    fn wake(&self) {
        let waker = self.waker.take();
        // Not while it is borrowed: it may be the last to know somebody who knows it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
