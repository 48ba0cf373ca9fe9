//! Puts a host together, runs it, drains it. The only module that names every other; it wires and
//! decides nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use adit_engine::Engine;
use adit_inspector::{Keeper, Setting};
use adit_net::guard::Guard;
use adit_pace::Account;
use adit_pages::Door;
use adit_traces::{Exporter, Tracer};
use anyhow::Context;
use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info};

use crate::admin::{self, Admin, Rooms};
use crate::buckets;
use crate::config::document::ConfigSource;
use crate::config::reader::Reader;
use crate::config::settings::Flags;
use crate::health::{Health, Heartbeat, Heartbeats};
use crate::management::{Management, Tail};
use crate::origin::{Circuits, Pool};
use crate::proxy::probe::{Inspector, Prober};
use crate::proxy::{Current, Proxy, PushVerdict, Pushes, Replayed, Replays, Streams, Tags};
use crate::revision::bootstrap::{self, Start};
use crate::revision::watch;
use crate::revision::{self, Reload, Writer};
use crate::tunnel::Identity;
use crate::tunnel::connection::Dialer;
use crate::tunnel::control::Control;
use crate::tunnel::discovery::Addresses;
use crate::tunnel::pace;
use crate::tunnel::reconnect::Reconnects;
use crate::tunnel::slot::{Shared, Slot};
use crate::tunnel::status::Status;
use crate::tunnel::trust;

/// A host that is ready to run: everything that can fail on a bad configuration has been done.
pub struct Host {
    shards: usize,
    slots: usize,
    current: Arc<Current>,
    shared: Arc<Shared>,
    admin: TcpListener,
    guard: Guard,
    probes: Option<TcpListener>,
    reload: Reload,
    writer: Writer,
    watched: bool,
    prober: Prober,
    inspector: Inspector,
    heartbeats: Heartbeats,
    hearts: Vec<Heartbeat>,
    ready_connections: usize,
    /// As `/diag/configuration` shows it.
    configuration: Value,
    quick_tunnel: Option<String>,
    tags: Tags,
    inspector_of_requests: Arc<Keeper>,
    /// Has the buckets that are kept.
    buckets: Engine,
    door: Arc<Door>,
    tracer: Option<Tracer>,
    /// Goes last.
    traces: Option<Exporter>,
    /// What people call this host.
    label: Option<String>,
    /// Who watches its log through the edge.
    tail: Arc<Tail>,
    /// How long nothing may serve; `None` for ever.
    patience: Option<Duration>,
}

impl Host {
    /// Builds the first generation, from what `reader` reads or what was kept of an earlier one, and
    /// binds the admin listener. `state_dir` goes before what the document says.
    pub async fn start(reader: Reader, state_dir: Option<&Path>, flags: Flags) -> anyhow::Result<Self> {
        let engine = Engine::of_this_program().context("the plugin engine")?;
        let Start { settings, generation, history, mut files } =
            bootstrap::start(&reader, state_dir, &flags, &engine).await?;
        files.push(reader.path().to_owned());
        let reported = generation.report.clone();
        let configuration = admin::configuration(&settings);
        let current = Arc::new(ArcSwap::from_pointee(generation));
        let account = Account::new(settings.bodies, settings.shards);
        let dialer = Dialer::new(
            trust::client_config(settings.edge_ca.as_deref(), settings.flags.post_quantum)?,
            settings.edges.bind_address,
            settings.bodies.connection_window(),
        )?;
        let bind = async |what: &str, address: SocketAddr| {
            let bound = TcpListener::bind(address).await;
            bound.with_context(|| format!("binding the {what} listener to {address}"))
        };
        let admin = bind("admin", settings.admin).await?;
        let guard = Guard::new(settings.admin.ip(), settings.admin_token.clone());
        let probes = match settings.admin_probes {
            Some(address) => Some(bind("probes", address).await?),
            None => None,
        };
        let watched = settings.watch;
        let buckets = engine.clone();
        let (reload, writer) = Reload::new(reader, settings.clone(), engine, current.clone(), history, files);
        let (prober, inspector) = Prober::new(current.clone());
        let (heartbeats, hearts) = Heartbeats::new(settings.shards);
        let identity = Identity::new(
            settings.credentials,
            settings.grace_period,
            !settings.edges.source.is_public(),
            settings.config_source != ConfigSource::Local,
        );
        let inspector_of_requests = Arc::new(Keeper::new(settings.shards).context("random numbers")?);
        let traces = settings.traces.map(|terms| Exporter::start(terms, identity.connector.to_string()));
        let (tracer, traces) = traces.transpose().context("[traces]")?.unzip();
        let tags = Tags::new(identity.connector, &settings.flags.tags)?;
        let label = settings.flags.label;
        let shared = Shared {
            identity,
            addresses: Addresses::start(settings.edges, settings.connections),
            dialer,
            protocol: settings.protocol,
            retries: settings.flags.retries,
            control: Control::start()?,
            status: Status::new(settings.connections),
            account,
            reconnects: Reconnects::default(),
            served: AtomicBool::new(false),
            reported,
        };
        Ok(Self {
            shards: settings.shards,
            slots: settings.connections,
            current,
            shared: Arc::new(shared),
            admin,
            guard,
            probes,
            reload,
            writer,
            watched,
            prober,
            inspector,
            heartbeats,
            hearts,
            ready_connections: settings.ready_connections,
            configuration,
            quick_tunnel: None,
            tags,
            inspector_of_requests,
            buckets,
            door: Arc::new(Door::new().context("random numbers")?),
            tracer,
            traces,
            label,
            tail: Arc::default(),
            patience: settings.exit_after_unconnected,
        })
    }

    /// Asks for a reload.
    pub fn reload(&self) -> Reload {
        self.reload.clone()
    }

    /// Hands what is logged to who watches it through the edge: what `tail` wants of events is said to it.
    pub fn watch_log(&mut self, tail: Arc<Tail>) {
        self.tail = tail;
    }

    /// Says under which host name the edge serves its quick tunnel, for `/quicktunnel` and the metrics.
    pub fn set_quick_tunnel(&mut self, hostname: String) {
        self.quick_tunnel = Some(hostname);
    }

    /// Keeps the heads of exchanges, until the process ends.
    pub fn watch_requests(&self) {
        self.inspector_of_requests.start(Setting { bodies: 0, rule: None, period: None }, Instant::now());
    }

    /// Where a browser is shown what this host does, with a code for one sign-in; `None` where that is no address
    /// of this machine.
    pub fn dashboard(&self) -> anyhow::Result<Option<String>> {
        let address = self.admin_address()?;
        if !address.ip().to_canonical().is_loopback() {
            return Ok(None);
        }
        let code = self.door.code(Instant::now()).context("random numbers")?;
        Ok(Some(format!("http://{}:{}/ui/enter#{code}", self.door.name(), address.port())))
    }

    /// Calls `observer` with `true` when a reload begins and with `false` when it is over, good or bad.
    pub fn observe_reloads(&mut self, observer: impl Fn(bool) + Send + Sync + 'static) {
        self.writer.observer = Some(Box::new(observer));
    }

    /// Asks how this host is. `stop` is what [`run`](Self::run) is given too.
    pub fn health(&self, stop: CancellationToken) -> Health {
        Health {
            shared: self.shared.clone(),
            current: self.current.clone(),
            prober: self.prober.clone(),
            heartbeats: self.heartbeats.clone(),
            wanted: self.ready_connections,
            stop,
        }
    }

    /// What can be asked of this host's connections, whether it has any or not.
    pub fn connections(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Where the admin API listens.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where there are only probes and metrics, if that was asked for.
    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.probes.as_ref()?.local_addr().ok()
    }

    /// Serves until `stop`, then drains: the admin API says "not ready", every slot unregisters,
    /// finishes its requests within the grace period and closes; the admin API ends last.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let _traces = self.traces.take();
        let identity = &self.shared.identity;
        let address = self.admin_address()?;
        info!(kind = "admin", %address, "listening");
        if let Some(address) = self.probes_address() {
            info!(kind = "probes", %address, "listening");
        }
        let label = self.label.as_deref();
        info!(tunnel = %identity.credentials.tunnel_id, connector = %identity.connector, label, shards = self.shards, "host starts");
        let watching = self.reload.clone();
        let circuits = Circuits::new(self.shards);
        let (replays, replayed) = Replays::new();
        let mut replayed = Some(replayed);
        let admin = Arc::new(Admin {
            health: self.health(stop.clone()),
            current: self.current.clone(),
            reload: self.reload,
            configuration: self.configuration,
            quick_tunnel: self.quick_tunnel,
            tags: self.tags.clone(),
            circuits: circuits.clone(),
            rooms: Rooms::default(),
            inspector: self.inspector_of_requests.clone(),
            door: self.door,
            tracer: self.tracer.clone(),
            tail: self.tail.clone(),
            replays,
            port: address.port(),
        });
        let inspector = self.inspector_of_requests.clone();
        let _tidy = AbortOnDropHandle::new(tokio::spawn(async move {
            loop {
                tokio::time::sleep(TIDY_EVERY).await;
                inspector.tidy(Instant::now());
            }
        }));
        let kept = self.buckets.clone();
        let _buckets = AbortOnDropHandle::new(tokio::spawn(buckets::keep(self.buckets)));
        let _account = AbortOnDropHandle::new(tokio::spawn(pace::keep(self.shared.account.clone())));
        let _inspector = AbortOnDropHandle::new(tokio::spawn(self.inspector.run()));
        let _watch = self.watched.then(|| AbortOnDropHandle::new(tokio::spawn(watch::watch(watching))));
        let _writer = AbortOnDropHandle::new(tokio::spawn(self.writer.run()));
        let (pushes, mut pushed) = Pushes::new();
        let (reload, speaks_own) = (admin.reload.clone(), identity.speaks_own);
        let _pushes = AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(push) = pushed.recv().await {
                let reload = reload.clone();
                // Several may be asked for at once; the writer puts them in order.
                tokio::spawn(async move {
                    let revision::Pushed { version, error, warnings } =
                        reload.push(push.version, push.json).await;
                    // The protocol has no word for a warning. An edge of ours knows that what was applied was
                    // not refused; another might take it for that.
                    let warned = (speaks_own && !warnings.is_empty()).then(|| warnings.join("\n"));
                    let error = error.or(warned);
                    let _ = push.verdict.send(PushVerdict { version, error });
                });
            }
        }));
        let _probes = self.probes.map(|listener| {
            let room = admin.rooms.probes.clone();
            AbortOnDropHandle::new(tokio::spawn(admin.clone().serve(listener, room, Guard::probes())))
        });
        let room = admin.rooms.admin.clone();
        let _admin = AbortOnDropHandle::new(tokio::spawn(admin.serve(self.admin, room, self.guard)));

        let (tunnel, connector) = (identity.credentials.tunnel_id, identity.connector);
        let management = Management::new(tunnel, connector, self.label.clone(), self.tail, stop.clone());
        let management = Arc::new(management.context("random numbers")?);
        let (report, mut ended) = mpsc::channel(self.shards);
        for (index, heart) in self.hearts.into_iter().enumerate() {
            let shard = Shard {
                index,
                heart,
                slots: (index..self.slots).step_by(self.shards).collect(),
                current: self.current.clone(),
                pushes: pushes.clone(),
                circuits: circuits.clone(),
                prober: self.prober.clone(),
                shared: self.shared.clone(),
                tags: self.tags.clone(),
                inspector: self.inspector_of_requests.clone(),
                tracer: self.tracer.clone(),
                management: management.clone(),
                // The first does it beside its own.
                replayed: replayed.take(),
                stop: stop.clone(),
            };
            let report = report.clone();
            std::thread::Builder::new().name(format!("shard-{index}")).spawn(move || {
                let outcome = shard.run();
                let _ = report.blocking_send((index, outcome));
            })?;
        }
        drop(report);

        let (give_up, mut given_up) = oneshot::channel();
        let _patience = self.patience.map(|limit| {
            let (shared, stop) = (self.shared.clone(), stop.clone());
            AbortOnDropHandle::new(tokio::spawn(async move {
                let _ = give_up.send(shared.status.unconnected(limit).await);
                stop.cancel();
            }))
        });

        let mut outcome = Ok(());
        for _ in 0..self.shards {
            let (index, result) = ended.recv().await.context("a shard ended by a panic")?;
            let early = !stop.is_cancelled();
            // One shard without the others is not the host that was asked for.
            stop.cancel();
            match result {
                Err(problem) => {
                    error!(shard = index, error = format!("{problem:#}"), "shard ended");
                    outcome = outcome.and(Err(problem));
                }
                Ok(()) if early => {
                    outcome = outcome.and(Err(anyhow::anyhow!("shard {index} ended before it was asked to")))
                }
                Ok(()) => {}
            }
        }
        if let Ok(reason) = given_up.try_recv() {
            outcome = outcome.and(Err(anyhow::anyhow!(reason)));
        }
        let _ = tokio::task::spawn_blocking(move || buckets::save(&kept)).await;
        info!("host ended");
        outcome
    }
}

/// How often it is looked whether what was kept of exchanges has had its time.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// One thread with its runtime, slots and origin pool.
struct Shard {
    index: usize,
    heart: Heartbeat,
    slots: Vec<usize>,
    current: Arc<Current>,
    pushes: Pushes,
    circuits: Circuits,
    prober: Prober,
    shared: Arc<Shared>,
    tags: Tags,
    inspector: Arc<Keeper>,
    tracer: Option<Tracer>,
    management: Arc<Management>,
    replayed: Option<Replayed>,
    stop: CancellationToken,
}

impl Shard {
    fn run(self) -> anyhow::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
        runtime.block_on(async move {
            let pool = Pool::default();
            let sweeper = pool.clone();
            let _sweeper =
                AbortOnDropHandle::new(tokio::task::spawn_local(async move { sweeper.sweep().await }));
            let streams = Streams::default();
            let sweeper = streams.clone();
            let _retirement =
                AbortOnDropHandle::new(tokio::task::spawn_local(async move { sweeper.sweep().await }));
            let _heart = AbortOnDropHandle::new(tokio::task::spawn_local(self.heart.beat()));
            let proxy = Rc::new(Proxy {
                current: self.current,
                pool,
                streams,
                pushes: self.pushes,
                circuits: self.circuits,
                prober: self.prober,
                shard: self.index,
                tags: self.tags,
                inspector: self.inspector,
                tracer: self.tracer,
                management: self.management,
            });
            let _replayed = self.replayed.map(|replayed| {
                AbortOnDropHandle::new(tokio::task::spawn_local(replayed.serve(proxy.clone())))
            });
            let mut slots = JoinSet::new();
            for slot in self.slots {
                let slot = Slot::new(slot, self.shared.clone(), proxy.clone());
                slots.spawn_local(slot.run(self.stop.clone()));
            }
            let mut outcome = Ok(());
            while let Some(ended) = slots.join_next().await {
                let ended =
                    ended.context("a slot ended by a panic").and_then(|ended| ended.map_err(Into::into));
                if ended.is_err() {
                    self.stop.cancel();
                    outcome = outcome.and(ended);
                }
            }
            outcome
        })
    }
}
