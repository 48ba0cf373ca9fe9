//! How long each plugin of a chain took with one request, for whoever looks at it. Where nobody does there is none,
//! and no clock is read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The laps of one exchange, in the order in which they ended.
#[derive(Debug, Default)]
pub struct Stopwatch(Mutex<Vec<Lap>>);

/// One plugin at one exchange, once for each way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lap {
    pub plugin: String,
    pub begun: Instant,
    pub took: Duration,
}

impl Stopwatch {
    /// One plugin was at it, from `begun` on.
    pub fn lap(&self, plugin: &str, begun: Instant, took: Duration) {
        let mut laps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if laps.len() < MOST_LAPS {
            laps.push(Lap { plugin: plugin.to_owned(), begun, took });
        }
    }

    /// What was measured so far.
    pub fn laps(&self) -> Vec<Lap> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Middleware may hand one request on again and again.
const MOST_LAPS: usize = 64;
