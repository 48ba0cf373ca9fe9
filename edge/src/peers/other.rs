//! One other node: what it says of itself, and the connections to it. It is dialled where its record says, and is who
//! its certificate and its key say. Knows how it is followed; what follows from its words is `presence`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use bytes::BytesMut;
use http::{HeaderValue, Request, Uri};
use rustls_pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::frames::Frame;
use super::presence::{Change, GONE, HEARTBEAT, Standing, View};
use super::trust::ALPN;
use super::{PeerFigures, PeerView, Peers};
use crate::registry::liveness::{self, Health, Liveness};
use crate::registry::{Registry, RemoteNode, RemoteReplica};
use crate::settings;
use crate::store::records::nodes::{NodeRecord, Wanted};
use crate::transport::http2::{self, Link};
use crate::transport::peer::{FLEET, FORMAT, Peer};

pub(super) struct Other {
    name: String,
    record: NodeRecord,
    is_near: bool,
    remote: Arc<RemoteNode>,
    heard: Mutex<Followed>,
    /// It is no node of the fleet any more, or another one than it was.
    gone: CancellationToken,
}

struct Followed {
    view: View,
    /// What it has of tunnels that this node does not know yet.
    unplaced: HashMap<Uuid, Vec<RemoteReplica>>,
    wanted: Wanted,
}

impl Other {
    pub(super) fn new(name: String, record: NodeRecord, own_region: &str, shards: usize) -> Arc<Self> {
        let is_near = record.region == own_region;
        let server = settings::Server {
            region: record.region.clone(),
            name: format!("node {name}"),
            listen: record.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0; 4], 0))),
            is_at_visitors: false,
        };
        let remote = Arc::new(RemoteNode {
            peer: Arc::new(Peer::new(name.clone(), shards, if is_near { NEAR } else { FAR })),
            liveness: Arc::new(Liveness::new()),
            server: Arc::new(server),
        });
        let followed = Followed { view: View::new(), unplaced: HashMap::new(), wanted: record.wanted };
        Arc::new(Self {
            name,
            record,
            is_near,
            remote,
            heard: Mutex::new(followed),
            gone: CancellationToken::new(),
        })
    }

    /// Whether a record is of the same node in the same place.
    pub(super) fn is_still(&self, record: &NodeRecord) -> bool {
        let NodeRecord { region, addresses, pin, generation, wanted: _, joined_at: _ } = record;
        let own = &self.record;
        (region, addresses, pin, generation) == (&own.region, &own.addresses, &own.pin, &own.generation)
    }

    pub(super) fn set_wanted(&self, wanted: Wanted) {
        self.followed().wanted = wanted;
    }

    pub(super) fn view(&self, now: Duration) -> PeerView {
        let followed = self.followed();
        let (peer, view, state) = (&self.remote.peer, &followed.view, followed.view.state());
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        PeerView {
            name: self.name.clone(),
            region: self.record.region.clone(),
            connected: !peer.is_closed(),
            suspect: view.standing() != Standing::Well || self.remote.liveness.is_suspect(),
            gone: view.standing() == Standing::Gone,
            leaving: state.is_leaving,
            silent_ms: milliseconds(now.saturating_sub(view.heard())),
            rtt_ms: milliseconds(peer.round_trip()),
            tunnels: view.tunnels().len(),
            epoch: view.epoch(),
            sequence: view.sequence(),
            revision: state.revision,
            store_silent_ms: u64::from(state.store_silent) * 1_000,
            requests: peer.begun(),
        }
    }

    pub(super) fn figures(&self, now: Duration) -> PeerFigures {
        let peer = self.remote.peer.clone();
        PeerFigures {
            name: self.name.clone(),
            region: self.record.region.clone(),
            is_connected: !peer.is_closed(),
            silent: now.saturating_sub(self.followed().view.heard()),
            peer,
        }
    }

    /// Whether it has hosts of a tunnel.
    pub(super) fn has(&self, tunnel: &Uuid) -> bool {
        self.followed().view.has(tunnel)
    }

    /// Asks it something that has one answer, of so many bytes at most. May be dropped midway.
    pub(super) async fn ask(&self, question: HeaderValue, most: u64) -> anyhow::Result<Vec<u8>> {
        let link = self.remote.peer.any_link().context("there is no connection to it")?;
        let mut request = self.request()?;
        request.headers_mut().insert(FLEET, question);
        let mut answer = Vec::new();
        let stream = std::pin::pin!(link.listen(request)?);
        stream.take(most).read_to_end(&mut answer).await?;
        Ok(answer)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// It is followed no longer, and no way leads through it.
    pub(super) fn end(&self, registry: &Registry) {
        self.gone.cancel();
        let tunnels: Vec<Uuid> = self.followed().view.tunnels().copied().collect();
        for tunnel in tunnels.iter().filter_map(|tunnel| registry.tunnel(tunnel)) {
            tunnel.set_remote(&self.remote, &[]);
        }
    }

    /// Listens to it for as long as it is a node of the fleet.
    pub(super) async fn follow(self: Arc<Self>, peers: Arc<Peers>) {
        let listen = async {
            let mut pause = FIRST_PAUSE;
            loop {
                let begun = Instant::now();
                let ended = self.listen(&peers).await;
                self.remote.peer.set_presence(None);
                if let Err(error) = ended {
                    debug!(node = self.name, error = format!("{error:#}"), "another node is not heard");
                }
                pause = if begun.elapsed() > GONE { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
        };
        let tick = async {
            loop {
                sleep(TICK).await;
                self.tick(&peers);
            }
        };
        let peer = &self.remote.peer;
        let tell = |was: Health, is: Health| {
            if is == Health::Well {
                self.wake(&peers.registry);
            }
            if is == Health::Suspect || was == Health::Suspect {
                info!(node = self.name, is_suspect = is == Health::Suspect, "whether another node answers");
            }
        };
        let monitor = liveness::monitor(&self.remote.liveness, || peer.signs(), || peer.begun(), tell);
        tokio::select! {
            () = listen => {}
            () = tick => {}
            () = monitor => {}
            () = self.gone.cancelled() => {}
        }
        // What it had just said counts for nothing any more.
        self.end(&peers.registry);
    }

    /// One stream of its presence, to its end.
    async fn listen(&self, peers: &Peers) -> anyhow::Result<()> {
        let (link, _driver) = self.dial(peers).await?;
        self.remote.peer.set_presence(Some(link.clone()));
        let (epoch, sequence) = self.followed().view.heard_upto().unwrap_or_default();
        let mut request = self.request()?;
        let words = HeaderValue::try_from(format!("{FORMAT} presence {epoch} {sequence}"))?;
        request.headers_mut().insert(FLEET, words);
        let mut stream = std::pin::pin!(link.listen(request)?);
        let mut bytes = BytesMut::new();
        loop {
            // It says something each second; what is late for so long is no longer awaited on this stream.
            let read = timeout(GONE, stream.read_buf(&mut bytes)).await.context("nothing was heard")??;
            ensure!(read > 0, "its words have ended");
            while let Some(frame) = Frame::read(&mut bytes)? {
                let is_goodbye = frame == Frame::Goodbye;
                match &frame {
                    Frame::Connections(connections) => {
                        for newer in connections {
                            peers.registry.order.hear(newer.id);
                            if let Some(tunnel) = peers.registry.tunnel(&newer.tunnel) {
                                tunnel.make_way(newer);
                            }
                        }
                    }
                    Frame::Verdicts(verdicts) => {
                        verdicts.iter().cloned().for_each(|verdict| peers.sharing.hear(verdict));
                    }
                    Frame::Hello { .. }
                    | Frame::Entries { .. }
                    | Frame::Heartbeat { .. }
                    | Frame::Goodbye => {}
                }
                let (news, standing) = {
                    let mut followed = self.followed();
                    let before = followed.view.standing();
                    let news = followed.view.hear(frame, peers.now());
                    (news, (before, followed.view.standing()))
                };
                self.apply(&peers.registry, news.changes);
                self.stands(peers, standing);
                if news.is_confused {
                    warn!(
                        node = self.name,
                        "what another node says does not fit together; asking for all of it"
                    );
                    bail!("its words do not fit together");
                }
                ensure!(!is_goodbye, "it has said goodbye");
            }
        }
    }

    fn tick(&self, peers: &Peers) {
        let (changes, standing) = {
            let mut followed = self.followed();
            let before = followed.view.standing();
            (followed.view.tick(peers.now()), (before, followed.view.standing()))
        };
        self.apply(&peers.registry, changes);
        self.stands(peers, standing);
    }

    fn stands(&self, peers: &Peers, (before, now): (Standing, Standing)) {
        let peer = &self.remote.peer;
        peer.set_suspect(now >= Standing::Suspect);
        let (is_leaving, wanted) = {
            let followed = self.followed();
            (followed.view.state().is_leaving, followed.wanted)
        };
        // What differs by less than this is as far.
        let steps = peer.round_trip().as_millis() / STEP.as_millis();
        peer.set_distance(match (is_leaving || wanted == Wanted::Draining, self.is_near) {
            (true, _) => LEAVING,
            (false, true) => NEAR,
            (false, false) => FAR + (u128::BITS - steps.leading_zeros()) as u8,
        });
        if before == now {
            return;
        }
        match now {
            Standing::Well => {
                info!(node = self.name, "another node is heard");
                self.wake(&peers.registry);
            }
            Standing::Suspect => info!(node = self.name, "nothing is heard of another node; it comes last"),
            Standing::Gone => warn!(node = self.name, "another node is gone, with all that it had"),
        }
    }

    /// Requests that wait look again.
    fn wake(&self, registry: &Registry) {
        let tunnels: Vec<Uuid> = self.followed().view.tunnels().copied().collect();
        for tunnel in tunnels.iter().filter_map(|tunnel| registry.tunnel(tunnel)) {
            tunnel.heard();
        }
    }

    fn apply(&self, registry: &Registry, changes: Vec<Change>) {
        if changes.is_empty() || self.gone.is_cancelled() {
            return;
        }
        let tunnels = registry.tunnels();
        // Held to the end, so that nobody places what was said before behind this.
        let mut followed = self.followed();
        for Change { tunnel, replicas } in changes {
            followed.unplaced.remove(&tunnel);
            match tunnels.get(&tunnel) {
                Some(tunnel) => tunnel.set_remote(&self.remote, &replicas),
                None if replicas.is_empty() => {}
                None => drop(followed.unplaced.insert(tunnel, replicas)),
            }
        }
    }

    /// Places what it has said of tunnels that this node did not know then.
    pub(super) fn place_the_rest(&self, registry: &Registry) {
        let mut followed = self.followed();
        let Followed { view, unplaced, wanted: _ } = &mut *followed;
        unplaced.retain(|id, replicas| {
            if !view.has(id) {
                return false;
            }
            let Some(tunnel) = registry.tunnel(id) else { return true };
            tunnel.set_remote(&self.remote, replicas);
            false
        });
    }

    /// Keeps the connection of one shard to it.
    pub(super) async fn keep_link(self: Arc<Self>, peers: Arc<Peers>, shard: usize) {
        let peer = &self.remote.peer;
        let keep = async {
            let mut pause = FIRST_PAUSE;
            loop {
                match self.dial(&peers).await {
                    Ok((link, _driver)) => {
                        pause = FIRST_PAUSE;
                        peer.set_link(shard, Some(link.clone()));
                        self.wake(&peers.registry);
                        tokio::select! {
                            reason = link.closed() => debug!(node = self.name, shard, reason, "a connection to another node ended"),
                            () = link.spent() => {}
                        }
                        peer.set_link(shard, None);
                        // Those under way on it go on.
                        tokio::spawn(async move {
                            link.close();
                            link.closed().await;
                            drop(_driver);
                        });
                    }
                    Err(error) => {
                        debug!(
                            node = self.name,
                            shard,
                            error = format!("{error:#}"),
                            "another node is not reached"
                        );
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
        };
        tokio::select! {
            () = keep => {}
            () = self.gone.cancelled() => {}
        }
        peer.set_link(shard, None);
    }

    /// A connection to it, and to nobody else.
    async fn dial(&self, peers: &Peers) -> anyhow::Result<(Link, AbortOnDropHandle<()>)> {
        let mut reached = Err(anyhow!("its record has no address"));
        for address in &self.record.addresses {
            // One that is silent, or where somebody else is, says nothing of the others.
            let dialled = timeout(DIAL, self.dial_at(peers, *address)).await;
            let dialled = dialled.context("it took too long").flatten();
            reached = dialled.with_context(|| format!("at {address}"));
            if reached.is_ok() {
                break;
            }
        }
        reached
    }

    async fn dial_at(
        &self,
        peers: &Peers,
        address: SocketAddr,
    ) -> anyhow::Result<(Link, AbortOnDropHandle<()>)> {
        let begun = Instant::now();
        let tcp = TcpStream::connect(address).await?;
        self.remote.peer.measured(begun.elapsed());
        tcp.set_nodelay(true)?;
        let tls = TlsConnector::from(peers.trust.client()?);
        let io = tls.connect(ServerName::IpAddress(address.ip().into()), tcp).await?;
        let session = io.get_ref().1;
        ensure!(session.alpn_protocol() == Some(ALPN), "it does not speak as nodes do");
        let (name, record) = peers.trust.judge(session.peer_certificates())?;
        ensure!(name == self.name && self.is_still(&record), "it is `{name}` that is there");
        let (link, driver) =
            http2::begin_counted(io, address, peers.window, Some(self.remote.peer.volume.clone())).await?;
        // Its settings say so, right behind the handshake.
        while !link.takes_websockets() {
            ensure!(!link.is_closed(), "it has hung up");
            sleep(SETTINGS).await;
        }
        Ok((link, driver))
    }

    fn request(&self) -> anyhow::Result<Request<()>> {
        let mut request = Request::new(());
        *request.uri_mut() = Uri::try_from(format!("https://{}/", self.name))?;
        Ok(request)
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NEAR: u8 = 1;
/// And farther by the round trip.
const FAR: u8 = 2;
const LEAVING: u8 = 255;
const STEP: Duration = Duration::from_millis(16);
const TICK: Duration = Duration::from_millis(250);
const SETTINGS: Duration = Duration::from_millis(2);
/// For a connection to one address of another node, with all its handshakes.
const DIAL: Duration = Duration::from_secs(5);
/// Between two attempts to reach it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const _: () = assert!(HEARTBEAT.as_millis() < GONE.as_millis());
