//! The engine of a fleet: etcd, which all its edges share. Knows how the contract is kept by etcd's calls; does not
//! know what a record means.
//!
//! `address` says where it is, `channel` speaks to one member, `client` to whichever answers, `writing` makes
//! transactions, `watching` follows changes, `lease` holds records that go with this process. All of it runs on a thread of its own, whoever asks.

pub(crate) mod address;
mod channel;
mod client;
mod lease;
mod messages;
mod watching;
mod writing;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::timestamp::Timestamp;
use super::{
    AuditLine, Commit, Entry, Listing, Restored, Store, StoreError, StoreRevision, Transaction, Watch,
};
use address::Address;
use channel::{CallError, Code};
use client::{Client, Failure, Mark, PATIENCE, RANGE, STATUS, TXN};
use messages::{
    DeleteRangeRequest, RangeRequest, RangeResponse, Request, StatusRequest, StatusResponse, TxnRequest,
    TxnResponse,
};
use writing::{TooLarge, Writing, range, revision_of};

/// Where etcd is and how it is spoken to.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) address: Address,
    /// Without it everything is said in the clear.
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    /// Whether versions are taken that are known to lose changes.
    pub(crate) allow_old: bool,
}

/// Handle on a fleet's records.
pub(crate) struct Etcd {
    client: Arc<Client>,
    runtime: Option<Runtime>,
}

impl Etcd {
    /// Asks nothing yet: a member is looked for with the first call.
    pub(crate) fn new(terms: Terms) -> Result<Self, StoreError> {
        Self::with(terms, false)
    }

    /// The same for a fleet that may not be there yet: then no edge serves what is written until it is made.
    pub(crate) fn founding(terms: Terms) -> Result<Self, StoreError> {
        Self::with(terms, true)
    }

    /// Makes the fleet if it is not there.
    pub(crate) fn make(&self) -> BoxFuture<'static, Result<(), StoreError>> {
        let client = self.client.clone();
        self.run(async move { client.found().await })
    }

    pub(crate) async fn found(terms: Terms) -> Result<Self, StoreError> {
        let store = Self::founding(terms)?;
        store.make().await?;
        Ok(store)
    }

    fn with(terms: Terms, is_founding: bool) -> Result<Self, StoreError> {
        let place = terms.address.to_string();
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("store").enable_all().build();
        let runtime =
            runtime.map_err(|error| StoreError::Unavailable { place, reason: error.to_string() })?;
        Ok(Self { client: Arc::new(Client::new(terms, is_founding)), runtime: Some(runtime) })
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let task = self.runtime.as_ref().map(|runtime| runtime.spawn(work));
        async move {
            let task = task.ok_or(StoreError::Stopped)?;
            task.await.unwrap_or(Err(StoreError::Stopped))
        }
        .boxed()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // Whatever is under way was not acknowledged. Waiting for it may not be possible where this is dropped.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Store for Etcd {
    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Listing, StoreError>> {
        let (client, prefix) = (self.client.clone(), prefix.to_owned());
        self.run(async move { list(&client, &prefix).await })
    }

    fn watch(&self, prefix: &str, from: StoreRevision) -> BoxFuture<'static, Result<Watch, StoreError>> {
        let (client, prefix) = (self.client.clone(), prefix.to_owned());
        self.run(watching::watch(client, prefix, from))
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'static, Result<Commit, StoreError>> {
        let client = self.client.clone();
        self.run(async move { commit(&client, transaction).await })
    }

    fn look(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>> {
        let client = self.client.clone();
        self.run(async move { last_change(&client).await })
    }

    fn probe(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>> {
        let client = self.client.clone();
        self.run(async move {
            let status: StatusResponse = client
                .ask(STATUS, &StatusRequest {}, PATIENCE)
                .await
                .map_err(|error| client.store_error(error))?;
            if status.errors.iter().any(|error| error.contains("NOSPACE")) {
                let full = CallError::Refused {
                    code: Code::ResourceExhausted,
                    message: "etcd has no space".to_owned(),
                };
                return Err(client.store_error(Failure::Call(full)));
            }
            if let Some(error) = status.errors.first() {
                return Err(client.unavailable(error));
            }
            last_change(&client).await
        })
    }

    fn restore(&self) -> BoxFuture<'static, Result<Restored, StoreError>> {
        // What etcd has lost is put back from a backup of etcd's; an edge does not do so by itself.
        let probe = self.probe();
        async move { probe.await.map(|_| Restored::WasThere) }.boxed()
    }

    fn audit(&self, count: u32) -> BoxFuture<'static, Result<Vec<AuditLine>, StoreError>> {
        let client = self.client.clone();
        self.run(async move { audit(&client, count).await })
    }

    fn fleet(&self) -> Option<Uuid> {
        self.client.fleet()
    }

    fn expect(&self, fleet: Uuid) {
        self.client.expect(fleet);
    }

    fn silent_for(&self) -> Option<Duration> {
        self.client.silent_for()
    }

    fn hold(&self, key: &str, value: Bytes, stop: CancellationToken) -> BoxFuture<'static, ()> {
        let (client, key) = (self.client.clone(), key.to_owned());
        let held = self.run(async move {
            lease::hold(client, key, value, stop).await;
            Ok(())
        });
        async move { drop(held.await) }.boxed()
    }
}

async fn list(client: &Client, prefix: &str) -> Result<Listing, StoreError> {
    for _ in 0..LISTS {
        match pages(client, prefix).await {
            Ok(listing) => return Ok(listing),
            // What the first page was a page of is not kept any more.
            Err(Failure::Call(CallError::Refused { code: Code::OutOfRange, .. })) => {}
            Err(error) => return Err(client.store_error(error)),
        }
    }
    Err(client.unavailable("etcd forgets revisions faster than they are read"))
}

/// All of one revision, page by page, because one answer cannot hold it.
async fn pages(client: &Client, prefix: &str) -> Result<Listing, Failure> {
    let (mut key, range_end) = range(&client.keys.record(prefix));
    let (mut limit, mut revision) = (PAGE, 0);
    let (mut entries, mut mark) = (Vec::new(), None);
    loop {
        let question = RangeRequest {
            key: key.clone(),
            range_end: range_end.clone(),
            limit,
            revision,
            ..RangeRequest::default()
        };
        let page: RangeResponse = match client.ask(RANGE, &question, PATIENCE).await {
            Err(Failure::Call(CallError::TooLong)) if limit > 1 => {
                limit = (limit / 8).max(1);
                continue;
            }
            answer => answer?,
        };
        if revision == 0 {
            revision = page.header.as_ref().map_or(0, |header| header.revision);
        }
        if page.more {
            let last = page.kvs.last().map(|record| record.key.clone());
            let last = last.ok_or_else(|| client.unavailable("a page without records"))?;
            key = [&last[..], b"\0"].concat().into();
        }
        for record in page.kvs {
            match client.keys.name(&record.key) {
                Some("") => mark = Some(Mark { revision: record.mod_revision, value: record.value }),
                Some(name) => entries.push(Entry {
                    key: name.to_owned(),
                    value: record.value,
                    revision: revision_of(record.mod_revision),
                }),
                None => {}
            }
        }
        if !page.more {
            break;
        }
    }
    if prefix.is_empty() {
        client.set_mark(mark);
    }
    Ok(Listing { revision: revision_of(revision), entries })
}

async fn commit(client: &Arc<Client>, transaction: Transaction) -> Result<Commit, StoreError> {
    let writing = Writing::new(&client.keys, transaction, Timestamp::now())
        .map_err(|TooLarge(why)| client.unavailable(&format!("the change is too large for etcd: {why}")))?;
    let answer: TxnResponse =
        client.ask(TXN, &writing.request, PATIENCE).await.map_err(|error| client.store_error(error))?;
    if client.is_prune_due() {
        let client = client.clone();
        let before = SystemTime::now().checked_sub(KEPT_AUDIT).map_or(Timestamp::now(), Timestamp::from);
        tokio::spawn(async move {
            if let Err(error) = prune(&client, before).await {
                warn!(%error, "the audit log cannot be pruned");
            }
        });
    }
    writing.outcome(&answer).ok_or_else(|| client.unavailable("etcd has answered with something else"))
}

/// Forgets what the audit log has from before this.
async fn prune(client: &Client, before: Timestamp) -> Result<(), StoreError> {
    let (key, _) = range(&client.keys.audit(""));
    let range_end = client.keys.audit(&before.to_string()).into();
    let delete = Request::DeleteRange(DeleteRangeRequest { key, range_end });
    let question = TxnRequest { success: vec![delete.into()], ..TxnRequest::default() };
    let done: Result<TxnResponse, _> = client.ask(TXN, &question, PATIENCE).await;
    done.map(drop).map_err(|error| client.store_error(error))
}

/// The revision of the mark, which every change moves.
async fn last_change(client: &Client) -> Result<StoreRevision, StoreError> {
    let question =
        RangeRequest { key: client.keys.mark().into(), keys_only: true, ..RangeRequest::default() };
    let found: RangeResponse =
        client.ask(RANGE, &question, PATIENCE).await.map_err(|error| client.store_error(error))?;
    Ok(revision_of(found.kvs.first().map_or(0, |mark| mark.mod_revision)))
}

/// As a transaction has written it.
#[derive(Deserialize)]
struct Line {
    at: String,
    actor: String,
    action: String,
    subject: String,
}

async fn audit(client: &Client, count: u32) -> Result<Vec<AuditLine>, StoreError> {
    let (key, mut range_end) = range(&client.keys.audit(""));
    let mut lines = Vec::new();
    while lines.len() < count as usize {
        let limit = i64::from(count).min(PAGE);
        let (key, until) = (key.clone(), range_end);
        let question =
            RangeRequest { key, range_end: until, limit, sort_order: BACKWARDS, ..RangeRequest::default() };
        let page: RangeResponse =
            client.ask(RANGE, &question, PATIENCE).await.map_err(|error| client.store_error(error))?;
        range_end = page.kvs.last().map_or_else(Bytes::new, |record| record.key.clone());
        for record in page.kvs {
            match serde_json::from_slice::<Line>(&record.value) {
                Ok(Line { at, actor, action, subject }) => {
                    let revision = revision_of(record.mod_revision).0;
                    lines.push(AuditLine { revision, at, actor, action, subject });
                }
                Err(error) => warn!(%error, "a line of the audit log cannot be read"),
            }
        }
        if !page.more {
            break;
        }
    }
    lines.truncate(count as usize);
    Ok(lines)
}

/// What authenticates both sides: etcd to this edge by an authority of its own, and this edge to etcd.
pub(crate) fn tls(
    authority: Vec<CertificateDer<'static>>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in authority {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// How long a line of the audit log is kept.
const KEPT_AUDIT: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// Records in one answer; fewer where they are long.
const PAGE: i64 = 1_000;
/// How often a list begins again that was overtaken.
const LISTS: usize = 3;
/// etcd's word for a descending order.
const BACKWARDS: i32 = 2;

#[cfg(test)]
#[path = "../../tests/edge/etcd.rs"]
pub(crate) mod server;
#[cfg(test)]
mod tests;
