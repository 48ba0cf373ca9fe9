//! The `clock` interface.

use super::super::bindings::adit::plugin::clock as bound;
use super::super::store::State;

impl bound::Host for State {
    fn now(&mut self) -> u64 {
        self.sandbox.time.since_1970()
    }

    fn monotonic(&mut self) -> u64 {
        let now = self.sandbox.time.instant();
        let first = *self.first_look.get_or_insert(now);
        u64::try_from(now.saturating_duration_since(first).as_nanos()).unwrap_or(u64::MAX)
    }
}
