//! What any node does for one that wants to join: it looks at the invitation, writes the new node down, and hands over a
//! certificate and the key of the fleet. Knows the state; does not know how the asker came here.

use thiserror::Error;
use tracing::info;
use uuid::Uuid;

use super::authority::{Authority, AuthorityError};
use super::folder;
use super::invitation::{Ask, Given, JoinError, Reply};
use crate::settings::node::is_name;
use crate::state::{ChangeError, State};
use crate::store::records::nodes::{NodeRecord, Wanted, invitation_key, node_key};
use crate::store::records::to_json;
use crate::store::seal::SealKeys;
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Transaction};

/// What lets nodes in.
pub(crate) struct Admitting {
    pub(crate) state: State,
    pub(crate) keys: SealKeys,
}

#[derive(Debug, Error)]
pub(crate) enum AdmitError {
    #[error(transparent)]
    Join(#[from] JoinError),
    #[error("{0}")]
    Wrong(String),
    #[error("the fleet has {MOST_NODES} nodes, and has room for no more")]
    Full,
    #[error(transparent)]
    Change(#[from] ChangeError),
}

impl From<AuthorityError> for AdmitError {
    fn from(error: AuthorityError) -> Self {
        Self::Join(error.into())
    }
}

impl Admitting {
    /// Makes whoever asks a node, once for each invitation.
    pub(crate) async fn admit(&self, ask: Ask) -> Result<Reply, AdmitError> {
        // It may have been made a moment ago, at another node.
        self.state.catch_up().await;
        let id = ask.invitation.clone();
        let invitation = self.state.read(|snapshot| snapshot.invitations.get(&id).cloned());
        let invitation = invitation.ok_or(JoinError::Refused)?;
        let (at, invitation) = (invitation.revision, invitation.record);
        let secret = invitation.secret.as_deref().ok_or(JoinError::Refused)?;
        let proved = ask.prove(secret)?;
        if invitation.expires_at <= Timestamp::now() {
            return Err(JoinError::Refused.into());
        }
        let name = proved.request.name.clone();
        if !is_name(&name) {
            return Err(AdmitError::Wrong("`name` cannot be the name of a node".to_owned()));
        }
        let (region, addresses) = (&proved.request.region, &proved.request.addresses);
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if region.is_empty() || region.len() > LONGEST_REGION || !region.bytes().all(fits) {
            return Err(AdmitError::Wrong("`region` cannot be a name".to_owned()));
        }
        if addresses.len() > MOST_ADDRESSES {
            return Err(AdmitError::Wrong(format!("there are more than {MOST_ADDRESSES} `addresses`")));
        }
        if invitation.name.as_ref().is_some_and(|wanted| *wanted != name) {
            return Err(JoinError::Refused.into());
        }
        let (known, count, fleet, authority) = self.state.read(|snapshot| {
            let kept = snapshot.node_authority.as_ref().map(|kept| kept.record.clone());
            let count = snapshot.nodes.values().filter(|node| node.record.wanted != Wanted::Left).count();
            (snapshot.nodes.get(&name).cloned(), count, self.state.fleet(), kept)
        });
        let (Some(fleet), Some(authority)) = (fleet, authority) else {
            return Err(AuthorityError::None.into());
        };
        let authority = Authority::of(fleet, &authority)?;
        let pin = proved.key.pin();
        let generation = match &known {
            None if count >= MOST_NODES => return Err(AdmitError::Full),
            None => 0,
            // It has asked before, and the answer was lost.
            Some(known) if known.record.pin == pin => known.record.generation,
            Some(known) if invitation.replaces || known.record.wanted == Wanted::Left => {
                known.record.generation.checked_add(1).ok_or_else(|| {
                    AdmitError::Wrong(format!("`{name}` was replaced too often; give the node another name"))
                })?
            }
            Some(_) => {
                return Err(AdmitError::Wrong(format!(
                    "there is a node `{name}` already; `adit edge invite --replace {name}` lets another machine have \
                     its place"
                )));
            }
        };
        let record = NodeRecord {
            region: proved.request.region.clone(),
            addresses: proved.request.addresses.clone(),
            pin,
            generation,
            wanted: Wanted::Active,
            joined_at: Timestamp::now(),
        };
        let note = AuditEntry {
            actor: format!("invitation {id}"),
            action: if known.is_some() { "node.replace" } else { "node.join" },
            subject: name.clone(),
        };
        let (used, key) = (invitation_key(&id), node_key(&name));
        let transaction = Transaction::new(note).if_at(&used, at).remove(used);
        let transaction = match &known {
            Some(known) => transaction.if_at(&key, known.revision),
            None => transaction.if_absent(&key),
        };
        self.state.change(transaction.put(key, to_json(&record))).await?;
        info!(node = name, %pin, generation, "a node has joined the fleet");
        let given = self.given(fleet, &authority, &name, &proved.key)?;
        Ok(proved.answer(&authority, &given)?)
    }

    fn given(
        &self,
        fleet: Uuid,
        authority: &Authority,
        name: &str,
        key: &super::said::PublicKey,
    ) -> Result<Given, AuthorityError> {
        let chain = authority.issue(name, key)?;
        let chain = chain.iter().map(|link| folder::pem(link)).collect();
        Ok(Given { fleet, chain, seal: self.keys.lines().to_owned() })
    }
}

/// Nodes that all know each other.
pub(crate) const MOST_NODES: usize = 64;
const LONGEST_REGION: usize = 64;
/// Of one node.
const MOST_ADDRESSES: usize = 16;
