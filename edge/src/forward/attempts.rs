//! The way of one request through the connections of its tunnel, or of the tunnels behind its load balancer: which
//! one it tries next, whether it may try at all, and how long it waits for one. Knows outcomes; does not know
//! streams. The contract is docs/retries.md.

mod budget;
mod hold;
mod look;
mod stop;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use adit_protocol::extensions::Instead;
use futures_util::FutureExt;
use futures_util::future::select_ok;
use http::HeaderValue;
use http::uri::Authority;
use tokio::time::{sleep, timeout, timeout_at};
use tracing::{debug, info};
use uuid::Uuid;

use super::{Failure, ForwardContext, Patience, STREAM_CREDIT, Target};
use crate::balancer::retry_budget::{LAST_TRY, MOST_TRIES, Reason};
use crate::metrics::NoHold;
use crate::registry::{Connection, RequestGuard, Tunnel};
use crate::steering::{End, Way};
use crate::transport::connection::{Lost, StreamPermit};
use crate::transport::signs::POLL;
pub(crate) use budget::Budget;
use hold::Waiting;
pub(crate) use look::Outlook;
use stop::Stop;

pub(crate) struct Attempts<'a> {
    place: &'a ForwardContext<'a>,
    /// Through a load balancer.
    way: Option<Way<'a>>,
    /// The tunnel that is asked now; none before the first of a load balancer, or if it has none.
    stop: Option<Stop<'a>>,
    /// Those that were asked before, of which some connections may be left.
    behind: VecDeque<Stop<'a>>,
    /// How many of them are still to be looked at once more.
    revisits: usize,
    /// Where it is noted which tunnel is asked.
    led: &'a mut Option<Arc<Tunnel>>,
    began: Instant,
    /// When the endpoint that is asked now was.
    asked: Instant,
    tries: u32,
    /// The failure of the last attempt, if there was one.
    missed: Option<FailedAttempt>,
    /// A request that the origin may see twice.
    is_idempotent: bool,
    /// Another node owns the attempts, and this is one of them.
    is_one: bool,
}

/// What becomes of connections that were asked and say nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silent {
    PassedOver,
    Taken,
}

/// An attempt without an answer.
struct FailedAttempt {
    failure: Failure,
    reason: Reason,
    tunnel: Uuid,
    connector: Uuid,
    index: u8,
    /// The connection is gone, or takes no new requests.
    is_over: bool,
    is_paid: bool,
    /// The tunnel that has a retry of another one's request counted already.
    receiver: Option<Uuid>,
}

/// A connection with room for the request.
pub(crate) struct Selected {
    pub(crate) live: Arc<Connection>,
    pub(crate) slot: RequestGuard,
    pub(crate) channel: StreamPermit,
    /// As which host the request asks there, if not as which the visitor did.
    pub(crate) host: Option<Authority>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn patience(&self) -> Patience {
        self.place.patience
    }

    pub(crate) fn new(
        target: Target<'a>,
        place: &'a ForwardContext<'a>,
        is_idempotent: bool,
        led: &'a mut Option<Arc<Tunnel>>,
    ) -> Self {
        let attempts = Self::of(target, place, is_idempotent, led);
        match target {
            Target::Tunnel(tunnel) => tunnel.retries.request(attempts.began),
            Target::Balancer(balancer, _) => balancer.begin(attempts.began, place.shard),
            Target::Replica(..) => {}
        }
        attempts
    }

    /// For one who only looks where a request would go.
    pub(super) fn looking(
        target: Target<'a>,
        place: &'a ForwardContext<'a>,
        is_idempotent: bool,
        led: &'a mut Option<Arc<Tunnel>>,
    ) -> Self {
        let attempts = Self::of(target, place, is_idempotent, led);
        Self { way: attempts.way.map(Way::looking), ..attempts }
    }

    fn of(
        target: Target<'a>,
        place: &'a ForwardContext<'a>,
        is_idempotent: bool,
        led: &'a mut Option<Arc<Tunnel>>,
    ) -> Self {
        let began = Instant::now();
        let (way, stop) = match target {
            Target::Tunnel(tunnel) => (None, Some(Stop::plain(tunnel, place))),
            Target::Balancer(balancer, visit) => (Some(balancer.way(visit, is_idempotent)), None),
            Target::Replica(tunnel, connector) => (None, Some(Stop::here(tunnel, connector, place))),
        };
        let is_one = matches!(target, Target::Replica(..));
        let behind = VecDeque::new();
        let (asked, missed) = (began, None);
        Self {
            place,
            way,
            stop,
            behind,
            revisits: 0,
            led,
            began,
            asked,
            tries: 0,
            missed,
            is_idempotent,
            is_one,
        }
    }

    pub(crate) fn came(&self) -> Instant {
        self.place.came
    }

    /// Attempts that began.
    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }

    /// Whether there is one attempt and no more, whatever becomes of it.
    pub(crate) fn are_one(&self) -> bool {
        self.is_one
    }

    /// Of what is asked now: only once something is.
    pub(crate) fn budget(&self) -> Option<Budget<'a>> {
        let tunnel = self.stop.as_ref()?.tunnel();
        let retries = self.way.as_ref().map_or(&tunnel.retries, Way::retries);
        Some(Budget { retries, tunnel, shard: self.place.shard })
    }

    /// The connection for the next attempt. Waits for one that has room if all are at their limit, and
    /// for one to come if there is none and waiting is of use.
    pub(crate) async fn next(&mut self) -> Result<Selected, Failure> {
        if self.is_one {
            return self.only().await;
        }
        let mut waiting: Option<Waiting<'_>> = None;
        if self.missed.is_some() {
            // Somebody may have come meanwhile.
            self.refresh_stops();
            if self.way.is_some() && !self.stays() {
                // Another endpoint comes before another connection of this one.
                self.behind.extend(self.stop.take());
            }
        }
        loop {
            if let Some(chosen) = self.choose(Silent::PassedOver).await? {
                return Ok(self.begin(chosen));
            }
            // Looked at after arrivals are, so that a request that waits hears of it.
            if self.is_in_vain() {
                return Err(self.give_up());
            }
            if let Some(waiting) = &mut waiting {
                if timeout_at(waiting.until.into(), waiting.arrivals.next()).await.is_err() {
                    debug!(ray = self.place.ray.as_str(), "held in vain");
                    waiting.tunnel.place.count(|traffic| traffic.no_hold(self.place.shard, NoHold::InVain));
                    return Err(self.give_up());
                }
            } else {
                // From here on no arrival is missed; one may have come since the last look.
                let arrivals = self.arrivals();
                let Some((tunnel, held)) = self.hold() else {
                    // Better a connection that says nothing than none.
                    let Some(chosen) = self.choose(Silent::Taken).await? else { return Err(self.give_up()) };
                    return Ok(self.begin(chosen));
                };
                let patience = tunnel.holds.patience;
                let patience = if self.missed.is_some() { patience.min(LAST_TRY) } else { patience };
                waiting = Some(Waiting { arrivals, until: self.began + patience, tunnel, _held: held });
            }
            self.refresh();
        }
    }

    /// The connection for the only attempt. Nobody waits here: who has asked knows other ways.
    async fn only(&mut self) -> Result<Selected, Failure> {
        if let Some(chosen) = self.choose(Silent::PassedOver).await? {
            return Ok(self.begin(chosen));
        }
        let is_there = self.stop.as_ref().is_some_and(Stop::has_any);
        Err(if is_there {
            Failure::NotSent("nothing is heard of the host".to_owned())
        } else {
            Failure::NoConnection
        })
    }

    /// Takes note of an attempt that was answered: what a plugin or a rule says in the place of a service is no word
    /// about that, and that it was waited for in vain is a bad one.
    pub(crate) fn answered(&self, instead: Option<Instead>) {
        self.end(match instead {
            None => End::Good,
            Some(Instead::Late) => End::Bad,
            Some(Instead::Host) => End::Nothing,
        });
    }

    /// The header that makes or moves the session of a request that was answered by this replica.
    pub(crate) fn cookie(&self, replica: Uuid) -> Option<HeaderValue> {
        self.way.as_ref()?.cookie(self.stop.as_ref()?.stopover.as_ref()?, replica)
    }

    fn end(&self, end: End) {
        if let Some(stopover) = self.stop.as_ref().and_then(|stop| stop.stopover.as_ref()) {
            stopover.end(end, self.asked);
        }
    }

    /// Takes note of an attempt on `live` that failed. The failure comes back if it is final.
    pub(crate) fn miss(
        &mut self,
        failure: Failure,
        live: &Arc<Connection>,
        is_replayable: bool,
    ) -> Result<(), Failure> {
        self.end(if failure.is_of_endpoint() { End::Bad } else { End::Nothing });
        if self.is_one {
            return Err(failure);
        }
        if let (Failure::Absent, Some(stop)) = (&failure, &self.stop) {
            // Until the node says so anew.
            stop.tunnel().leave(live);
        }
        let Some(reason) = failure.reason() else { return Err(failure) };
        if reason.is_unknown() && !self.is_idempotent {
            return Err(failure);
        }
        if !is_replayable {
            return Err(Failure::NotReplayable(reason));
        }
        let is_given_up = matches!(failure, Failure::Silent);
        let Some(stop) = &mut self.stop else { return Err(failure) };
        if reason == Reason::NotHere {
            stop.exclude(live.connector);
        }
        self.missed = Some(FailedAttempt {
            failure,
            reason,
            tunnel: stop.tunnel().id,
            connector: live.connector,
            index: live.index,
            is_over: !live.is_serving() || matches!(reason, Reason::NotSent | Reason::Refused),
            // By whoever gave the connection up.
            is_paid: is_given_up,
            receiver: None,
        });
        Ok(())
    }

    /// Done when it is better to ask somebody else than to wait for the answer on `live`: nothing is
    /// heard of that host any more, another connection is well, and the request may be tried again.
    pub(crate) async fn failover_due(&mut self, live: &Connection) {
        if !self.is_idempotent {
            return std::future::pending().await;
        }
        loop {
            live.liveness.suspected().await;
            if self.is_one {
                return;
            }
            self.refresh_stops();
            if self.is_another_well() && self.may_try_again() {
                return;
            }
            sleep(POLL).await;
        }
    }

    fn is_another_well(&self) -> bool {
        let now = Instant::now();
        if let Some(stop) = self.stop.as_ref().filter(|_| self.is_kept()) {
            return stop.has_healthy(now);
        }
        if self.stop.iter().chain(&self.behind).any(|stop| stop.has_healthy(now)) {
            return true;
        }
        let is_well = |tunnel: &Tunnel| {
            !self.has_visited(tunnel) && tunnel.choices(self.place.shard, None).has_healthy()
        };
        self.way.as_ref().is_some_and(|way| way.has_other(way.fails_over(), is_well))
    }

    /// Whether what its endpoint may have seen is tried nowhere else, because the session of the request is there.
    fn is_kept(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_home) && self.way.as_ref().is_some_and(Way::stays_home)
    }

    /// Whether the next attempt goes to the same endpoint, if it has another connection: where the request is kept,
    /// and once in any case where its session is there.
    fn stays(&self) -> bool {
        let is_unknown = self.missed.as_ref().is_some_and(|missed| missed.reason.is_unknown());
        self.stop.as_ref().is_some_and(Stop::is_home) && (self.tries < 2 || (is_unknown && self.is_kept()))
    }

    fn may_try_again(&self) -> bool {
        self.tries < MOST_TRIES && self.began.elapsed() < LAST_TRY
    }

    /// Whether the next attempt may begin. To be asked before a stream is opened for it, because a stream
    /// that nothing is sent on would reach the host as an empty one.
    fn permit(&mut self) -> Result<(), Failure> {
        let Some(mut missed) = self.missed.take() else { return Ok(()) };
        let pay = || self.budget().is_some_and(|budget| budget.allow(missed.reason));
        if !self.may_try_again() || !(missed.is_paid || pay()) {
            return Err(missed.failure);
        }
        missed.is_paid = true;
        // Else so many tunnels would each bring one that is left their retries.
        if let Some(receiver) = self.stop.as_ref().map(Stop::tunnel).filter(|_| self.way.is_some())
            && missed.reason.is_unknown()
            && missed.receiver != Some(receiver.id)
        {
            if !receiver.retries.allow(missed.reason, Instant::now()) {
                return Err(missed.failure);
            }
            missed.receiver = Some(receiver.id);
        }
        self.missed = Some(missed);
        Ok(())
    }

    /// Counts an attempt, and says so if it is not the first.
    fn begin(&mut self, chosen: Selected) -> Selected {
        self.tries += 1;
        let Some(stop) = &self.stop else { return chosen };
        let tunnel = stop.tunnel();
        if let Some(way) = &mut self.way {
            if let Some(stopover) = &stop.stopover {
                way.begin(stopover);
            }
            if self.tries == 1 {
                tunnel.retries.request(self.began);
            }
            if self.led.as_ref().is_none_or(|led| led.id != tunnel.id) {
                *self.led = Some(tunnel.clone());
            }
        }
        if let Some(FailedAttempt { failure, reason, tunnel: from_tunnel, connector, index, .. }) =
            self.missed.take()
        {
            info!(
                ray = self.place.ray.as_str(),
                reason = reason.word(),
                from_tunnel = %from_tunnel,
                from = %connector,
                from_index = index,
                tunnel = %tunnel.id,
                to = %chosen.live.connector,
                to_index = chosen.live.index,
                detail = %failure,
                "trying again"
            );
        }
        chosen
    }

    /// The best connection that has room, if there is one at all. Those that were passed over because they
    /// say nothing may be chosen the next time.
    async fn choose(&mut self, silent: Silent) -> Result<Option<Selected>, Failure> {
        let mut passed_over = Vec::new();
        self.revisits = self.behind.len();
        let chosen = self.choose_among(silent, &mut passed_over).await;
        for live in passed_over {
            for stop in self.stop.iter_mut().chain(&mut self.behind) {
                stop.put_back(&live);
            }
        }
        chosen
    }

    async fn choose_among(
        &mut self,
        silent: Silent,
        passed_over: &mut Vec<Arc<Connection>>,
    ) -> Result<Option<Selected>, Failure> {
        let mut busy = Vec::new();
        loop {
            while let Some(live) = self.candidate() {
                if silent == Silent::PassedOver && live.is_silent(Instant::now()) {
                    passed_over.push(live);
                    continue;
                }
                let Some(slot) = live.begin() else { continue };
                self.permit()?;
                match live.link.channel(self.place.shard).now_or_never() {
                    Some(Ok(channel)) => return Ok(Some(self.chosen(live, slot, channel))),
                    Some(Err(error)) => {
                        debug!(ray = self.place.ray.as_str(), %error, "passing over a connection");
                    }
                    None => busy.push((live, slot)),
                }
            }
            if !self.go_on() {
                break;
            }
        }
        if busy.is_empty() {
            return Ok(None);
        }
        // Whichever has room first.
        let shard = self.place.shard;
        let waiting = busy.into_iter().map(|(live, slot)| {
            Box::pin(async move {
                let channel = live.link.channel(shard).await?;
                Ok::<_, Lost>((live, slot, channel))
            })
        });
        match timeout(STREAM_CREDIT, select_ok(waiting)).await {
            Ok(Ok(((live, slot, channel), _))) => {
                self.return_to(&live);
                Ok(Some(self.chosen(live, slot, channel)))
            }
            Ok(Err(error)) => {
                debug!(ray = self.place.ray.as_str(), %error, "a connection was lost before it had room");
                Ok(None)
            }
            Err(_) => Err(Failure::Busy),
        }
    }

    fn chosen(&mut self, live: Arc<Connection>, slot: RequestGuard, channel: StreamPermit) -> Selected {
        match self.stop.as_ref().and_then(|stop| stop.stopover.as_ref()) {
            None => Selected { live, slot, channel, host: None },
            Some(stopover) => {
                self.asked = Instant::now();
                let slot = slot.counted(stopover.begin(self.asked));
                Selected { live, slot, channel, host: stopover.endpoint().host.clone() }
            }
        }
    }

    /// The next connection to try, of the tunnel that is asked now.
    fn candidate(&mut self) -> Option<Arc<Connection>> {
        let missed = self.missed.as_ref();
        let avoided = missed.filter(|missed| self.place.key.is_none() || missed.reason == Reason::Refused);
        let avoided = avoided.map(|missed| missed.connector);
        self.stop.as_mut()?.candidate(avoided)
    }

    /// Goes on to another tunnel, if this is a load balancer's request: to another endpoint of the pool, back to one
    /// that was asked before, to another pool. What an origin may have seen goes to another pool only if it may.
    fn go_on(&mut self) -> bool {
        if self.is_kept() && self.missed.as_ref().is_some_and(|missed| missed.reason.is_unknown()) {
            return false;
        }
        let Some(way) = &mut self.way else { return false };
        let (stop, behind) = (&self.stop, &self.behind);
        let is_visited =
            |tunnel: &Tunnel| stop.iter().chain(behind).any(|stop| stop.tunnel().id == tunnel.id);
        let mut found = way.endpoint(is_visited);
        if found.is_none() && self.revisits > 0 {
            self.revisits -= 1;
            let next = self.behind.pop_front();
            self.behind.extend(std::mem::replace(&mut self.stop, next));
            return true;
        }
        if may_change_pool(way, self.missed.as_ref()) {
            while found.is_none() && way.enter() {
                found = way.endpoint(is_visited);
            }
        }
        let Some(stopover) = found else { return false };
        let next = Stop::of(stopover, self.place);
        self.behind.extend(self.stop.replace(next));
        true
    }

    /// Asks the tunnel of this connection now, which was asked before.
    fn return_to(&mut self, live: &Connection) {
        if self.way.is_none() || self.stop.as_ref().is_some_and(|stop| stop.has(live)) {
            return;
        }
        if let Some(at) = self.behind.iter().position(|stop| stop.has(live)) {
            let next = self.behind.remove(at);
            self.behind.extend(std::mem::replace(&mut self.stop, next));
        }
    }

    fn has_visited(&self, tunnel: &Tunnel) -> bool {
        self.stop.iter().chain(&self.behind).any(|stop| stop.tunnel().id == tunnel.id)
    }

    /// Looks anew who is there.
    fn refresh(&mut self) {
        self.refresh_stops();
        if let Some(way) = self.way.as_mut().filter(|way| may_change_pool(way, self.missed.as_ref())) {
            way.begin_anew();
        }
    }

    /// The same of those tunnels that were asked.
    fn refresh_stops(&mut self) {
        for stop in self.stop.iter_mut().chain(&mut self.behind) {
            stop.refresh();
        }
    }

    /// What the visitor is told when there is nobody left to ask.
    fn give_up(&mut self) -> Failure {
        match self.missed.take() {
            // Nothing has happened to the request.
            Some(FailedAttempt { reason: Reason::NotSent | Reason::Refused, .. }) | None => {
                Failure::NoConnection
            }
            Some(missed) => missed.failure,
        }
    }
}

/// What no origin has seen goes anywhere; what one may have seen goes to another pool only where that is allowed.
fn may_change_pool(way: &Way<'_>, missed: Option<&FailedAttempt>) -> bool {
    way.fails_over() || missed.is_none_or(|missed| !missed.reason.is_unknown())
}
