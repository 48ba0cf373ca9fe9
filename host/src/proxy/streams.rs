//! The answers of one shard that are under way, so that those whose generation's time is over are woken
//! although nothing comes for them.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::task::Waker;
use std::time::Duration;

use slab::Slab;

use crate::generation::lifetime::GenerationLifetime;
use crate::origin::Origin;

/// How often answers are looked over; they end so much later than they might.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// Every answer under way in one shard.
#[derive(Clone, Default)]
pub struct Streams {
    open: Rc<RefCell<Slab<Open>>>,
}

struct Open {
    tenure: Tenure,
    waker: Option<Waker>,
}

/// How long an answer may go on.
pub(super) struct Tenure {
    pub(super) lifetime: Arc<GenerationLifetime>,
    /// Of a circuit: as long as some rule leads to its service it goes on, whatever became of its generation.
    pub(super) service: Option<Weak<Origin>>,
}

impl Tenure {
    fn is_over(&self) -> bool {
        self.lifetime.is_over() && self.service.as_ref().is_none_or(|service| service.strong_count() == 0)
    }
}

/// The place of one answer; leaves when dropped.
pub(super) struct Place {
    streams: Streams,
    key: usize,
}

impl Streams {
    pub(super) fn enter(&self, tenure: Tenure) -> Place {
        let key = self.open.borrow_mut().insert(Open { tenure, waker: None });
        Place { streams: self.clone(), key }
    }

    /// Wakes what must end, until dropped.
    pub async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP_EVERY).await;
            let over: Vec<Waker> = self
                .open
                .borrow_mut()
                .iter_mut()
                .filter(|(_, open)| open.tenure.is_over())
                .filter_map(|(_, open)| open.waker.take())
                .collect();
            over.into_iter().for_each(Waker::wake);
        }
    }
}

impl Place {
    /// Whether its time is over.
    pub(super) fn is_over(&self) -> bool {
        self.streams.open.borrow().get(self.key).is_none_or(|open| open.tenure.is_over())
    }

    pub(super) fn wait(&self, waker: &Waker) {
        let known = match self.streams.open.borrow_mut().get_mut(self.key) {
            Some(open) if open.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) => {
                open.waker.replace(waker.clone())
            }
            _ => None,
        };
        // As at the end of a place: not while the table is borrowed.
        drop(known);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let left = self.streams.open.borrow_mut().try_remove(self.key);
        // Not while the table is borrowed: it may be the last to know somebody who knows it.
        drop(left);
    }
}
