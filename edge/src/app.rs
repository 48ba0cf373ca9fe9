//! Build, run, drain: the only file that names every module. It wires and orders; it decides nothing.

mod addresses;
mod authority;
mod control_plane;
mod names;
pub(crate) mod shard;
pub(crate) mod threads;
pub(crate) mod watchdog;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_net::guard::Guard;
use adit_net::outbound::Client;
use adit_pace::Account;
use adit_pages::Door;
use adit_traces::Exporter;
use anyhow::Context;
use rustls::server::ResolvesServerCert;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::{self, Admin, Figures, Pages, Probed};
use crate::alerts::sender::Sender;
use crate::api::{self, Api};
use crate::app::threads::{Progress, Threads};
use crate::app::watchdog::Watchdog;
use crate::certificates::challenges::Challenges;
use crate::certificates::place::Use;
use crate::certificates::{Certificates, watch as certificate_watch};
use crate::dns::nodes::{MOST_NODES, Nodes};
use crate::dns::serve::NameServer;
use crate::forward::loops::Loops;
use crate::forward::ray::Rays;
use crate::issuance::keeper::{Counts, Keeper, OwnNames};
use crate::limits::pace;
use crate::limits::per_address::AddressLimits;
use crate::listen;
use crate::metrics::Counters;
use crate::nodes::OwnNode;
use crate::nodes::admit::Admitting;
use crate::nodes::folder::Folder;
use crate::peers::Peers;
use crate::registry::warm_up::WarmUp;
use crate::registry::{Connection, Registry};
use crate::settings::{self, Drain, Https, Server, Settings};
use crate::shutdown::{AllAtOnce, Shutdown};
use crate::state::fresh::Fresh;
use crate::state::publish::{Publisher, Pushing, StaticTunnels, Weighed};
use crate::state::snapshot::Changes;
use crate::steering::Balancers;
use crate::tls::{self, CONNECTOR_NAMES, DevelopmentCa, visitors};
use crate::tunnel::accept_quic;
use crate::tunnel::control::{self, Inbox};
use crate::tunnel::session::Unregistered;
use crate::visitor::{Database, Explainer, Guide, HostTable, watch_countries};
use addresses::Addresses;
pub use addresses::ServerAddress;
use authority::LazyCa;
use control_plane::{ControlPlane, load};
use names::Names;
use shard::{Shard, ShardPhase, Shared};

/// An edge whose sockets are bound and whose certificates exist. It serves when it [runs](Edge::run).
pub struct Edge {
    shards: Vec<Shard>,
    shared: Arc<Shared>,
    inbox: Inbox,
    admin: Option<(Admin, Vec<admin::Listener>)>,
    office: Option<ControlPlane>,
    node: Option<Arc<OwnNode>>,
    certificates: Arc<Certificates>,
    names: Option<Names>,
    countries: Option<Arc<Database>>,
    addresses: Addresses,
    drain: Drain,
    /// Goes last.
    traces: Option<Exporter>,
}

impl Edge {
    /// Binds every socket and makes the certificates that the settings do not name. From here on
    /// visitors and connectors can reach the sockets; they wait until the edge runs.
    pub fn build(settings: Settings) -> anyhow::Result<Self> {
        let Settings {
            data_dir,
            http,
            https,
            connectors,
            certificates: own,
            seal,
            acme,
            secure,
            policy,
            dns,
            servers,
            tunnels,
            admin,
            drain,
            hold,
            warm_up,
            patience,
            half_closed,
            sources,
            proxies,
            bodies,
            mut api,
            store,
            node,
            alerts,
            geography,
            traces,
        } = settings;
        let count = shard::count();
        let names = tunnels.iter().flat_map(|tunnel| {
            let id = tunnel.credentials.tunnel_id;
            tunnel.hostnames.iter().map(move |name| (name.clone(), id))
        });
        let names: Vec<_> = names.collect();
        let is_fleet = store.is_some();
        if api.is_some() && node.is_some() {
            // Who did not join has no key for what is sealed in the state.
            Folder::of(&data_dir).joined().context("[node]")?;
        }
        let known = api.as_ref().map(|_| load(&data_dir, store, &seal)).transpose()?;
        let (known, keys) = known.map_or((None, None), |(known, keys)| (Some(known), Some(keys)));
        let nodes_at = node.as_ref().map(|terms| terms.listen);
        let node = match (node, &known) {
            (Some(terms), Some((state, _))) => {
                let folder = Folder::of(&data_dir);
                Some(OwnNode::open(&terms, folder, state.clone()).context("[node]")?)
            }
            _ => None,
        };
        let zones = known.iter().flat_map(|(state, _)| state.read(|snapshot| snapshot.zone_names()));
        let domains = api.iter().flat_map(|api| [&api.tunnel_domain, &api.quick_domain]).flatten().cloned();
        let domains: Vec<String> = zones.chain(domains).collect();

        let mut ca = LazyCa { data_dir: &data_dir, made: None };
        let fresh = known.as_ref().filter(|_| acme.is_some()).map(|(state, _)| Fresh::new(state.clone()));
        let challenges = fresh.clone().map_or_else(Challenges::default, Challenges::of_state);
        let mut certificates = Certificates::answering(challenges);
        let (seed, shown) = match connectors {
            Some(owned) => (owned.identity.seed().clone(), certificates.add(Use::Connectors, owned)),
            None => {
                let made = ca.issue(CONNECTOR_NAMES.map(str::to_owned).into())?;
                (made.seed().clone(), certificates.add_made(Use::Connectors, made))
            }
        };
        let tls = tls::connector_tls(shown)?;
        let http2 = Arc::new(tls::without_alpn(tls.clone()));
        let account = Account::new(bodies, count);
        let quic = accept_quic::server_config(tls, bodies.connection_window())?;
        let mut identifying = Vec::new();
        let https = match https {
            None => None,
            Some(Https { listen, identity }) => {
                let fallback = match identity {
                    Some(owned) => certificates.add(Use::Visitors, owned),
                    None => {
                        let below = domains.iter().flat_map(|name| [name.clone(), format!("*.{name}")]);
                        let fixed = names.iter().map(|(name, _)| name.to_string());
                        certificates.add_made(Use::Visitors, ca.issue(fixed.chain(below).collect())?)
                    }
                };
                let shown = certificates.for_visitors(own, fallback);
                for verifier in &secure.verifiers {
                    let asks = visitors::identifying_tls(shown.clone(), policy, verifier.clone())?;
                    identifying.push(Arc::new(asks));
                }
                Some((listen, Arc::new(visitors::visitor_tls(shown, policy)?)))
            }
        };
        let identifying = identifying.into();
        let api_shown: Option<Arc<dyn ResolvesServerCert>> = match api.as_mut() {
            Some(api) => match (api.identity.take(), api.hostname.clone()) {
                (Some(owned), _) => Some(certificates.add(Use::Api, owned)),
                (None, Some(name)) => Some(certificates.for_api(name.clone(), ca.issue(vec![name])?)),
                (None, None) => None,
            },
            None => None,
        };
        let authority = ca.made.as_ref().and_then(DevelopmentCa::not_after);
        let ca = ca.made.map(|ca| ca.path().to_owned());

        let fixed = Arc::new(StaticTunnels {
            tunnels: tunnels.iter().map(|tunnel| (tunnel.name.clone(), tunnel.credentials.clone())).collect(),
            names,
            domain: api.as_ref().and_then(|api| api.tunnel_domain.clone()),
        });
        let registry = Arc::new(Registry::new(tunnels));
        registry.fleet.open(&data_dir).context("the configurations of tunnels")?;
        let (control, inbox) = control::channel();
        let names = Arc::new(HostTable::new(fixed.table(&registry)));
        let rays = Arc::new(Rays::new(servers.first().map_or("", |server| server.name.as_str())));

        let shard = |index| Shard {
            index,
            http: None,
            https: None,
            servers: Vec::new(),
            nodes: None,
            visitors: TaskTracker::new(),
        };
        let mut shards: Vec<Shard> = (0..count).map(shard).collect();
        let mut addresses = Addresses { ca, ..Addresses::default() };
        if let Some(listen) = http {
            for (shard, socket) in shards.iter_mut().zip(bound(listen, listen::tcp_listeners(listen, count))?)
            {
                addresses.http = Some(socket.local_addr()?);
                shard.http = Some(socket);
            }
        }
        if let Some((listen, tls)) = https {
            for (shard, socket) in shards.iter_mut().zip(bound(listen, listen::tcp_listeners(listen, count))?)
            {
                addresses.https = Some(socket.local_addr()?);
                shard.https = Some((socket, tls.clone()));
            }
        }
        let mut bound_servers = Vec::new();
        for server in servers {
            let (udp, tcp) = bound(server.listen, listen::both(server.listen, count))?;
            let listen = udp[0].local_addr()?;
            let server = Arc::new(Server { listen, ..server });
            addresses.servers.push(ServerAddress {
                region: server.region.clone(),
                name: server.name.clone(),
                address: listen,
            });
            for ((shard, udp), tcp) in shards.iter_mut().zip(udp).zip(tcp) {
                shard.servers.push(shard::Server { settings: server.clone(), udp, tcp });
            }
            bound_servers.push(server);
        }

        let (stop, counters) = (Shutdown::default(), Counters::new(count));
        let balancers = Arc::new(Balancers::new(registry.turns.clone(), geography.point));
        let peers = match (&node, &known, nodes_at) {
            (Some(node), Some((state, _)), Some(listen)) => {
                for (shard, socket) in
                    shards.iter_mut().zip(bound(listen, listen::tcp_listeners(listen, count))?)
                {
                    addresses.nodes = Some(socket.local_addr()?);
                    shard.nodes = Some(socket);
                }
                node.bound(addresses.nodes.unwrap_or(listen));
                let window = bodies.connection_window();
                let state = state.clone();
                let all = (registry.clone(), balancers.monitors.sharing.clone());
                Some(Peers::new(node.clone(), state, all, count, window, stop.clone()))
            }
            _ => None,
        };
        let (strangers, api_room) = (Unregistered::default(), Api::room());
        let api_tls = api_shown.map(|shown| visitors::visitor_tls(shown, policy)).transpose()?;
        certificates.keys = keys.clone().filter(|_| acme.is_some());
        let certificates = Arc::new(certificates);
        let mut administrators = Vec::new();
        let settings::Admin { listen, probes, token } = admin;
        if let Some(listen) = listen {
            let guard = Guard::new(listen.ip(), token);
            if guard.is_closed() {
                warn!(%listen, "the admin API can be reached from other machines: without [admin] token-file it answers probes and metrics and nothing else");
            }
            let socket = bound(listen, listen::tcp_listeners(listen, 1))?.remove(0);
            addresses.admin = Some(socket.local_addr()?);
            administrators.push(("admin", admin::Listener::new(socket, guard)));
        }
        if let Some(probes) = probes {
            let socket = bound(probes, listen::tcp_listeners(probes, 1))?.remove(0);
            addresses.probes = Some(socket.local_addr()?);
            administrators.push(("probes", admin::Listener::new(socket, Guard::probes())));
        }
        let orders = Arc::new(Counts::default());
        let dns_room = NameServer::room();
        let mut seen_nodes = None;
        let dns = match dns {
            None => None,
            Some(terms) => {
                let (mut udp, mut tcp) = bound(terms.listen, listen::both(terms.listen, 1))?;
                let (udp, tcp) = (udp.remove(0), tcp.remove(0));
                addresses.dns = Some(tcp.local_addr()?);
                let (nodes, terms) = (Nodes::new(terms.nodes.len()), Arc::new(terms));
                seen_nodes = Some((terms.clone(), nodes.clone()));
                let state = known.as_ref().map(|(state, _)| state.clone());
                let (names, challenges) = (names.clone(), certificates.challenges.clone());
                let own = api.as_ref().and_then(|api| api.hostname.clone());
                let server = NameServer { terms, names, own, challenges, nodes, state };
                Some(Names { server, client: Client::new(MOST_NODES)?, udp, tcp, room: dns_room.clone() })
            }
        };
        let countries = geography.database.clone();
        let (proxies, geography) = (Arc::new(proxies), Arc::new(geography));
        let instance = uuid::Uuid::new_v4().to_string();
        let traces = traces.map(|terms| Exporter::start(terms, instance)).transpose().context("[traces]")?;
        let (tracer, traces) = traces.unzip();
        let door = Door::new().context("random numbers")?;
        let loops = node.as_ref().map(|node| Loops::of(&node.fleet.to_string()));
        let guide = Arc::new(Guide { names: names.clone(), proxies, geography, loops });
        let admin = (!administrators.is_empty()).then(|| {
            let warm_up = WarmUp::new(registry.clone(), &data_dir, warm_up);
            let draining = stop.draining.clone();
            let state = known.as_ref().map(|(state, _)| state.clone());
            let rooms = administrators.iter().map(|(name, listener)| (*name, listener.room.clone()));
            let figures = Figures {
                counters: counters.clone(),
                account: account.clone(),
                strangers: strangers.clone(),
                probed: Probed::default(),
                rooms: rooms.chain([("api", api_room.clone()), ("dns", dns_room.clone())]).collect(),
                certificates: certificates.clone(),
                authority,
                orders: orders.clone(),
                balancers: api.as_ref().map(|_| balancers.clone()),
                tracer: tracer.clone(),
                peers: peers.clone(),
            };
            let control = control.clone();
            let explainer = Explainer::new(&guide, &rays, patience, &account);
            let port = addresses.admin.map_or(0, |address| address.port());
            let pages = Pages { door, port, names: names.clone(), nodes: seen_nodes };
            let admin = Admin::new(
                registry.clone(),
                control,
                (state, node.clone()),
                bound_servers,
                (warm_up, draining),
                figures,
                (explainer, pages),
            );
            (admin, administrators.into_iter().map(|(_, listener)| listener).collect())
        });
        let office = match (api, known) {
            (Some(api), Some((state, follower))) => {
                let settings::Api { listen, identity: _, hostname, tunnel_domain: _, quick_domain, share } =
                    api;
                let tls = api_tls.map(|tls| TlsAcceptor::from(Arc::new(visitors::http1_only(tls))));
                if tls.is_none() && !listen.ip().is_loopback() {
                    warn!(%listen, "the control API is spoken in the clear beyond this machine; give [api] a certificate");
                }
                let socket = bound(listen, listen::tcp_listeners(listen, 1))?.remove(0);
                addresses.api = Some(socket.local_addr()?);
                let sender = Arc::new(Sender::new(alerts.networks.clone())?);
                let serving = Publisher {
                    registry: registry.clone(),
                    directory: names.clone(),
                    fixed: fixed.clone(),
                    balancers: balancers.clone(),
                    certificates: certificates.clone(),
                    hold,
                    control: control.clone(),
                    pushing: Pushing::default(),
                    weighed: Weighed::default(),
                };
                state.read(|snapshot| serving.publish(snapshot, &Changes::all()));
                let admitting =
                    keys.clone().filter(|_| is_fleet).map(|keys| Admitting { state: state.clone(), keys });
                let keeper = acme.zip(keys).map(|(terms, keys)| {
                    let (state, fixed) = (state.clone(), fixed.clone());
                    let own = OwnNames { quick: quick_domain.clone(), api: hostname };
                    Keeper::new(state, fixed, own, certificates.clone(), terms, keys, orders.clone())
                });
                let keeper = keeper.transpose().context("[acme]")?.map(Arc::new);
                let api = Api::new(
                    state.clone(),
                    registry.clone(),
                    fixed,
                    balancers,
                    api::Rules {
                        quick_domain,
                        share,
                        sender: sender.clone(),
                        rays: rays.clone(),
                        admitting,
                        peers: peers.clone(),
                    },
                    counters.clone(),
                );
                Some(ControlPlane {
                    api,
                    socket,
                    room: api_room,
                    tls,
                    state,
                    follower,
                    serving,
                    rays: rays.clone(),
                    sender,
                    alerts,
                    keeper,
                    fresh,
                    node: node.clone(),
                })
            }
            _ => None,
        };
        let sources = AddressLimits::new(sources);
        let shared = Arc::new(Shared {
            registry,
            guide,
            rays,
            control,
            strangers,
            sources,
            challenges: certificates.challenges.clone(),
            secure: Arc::new(secure),
            identifying,
            patience,
            half_closed,
            quic,
            seed,
            http2,
            stop,
            watchdog: Watchdog::new(count),
            account,
            counters,
            tracer,
            peers,
        });
        Ok(Self {
            shards,
            shared,
            inbox,
            admin,
            office,
            node,
            certificates,
            names: dns,
            countries,
            addresses,
            drain,
            traces,
        })
    }

    /// What a supervisor wants to know of it.
    pub fn watchdog(&self) -> Watchdog {
        self.shared.watchdog.clone()
    }

    /// Serves until `stop`, then drains. An error means that a part of the edge failed. Needs no
    /// particular runtime around it; dropped midway, the threads stop by themselves.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            shards,
            shared,
            inbox,
            admin,
            office,
            node,
            certificates,
            names,
            countries,
            addresses,
            drain,
            traces: _traces,
        } = self;
        let (order, watchdog) = (shared.stop.clone(), shared.watchdog.clone());
        let _stop_threads = AllAtOnce(order.clone());
        let (back_office, last) = (CancellationToken::new(), CancellationToken::new());
        let _stop_offices = [&back_office, &last].map(|token| token.clone().drop_guard());

        let (threads, ended) = Threads::new();
        let mut parts = 1;
        threads.start("control", {
            let stop = back_office.clone();
            move |runtime| {
                runtime.block_on(inbox.serve(stop));
                Ok(())
            }
        })?;
        threads.start("pace", {
            let (account, stop) = (shared.account.clone(), last.clone());
            move |runtime| {
                runtime.block_on(pace::keep(&account, stop));
                Ok(())
            }
        })?;
        parts += 1;
        if let Some((admin, listeners)) = admin {
            let stop = last.clone();
            threads.start("admin", move |runtime| runtime.block_on(admin.serve(listeners, stop)))?;
            parts += 1;
        }
        if let Some(office) = office {
            let (stop, registry) = (back_office.clone(), shared.registry.clone());
            threads.start("control-api", move |runtime| runtime.block_on(office.run(registry, stop)))?;
            parts += 1;
        }
        if let Some(peers) = shared.peers.clone() {
            let stop = last.clone();
            threads.start("peers", move |runtime| {
                runtime.block_on(peers.run(stop));
                Ok(())
            })?;
            parts += 1;
        }
        if let Some(names) = names {
            let stop = last.clone();
            threads.start("dns", move |runtime| runtime.block_on(names.run(stop)))?;
            parts += 1;
        }
        if certificates.are_watched() {
            let stop = last.clone();
            threads.start("certificates", move |runtime| {
                runtime.block_on(certificate_watch::run(certificates, stop));
                Ok(())
            })?;
            parts += 1;
        }
        if let Some(countries) = countries {
            let stop = last.clone();
            threads.start("countries", move |runtime| {
                runtime.block_on(watch_countries(countries, stop));
                Ok(())
            })?;
            parts += 1;
        }
        let (milestones, reached) = mpsc::channel(3 * shards.len());
        let shard_count = shards.len();
        let mut progress = Progress::new(reached, ended, shard_count);
        let visitors: Vec<TaskTracker> = shards.iter().map(|shard| shard.visitors.clone()).collect();
        let registry = shared.registry.clone();
        for shard in shards {
            let name = format!("shard-{}", shard.index);
            let (shared, milestones) = (shared.clone(), milestones.clone());
            threads.start(&name, move |runtime| runtime.block_on(shard.run(shared, milestones)))?;
            parts += 1;
        }
        drop(milestones);

        // Whatever ends before its time ends the edge, and says its name.
        progress.pass(ShardPhase::Started).await?;
        addresses.log();
        watchdog.start();
        let dismissed = async {
            match &node {
                Some(node) => node.dismissed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = dismissed => {}
            early = progress.fail() => return Err(early),
        }

        info!("draining");
        let grace = Instant::now() + drain.grace_period;
        let no_visitors = || visitors.iter().all(TaskTracker::is_empty);
        // 1. Not ready any more, and no new connections of hosts. Visitors hear it with their answers and may
        //    still come for a while, because whoever sends them here takes time to notice. Nobody is waited
        //    for where nobody is.
        order.draining.fire();
        let nobody = until(|| no_visitors() && !registry.any(|_| true));
        let _ = timeout(drain.linger.min(drain.grace_period), nobody).await;
        // 2. No more visitors: who waits is let in, who is idle is let go, requests under way go on. Before
        //    they are closed in on, whoever has come last gets to ask.
        order.visitors.fire();
        progress.pass(ShardPhase::Closed).await?;
        let _ = timeout(LAST_VISITORS, until(no_visitors)).await;
        // 3. Only now do hosts hear of it, because one that has moved takes nothing new here.
        order.hosts.fire();
        let moving = Instant::now() + drain.hosts;
        tokio::select! {
            gone = progress.pass(ShardPhase::VisitorsGone) => gone?,
            () = sleep_until(grace) => {
                order.cut.fire();
                progress.pass(ShardPhase::VisitorsGone).await?;
            }
        }
        // 4. No shard has a visitor left, who might use any connection: those of hosts that have moved are
        //    gone or about to go, the others are closed.
        let moved = until(|| !registry.any(Connection::is_awaited));
        if timeout_at(moving, moved).await.is_err() {
            info!("closing connections whose hosts have not moved");
        }
        order.connections.fire();
        progress.finish(shard_count).await?;
        // 5. Control streams end with their connections; the admin listener tells about all of it.
        back_office.cancel();
        last.cancel();
        progress.finish(parts - shard_count).await?;
        info!("stopped");
        Ok(())
    }
}

/// Waits for something that happens rarely enough to be looked for.
async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        sleep(LOOK).await;
    }
}

fn bound<T>(address: SocketAddr, result: io::Result<T>) -> anyhow::Result<T> {
    result.with_context(|| format!("listening on {address}"))
}

/// How long those may take to ask who were let in last.
const LAST_VISITORS: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(10);
