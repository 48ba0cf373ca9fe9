//! What one more attempt is paid from, and where it is counted.

use std::time::Instant;

use crate::balancer::retry_budget::{Reason, RetryBudget};
use crate::registry::Tunnel;

/// What the requests of a tunnel, or of a load balancer, may try again.
#[derive(Clone, Copy)]
pub(crate) struct Budget<'a> {
    pub(super) retries: &'a RetryBudget,
    /// Where it is counted.
    pub(super) tunnel: &'a Tunnel,
    pub(super) shard: usize,
}

impl Budget<'_> {
    /// Whether one more attempt may begin, which is then counted.
    pub(crate) fn allow(self, reason: Reason) -> bool {
        let is_allowed = self.retries.allow(reason, Instant::now());
        self.tunnel.place.count(|traffic| traffic.retry(self.shard, reason, is_allowed));
        is_allowed
    }
}
