//! One registered connection: who it is, how much it has to do, and whether it still takes requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use adit_protocol::extensions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use uuid::Uuid;

use super::lock;
use crate::balancer::under_way::UnderWay;
use crate::registry::liveness::Liveness;
use crate::settings;
use crate::transport::connection::Transport;

/// One registered connection.
pub(crate) struct Connection {
    pub(crate) id: Uuid,
    pub(crate) link: Transport,
    pub(crate) connector: Uuid,
    pub(crate) index: u8,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) features: Features,
    pub(crate) address: SocketAddr,
    pub(crate) server: Arc<settings::Server>,
    /// The shard whose thread drives this connection.
    pub(crate) shard: usize,
    pub(crate) since: SystemTime,
    leaving: Leaving,
    /// Kept up to date by the connection's monitor.
    pub(crate) liveness: Arc<Liveness>,
    requests: TaskTracker,
    total: AtomicU64,
    report: Mutex<Option<Report>>,
    probe: Mutex<Option<Arc<Probe>>>,
    moves: Mutex<Move>,
    /// Monitors that hold its host for down.
    doubts: AtomicUsize,
}

/// What the host of a connection said the last time when it was asked for its origins.
#[derive(Debug)]
pub(crate) struct Probe {
    pub(crate) at: SystemTime,
    pub(crate) took: Duration,
    /// All origins are there.
    pub(crate) is_ready: bool,
    pub(crate) origins: Vec<Origin>,
    /// Why there is no word of the host.
    pub(crate) error: Option<String>,
}

/// One origin, as its host sees it.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) rule: String,
    pub(crate) origin: String,
    pub(crate) is_ok: bool,
    pub(crate) error: Option<String>,
}

/// What a host does about an edge that is about to go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Move {
    #[default]
    Untold,
    /// It looks for another place, and unregisters when it has one.
    Moving,
    Staying,
}

/// What a host can do, in its own words and as the edge needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Features {
    /// As the host wrote them, cut to what a person reads.
    pub(crate) words: Vec<String>,
    /// [`extensions::FEATURE_TRAILERS`]
    pub(crate) trailers: bool,
    /// [`extensions::FEATURE_INSTEAD`]
    pub(crate) instead: bool,
    /// [`extensions::FEATURE_NOTICES`]
    pub(crate) notices: bool,
    /// [`extensions::FEATURE_VISITOR`]
    pub(crate) visitor: bool,
    /// [`extensions::FEATURE_WAITED`]
    pub(crate) waited: bool,
}

/// What a host said about its own configuration: enough to see whether two hosts differ.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) bytes: usize,
    /// First half of the SHA-256, in hexadecimal digits.
    pub(crate) digest: String,
}

/// Whoever holds it has a request on the connection; the connection is not closed under it.
pub(crate) struct RequestGuard {
    _request: TaskTrackerToken,
    /// Where it is counted besides.
    _under_way: Option<UnderWay>,
}

impl RequestGuard {
    /// The same, counted in other places too.
    pub(crate) fn counted(self, under_way: UnderWay) -> Self {
        Self { _under_way: Some(under_way), ..self }
    }
}

/// Whoever holds it has reason to believe that a connection's host is not well.
pub(crate) struct Doubt(Arc<Connection>);

impl Doubt {
    pub(crate) fn new(live: Arc<Connection>) -> Self {
        live.doubts.fetch_add(1, Ordering::Relaxed);
        Self(live)
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        self.0.doubts.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Leaving {
    flag: AtomicBool,
    token: CancellationToken,
}

/// What a connection says about itself when it registers.
pub(crate) struct ConnectionInfo {
    pub(crate) id: Uuid,
    pub(crate) link: Transport,
    pub(crate) connector: Uuid,
    pub(crate) index: u8,
    pub(crate) version: String,
    pub(crate) arch: String,
    pub(crate) features: Vec<String>,
    pub(crate) server: Arc<settings::Server>,
    pub(crate) shard: usize,
}

impl Connection {
    pub(crate) fn new(introduction: ConnectionInfo) -> Self {
        let ConnectionInfo { id, link, connector, index, version, arch, features, server, shard } =
            introduction;
        let features = Features::of(features);
        let live = Self::of(link, (connector, index), features, server, Arc::new(Liveness::new()));
        Self { id, version, arch, shard, ..live }
    }

    /// One of which no more is known.
    pub(super) fn of(
        link: Transport,
        (connector, index): (Uuid, u8),
        features: Features,
        server: Arc<settings::Server>,
        liveness: Arc<Liveness>,
    ) -> Self {
        Self {
            id: Uuid::new_v4(),
            address: link.remote_address(),
            link,
            connector,
            index,
            version: String::new(),
            arch: String::new(),
            features,
            server,
            shard: usize::MAX,
            since: SystemTime::now(),
            leaving: Leaving::default(),
            liveness,
            requests: TaskTracker::new(),
            total: AtomicU64::new(0),
            report: Mutex::new(None),
            probe: Mutex::new(None),
            moves: Mutex::default(),
            doubts: AtomicUsize::new(0),
        }
    }

    pub(crate) fn is_serving(&self) -> bool {
        !self.is_leaving() && !self.link.is_closed()
    }

    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.flag.load(Ordering::SeqCst)
    }

    /// The host was asked and says nothing: it gets no new request where there is another way, until it is
    /// heard again.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        self.liveness.is_silent(now) || self.link.is_silent()
    }

    /// The host has not been heard for longer than it should take.
    pub(crate) fn is_suspect(&self) -> bool {
        self.liveness.is_suspect()
    }

    /// A monitor holds its host for down: it gets a request only where there is no other way.
    pub(crate) fn is_doubted(&self) -> bool {
        self.doubts.load(Ordering::Relaxed) > 0
    }

    /// From now on no request begins here; those under way go on. Through [`super::Tunnel::leave`], so
    /// that nobody looks at it in vain.
    pub(crate) fn leave(&self) {
        self.leaving.flag.store(true, Ordering::SeqCst);
        self.leaving.token.cancel();
    }

    /// Waits for the moment from which no request begins here. May be dropped midway.
    pub(crate) async fn left(&self) {
        self.leaving.token.cancelled().await;
    }

    /// Waits until no request is under way any more. Only meaningful after [`Connection::left`]; may be
    /// dropped midway.
    pub(crate) async fn drained(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    /// Begins a request, unless the connection is leaving.
    pub(crate) fn begin(&self) -> Option<RequestGuard> {
        // Counted before the flag is read: `drained` sees either the request or an unwilling `begin`.
        let slot = RequestGuard { _request: self.requests.token(), _under_way: None };
        if self.is_leaving() {
            return None;
        }
        self.total.fetch_add(1, Ordering::Relaxed);
        Some(slot)
    }

    /// Requests under way.
    pub(crate) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Requests that ever began here.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    pub(crate) fn set_report(&self, report: Report) {
        *lock(&self.report) = Some(report);
    }

    pub(crate) fn report(&self) -> Option<Report> {
        lock(&self.report).clone()
    }

    pub(crate) fn set_probe(&self, probe: Probe) {
        *lock(&self.probe) = Some(Arc::new(probe));
    }

    pub(crate) fn probe(&self) -> Option<Arc<Probe>> {
        lock(&self.probe).clone()
    }

    pub(crate) fn set_move(&self, moves: Move) {
        *lock(&self.moves) = moves;
    }

    /// Whether a stopping edge should wait for this connection: its host moves, or may be about to say so.
    pub(crate) fn is_awaited(&self) -> bool {
        self.features.notices && *lock(&self.moves) != Move::Staying
    }
}

impl Features {
    /// What crosses between nodes; whether it reaches the host is for the one that the host is connected to.
    pub(super) fn of_nodes() -> Self {
        Self { words: Vec::new(), trailers: true, instead: true, notices: false, visitor: true, waited: true }
    }

    fn of(mut words: Vec<String>) -> Self {
        let has = |word: &str| words.iter().any(|known| known == word);
        let (trailers, notices) = (has(extensions::FEATURE_TRAILERS), has(extensions::FEATURE_NOTICES));
        let (instead, visitor) = (has(extensions::FEATURE_INSTEAD), has(extensions::FEATURE_VISITOR));
        let waited = has(extensions::FEATURE_WAITED);
        words.truncate(MOST_FEATURES);
        for word in &mut words {
            *word = word.chars().take(LONGEST_FEATURE).collect();
        }
        Self { words, trailers, instead, notices, visitor, waited }
    }
}

/// What is kept of a host's words for its features.
const MOST_FEATURES: usize = 32;
/// Characters.
const LONGEST_FEATURE: usize = 64;
