//! Whose connections have come or gone lately, for who tells other nodes of a fleet. Costs one look where nobody
//! wants to know. Knows ids.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use uuid::Uuid;

/// Held by all tunnels of a registry.
#[derive(Clone, Default)]
pub(crate) struct Moves(Arc<Shared>);

#[derive(Default)]
struct Shared {
    is_wanted: AtomicBool,
    moved: Mutex<HashSet<Uuid>>,
    news: Notify,
}

impl Moves {
    /// From now on somebody asks.
    pub(crate) fn want(&self) {
        self.0.is_wanted.store(true, Ordering::Release);
    }

    /// Connections of this tunnel have come, or have gone.
    pub(super) fn note(&self, tunnel: Uuid) {
        if self.0.is_wanted.load(Ordering::Acquire) {
            self.0.moved.lock().unwrap_or_else(PoisonError::into_inner).insert(tunnel);
            self.0.news.notify_one();
        }
    }

    /// Waits for tunnels whose connections have come or gone; each is there once, however often they did. For one
    /// waiter; may be dropped midway.
    pub(crate) async fn next(&self) -> HashSet<Uuid> {
        loop {
            let moved = std::mem::take(&mut *self.0.moved.lock().unwrap_or_else(PoisonError::into_inner));
            if !moved.is_empty() {
                return moved;
            }
            self.0.news.notified().await;
        }
    }
}
