//! Tunnels and their connections. Knows what each call about a tunnel does; who may call it is decided
//! before.

use std::collections::HashMap;

use adit_protocol::credentials::TunnelSecret;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::call::Ask;
use super::envelope::{self, Answer, Problem};
use super::identity::Identity;
use super::management::Wanted;
use super::paging::{LONGEST_PAGE, Paging};
use super::query::Query;
use super::{Api, note, parse, share};
use crate::alerts::event::{self, AlertType, Event};
use crate::api::connectors::{self, ConnectionView, Connector, Status};
use crate::registry::ListedConnection;
use crate::state::name;
use crate::state::snapshot::{Kept, Snapshot};
use crate::store::Transaction;
use crate::store::records::{PREVIOUS_SECRET, Previous, Seen, Tunnel, key, to_json};
use crate::store::timestamp::Timestamp;

#[derive(Deserialize)]
pub(super) struct CreateTunnel {
    name: String,
    tunnel_secret: Option<TunnelSecret>,
    config_src: Option<String>,
    #[serde(default)]
    metadata: Value,
}

#[derive(Deserialize)]
struct ChangeTunnel {
    name: Option<String>,
    tunnel_secret: Option<TunnelSecret>,
    /// Seconds for which the secret until now still opens the tunnel; ours alone.
    previous_secret_valid_for: Option<u32>,
    metadata: Option<Value>,
}

/// A tunnel as every answer shows it.
#[derive(Serialize)]
pub(super) struct View {
    id: Uuid,
    account_tag: String,
    name: String,
    status: Status,
    created_at: Timestamp,
    deleted_at: Option<Timestamp>,
    connections: Vec<ConnectionView>,
    conns_active_at: Option<Timestamp>,
    conns_inactive_at: Option<Timestamp>,
    tun_type: &'static str,
    remote_config: bool,
    config_src: &'static str,
    metadata: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

impl Api {
    pub(super) async fn create_tunnel(
        &self,
        who: &Identity,
        account: String,
        wanted: CreateTunnel,
    ) -> Result<Answer, Problem> {
        let name = tunnel_name(wanted.name)?;
        let secret = match wanted.tunnel_secret {
            Some(secret) => long_enough(secret)?,
            None => random_secret()?,
        };
        let (id, name_key) = (Uuid::new_v4(), key::tunnel_name(&account, &name));
        let tunnel = Tunnel {
            account,
            name,
            secret: Some(secret),
            previous: None,
            created_at: Timestamp::now(),
            deleted_at: None,
            remote: remote(wanted.config_src.as_deref())?,
            quick: false,
            metadata: wanted.metadata,
        };
        let json = to_json(&tunnel);
        self.state.read(|snapshot| self.share.tunnel(snapshot, &tunnel.account, json.len()))?;
        let transaction = Transaction::new(note(who, "tunnel.create", id))
            .if_absent(&name_key)
            .put(name_key, id.to_string())
            .put(key::tunnel(id), json);
        let transaction = self.told(id, &tunnel, "created", transaction);
        self.change(transaction, |_| Problem::NameTaken).await?;
        let token = tunnel.credentials(id).map(|credentials| credentials.to_token());
        Ok(envelope::success(View { token, ..View::of(id, &tunnel, Vec::new(), Status::Inactive, None) }))
    }

    pub(super) async fn list_tunnels(
        &self,
        who: &Identity,
        account: &str,
        query: &Query,
    ) -> Result<Answer, Problem> {
        let filter = Filter::of(query)?;
        let paging = Paging::of(query, PAGE)?;
        let types = query.texts("tun_types");
        if let Some(unknown) = types.iter().find(|kind| !TYPES.contains(kind)) {
            return Err(Problem::Invalid(format!("the query asks for the type `{unknown}`, which is none")));
        }
        // Here is one type alone.
        if !types.is_empty() && !types.contains(&TYPE) {
            return Ok(paging.cut(Vec::<View>::new()));
        }
        let (total_count, found) = self.state.read(|snapshot| {
            let mut total = 0;
            let mut found = Vec::new();
            for (_, id) in &snapshot.by_age {
                if !who.reaches_tunnel(id) {
                    continue;
                }
                let Some(Kept { record, .. }) = snapshot.tunnel(account, *id) else { continue };
                // What needs no look at connections comes first.
                if !filter.fits(*id, record, snapshot.seen.get(id).map(|seen| &seen.record)) {
                    continue;
                }
                let status = || self.status(*id, record, snapshot);
                if filter.status.is_some_and(|wanted| status() != wanted) {
                    continue;
                }
                total += 1;
                if paging.has(total - 1) {
                    found.push(*id);
                }
            }
            (total, found)
        });
        let mut elsewhere = self.elsewhere(&found).await;
        let views: Vec<View> = self.state.read(|snapshot| {
            let there = found.iter().filter_map(|id| Some((*id, snapshot.tunnel(account, *id)?)));
            let view = |(id, kept): (Uuid, &Kept<Tunnel>)| {
                self.view(id, &kept.record, snapshot, elsewhere.remove(&id).unwrap_or_default())
            };
            there.map(view).collect()
        });
        Ok(paging.answer(&views, total_count))
    }

    pub(super) async fn tunnel(
        &self,
        who: &Identity,
        account: &str,
        id: Uuid,
        ask: Ask,
        query: &Query,
        body: &[u8],
    ) -> Result<Answer, Problem> {
        let kept = self.state.read(|snapshot| snapshot.tunnel(account, id).cloned());
        let kept = kept.ok_or(Problem::NotFound("tunnel"))?;
        if ask == Ask::Look {
            return Ok(self.look(id, &kept.record).await);
        }
        // Of a deleted one there is nothing left but to look at it.
        if kept.record.is_deleted() {
            return Err(Problem::NotFound("tunnel"));
        }
        match ask {
            Ask::Look => Ok(self.look(id, &kept.record).await),
            Ask::Change => self.change_tunnel(who, id, kept, parse(body)?).await,
            Ask::Delete => self.delete_tunnel(who, id, kept, query.value("cascade")?.unwrap_or(false)).await,
            Ask::Token => {
                let credentials = kept.record.credentials(id).ok_or(Problem::NotFound("tunnel"))?;
                Ok(envelope::success(credentials.to_token()))
            }
            Ask::Connectors => {
                let paging = Paging::of(query, LONGEST_PAGE)?;
                Ok(paging.cut(self.connectors(id).await))
            }
            Ask::Connector(connector) => {
                let found = self.connectors(id).await.into_iter().find(|known| known.id == connector);
                found.map(envelope::success).ok_or(Problem::NotFound("connector"))
            }
            Ask::Disconnect => {
                let connector = query.value::<Uuid>("client_id")?;
                let here = self.registry.tunnel(&id).map_or(0, |tunnel| tunnel.disconnect(connector));
                let elsewhere = match &self.peers {
                    Some(peers) => peers.disconnect(id, connector).await,
                    None => 0,
                };
                let count = here + elsewhere;
                tracing::info!(actor = who.actor(), tunnel = %id, count, "connections cleaned up");
                Ok(envelope::success(Value::Null))
            }
            Ask::Configuration => Ok(self.configuration(id, &kept.record)),
            Ask::PutConfiguration => self.put_configuration(who, id, kept, parse(body)?).await,
            Ask::ManagementToken(resource) => {
                let resources = match resource {
                    Some(resource) => vec![resource],
                    None => parse::<Wanted>(body)?.resources,
                };
                self.management_token(who, id, resources).await
            }
        }
    }

    async fn look(&self, id: Uuid, tunnel: &Tunnel) -> Answer {
        let elsewhere = self.elsewhere(&[id]).await.remove(&id).unwrap_or_default();
        envelope::success(self.state.read(|snapshot| self.view(id, tunnel, snapshot, elsewhere)))
    }

    /// The connections of tunnels at other nodes of the fleet.
    async fn elsewhere(&self, tunnels: &[Uuid]) -> HashMap<Uuid, Vec<ListedConnection>> {
        match &self.peers {
            Some(peers) => peers.connections(tunnels).await,
            None => HashMap::new(),
        }
    }

    async fn connectors(&self, id: Uuid) -> Vec<Connector> {
        let elsewhere = self.elsewhere(&[id]).await.remove(&id).unwrap_or_default();
        connectors::connectors(self.here(id).into_iter().chain(elsewhere))
    }

    fn here(&self, id: Uuid) -> Vec<ListedConnection> {
        self.registry.tunnel(&id).map(|tunnel| tunnel.listed()).unwrap_or_default()
    }

    async fn change_tunnel(
        &self,
        who: &Identity,
        id: Uuid,
        kept: Kept<Tunnel>,
        wanted: ChangeTunnel,
    ) -> Result<Answer, Problem> {
        let Kept { record: mut tunnel, revision, bytes } = kept;
        let mut transaction =
            Transaction::new(note(who, "tunnel.change", id)).if_at(key::tunnel(id), revision);
        let mut new_name = None;
        if let Some(name) = wanted.name.map(tunnel_name).transpose()?
            && name != tunnel.name
        {
            let (old_key, new_key) =
                (key::tunnel_name(&tunnel.account, &tunnel.name), key::tunnel_name(&tunnel.account, &name));
            transaction = transaction.if_absent(&new_key).remove(old_key).put(&new_key, id.to_string());
            new_name = Some(new_key);
            tunnel.name = name;
        }
        if let Some(secret) = wanted.tunnel_secret.map(long_enough).transpose()?
            && tunnel.secret.as_ref() != Some(&secret)
        {
            let valid_for =
                wanted.previous_secret_valid_for.map(u64::from).map(std::time::Duration::from_secs);
            let until = Timestamp::now().after(valid_for.unwrap_or(PREVIOUS_SECRET));
            tunnel.previous = tunnel.secret.replace(secret).map(|secret| Previous { secret, until });
        }
        if let Some(metadata) = wanted.metadata {
            tunnel.metadata = metadata;
        }
        let json = to_json(&tunnel);
        self.state.read(|snapshot| self.share.bytes(snapshot, &tunnel.account, bytes, json.len()))?;
        let transaction = transaction.put(key::tunnel(id), json);
        self.change(transaction, |key| {
            if Some(key) == new_name { Problem::NameTaken } else { Problem::ChangedMeanwhile }
        })
        .await?;
        Ok(self.look(id, &tunnel).await)
    }

    async fn delete_tunnel(
        &self,
        who: &Identity,
        id: Uuid,
        kept: Kept<Tunnel>,
        cascade: bool,
    ) -> Result<Answer, Problem> {
        let serving = self.registry.tunnel(&id).map(|tunnel| tunnel.serving()).unwrap_or_default();
        let is_serving = serving.values().any(|count| *count > 0);
        if is_serving && !cascade {
            return Err(Problem::HasConnections);
        }
        let Kept { record: mut tunnel, revision, bytes: _ } = kept;
        let mut transaction = Transaction::new(note(who, "tunnel.delete", id))
            .if_at(key::tunnel(id), revision)
            .remove(key::tunnel_name(&tunnel.account, &tunnel.name))
            .remove(key::configuration(id));
        // Its id never comes back, so nothing can lead there any more.
        for hostname in self.state.read(|snapshot| hostnames(snapshot, id)) {
            transaction = transaction.remove(key::route(&hostname));
        }
        for forgotten in self.state.read(|snapshot| share::forgotten(snapshot, &tunnel.account)) {
            transaction = transaction.remove(key::tunnel(forgotten)).remove(key::seen(forgotten));
        }
        tunnel.deleted_at = Some(Timestamp::now());
        (tunnel.secret, tunnel.previous) = (None, None);
        let transaction = transaction.put(key::tunnel(id), to_json(&tunnel));
        let transaction = self.told(id, &tunnel, "deleted", transaction);
        self.change(transaction, |_| Problem::ChangedMeanwhile).await?;
        Ok(self.look(id, &tunnel).await)
    }

    /// With the alerts about it.
    fn told(&self, id: Uuid, tunnel: &Tunnel, what: &str, transaction: Transaction) -> Transaction {
        let name = event::brief(&tunnel.name);
        let text = format!("The tunnel {name} was {what}.");
        let labels = vec![("tunnel_id", id.to_string()), ("tunnel_name", name), ("event", what.to_owned())];
        let event = Event::once(&tunnel.account, AlertType::TunnelUpdate, text, labels);
        self.state.read(|snapshot| event.tell(snapshot, transaction, Timestamp::now()))
    }

    fn view(&self, id: Uuid, tunnel: &Tunnel, snapshot: &Snapshot, elsewhere: Vec<ListedConnection>) -> View {
        let connectors = connectors::connectors(self.here(id).into_iter().chain(elsewhere));
        let seen = snapshot.seen.get(&id).map(|seen| &seen.record);
        View::of(id, tunnel, connectors, self.status(id, tunnel, snapshot), seen)
    }

    fn status(&self, id: Uuid, tunnel: &Tunnel, snapshot: &Snapshot) -> Status {
        let wanted = if tunnel.quick { 1 } else { connectors::USUAL_CONNECTIONS };
        connectors::status(&self.registry, id, wanted, snapshot.seen.contains_key(&id))
    }
}

fn hostnames(snapshot: &Snapshot, tunnel: Uuid) -> Vec<String> {
    snapshot.routes_of(tunnel).map(|(hostname, _)| hostname.clone()).collect()
}

impl View {
    fn of(
        id: Uuid,
        tunnel: &Tunnel,
        connectors: Vec<Connector>,
        status: Status,
        seen: Option<&Seen>,
    ) -> Self {
        let oldest = connectors.iter().map(|connector| connector.run_at).min();
        let active = matches!(status, Status::Healthy | Status::Degraded);
        Self {
            id,
            account_tag: tunnel.account.clone(),
            name: tunnel.name.clone(),
            status,
            created_at: tunnel.created_at,
            deleted_at: tunnel.deleted_at,
            connections: connectors.into_iter().flat_map(|connector| connector.conns).collect(),
            conns_active_at: if active { seen.map(|seen| seen.active_at).or(oldest) } else { None },
            conns_inactive_at: if active { None } else { seen.and_then(|seen| seen.inactive_at) },
            tun_type: TYPE,
            remote_config: tunnel.remote,
            config_src: if tunnel.remote { "cloudflare" } else { "local" },
            metadata: if tunnel.metadata.is_null() { json!({}) } else { tunnel.metadata.clone() },
            token: None,
        }
    }
}

/// What a list is asked to leave out.
struct Filter<'q> {
    name: Option<&'q str>,
    prefixes: [Option<&'q str>; 2],
    exclude_prefix: Option<&'q str>,
    is_deleted: Option<bool>,
    existed_at: Option<Timestamp>,
    active_at: Option<Timestamp>,
    inactive_at: Option<Timestamp>,
    uuid: Option<Uuid>,
    status: Option<Status>,
}

impl<'q> Filter<'q> {
    fn of(query: &'q Query) -> Result<Self, Problem> {
        let status = |text: &str| match text {
            "healthy" => Some(Status::Healthy),
            "degraded" => Some(Status::Degraded),
            "down" => Some(Status::Down),
            "inactive" => Some(Status::Inactive),
            _ => None,
        };
        Ok(Self {
            name: query.text("name")?,
            prefixes: [query.text("name_prefix")?, query.text("include_prefix")?],
            exclude_prefix: query.text("exclude_prefix")?,
            is_deleted: query.value("is_deleted")?,
            existed_at: query.read("existed_at", Timestamp::parse)?,
            active_at: query.read("was_active_at", Timestamp::parse)?,
            inactive_at: query.read("was_inactive_at", Timestamp::parse)?,
            uuid: query.value("uuid")?,
            status: query.read("status", status)?,
        })
    }

    fn fits(&self, id: Uuid, tunnel: &Tunnel, seen: Option<&Seen>) -> bool {
        let existed = |at: Timestamp| tunnel.created_at <= at && tunnel.deleted_at.is_none_or(|end| end > at);
        let was_active = |at: Timestamp| {
            seen.is_some_and(|seen| seen.active_at <= at && seen.inactive_at.is_none_or(|end| end > at))
        };
        self.uuid.is_none_or(|wanted| wanted == id)
            && self.name.is_none_or(|name| tunnel.name == name)
            && self.prefixes.iter().flatten().all(|prefix| tunnel.name.starts_with(prefix))
            && self.exclude_prefix.is_none_or(|prefix| !tunnel.name.starts_with(prefix))
            && self.is_deleted.is_none_or(|wanted| tunnel.is_deleted() == wanted)
            && self.existed_at.is_none_or(existed)
            && self.active_at.is_none_or(was_active)
            && self.inactive_at.is_none_or(|at| existed(at) && !was_active(at))
    }
}

fn tunnel_name(name: String) -> Result<String, Problem> {
    name::check(&name).map_err(Problem::Invalid)?;
    if name.parse::<Uuid>().is_ok() {
        return Err(Problem::Invalid("a name must not look like a tunnel id".to_owned()));
    }
    Ok(name)
}

fn long_enough(secret: TunnelSecret) -> Result<TunnelSecret, Problem> {
    if secret.as_bytes().len() < SHORTEST_SECRET {
        return Err(Problem::Invalid(format!("a tunnel secret has at least {SHORTEST_SECRET} bytes")));
    }
    Ok(secret)
}

pub(super) fn random_secret() -> Result<TunnelSecret, Problem> {
    let mut bytes = [0; SHORTEST_SECRET];
    getrandom::fill(&mut bytes).map_err(|_| Problem::Unavailable)?;
    TunnelSecret::new(&bytes).map_err(|_| Problem::Unavailable)
}

fn remote(source: Option<&str>) -> Result<bool, Problem> {
    match source {
        None | Some("local") => Ok(false),
        Some("cloudflare") => Ok(true),
        Some(_) => Err(Problem::Invalid("`config_src` is `local` or `cloudflare`".to_owned())),
    }
}

/// What the reference calls a tunnel that hosts connect, and what else it has.
const TYPE: &str = "cfd_tunnel";
const TYPES: [&str; 7] = [TYPE, "warp_connector", "warp", "magic", "ip_sec", "gre", "cni"];
const PAGE: usize = 100;
const SHORTEST_SECRET: usize = 32;
