//! The state of an edge as its operator handles it on the spot: accounts, zones, API tokens, backups.
//! Works beside a running edge, which takes changes over at once. Knows files and records; does not know
//! HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::credentials::{ApiToken, OriginCert};
use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::nodes::provision::FleetNodes;
use crate::settings::Settings;
use crate::settings::host_name::HostName;
use crate::state::snapshot::Snapshot;
use crate::state::{name, token};
use crate::store::etcd::Etcd;
use crate::store::records::{Account, Scope, Token, Tunnel, Zone, key, to_json};
use crate::store::sqlite::{self, Sqlite};
use crate::store::timestamp::Timestamp;
use crate::store::{AuditEntry, Commit, Store, Transaction};
use crate::tls::DevelopmentCa;

pub use crate::store::AuditLine;

/// An edge's state, opened.
pub struct Provisioning {
    place: Place,
    store: Arc<dyn Store>,
}

/// Where that is kept.
enum Place {
    File(PathBuf),
    Fleet(Arc<Etcd>),
}

/// What a new token may do. Without zones and tunnels: everything in its account.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    pub name: String,
    /// Needed if there are several.
    pub account: Option<String>,
    /// By name: only the routes of these.
    pub zones: Vec<String>,
    /// Only these.
    pub tunnels: Vec<Uuid>,
    pub read_only: bool,
    pub valid_for: Option<Duration>,
}

/// A token as it is shown: never its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSummary {
    pub id: String,
    pub name: String,
    pub account: String,
    pub scope: String,
    pub created_at: String,
    /// `active`, `expired` or `revoked`.
    pub status: &'static str,
    pub expires_at: Option<String>,
}

/// An account as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLine {
    pub id: String,
    pub name: String,
    pub created_at: String,
    /// By name.
    pub zones: Vec<String>,
    /// Those that are not deleted.
    pub tunnels: usize,
}

/// A route as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordLine {
    /// By which the control API knows it as a DNS record.
    pub id: String,
    pub name: String,
    /// By name.
    pub zone: String,
    pub account: String,
    pub tunnel: Uuid,
    pub tunnel_name: String,
    pub comment: Option<String>,
    pub created_at: String,
    pub modified_at: String,
}

/// What `adit edge init` has made, or found.
#[derive(Debug)]
pub struct Provisioned {
    pub account: String,
    /// Zone names with their ids.
    pub zones: Vec<(String, String)>,
    pub ca: PathBuf,
    /// As what this edge is a node of its fleet.
    pub node: Option<String>,
}

impl Provisioning {
    /// Where an edge with this data folder keeps its state.
    pub fn file(data_dir: &Path) -> PathBuf {
        data_dir.join(FILE)
    }

    /// Opens the state of an edge that was set up before.
    pub fn open(settings: &Settings) -> anyhow::Result<Self> {
        if let Some(terms) = &settings.store {
            return Ok(Self::fleet(Etcd::new(terms.clone())?));
        }
        let data_dir = settings.data_dir();
        let path = Self::file(data_dir);
        ensure!(path.exists(), "there is no state in {}; `adit edge init` makes it", data_dir.display());
        Ok(Self { store: Arc::new(Sqlite::open(&path)?), place: Place::File(path) })
    }

    fn fleet(store: Etcd) -> Self {
        let store = Arc::new(store);
        Self { store: store.clone(), place: Place::Fleet(store) }
    }

    /// Makes what an edge with these settings keeps: the data folder, the development CA, the state, an account
    /// and its zones, as far as they are not there yet.
    pub async fn found_for(
        settings: &Settings,
        account_name: &str,
        zones: &[String],
    ) -> anyhow::Result<(Self, Provisioned)> {
        match &settings.store {
            None => Self::found(settings.data_dir(), account_name, zones).await,
            Some(terms) => {
                let ledger = Self::fleet(Etcd::found(terms.clone()).await?);
                let (ledger, made) = ledger.furnish(settings.data_dir(), account_name, zones).await?;
                let node = FleetNodes::found(settings).await?;
                Ok((ledger, Provisioned { node, ..made }))
            }
        }
    }

    /// The same with the state in the data folder.
    pub async fn found(
        data_dir: &Path,
        account_name: &str,
        zones: &[String],
    ) -> anyhow::Result<(Self, Provisioned)> {
        std::fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let path = Self::file(data_dir);
        let ledger = Self { store: Arc::new(Sqlite::open(&path)?), place: Place::File(path) };
        ledger.furnish(data_dir, account_name, zones).await
    }

    async fn furnish(
        self,
        data_dir: &Path,
        account_name: &str,
        zones: &[String],
    ) -> anyhow::Result<(Self, Provisioned)> {
        let ca = DevelopmentCa::open(data_dir).context("making the development CA")?;
        let snapshot = self.snapshot().await?;
        let known = snapshot.accounts.iter().find(|(_, account)| account.record.name == account_name);
        let account = match known {
            Some((id, _)) => id.clone(),
            None => self.create_account(account_name).await?,
        };
        let mut made = Vec::new();
        for zone in zones {
            made.push(self.add_zone(&account, zone).await?);
        }
        Ok((self, Provisioned { account, zones: made, ca: ca.path().to_owned(), node: None }))
    }

    /// Makes an account, whose name no other one has. Its id.
    pub async fn create_account(&self, name: &str) -> anyhow::Result<String> {
        name::check(name).map_err(anyhow::Error::msg)?;
        let snapshot = self.snapshot().await?;
        let is_taken = snapshot.accounts.values().any(|account| account.record.name == name);
        ensure!(!is_taken, "there is an account `{name}` already");
        let id = Uuid::new_v4().simple().to_string();
        let record = Account { name: name.to_owned(), created_at: Timestamp::now() };
        let key = key::account(&id);
        self.commit(note("account.create", &id).if_absent(&key).put(key, to_json(&record))).await?;
        Ok(id)
    }

    /// All accounts, oldest first.
    pub async fn accounts(&self) -> anyhow::Result<Vec<AccountLine>> {
        let snapshot = self.snapshot().await?;
        let mut accounts: Vec<_> = snapshot.accounts.iter().map(|(id, kept)| (id, &kept.record)).collect();
        accounts.sort_by_key(|(id, account)| (account.created_at, *id));
        let line = |(id, account): (&String, &Account)| {
            let zones = snapshot.zones.values().filter(|zone| zone.record.account == *id);
            let mut zones: Vec<_> = zones.map(|zone| zone.record.name.clone()).collect();
            zones.sort();
            let own = |tunnel: &Tunnel| tunnel.account == *id && !tunnel.is_deleted();
            let tunnels = snapshot.tunnels.values().filter(|tunnel| own(&tunnel.record)).count();
            let (id, name, created_at) = (id.clone(), account.name.clone(), account.created_at.to_string());
            AccountLine { id, name, created_at, zones, tunnels }
        };
        Ok(accounts.into_iter().map(line).collect())
    }

    /// All routes, or those of one zone, by name; not those of quick tunnels.
    pub async fn records(&self, zone: Option<&str>) -> anyhow::Result<Vec<RecordLine>> {
        let snapshot = self.snapshot().await?;
        let zone = zone.map(|zone| zone.trim_end_matches('.').to_ascii_lowercase());
        if let Some(wanted) = &zone {
            let is_known = snapshot.zones.values().any(|zone| zone.record.name == *wanted);
            ensure!(is_known, "there is no zone `{wanted}`");
        }
        let records = snapshot.routes.iter().filter_map(|(name, kept)| {
            let (route, of) = (&kept.record, &snapshot.zones.get(&kept.record.zone)?.record);
            let tunnel_name = snapshot.tunnels.get(&route.tunnel).map(|tunnel| tunnel.record.name.clone());
            Some(RecordLine {
                id: route.id(name),
                name: name.clone(),
                zone: of.name.clone(),
                account: of.account.clone(),
                tunnel: route.tunnel,
                tunnel_name: tunnel_name.unwrap_or_default(),
                comment: route.remarks.comment.clone(),
                created_at: route.created_at.to_string(),
                modified_at: route.modified_at.unwrap_or(route.created_at).to_string(),
            })
        });
        Ok(records.filter(|record| zone.as_ref().is_none_or(|zone| record.zone == *zone)).collect())
    }

    /// Takes away the route of a host name.
    pub async fn delete_record(&self, name: &str) -> anyhow::Result<()> {
        let snapshot = self.snapshot().await?;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let kept = snapshot.routes.get(&name).with_context(|| format!("there is no record `{name}`"))?;
        let key = key::route(&name);
        self.commit(note("record.delete", &name).if_at(&key, kept.revision).remove(key)).await
    }

    /// Gives an account the names below a domain. The name as it is kept, and the id; one that is there
    /// already is given back.
    pub async fn add_zone(&self, account: &str, name: &str) -> anyhow::Result<(String, String)> {
        let name = domain(name)?;
        let snapshot = self.snapshot().await?;
        if let Some((id, zone)) = snapshot.zones.iter().find(|(_, zone)| zone.record.name == name) {
            ensure!(zone.record.account == account, "`{name}` is a zone of another account");
            return Ok((name, id.clone()));
        }
        let id = Uuid::new_v4().simple().to_string();
        let (by_name, by_id) = (key::zone_name(&name), key::zone(&id));
        let zone = Zone { account: account.to_owned(), name: name.clone(), created_at: Timestamp::now() };
        let transaction = note("zone.create", &name)
            .if_absent(&by_name)
            .put(by_name, id.clone())
            .put(by_id, to_json(&zone));
        self.commit(transaction).await?;
        Ok((name, id))
    }

    /// Makes a token. Its text is given out here and nowhere else: only a digest is kept.
    pub async fn create_token(&self, wish: TokenRequest) -> anyhow::Result<(String, ApiToken)> {
        let snapshot = self.snapshot().await?;
        let account = account(&snapshot, wish.account.as_deref())?;
        let scope = match (wish.zones.is_empty(), wish.tunnels.is_empty()) {
            (true, true) => Scope::Account,
            (true, false) => Scope::Tunnels(wish.tunnels),
            (false, true) => {
                let id = |name: &String| {
                    let wanted = domain(name).ok();
                    let own = |zone: &Zone| Some(&zone.name) == wanted.as_ref() && zone.account == account;
                    let found = snapshot.zones.iter().find(|(_, zone)| own(&zone.record));
                    let found = found.map(|(id, _)| id.clone());
                    found.with_context(|| format!("`{name}` is no zone of this account"))
                };
                Scope::Zones(wish.zones.iter().map(id).collect::<Result<_, _>>()?)
            }
            (false, false) => bail!("a token is for zones or for tunnels; make two"),
        };
        if let Scope::Tunnels(tunnels) = &scope {
            for id in tunnels {
                let known = snapshot.tunnel(&account, *id).is_some_and(|tunnel| !tunnel.record.is_deleted());
                ensure!(known, "{id} is no tunnel of this account");
            }
        }
        let now = Timestamp::now();
        let (mut over, living): (Vec<_>, Vec<_>) = snapshot
            .tokens
            .iter()
            .filter(|(_, kept)| kept.record.account == account)
            .partition(|(_, kept)| kept.record.is_over(now));
        ensure!(living.len() < MOST_TOKENS, "this account has {MOST_TOKENS} tokens; revoke some first");
        over.sort_by_key(|(_, kept)| kept.record.created_at);
        let surplus = over.len().saturating_sub(KEPT_TOKENS);
        // A token may go without a name.
        if !wish.name.is_empty() {
            name::check(&wish.name).map_err(anyhow::Error::msg)?;
        }
        let mut bytes = [0; SECRET];
        getrandom::fill(&mut bytes).context("random bytes for the token")?;
        let secret = URL_SAFE_NO_PAD.encode(bytes);
        // Ids have no `_`, which ends them in the text.
        let id = Uuid::new_v4().simple().to_string()[..ID].to_owned();
        let token = Token {
            name: wish.name,
            account,
            scope,
            read_only: wish.read_only,
            sha256: token::digest(&secret),
            created_at: now,
            expires_at: wish.valid_for.map(|span| now.after(span)),
            revoked_at: None,
        };
        let key = key::token(&id);
        let mut transaction = note("token.create", &id).if_absent(&key).put(key, to_json(&token));
        for (forgotten, _) in over.into_iter().take(surplus) {
            transaction = transaction.remove(key::token(forgotten));
        }
        self.commit(transaction).await?;
        let text = ApiToken::new(token::text(&id, &secret));
        Ok((id, text))
    }

    /// What the reference CLI and ours call cert.pem: a new token for an account, with the zone that
    /// `route dns` is said to be about.
    pub async fn create_certificate(&self, wish: TokenRequest, zone: &str) -> anyhow::Result<OriginCert> {
        let account_id = account(&self.snapshot().await?, wish.account.as_deref())?;
        let (_, api_token) = self.create_token(wish).await?;
        Ok(OriginCert { zone_id: zone.to_owned(), account_id, api_token, endpoint: None })
    }

    /// All tokens, oldest first.
    pub async fn tokens(&self) -> anyhow::Result<Vec<TokenSummary>> {
        let (snapshot, now) = (self.snapshot().await?, Timestamp::now());
        let mut tokens: Vec<_> = snapshot.tokens.iter().map(|(id, kept)| (id, &kept.record)).collect();
        tokens.sort_by_key(|(id, token)| (token.created_at, *id));
        let zone_name =
            |id: &String| snapshot.zones.get(id).map_or(id.clone(), |zone| zone.record.name.clone());
        Ok(tokens
            .into_iter()
            .map(|(id, token)| {
                let scope = match &token.scope {
                    Scope::Account => "account".to_owned(),
                    Scope::Zones(zones) => {
                        format!("zones {}", zones.iter().map(zone_name).collect::<Vec<_>>().join(", "))
                    }
                    Scope::Tunnels(tunnels) => {
                        format!(
                            "tunnels {}",
                            tunnels.iter().map(Uuid::to_string).collect::<Vec<_>>().join(", ")
                        )
                    }
                };
                let status = match (token.revoked_at, token.expires_at) {
                    (Some(_), _) => "revoked",
                    (None, Some(end)) if end <= now => "expired",
                    (None, _) => "active",
                };
                TokenSummary {
                    id: id.clone(),
                    name: token.name.clone(),
                    account: token.account.clone(),
                    scope: if token.read_only { format!("{scope}, read only") } else { scope },
                    created_at: token.created_at.to_string(),
                    status,
                    expires_at: token.expires_at.map(|end| end.to_string()),
                }
            })
            .collect())
    }

    /// Ends a token for good.
    pub async fn revoke_token(&self, id: &str) -> anyhow::Result<()> {
        let snapshot = self.snapshot().await?;
        let kept = snapshot.tokens.get(id).with_context(|| format!("there is no token `{id}`"))?;
        ensure!(kept.record.revoked_at.is_none(), "token `{id}` is revoked already");
        let token = Token { revoked_at: Some(Timestamp::now()), ..kept.record.clone() };
        let key = key::token(id);
        self.commit(note("token.revoke", id).if_at(&key, kept.revision).put(key, to_json(&token))).await
    }

    /// The account of this name or id, or the only one.
    pub async fn account(&self, wanted: Option<&str>) -> anyhow::Result<String> {
        account(&self.snapshot().await?, wanted)
    }

    /// Copies the state, as it is now, to a new file; the edge may run meanwhile.
    pub fn backup(&self, to: &Path) -> anyhow::Result<()> {
        match &self.place {
            Place::File(path) => Ok(sqlite::backup(path, to)?),
            Place::Fleet(_) => bail!(
                "this state is in etcd, whose own tool copies all of it: `etcdctl snapshot save`; `adit edge \
                 migrate --to sqlite` makes a file of this fleet's records"
            ),
        }
    }

    /// Who changed what and when: the last `count` changes, newest first.
    pub async fn audit(&self, count: u32) -> anyhow::Result<Vec<AuditLine>> {
        match &self.place {
            Place::File(path) => Ok(sqlite::audit(path, count)?),
            Place::Fleet(store) => Ok(store.audit(count).await?),
        }
    }

    async fn snapshot(&self) -> anyhow::Result<Snapshot> {
        let mut listing = self.store.list("").await?;
        // What is secret is sealed here, and nothing here needs it.
        listing.entries.retain(|entry| !entry.key.starts_with(key::SESSIONS));
        Ok(Snapshot::from_listing(listing))
    }

    async fn commit(&self, transaction: Transaction) -> anyhow::Result<()> {
        match self.store.commit(transaction).await? {
            Commit::Done(_) => Ok(()),
            Commit::Conflict { key } => bail!("somebody else changed {key} at the same time; try again"),
        }
    }
}

/// A domain in the form in which it is kept.
fn domain(name: &str) -> anyhow::Result<String> {
    match name.parse::<HostName>() {
        Ok(HostName::Exact(name)) => Ok(name),
        Ok(HostName::Wildcard(_)) => bail!("`{name}` is no domain: leave the `*.` away"),
        Err(error) => bail!("`{name}` is no domain: {error}"),
    }
}

fn account(snapshot: &Snapshot, wanted: Option<&str>) -> anyhow::Result<String> {
    let mut ids = snapshot.accounts.iter().filter(|(id, account)| {
        wanted.is_none_or(|wanted| wanted == id.as_str() || wanted == account.record.name)
    });
    match (ids.next(), ids.next()) {
        (Some((id, _)), None) => Ok(id.clone()),
        (Some(_), Some(_)) => bail!("there are several accounts; say which one with --account"),
        (None, _) => match wanted {
            Some(wanted) => bail!("there is no account `{wanted}`"),
            None => bail!("there is no account; `adit edge init` makes one"),
        },
    }
}

fn note(action: &'static str, subject: &str) -> Transaction {
    let actor = std::env::var("USER").map_or("operator".to_owned(), |user| format!("operator {user}"));
    Transaction::new(AuditEntry { actor, action, subject: subject.to_owned() })
}

/// The name of the state in the data folder.
const FILE: &str = "state.db";
/// Tokens of one account that are good.
const MOST_TOKENS: usize = 10_000;
/// Those that are not any more, which are still listed.
const KEPT_TOKENS: usize = 1_000;
const SECRET: usize = 32;
const ID: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_account_has_its_share_of_tokens_and_those_that_are_over_are_forgotten_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, founding) = Provisioning::found(folder.path(), "main", &[]).await.unwrap();
        let now = Timestamp::now();
        let token = |revoked_at| Token {
            name: String::new(),
            account: founding.account.clone(),
            scope: Scope::Account,
            read_only: false,
            sha256: String::new(),
            created_at: now,
            expires_at: None,
            revoked_at,
        };
        let (good, over) = (to_json(&token(None)), to_json(&token(Some(now))));
        let mut transaction = note("test", "");
        for number in 1..MOST_TOKENS {
            transaction = transaction.put(key::token(&format!("good-{number}")), good.clone());
        }
        for number in 0..KEPT_TOKENS + 5 {
            transaction = transaction.put(key::token(&format!("over-{number}")), over.clone());
        }
        ledger.commit(transaction).await.unwrap();

        let create = async || ledger.create_token(TokenRequest::default()).await;
        let (last, _) = create().await.unwrap();
        let known = ledger.tokens().await.unwrap();
        let revoked = known.iter().filter(|token| token.status == "revoked").count();
        assert_eq!((known.len() - revoked, revoked), (MOST_TOKENS, KEPT_TOKENS));
        let refused = create().await.unwrap_err().to_string();
        assert!(refused.contains("10000 tokens"), "{refused}");
        ledger.revoke_token(&last).await.unwrap();
        create().await.unwrap();
    }
}
