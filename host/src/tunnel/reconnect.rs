//! Connections that are given up because a person asks for it: one for each time. Knows who waits; does not know
//! what a connection is.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// What was asked and not done yet.
#[derive(Default)]
pub struct Reconnects {
    delays: Mutex<VecDeque<Duration>>,
    told: Notify,
}

impl Reconnects {
    /// Has one of the slots that serve give its connection up and register again after `delay`. Forgotten where
    /// too many wait for that.
    pub fn ask(&self, delay: Duration) {
        let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
        if delays.len() < MOST {
            delays.push_back(delay);
            self.told.notify_one();
        }
    }

    /// Until this slot is the one; may be dropped at any time.
    pub async fn asked(&self) -> Duration {
        loop {
            let told = self.told.notified();
            let delay = self.delays.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match delay {
                Some(delay) => return delay,
                None => told.await,
            }
        }
    }
}

const MOST: usize = 16;
