//! Health monitors: what is asked again and again of the endpoints of pools, through each replica of their tunnels.
//! A question is a request on a connection that the tunnel has, like a visitor's; the edge dials nobody for it. In a
//! fleet each replica is asked by one node, which tells the others (`sharing`).
//! Knows what is to be watched and what became of it; does not know pools or visitors' requests.

mod ask;
mod preview;
mod sharing;
mod terms;
mod watched;

use std::collections::HashMap;
use std::sync::Arc;

use adit_balance::Key;
use adit_balance::health::{self, Active};
use http::uri::Authority;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use crate::forward::ray::Rays;
use crate::registry::Tunnel;
use crate::state::snapshot::Kept;
use crate::store::records::objects::Object;
use terms::Terms;

pub(crate) use ask::Outcome;
pub(crate) use preview::Preview;
pub(crate) use sharing::{SharedVerdict, Sharing};
pub(crate) use watched::Watched;

/// Everything that is watched.
#[derive(Default)]
pub(crate) struct Monitors {
    subjects: watch::Sender<HashMap<Subject, Arc<Watched>>>,
    pub(crate) sharing: Arc<Sharing>,
}

/// What a monitor looks at: a tunnel, asked as one host. Pools that have both in common share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    monitor: String,
    tunnel: Uuid,
    host: String,
}

impl Subject {
    /// The same at all nodes of a fleet.
    fn key(&self) -> u64 {
        let Self { monitor, tunnel, host } = self;
        Key::of(format!("{monitor} {tunnel} {host}").as_bytes()).0
    }
}

/// A monitor of an endpoint, and what its word is worth there.
#[derive(Clone)]
pub(crate) struct Watch {
    pub(crate) watched: Arc<Watched>,
    pub(crate) standing: Voice,
}

/// See [`health::Member`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Voice {
    pub(crate) is_enabled: bool,
    pub(crate) must_be_healthy: bool,
    pub(crate) monitoring_only: bool,
}

impl Voice {
    /// Of a monitor that is alone.
    pub(crate) const ALONE: Self = Self { is_enabled: true, must_be_healthy: false, monitoring_only: false };
}

impl Watch {
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.standing == other.standing && Arc::ptr_eq(&self.watched, &other.watched)
    }
}

/// What the monitors of an endpoint say of it.
pub(crate) fn active(watches: &[Watch]) -> Active {
    let members = watches.iter().map(|Watch { watched, standing }| health::Member {
        is_enabled: standing.is_enabled,
        must_be_healthy: standing.must_be_healthy,
        monitoring_only: standing.monitoring_only,
        is_up: watched.is_up(),
    });
    // Each question has an end, so nothing is ever overdue.
    Active::new(!watches.is_empty(), health::group(members), false)
}

/// Seconds until they are answered, as a mean that fades: of those that know, the mean.
pub(crate) fn latency(watches: &[Watch]) -> Option<f64> {
    let known = watches.iter().filter_map(|watch| watch.watched.latency());
    let (sum, count) = known.fold((0.0, 0_u32), |(sum, count), one| (sum + one, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// A new list of what is watched. What stays keeps all that is known of it.
pub(crate) struct Change<'a> {
    monitors: &'a Monitors,
    now: HashMap<Subject, Arc<Watched>>,
}

impl Monitors {
    pub(crate) fn change(&self) -> Change<'_> {
        Change { monitors: self, now: HashMap::new() }
    }

    /// Asks. Never done; whatever it has begun ends with it.
    pub(crate) async fn run(&self, rays: Arc<Rays>) {
        let mut changes = self.subjects.subscribe();
        let mut rooms: HashMap<String, Arc<Semaphore>> = HashMap::new();
        let mut tasks: HashMap<Uuid, AbortOnDropHandle<()>> = HashMap::new();
        loop {
            let wanted: Vec<_> = changes.borrow_and_update().values().cloned().collect();
            let ids = wanted.iter().map(|watched| (watched.id, ())).collect::<HashMap<_, _>>();
            tasks.retain(|id, _| ids.contains_key(id));
            rooms.retain(|_, room| Arc::strong_count(room) > 1);
            for watched in wanted {
                let room = rooms.entry(watched.account.clone());
                // Each account waits for its own questions alone.
                let room = room.or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone();
                tasks
                    .entry(watched.id)
                    .or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(watched.run(room, rays.clone()))));
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

impl Change<'_> {
    /// The tunnel is to be watched by this monitor. `None` if it is of a kind that asks nothing here.
    pub(crate) fn watch(
        &mut self,
        monitor: (&str, &Kept<Object>),
        tunnel: &Arc<Tunnel>,
        host: Option<&Authority>,
        address: &str,
    ) -> Option<Arc<Watched>> {
        let (id, kept) = monitor;
        let wanted = host.map_or_else(|| address.to_owned(), ToString::to_string);
        let subject = Subject { monitor: id.to_owned(), tunnel: tunnel.id, host: wanted };
        if let Some(watched) = self.now.get(&subject) {
            return Some(watched.clone());
        }
        let before = self.monitors.subjects.borrow().get(&subject).cloned();
        let watched = match before {
            Some(before) if before.revision == kept.revision && Arc::ptr_eq(&before.tunnel, tunnel) => before,
            before => {
                let terms = Terms::of(&kept.record)?;
                // The endpoint knows best, then the monitor.
                let host = host.cloned().or_else(|| terms.host().cloned());
                let host = host.or_else(|| address.parse().ok())?;
                let sharing = (self.monitors.sharing.clone(), subject.key());
                Watched::new((id, kept), terms, host, tunnel.clone(), before.as_deref(), sharing)
            }
        };
        self.now.insert(subject, watched.clone());
        Some(watched)
    }

    /// What nobody asked for is not watched any more.
    pub(crate) fn done(self) {
        let is_same = |before: &HashMap<Subject, Arc<Watched>>| {
            let known =
                |(subject, watched)| before.get(subject).is_some_and(|known| Arc::ptr_eq(known, watched));
            before.len() == self.now.len() && self.now.iter().all(known)
        };
        if !is_same(&self.monitors.subjects.borrow()) {
            self.monitors.subjects.send_replace(self.now);
        }
    }
}

/// Questions of one account at a time.
const AT_ONCE: usize = 16;
