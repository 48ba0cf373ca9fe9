//! The nodes of a fleet: what this one is, which others there are, and what each may show to be one. Knows the records
//! of nodes and their certificates; opens no connection and does not know what nodes say to each other.
//!
//! `authority` vouches for nodes, `said` reads what certificates and requests say, `folder` is what a node keeps of
//! itself; `invitation` is what is said when a machine becomes a node, `join`
//! its side and `admit` the other one's, and `provision` is an operator's hand. `duties` says what each does for all.

pub(crate) mod admit;
pub(crate) mod authority;
pub(crate) mod duties;
pub(crate) mod folder;
pub(crate) mod invitation;
pub(crate) mod join;
pub(crate) mod provision;
pub(crate) mod said;

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::state::State;
use crate::store::records::nodes::{Alive, NodeRecord, Pin, Wanted, alive_key, node_key};
use crate::store::records::to_json;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, StoreRevision, Transaction};
use crate::tls::since_epoch;
use authority::{Authority, believed};
use folder::Folder;
use said::{PublicKey, Said};

/// What an operator has said of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) name: String,
    pub(crate) region: String,
    /// Where other nodes come in.
    pub(crate) listen: SocketAddr,
    /// Where they reach that; empty: there.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// This node of the fleet.
pub(crate) struct OwnNode {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) fleet: Uuid,
    /// Of this start, see [`Folder::next_epoch`].
    pub(crate) epoch: u64,
    pin: Pin,
    public: PublicKey,
    folder: Folder,
    state: State,
    leaf: RwLock<Arc<NodeLeaf>>,
    addresses: RwLock<Vec<SocketAddr>>,
}

/// What this node shows.
pub(crate) struct NodeLeaf {
    /// Its own certificate first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    /// The last second in which it holds, since 1970.
    pub(crate) not_after: i64,
}

/// Why a peer whose chain is right is none all the same.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NotAPeer {
    #[error("its certificate names no node")]
    Unreadable,
    #[error("its certificate is of another fleet, {0}")]
    OtherFleet(Uuid),
    #[error("the fleet has no node `{0}`")]
    Unknown(String),
    #[error("`{0}` has another key by now: it was replaced")]
    Replaced(String),
    #[error("`{0}` has left the fleet")]
    Left(String),
    #[error("it has the name of this node")]
    Itself,
}

impl OwnNode {
    /// What this node became when it joined.
    ///
    /// # Errors
    /// It did not join, or is no node any more.
    pub(crate) fn open(terms: &Terms, folder: Folder, state: State) -> anyhow::Result<Arc<Self>> {
        let Terms { name, region, listen: _, addresses } = terms;
        let (key, chain) = folder.joined()?;
        let fleet = state.fleet().context("which fleet this is was never known here")?;
        let own = chain.first().and_then(Said::of).context("the node's certificate names no node")?;
        ensure!(
            own.fleet == fleet && own.name == *name,
            "the certificate in {} is that of node `{}` of fleet {}, and this is to be `{name}` of {fleet}: \
             `adit edge join` makes another",
            folder.chain_path().display(),
            own.name,
            own.fleet
        );
        let public = folder::public_of(&key)?;
        let pin = public.pin();
        ensure!(own.pin == pin, "the node's certificate and its private key do not fit together");
        let record = state.read(|snapshot| snapshot.nodes.get(name).map(|kept| kept.record.clone()));
        let record = record.with_context(|| format!("the fleet has no node `{name}`: it was removed"))?;
        ensure!(
            record.pin == pin,
            "another machine has joined as `{name}`: this one was replaced, and its key opens nothing any more"
        );
        match record.wanted {
            Wanted::Active => {}
            Wanted::Draining => {
                bail!("node `{name}` is to drain; `adit edge drain --undo {name}` lets it serve again")
            }
            Wanted::Left => bail!("node `{name}` has left the fleet; `adit edge join` makes it one again"),
        }
        let now = u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX);
        let epoch = folder.next_epoch(record.generation, now)?;
        let leaf = RwLock::new(Arc::new(NodeLeaf { chain, key, not_after: own.not_after }));
        Ok(Arc::new(Self {
            name: name.clone(),
            region: region.clone(),
            fleet,
            epoch,
            pin,
            public,
            folder,
            state,
            leaf,
            addresses: RwLock::new(addresses.clone()),
        }))
    }

    /// What is shown now; another one after a renewal.
    pub(crate) fn leaf(&self) -> Arc<NodeLeaf> {
        self.leaf.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who vouches for nodes now.
    pub(crate) fn authorities(&self) -> Vec<CertificateDer<'static>> {
        let known = |snapshot: &crate::state::snapshot::Snapshot| {
            snapshot.node_authority.as_ref().map(|kept| believed(&kept.record))
        };
        let known = self.state.read(known).unwrap_or_default();
        if known.is_empty() { self.leaf().chain.iter().skip(1).cloned().collect() } else { known }
    }

    /// What the fleet knows of this node.
    pub(crate) fn record(&self) -> Option<NodeRecord> {
        self.state.read(|snapshot| snapshot.nodes.get(&self.name).map(|kept| kept.record.clone()))
    }

    /// The other nodes, by name, whether they run or not; not those that have left.
    pub(crate) fn others(&self) -> Vec<(String, NodeRecord)> {
        self.state.read(|snapshot| {
            let others = snapshot
                .nodes
                .iter()
                .filter(|(name, kept)| **name != self.name && kept.record.wanted != Wanted::Left);
            others.map(|(name, kept)| (name.clone(), kept.record.clone())).collect()
        })
    }

    /// Whom a peer is, whose chain was proved: by the one name of its certificate, if that node has this very key.
    pub(crate) fn judge(&self, leaf: &CertificateDer<'_>) -> Result<(String, NodeRecord), NotAPeer> {
        let said = Said::of(leaf).ok_or(NotAPeer::Unreadable)?;
        if said.fleet != self.fleet {
            return Err(NotAPeer::OtherFleet(said.fleet));
        }
        if said.name == self.name {
            return Err(NotAPeer::Itself);
        }
        let record =
            self.state.read(|snapshot| snapshot.nodes.get(&said.name).map(|kept| kept.record.clone()));
        let Some(record) = record else { return Err(NotAPeer::Unknown(said.name)) };
        if record.pin != said.pin {
            return Err(NotAPeer::Replaced(said.name));
        }
        if record.wanted == Wanted::Left {
            return Err(NotAPeer::Left(said.name));
        }
        Ok((said.name, record))
    }

    /// Sees a change whenever the fleet's records have changed.
    pub(crate) fn changes(&self) -> watch::Receiver<StoreRevision> {
        self.state.changes()
    }

    /// Where peers come in, now that the socket is bound: what the record says, where the operator says nothing.
    pub(crate) fn bound(&self, listen: SocketAddr) {
        let mut addresses = self.addresses.write().unwrap_or_else(PoisonError::into_inner);
        if addresses.is_empty() && !listen.ip().is_unspecified() {
            addresses.push(listen);
        }
    }

    /// Whether this node is to serve on; `None` if it is none any more.
    fn wanted(&self) -> Option<Wanted> {
        self.record().filter(|record| record.pin == self.pin).map(|record| record.wanted)
    }

    /// Waits until the operator wants this node to end, or it is none any more.
    pub(crate) async fn dismissed(&self) {
        let mut changes = self.changes();
        loop {
            match self.wanted() {
                Some(Wanted::Active) => {}
                Some(Wanted::Draining) => return info!(node = self.name, "this node is told to drain"),
                Some(Wanted::Left) => return info!(node = self.name, "this node has left the fleet"),
                None => {
                    return error!(
                        node = self.name,
                        "another machine has the place of this node, or it was removed"
                    );
                }
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Keeps the record and the certificate as they should be, until `stop`.
    pub(crate) async fn keep(&self, stop: CancellationToken) {
        let keep = async {
            loop {
                if let Err(error) = self.announce().await {
                    warn!(%error, "the record of this node cannot be brought up to date now");
                }
                if self.is_renewal_due() {
                    match self.renew() {
                        Ok(()) => info!(node = self.name, "the certificate of this node was renewed"),
                        Err(error) => {
                            let not_after = self.leaf().not_after;
                            error!(%error, not_after, "the certificate of this node cannot be renewed");
                        }
                    }
                }
                let mut changes = self.changes();
                changes.mark_unchanged();
                tokio::select! {
                    () = sleep(LOOK) => {}
                    _ = changes.changed() => sleep(CALM).await,
                }
            }
        };
        let alive = Alive {
            epoch: self.epoch,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Timestamp::now(),
        };
        let own_key = alive_key(&self.name);
        let alive = self.state.hold(&own_key, to_json(&alive), stop.clone());
        let keep = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = keep => {}
            }
        };
        tokio::join!(keep, alive);
    }

    /// Says where this node is, if the fleet knows otherwise.
    async fn announce(&self) -> anyhow::Result<()> {
        let addresses = self.addresses.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.state.read(|snapshot| snapshot.nodes.get(&self.name).cloned());
        let Some(known) = known.filter(|known| known.record.pin == self.pin) else { return Ok(()) };
        let record = NodeRecord { region: self.region.clone(), addresses, ..known.record.clone() };
        if record == known.record || record.addresses.is_empty() {
            return Ok(());
        }
        let note = AuditEntry {
            actor: format!("node {}", self.name),
            action: "node.move",
            subject: self.name.clone(),
        };
        let key = node_key(&self.name);
        let transaction = Transaction::new(note).if_at(&key, known.revision).put(key, to_json(&record));
        Ok(self.state.change(transaction).await?)
    }

    fn is_renewal_due(&self) -> bool {
        let leaf = self.leaf();
        let left = leaf.not_after - i64::try_from(since_epoch().as_secs()).unwrap_or(i64::MAX);
        // Another authority signs by now.
        let signer = leaf.chain.get(1);
        left < RENEWED_BEFORE.as_secs().cast_signed()
            || self.authorities().first().is_some_and(|first| signer != Some(first))
    }

    fn renew(&self) -> anyhow::Result<()> {
        let kept = self.state.read(|snapshot| {
            snapshot.node_authority.as_ref().map(|kept| Authority::of(self.fleet, &kept.record))
        });
        let authority = kept.context("the fleet's authority is not known here")??;
        let chain = authority.issue(&self.name, &self.public)?;
        let not_after =
            chain.first().and_then(Said::of).context("a certificate that cannot be read")?.not_after;
        self.folder.keep(&chain)?;
        let key = self.leaf().key.clone_key();
        *self.leaf.write().unwrap_or_else(PoisonError::into_inner) =
            Arc::new(NodeLeaf { chain, key, not_after });
        Ok(())
    }
}

/// Before its end, when a certificate is renewed: a third of its life.
const RENEWED_BEFORE: Duration = Duration::from_secs(10 * 24 * 60 * 60);
/// Between two looks at what ends.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Between a change of the state and a look at it.
const CALM: Duration = Duration::from_secs(1);
