//! The control API with all that belongs to it: who follows the state, probes, alerts, cleans up and orders. On one
//! thread, because none of it is in a request's way.

use std::net;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use adit_net::admission::Admission;
use anyhow::Context;
use tokio::runtime::Builder;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::alerts::sender::Sender;
use crate::alerts::{Terms, outbox, watch};
use crate::api::{Api, housekeeping};
use crate::forward::ray::Rays;
use crate::issuance::keeper::Keeper;
use crate::nodes::OwnNode;
use crate::registry::Registry;
use crate::state::fresh::Fresh;
use crate::state::provision::Provisioning;
use crate::state::publish::Publisher;
use crate::state::saved::Saved;
use crate::state::{Follower, State};
use crate::store::Store;
use crate::store::etcd::{self, Etcd};
use crate::store::seal::{Keys, SealKeys};
use crate::store::sealed::{self, Sealed};
use crate::store::sqlite::Sqlite;

/// The control API with what keeps the snapshot up to date.
pub(super) struct ControlPlane {
    pub(super) api: Api,
    pub(super) socket: net::TcpListener,
    pub(super) room: Arc<Admission>,
    pub(super) tls: Option<TlsAcceptor>,
    pub(super) state: State,
    pub(super) follower: Follower,
    pub(super) serving: Publisher,
    pub(super) rays: Arc<Rays>,
    pub(super) sender: Arc<Sender>,
    pub(super) alerts: Terms,
    pub(super) keeper: Option<Arc<Keeper>>,
    pub(super) fresh: Option<Fresh>,
    pub(super) node: Option<Arc<OwnNode>>,
}

impl ControlPlane {
    pub(super) async fn run(self, registry: Arc<Registry>, stop: CancellationToken) -> anyhow::Result<()> {
        let Self {
            api,
            socket,
            room,
            tls,
            state,
            follower,
            serving,
            rays,
            sender,
            alerts,
            keeper,
            fresh,
            node,
        } = self;
        let balancers = serving.balancers.clone();
        let publish = |snapshot: &_, touched: &_| serving.publish(snapshot, touched);
        // The API last: whoever still waits for its change needs the follower.
        let follow = CancellationToken::new();
        let work = async {
            let served = Arc::new(api).serve(socket, &room, tls, stop.clone()).await;
            follow.cancel();
            served
        };
        let follower = follower.run(publish, follow.clone());
        let monitors = async {
            tokio::select! {
                () = balancers.monitors.run(rays) => {}
                () = stop.cancelled() => {}
            }
        };
        let name = node.as_ref().map(|node| node.name.clone());
        let watch = watch::run(
            state.clone(),
            registry.clone(),
            balancers.clone(),
            alerts,
            name.clone(),
            stop.clone(),
        );
        let outbox = outbox::run(state.clone(), sender, name.clone(), stop.clone());
        let housekeeping = housekeeping::run(state, registry, name, stop.clone());
        let issuance = async {
            if let Some(keeper) = keeper {
                keeper.run(stop.clone()).await;
            }
        };
        let fresh = async {
            if let Some(fresh) = fresh {
                fresh.run(follow.clone()).await;
            }
        };
        let node = async {
            if let Some(node) = node {
                node.keep(stop.clone()).await;
            }
        };
        let (served, (), (), (), (), (), (), (), ()) =
            tokio::join!(work, follower, housekeeping, monitors, watch, outbox, issuance, fresh, node);
        served
    }
}

/// Opens the state, seals what is secret in it, and reads it once. Blocks, wherever it is called.
pub(super) fn load(
    data_dir: &Path,
    fleet: Option<etcd::Terms>,
    seal: &Keys,
) -> anyhow::Result<((State, Follower), SealKeys)> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
    let read = || {
        let runtime = Builder::new_current_thread().enable_all().build().context("reading the state")?;
        runtime.block_on(async {
            match fleet {
                None => of_file(data_dir, seal).await,
                Some(terms) => of_fleet(data_dir, terms, seal).await,
            }
        })
    };
    // A thread of its own, because a runtime may be around this one already.
    thread::scope(|scope| scope.spawn(read).join()).unwrap_or_else(|_| anyhow::bail!("reading the state"))
}

async fn of_file(data_dir: &Path, seal: &Keys) -> anyhow::Result<((State, Follower), SealKeys)> {
    let kept = Arc::new(Sqlite::open_to_serve(&Provisioning::file(data_dir))?);
    let listing = kept.list("").await?;
    let keys = seal.take(sealed::is_sealed(&listing))?;
    let store = Sealed::new(kept.clone(), keys.clone());
    let count = store.settle(&listing).await.with_context(|| seal.help())?;
    if count > 0 {
        info!(records = count, "secrets of the state are sealed with the first key of the key file");
        if let Err(error) = kept.scrub().await {
            warn!(%error, "what they were before may still be in the file of the state");
        }
    }
    Ok((State::load(Arc::new(store)).await?, keys))
}

async fn of_fleet(
    data_dir: &Path,
    terms: etcd::Terms,
    seal: &Keys,
) -> anyhow::Result<((State, Follower), SealKeys)> {
    let path = Saved::path_of(data_dir, &terms.address.fleet);
    // What was kept here was sealed with it.
    let keys = seal.take(path.exists())?;
    let kept = Arc::new(Etcd::new(terms)?);
    let store = Arc::new(Sealed::new(kept.clone(), keys.clone()));
    let loaded = State::load_or_saved(store.clone(), Saved::at(path, keys.clone())).await?;
    // Where the store is away, whoever comes first once it is back does so.
    if let Ok(listing) = kept.list("").await {
        store.settle(&listing).await.with_context(|| seal.help())?;
    }
    Ok((loaded, keys))
}
