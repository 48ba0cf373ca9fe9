//! What peers do not take: looked after for as long as the edge lives, and counted for whom it is held. The rules
//! are `adit-pace`.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use adit_pace::{Account, Flow, Group, Owner, Release, Swept};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Where the bodies of a visitor's requests are counted.
#[derive(Clone)]
pub(crate) struct Share {
    account: Arc<Account>,
    shard: usize,
    owner: Owner,
}

impl Share {
    /// Of the visitors at this address.
    pub(crate) fn new(account: &Arc<Account>, shard: usize, source: IpAddr) -> Self {
        Self { account: account.clone(), shard, owner: source.into() }
    }

    /// The same for what goes with a connection.
    pub(crate) fn within(mut self, connection: Group) -> Self {
        self.owner.within = Some(connection);
        self
    }

    /// The same for the visitor at another address, as a proxy in front says it.
    pub(crate) fn of(&self, source: IpAddr) -> Self {
        Self { owner: Owner { source, ..self.owner }, ..self.clone() }
    }

    /// A body that waits, and of which so many bytes are held.
    pub(crate) fn begin(&self, held: u64, release: Option<Weak<dyn Release>>) -> Flow {
        Flow::begin(&self.account, self.shard, self.owner, held, release)
    }

    /// The same for one whose peer waits for data.
    pub(crate) fn idle(&self, held: u64, release: Option<Weak<dyn Release>>) -> Flow {
        let flow = Flow::idle(&self.account, self.shard, self.owner, release);
        flow.hold(held);
        flow
    }
}

/// On a thread of its own, so that it does its work when shards are busy.
pub(crate) async fn keep(account: &Account, stop: CancellationToken) {
    let mut clock = interval(Account::EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut warned: Option<Instant> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = clock.tick() => {}
        }
        let now = Instant::now();
        let Swept { held, too_slow, shed } = account.sweep(now);
        if too_slow + shed > 0 {
            debug!(held, too_slow, shed, "cut off peers that take too little");
        }
        if shed > 0 && warned.is_none_or(|last| now - last >= WARN_EVERY) {
            warned = Some(now);
            let limit = account.limits().held;
            warn!(held, limit, shed, "more is held for slow peers than bodies.held; the slowest are cut off");
        }
    }
}

const WARN_EVERY: Duration = Duration::from_secs(60);
