//! The `clock` interface.

use std::time::{Instant, SystemTime};

use super::super::bindings::adit::plugin::clock as bound;
use super::super::store::State;

impl bound::Host for State {
    fn now(&mut self) -> u64 {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&mut self) -> u64 {
        let first = *self.first_look.get_or_insert_with(Instant::now);
        u64::try_from(first.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}
