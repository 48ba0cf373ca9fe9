//! The nodes of a fleet as an operator handles them on the spot, at a machine that has the fleet's key: the first one is
//! made here, and what is wanted of each is said here. Knows the store; needs no edge that runs.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http::Uri;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::authority::{self, Authority, AuthorityError, Rotation};
use super::folder::{self, Folder};
use super::invitation::JoinToken;
use crate::settings::Settings;
use crate::settings::node::is_name;
use crate::state::snapshot::Snapshot;
use crate::store::etcd::Etcd;
use crate::store::records::nodes::{
    Invitation, NODE_AUTHORITY_KEY, NodeRecord, Wanted, invitation_key, node_key,
};
use crate::store::records::to_json;
use crate::store::sealed::Sealed;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Commit, Store, Transaction};

/// The nodes of the fleet that an edge's settings name.
pub struct FleetNodes {
    store: Arc<dyn Store>,
}

/// A node as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeLine {
    pub name: String,
    pub region: String,
    /// `active`, `draining` or `left`.
    pub wanted: &'static str,
    pub addresses: Vec<String>,
    /// SHA-256 of its public key.
    pub pin: String,
    pub joined_at: String,
    /// Of its last start, if it runs.
    pub epoch: Option<u64>,
    pub version: Option<String>,
    pub started_at: Option<String>,
}

/// What an invitation is for.
#[derive(Debug, Clone, Default)]
pub struct InvitationRequest {
    /// Only for a node of this name.
    pub name: Option<String>,
    /// It has that name already, and another machine is to have its place.
    pub replaces: bool,
    /// The URL of a node's control API, where the new node is to ask.
    pub api: String,
}

/// Leave to join.
pub struct Invited {
    /// Secret: whoever has it first becomes a node.
    pub token: String,
    pub expires_at: String,
}

impl FleetNodes {
    /// # Errors
    /// The settings name no fleet, or its key is not here.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        let terms =
            settings.store.clone().context("this edge is in no fleet: its configuration has no [store]")?;
        let keys = settings.seal.take(true)?;
        let below: Arc<dyn Store> = Arc::new(Etcd::new(terms)?);
        Ok(Self { store: Arc::new(Sealed::new(below, keys)) })
    }

    /// Makes the edge of these settings a node, and before that the authority if there is none yet. Nothing where the
    /// settings name no node.
    pub(crate) async fn found(settings: &Settings) -> anyhow::Result<Option<String>> {
        let (Some(terms), Some(node)) = (settings.store.clone(), &settings.node) else { return Ok(None) };
        let keys = settings.seal.take(false)?;
        let below: Arc<dyn Store> = Arc::new(Etcd::new(terms)?);
        let nodes = Self { store: Arc::new(Sealed::new(below, keys)) };
        let snapshot = nodes.snapshot().await?;
        let fleet = nodes.fleet()?;
        let authority = match &snapshot.node_authority {
            Some(kept) => Authority::of(fleet, &kept.record)?,
            None => {
                let (authority, kept) = Authority::make(fleet)?;
                let made = note("node-authority.create", "all").if_absent(NODE_AUTHORITY_KEY);
                nodes.commit(made.put(NODE_AUTHORITY_KEY, to_json(&kept))).await?;
                authority
            }
        };
        let folder = Folder::of(settings.data_dir());
        let public = folder::public(&folder.make_key()?)?;
        let name = &node.name;
        let key = node_key(name);
        match snapshot.nodes.get(name) {
            Some(known) if known.record.pin == public.pin() => {}
            Some(_) => bail!(
                "the fleet has a node `{name}` with another key; name this one otherwise, or have it replaced: `adit \
                 edge invite --replace {name}`"
            ),
            None => {
                let record = NodeRecord {
                    region: node.region.clone(),
                    addresses: node.addresses.clone(),
                    pin: public.pin(),
                    generation: 0,
                    wanted: Wanted::Active,
                    joined_at: Timestamp::now(),
                };
                nodes.commit(note("node.join", name).if_absent(&key).put(key, to_json(&record))).await?;
            }
        }
        folder.keep(&authority.issue(name, &public)?)?;
        Ok(Some(name.clone()))
    }

    /// Leave to join, as text to be handed to the new node: for one use, within an hour.
    pub async fn invite(&self, wish: InvitationRequest) -> anyhow::Result<Invited> {
        let InvitationRequest { name, replaces, api } = wish;
        let uri: Uri = api.parse().with_context(|| format!("`{api}` is no URL"))?;
        ensure!(
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some(),
            "`{api}` must be a URL with http:// or https://"
        );
        if let Some(name) = &name {
            ensure!(is_name(name), "`{name}` cannot be the name of a node");
        }
        let snapshot = self.snapshot().await?;
        if replaces {
            let is_known = name.as_ref().is_some_and(|name| snapshot.nodes.contains_key(name));
            ensure!(is_known, "there is no such node to be replaced; `adit edge nodes` shows those that are");
        } else if let Some(name) = &name {
            let known = snapshot.nodes.get(name).map(|kept| kept.record.wanted);
            let is_taken = known.is_some_and(|wanted| wanted != Wanted::Left);
            ensure!(
                !is_taken,
                "there is a node `{name}` already; --replace lets another machine have its place"
            );
        }
        let now = Timestamp::now();
        let (over, open): (Vec<_>, Vec<_>) =
            snapshot.invitations.iter().partition(|(_, kept)| kept.record.expires_at <= now);
        ensure!(
            open.len() < MOST_INVITATIONS,
            "{MOST_INVITATIONS} invitations are open; each is over in an hour"
        );
        let kept = snapshot.node_authority.as_ref().context(AuthorityError::None)?;
        let authority = Authority::of(self.fleet()?, &kept.record)?;
        let (token, secret) = JoinToken::make(authority.certificate(), api.trim_end_matches('/'))?;
        let expires_at = now.after(INVITED);
        let record = Invitation { secret: Some(secret), name: name.clone(), replaces, expires_at };
        let key = invitation_key(&token.id);
        let subject = name.as_deref().unwrap_or("any name");
        let mut transaction = note("node.invite", subject).if_absent(&key).put(key, to_json(&record));
        for (id, _) in over.into_iter().take(MOST_INVITATIONS) {
            transaction = transaction.remove(invitation_key(id));
        }
        self.commit(transaction).await?;
        Ok(Invited { token: token.text(), expires_at: expires_at.to_string() })
    }

    /// All nodes, by name.
    pub async fn list(&self) -> anyhow::Result<Vec<NodeLine>> {
        let snapshot = self.snapshot().await?;
        let line = |(name, kept): (&String, &crate::state::snapshot::Kept<NodeRecord>)| {
            let alive = snapshot.alive.get(name).map(|kept| &kept.record);
            NodeLine {
                name: name.clone(),
                region: kept.record.region.clone(),
                wanted: kept.record.wanted.word(),
                addresses: kept.record.addresses.iter().map(ToString::to_string).collect(),
                pin: kept.record.pin.to_string(),
                joined_at: kept.record.joined_at.to_string(),
                epoch: alive.map(|alive| alive.epoch),
                version: alive.map(|alive| alive.version.clone()),
                started_at: alive.map(|alive| alive.started_at.to_string()),
            }
        };
        Ok(snapshot.nodes.iter().map(line).collect())
    }

    /// Has a node serve what it has and end, or serve again.
    pub async fn drain(&self, name: &str, undo: bool) -> anyhow::Result<()> {
        let wanted = if undo { Wanted::Active } else { Wanted::Draining };
        let action = if undo { "node.resume" } else { "node.drain" };
        self.want(name, wanted, action).await
    }

    /// Has a node be none any more: its key opens nothing from now on.
    pub async fn remove(&self, name: &str) -> anyhow::Result<()> {
        self.want(name, Wanted::Left, "node.leave").await
    }

    /// Has the node of these settings drain, waits until it has ended, and has it be none any more.
    pub async fn leave(&self, settings: &Settings) -> anyhow::Result<String> {
        let node = settings.node.as_ref().context("this edge is no node: its configuration has no [node]")?;
        let folder = Folder::of(settings.data_dir());
        let own = folder.read()?.map(|(key, _)| folder::public_of(&key)).transpose()?;
        let snapshot = self.snapshot().await?;
        let known = snapshot.nodes.get(&node.name).map(|kept| kept.record.pin);
        ensure!(
            own.is_some() && known == own.map(|key| key.pin()),
            "node `{}` of the fleet is another machine, or this one never joined",
            node.name
        );
        if snapshot.nodes.get(&node.name).is_some_and(|kept| kept.record.wanted == Wanted::Left) {
            // An earlier attempt came so far.
            folder.forget()?;
            return Ok(node.name.clone());
        }
        self.drain(&node.name, false).await?;
        let end = Instant::now() + LEAVING;
        while self.snapshot().await?.alive.contains_key(&node.name) {
            ensure!(
                Instant::now() < end,
                "`{}` still serves; it is told to drain, and this command goes on from there",
                node.name
            );
            sleep(LOOK).await;
        }
        self.remove(&node.name).await?;
        folder.forget()?;
        Ok(node.name.clone())
    }

    async fn want(&self, name: &str, wanted: Wanted, action: &'static str) -> anyhow::Result<()> {
        let snapshot = self.snapshot().await?;
        let known = snapshot.nodes.get(name);
        let known = known.with_context(|| {
            format!("the fleet has no node `{name}`; `adit edge nodes` shows those that are")
        })?;
        let is_left = known.record.wanted == Wanted::Left && wanted != Wanted::Left;
        ensure!(!is_left, "`{name}` has left the fleet; `adit edge join` makes it a node again");
        if known.record.wanted == wanted {
            return Ok(());
        }
        let record = NodeRecord { wanted, ..known.record.clone() };
        let key = node_key(name);
        self.commit(note(action, name).if_at(&key, known.revision).put(key, to_json(&record))).await
    }

    /// Goes one step on the way to another authority; what is done now, and what comes when all nodes follow.
    pub async fn rotate_authority(&self) -> anyhow::Result<(&'static str, &'static str)> {
        let snapshot = self.snapshot().await?;
        let known = snapshot.node_authority.as_ref().context(AuthorityError::None)?;
        let (kept, step) = authority::rotated(self.fleet()?, &known.record)?;
        let transaction = note("node-authority.rotate", "all").if_at(NODE_AUTHORITY_KEY, known.revision);
        self.commit(transaction.put(NODE_AUTHORITY_KEY, to_json(&kept))).await?;
        Ok(match step {
            Rotation::Added => ("a new authority is believed beside the old one", "it signs"),
            Rotation::Signs => (
                "the new authority signs, and nodes have themselves certified by it",
                "the old one is believed no more",
            ),
            Rotation::Done => ("the old authority is believed no more", ""),
        })
    }

    pub(super) fn fleet(&self) -> anyhow::Result<Uuid> {
        self.store.fleet().context("which fleet this is cannot be known now")
    }

    pub(super) async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot::from_listing(self.store.list("").await?))
    }

    pub(super) async fn commit(&self, transaction: Transaction) -> anyhow::Result<()> {
        match self.store.commit(transaction).await? {
            Commit::Done(_) => Ok(()),
            Commit::Conflict { key } => bail!("somebody else changed {key} at the same time; try again"),
        }
    }
}

/// How long an invitation is good.
const INVITED: Duration = Duration::from_secs(60 * 60);
/// How long a node that leaves may take for what it serves.
const LEAVING: Duration = Duration::from_secs(30 * 60);
const LOOK: Duration = Duration::from_millis(500);
/// At one time.
const MOST_INVITATIONS: usize = 100;

pub(super) fn note(action: &'static str, subject: &str) -> Transaction {
    let actor = std::env::var("USER").map_or("operator".to_owned(), |user| format!("operator {user}"));
    Transaction::new(AuditEntry { actor, action, subject: subject.to_owned() })
}
