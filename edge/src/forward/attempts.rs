//! The way of one request through the connections of its tunnel: which one it tries next, whether it may
//! try at all, and how long it waits for one. Knows outcomes; does not know streams. The contract is
//! docs/retries.md.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::select_ok;
use tokio::sync::watch;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{debug, info};
use uuid::Uuid;

use super::{Failure, Patience, Place, STREAM_CREDIT};
use crate::balancer::queue::{self, Held};
use crate::balancer::retry_budget::{LAST_TRY, MOST_TRIES, Reason};
use crate::metrics::NoHold;
use crate::registry::liveness;
use crate::registry::{Choices, Live, Slot, Tunnel};
use crate::transport::connection::{Channel, Lost};

pub(crate) struct Course<'a> {
    tunnel: &'a Tunnel,
    place: &'a Place<'a>,
    choices: Choices<'a>,
    /// Connections that were passed over in favour of another replica.
    aside: Vec<Arc<Live>>,
    began: Instant,
    tries: u32,
    /// The failure of the last attempt, if there was one.
    missed: Option<Missed>,
    /// A request that the origin may see twice.
    is_idempotent: bool,
}

/// What the requests of a tunnel may try again.
#[derive(Clone, Copy)]
pub(crate) struct Budget<'a> {
    tunnel: &'a Tunnel,
    shard: usize,
}

impl Budget<'_> {
    /// Whether one more attempt may begin, which is then counted.
    pub(crate) fn allow(self, reason: Reason) -> bool {
        let is_allowed = self.tunnel.retries.allow(reason, Instant::now());
        self.tunnel.place.count(|traffic| traffic.retry(self.shard, reason, is_allowed));
        is_allowed
    }
}

/// What becomes of connections that were asked and say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silent {
    PassedOver,
    Taken,
}

/// An attempt without an answer.
struct Missed {
    failure: Failure,
    reason: Reason,
    connector: Uuid,
    index: u8,
    /// The connection is gone, or takes no new requests.
    is_over: bool,
    is_paid: bool,
}

/// A connection with room for the request.
pub(crate) struct Chosen {
    pub(crate) live: Arc<Live>,
    pub(crate) slot: Slot,
    pub(crate) channel: Channel,
}

impl<'a> Course<'a> {
    pub(crate) fn patience(&self) -> Patience {
        self.place.patience
    }

    pub(crate) fn new(tunnel: &'a Tunnel, place: &'a Place<'a>, is_idempotent: bool) -> Self {
        let began = Instant::now();
        tunnel.retries.request(began);
        let choices = tunnel.choices(place.shard, place.key);
        Self { tunnel, place, choices, aside: Vec::new(), began, tries: 0, missed: None, is_idempotent }
    }

    /// Attempts that began.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    pub(crate) fn budget(&self) -> Budget<'a> {
        Budget { tunnel: self.tunnel, shard: self.place.shard }
    }

    /// The connection for the next attempt. Waits for one that has room if all are at their limit, and
    /// for one to come if there is none and waiting is of use.
    pub(crate) async fn next(&mut self) -> Result<Chosen, Failure> {
        let mut waiting: Option<Waiting<'_>> = None;
        if self.missed.is_some() {
            // Somebody may have come meanwhile.
            self.choices.refresh();
        }
        loop {
            if let Some(chosen) = self.choose(Silent::PassedOver).await? {
                self.begin(&chosen.live);
                return Ok(chosen);
            }
            // Looked at after arrivals are, so that a request that waits hears of it.
            if self.tunnel.is_gone() {
                return Err(self.give_up());
            }
            if let Some(waiting) = &mut waiting {
                if timeout_at(waiting.until.into(), waiting.arrivals.changed()).await.is_err() {
                    debug!(ray = self.place.ray.as_str(), "held in vain");
                    self.tunnel.place.count(|traffic| traffic.no_hold(self.place.shard, NoHold::InVain));
                    return Err(self.give_up());
                }
            } else {
                // From here on no arrival is missed; one may have come since the last look.
                let arrivals = self.tunnel.arrivals();
                let Some(held) = self.hold() else {
                    // Better a connection that says nothing than none.
                    let Some(chosen) = self.choose(Silent::Taken).await? else { return Err(self.give_up()) };
                    self.begin(&chosen.live);
                    return Ok(chosen);
                };
                let patience = self.tunnel.holds.patience;
                let patience = if self.missed.is_some() { patience.min(LAST_TRY) } else { patience };
                waiting = Some(Waiting { arrivals, until: self.began + patience, _held: held });
            }
            self.choices.refresh();
        }
    }

    /// Takes note of an attempt on `live` that failed. The failure comes back if it is final.
    pub(crate) fn miss(
        &mut self,
        failure: Failure,
        live: &Arc<Live>,
        is_replayable: bool,
    ) -> Result<(), Failure> {
        let Some(reason) = failure.reason() else { return Err(failure) };
        if reason.is_unknown() && !self.is_idempotent {
            return Err(failure);
        }
        if !is_replayable {
            return Err(Failure::NotReplayable(reason));
        }
        if reason == Reason::NotHere {
            self.choices.exclude(live.connector);
            self.aside.retain(|aside| aside.connector != live.connector);
        }
        self.missed = Some(Missed {
            failure,
            reason,
            connector: live.connector,
            index: live.index,
            is_over: !live.is_serving() || matches!(reason, Reason::NotSent | Reason::Refused),
            // By whoever gave the connection up.
            is_paid: reason == Reason::Silent,
        });
        Ok(())
    }

    /// Done when it is better to ask somebody else than to wait for the answer on `live`: nothing is
    /// heard of that host any more, another connection is well, and the request may be tried again.
    pub(crate) async fn doubt(&mut self, live: &Live) {
        if !self.is_idempotent {
            return std::future::pending().await;
        }
        loop {
            live.liveness.suspected().await;
            self.choices.refresh();
            let now = Instant::now();
            let is_another_well = self.aside.iter().any(|aside| aside.is_serving() && !aside.is_silent(now))
                || self.choices.has_healthy();
            if is_another_well && self.may_try_again() {
                return;
            }
            sleep(liveness::POLL).await;
        }
    }

    fn may_try_again(&self) -> bool {
        self.tries < MOST_TRIES && self.began.elapsed() < LAST_TRY
    }

    /// Whether the next attempt may begin. To be asked before a stream is opened for it, because a stream
    /// that nothing is sent on would reach the host as an empty one.
    fn permit(&mut self) -> Result<(), Failure> {
        let Some(mut missed) = self.missed.take() else { return Ok(()) };
        if !self.may_try_again() {
            return Err(missed.failure);
        }
        if !missed.is_paid && !self.budget().allow(missed.reason) {
            return Err(missed.failure);
        }
        missed.is_paid = true;
        self.missed = Some(missed);
        Ok(())
    }

    /// Counts an attempt on `live`, and says so if it is not the first.
    fn begin(&mut self, live: &Live) {
        self.tries += 1;
        if let Some(Missed { failure, reason, connector, index, .. }) = self.missed.take() {
            info!(
                ray = self.place.ray.as_str(),
                reason = reason.word(),
                from = %connector,
                from_index = index,
                to = %live.connector,
                to_index = live.index,
                detail = %failure,
                "trying again"
            );
        }
    }

    /// The best connection that has room, if there is one at all. Those that were passed over because they
    /// say nothing may be chosen the next time.
    async fn choose(&mut self, silent: Silent) -> Result<Option<Chosen>, Failure> {
        let mut passed_over = Vec::new();
        let chosen = self.choose_among(silent, &mut passed_over).await;
        for live in passed_over {
            self.choices.put_back(&live);
        }
        chosen
    }

    async fn choose_among(
        &mut self,
        silent: Silent,
        passed_over: &mut Vec<Arc<Live>>,
    ) -> Result<Option<Chosen>, Failure> {
        let mut busy = Vec::new();
        while let Some(live) = self.candidate() {
            if silent == Silent::PassedOver && live.is_silent(Instant::now()) {
                passed_over.push(live);
                continue;
            }
            let Some(slot) = live.begin() else { continue };
            self.permit()?;
            match live.link.channel().now_or_never() {
                Some(Ok(channel)) => return Ok(Some(Chosen { live, slot, channel })),
                Some(Err(error)) => {
                    debug!(ray = self.place.ray.as_str(), %error, "passing over a connection");
                }
                None => busy.push((live, slot)),
            }
        }
        if busy.is_empty() {
            return Ok(None);
        }
        // Whichever has room first.
        let waiting = busy.into_iter().map(|(live, slot)| {
            Box::pin(async move {
                let channel = live.link.channel().await?;
                Ok::<_, Lost>(Chosen { live, slot, channel })
            })
        });
        match timeout(STREAM_CREDIT, select_ok(waiting)).await {
            Ok(Ok((chosen, _))) => Ok(Some(chosen)),
            Ok(Err(error)) => {
                debug!(ray = self.place.ray.as_str(), %error, "a connection was lost before it had room");
                Ok(None)
            }
            Err(_) => Err(Failure::Busy),
        }
    }

    /// The next connection to try. After a failed attempt the other replicas come first, unless the
    /// visitor belongs to the one that failed: what killed one connection of a host may have killed
    /// all of them.
    fn candidate(&mut self) -> Option<Arc<Live>> {
        let avoided = self
            .missed
            .as_ref()
            .filter(|missed| self.place.key.is_none() || missed.reason == Reason::Refused)
            .map(|missed| missed.connector);
        for live in self.choices.by_ref() {
            if !live.is_serving() {
                continue;
            }
            let Some(avoided) = avoided else { return Some(live) };
            // Those that nobody wants come last, so what was put aside is better.
            let is_unwanted =
                live.is_silent(Instant::now()) || self.tunnel.share(&live.connector).effective() == 0;
            if live.connector == avoided || (is_unwanted && !self.aside.is_empty()) {
                self.aside.push(live);
            } else {
                return Some(live);
            }
        }
        self.aside.retain(|aside| aside.is_serving());
        let now = Instant::now();
        let rank = |live: &Arc<Live>| (live.is_silent(now), Some(live.connector) == avoided);
        let (at, _) = self.aside.iter().enumerate().min_by_key(|(_, aside)| rank(aside))?;
        Some(self.aside.remove(at))
    }

    /// A place to wait for a connection, if that is of any use: also for one that says nothing to be heard
    /// again.
    fn hold(&self) -> Option<Held<'a>> {
        let is_of_use = match &self.missed {
            Some(missed) if missed.reason == Reason::NotHere || !missed.is_over => false,
            Some(_) | None => queue::is_of_use(self.tunnel.began, self.tunnel.lost(), Instant::now()),
        };
        let holds = &self.tunnel.holds;
        if !is_of_use || holds.patience.is_zero() {
            return None;
        }
        let (held, shard) = (holds.begin(), self.place.shard);
        self.tunnel.place.count(|traffic| match held {
            Some(_) => traffic.hold(shard),
            None => traffic.no_hold(shard, NoHold::Crowded),
        });
        held
    }

    /// What the visitor is told when there is nobody left to ask.
    fn give_up(&mut self) -> Failure {
        match self.missed.take() {
            // Nothing has happened to the request.
            Some(Missed { reason: Reason::NotSent | Reason::Refused, .. }) | None => Failure::NoConnection,
            Some(missed) => missed.failure,
        }
    }
}

/// A request that waits for a connection to come.
struct Waiting<'a> {
    arrivals: watch::Receiver<()>,
    until: Instant,
    _held: Held<'a>,
}
