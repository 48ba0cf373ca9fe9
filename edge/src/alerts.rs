//! Alerts: what is worth telling an account, and bringing it to its webhooks. An event becomes a message for each
//! webhook of each policy that asks for it, in one transaction with what brought it about; a message is kept until a
//! webhook has taken it.
//!
//! Read in this order: [`event`] (what happened, and who asks for it), [`damping`] (when a change is worth telling),
//! [`watch`], [`tokens`] and [`certificates`] (who notices), [`signature`] and [`sender`] (one attempt), [`outbox`] (all of them).

mod certificates;
pub(crate) mod damping;
pub(crate) mod event;
pub(crate) mod outbox;
pub(crate) mod sender;
pub(crate) mod signature;
mod tokens;
pub(crate) mod watch;

use std::time::Duration;

use adit_net::network::Network;

/// What an operator says about alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    /// Private networks that webhooks may be in.
    pub(crate) networks: Vec<Network>,
    /// How long what is worse has to last.
    pub(crate) down_for: Duration,
    /// And what is better.
    pub(crate) up_for: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self { networks: Vec::new(), down_for: DOWN_FOR, up_for: UP_FOR }
    }
}

pub(crate) const DOWN_FOR: Duration = Duration::from_secs(30);
pub(crate) const UP_FOR: Duration = Duration::from_secs(60);
