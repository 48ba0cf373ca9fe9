//! A store whose secrets are sealed where they are kept, and open for whoever reads them here: a copy of the file opens
//! no tunnel and signs nothing. Knows which fields of which records are secret; does not know what they are for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::records::certificates::{AUTHORITY, CERTIFICATE};
use super::records::key;
use super::records::management::MANAGEMENT;
use super::records::nodes::{INVITATION, NODE_AUTHORITY};
use super::seal::SealKeys;
use super::{
    AuditEntry, AuditLine, Batch, Change, Commit, Entry, Listing, Operation, Restored, Store, StoreError,
    StoreRevision, Transaction, Watch,
};

/// Seals what is put and opens what is read.
pub(crate) struct Sealed {
    below: Arc<dyn Store>,
    keys: SealKeys,
}

/// What cannot be opened.
#[derive(Debug, Error)]
#[error("{key} of the state was sealed with another key")]
pub(crate) struct WrongKey {
    key: String,
}

impl Sealed {
    pub(crate) fn new(below: Arc<dyn Store>, keys: SealKeys) -> Self {
        Self { below, keys }
    }

    /// Seals what is not sealed yet, and what is sealed with a key of before, with the first of the keys; how many
    /// records that were. What cannot be written stays as it is until the next start.
    ///
    /// # Errors
    /// No key opens a record. Nothing is changed then.
    pub(crate) async fn settle(&self, listing: &Listing) -> Result<usize, WrongKey> {
        let mut old = Vec::new();
        for Entry { key, value, revision } in &listing.entries {
            match renewed(&self.keys, key, value) {
                Renewed::Right => {}
                Renewed::Wrong => return Err(WrongKey { key: key.clone() }),
                Renewed::New(value) => old.push((key, *revision, value)),
            }
        }
        for part in old.chunks(MOST_AT_ONCE) {
            let note = AuditEntry {
                actor: "edge".to_owned(),
                action: "state.seal",
                subject: format!("{} records", part.len()),
            };
            let transaction = part.iter().fold(Transaction::new(note), |all, (key, revision, value)| {
                all.if_at(*key, *revision).put(*key, value.clone())
            });
            match self.below.commit(transaction).await {
                Ok(Commit::Done(_)) => {}
                // Another edge of this state does the same.
                Ok(Commit::Conflict { key }) => info!(key, "another edge seals the state"),
                Err(error) => {
                    warn!(%error, "secrets of the state cannot be sealed now; tried again at the next start")
                }
            }
        }
        Ok(old.len())
    }
}

/// Whether what is secret in these records was sealed with any key.
pub(crate) fn is_sealed(listing: &Listing) -> bool {
    listing.entries.iter().any(|entry| {
        let fields = fields(&entry.key);
        let kept = || serde_json::from_slice::<Map<String, Value>>(&entry.value).ok();
        match fields {
            None => false,
            Some(Fields::Open(_)) => kept().is_some_and(|kept| kept.contains_key(SEALED)),
            Some(Fields::Sealed(field)) => kept().is_some_and(|kept| kept.contains_key(field)),
        }
    })
}

impl Store for Sealed {
    fn list(&self, prefix: &str) -> BoxFuture<'static, Result<Listing, StoreError>> {
        let (listing, keys) = (self.below.list(prefix), self.keys.clone());
        async move {
            let mut listing = listing.await?;
            for entry in &mut listing.entries {
                open(&keys, &entry.key, &mut entry.value);
            }
            Ok(listing)
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, from: StoreRevision) -> BoxFuture<'static, Result<Watch, StoreError>> {
        let (watch, keys) = (self.below.watch(prefix, from), self.keys.clone());
        async move { Ok(Watch { keys: Some(keys), ..watch.await? }) }.boxed()
    }

    fn commit(&self, mut transaction: Transaction) -> BoxFuture<'static, Result<Commit, StoreError>> {
        for operation in &mut transaction.operations {
            if let Operation::Put(key, value) = operation
                && let Some(Fields::Open(fields)) = fields(key)
            {
                match sealed(&self.keys, key, value, fields) {
                    Ok(Some(new)) => *value = new,
                    Ok(None) => {}
                    Err(reason) => {
                        let error = StoreError::Unavailable { place: key.clone(), reason: reason.to_owned() };
                        return async move { Err(error) }.boxed();
                    }
                }
            }
        }
        self.below.commit(transaction)
    }

    fn look(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>> {
        self.below.look()
    }

    fn probe(&self) -> BoxFuture<'static, Result<StoreRevision, StoreError>> {
        self.below.probe()
    }

    fn restore(&self) -> BoxFuture<'static, Result<Restored, StoreError>> {
        self.below.restore()
    }

    fn audit(&self, count: u32) -> BoxFuture<'static, Result<Vec<AuditLine>, StoreError>> {
        self.below.audit(count)
    }

    fn fleet(&self) -> Option<Uuid> {
        self.below.fleet()
    }

    fn expect(&self, fleet: Uuid) {
        self.below.expect(fleet);
    }

    fn silent_for(&self) -> Option<Duration> {
        self.below.silent_for()
    }

    fn hold(&self, key: &str, value: Bytes, stop: CancellationToken) -> BoxFuture<'static, ()> {
        self.below.hold(key, value, stop)
    }
}

/// Opens what a watch brings.
pub(super) fn open_all(keys: &SealKeys, batch: &mut Batch) {
    for Change { key, value } in &mut batch.changes {
        if let Some(value) = value {
            open(keys, key, value);
        }
    }
}

/// What is secret in a kind of record.
#[derive(Clone, Copy)]
enum Fields {
    /// These are, and are sealed together where they are kept.
    Open(&'static [&'static str]),
    /// This one is a text that was sealed before it came here.
    Sealed(&'static str),
}

fn fields(key: &str) -> Option<Fields> {
    let kind = &key[..=key.find('/')?];
    Some(match kind {
        key::TUNNEL => Fields::Open(&["secret", "previous"]),
        key::SESSIONS => Fields::Open(&["current", "other"]),
        WEBHOOK => Fields::Open(&["secrets"]),
        MANAGEMENT => Fields::Open(&["key"]),
        NODE_AUTHORITY => Fields::Open(&["key", "next_key"]),
        INVITATION => Fields::Open(&["secret"]),
        CERTIFICATE => Fields::Sealed("key"),
        AUTHORITY => Fields::Sealed("credentials"),
        _ => return None,
    })
}

/// The record with its secrets sealed; `None` where it has none.
fn sealed(keys: &SealKeys, key: &str, value: &[u8], fields: &[&str]) -> Result<Option<Bytes>, &'static str> {
    let Ok(mut kept) = serde_json::from_slice::<Map<String, Value>>(value) else { return Ok(None) };
    let secrets: Map<String, Value> =
        fields.iter().filter_map(|field| Some(((*field).to_owned(), kept.remove(*field)?))).collect();
    if secrets.is_empty() {
        return Ok(None);
    }
    let secrets = Value::Object(secrets).to_string();
    let sealed = keys.seal(key, secrets.as_bytes()).ok_or("its secrets cannot be sealed")?;
    kept.insert(SEALED.to_owned(), Value::String(sealed));
    Ok(Some(Value::Object(kept).to_string().into()))
}

/// Opens a record; one that cannot be opened stays without its secrets.
fn open(keys: &SealKeys, key: &str, value: &mut Bytes) {
    let Some(Fields::Open(_)) = fields(key) else { return };
    let Ok(mut kept) = serde_json::from_slice::<Map<String, Value>>(value) else { return };
    let Some(sealed) = kept.remove(SEALED) else { return };
    match sealed.as_str().and_then(|sealed| opened(keys, key, sealed)) {
        Some(secrets) => kept.extend(secrets),
        None => error!(key, "a record of the state was sealed with a key that is not in the key file"),
    }
    *value = Value::Object(kept).to_string().into();
}

fn opened(keys: &SealKeys, key: &str, sealed: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&keys.open(key, sealed)?).ok()
}

enum Renewed {
    Right,
    Wrong,
    New(Bytes),
}

/// A record as it is to be kept.
fn renewed(keys: &SealKeys, key: &str, value: &[u8]) -> Renewed {
    let Some(fields) = fields(key) else { return Renewed::Right };
    let Ok(mut kept) = serde_json::from_slice::<Map<String, Value>>(value) else { return Renewed::Right };
    let field = match fields {
        Fields::Open(fields) if !kept.contains_key(SEALED) => {
            return sealed(keys, key, value, fields).ok().flatten().map_or(Renewed::Right, Renewed::New);
        }
        Fields::Open(_) => SEALED,
        Fields::Sealed(field) => field,
    };
    let Some(sealed) = kept.get(field).and_then(Value::as_str) else { return Renewed::Right };
    if keys.is_current(key, sealed) {
        return Renewed::Right;
    }
    let Some(new) = keys.open(key, sealed).and_then(|secret| keys.seal(key, &secret)) else {
        return Renewed::Wrong;
    };
    kept.insert(field.to_owned(), Value::String(new));
    Renewed::New(Value::Object(kept).to_string().into())
}

/// Where the secrets of a record are kept, all in one.
const SEALED: &str = "sealed";
const WEBHOOK: &str = "webhook/";
/// Records that are sealed in one go.
const MOST_AT_ONCE: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::Sqlite;

    fn note() -> AuditEntry {
        AuditEntry { actor: "test".to_owned(), action: "put", subject: String::new() }
    }

    #[tokio::test]
    async fn what_is_secret_is_open_for_who_reads_by_the_key_and_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let below: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap());
        let keys = |name: &str| SealKeys::read_or_make(&folder.path().join(name)).unwrap();
        let store = Sealed::new(below.clone(), keys("one"));
        let records = [
            ("tunnel/a", r#"{"account":"x","previous":{"secret":"BBBB"},"secret":"AAAA"}"#),
            ("tunnel/gone", r#"{"account":"x"}"#),
            ("sessions/keys", r#"{"current":"CCCC","made_at":"now"}"#),
            ("webhook/w", r#"{"said":{},"secrets":[{"text":"DDDD"}]}"#),
            ("management/issuer", r#"{"key":"EEEE","made_at":"now"}"#),
            ("route/r", r#"{"secret":"of nobody"}"#),
        ];
        let mut watch = store.watch("", StoreRevision(0)).await.unwrap();
        let transaction =
            records.iter().fold(Transaction::new(note()), |all, (key, value)| all.put(*key, *value));
        store.commit(transaction).await.unwrap();
        let batch = watch.next().await.unwrap();
        let kept = below.list("").await.unwrap();
        assert!(is_sealed(&kept));
        for (key, value) in records {
            let seen = store.list(key).await.unwrap().entries[0].value.clone();
            let same = |seen: &[u8]| {
                assert_eq!(
                    serde_json::from_slice::<Value>(seen).unwrap(),
                    serde_json::from_str::<Value>(value).unwrap()
                );
            };
            same(&seen);
            same(batch.changes.iter().find(|change| change.key == key).unwrap().value.as_ref().unwrap());
        }
        let whole: String = kept.entries.iter().map(|entry| String::from_utf8_lossy(&entry.value)).collect();
        for secret in ["AAAA", "BBBB", "CCCC", "DDDD", "EEEE"] {
            assert!(!whole.contains(secret), "{whole}");
        }
        assert!(whole.contains("of nobody"));
        assert_eq!(store.settle(&kept).await.unwrap(), 0);
        // Another key opens nothing, and says so.
        let other = Sealed::new(below.clone(), keys("other"));
        assert!(other.settle(&kept).await.is_err());
        let blind = other.list("tunnel/a").await.unwrap().entries[0].value.clone();
        assert_eq!(&blind[..], br#"{"account":"x"}"#);
        // In the place of another record it is not opened either.
        let stolen = kept.entries.iter().find(|entry| entry.key == "tunnel/a").unwrap().value.clone();
        below.commit(Transaction::new(note()).put("tunnel/b", stolen)).await.unwrap();
        assert_eq!(&store.list("tunnel/b").await.unwrap().entries[0].value[..], br#"{"account":"x"}"#);
    }

    #[tokio::test]
    async fn a_state_of_before_is_sealed_and_one_of_an_old_key_sealed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let below: Arc<dyn Store> = Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap());
        let path = folder.path().join("keys");
        let keys = SealKeys::read_or_make(&path).unwrap();
        let certificate = format!(r#"{{"key":"{}"}}"#, keys.seal("certificate/c", b"private").unwrap());
        let plain = Transaction::new(note())
            .put("tunnel/a", r#"{"secret":"AAAA"}"#)
            .put("certificate/c", certificate.clone());
        below.commit(plain).await.unwrap();
        let settle = async |keys: SealKeys| {
            let store = Sealed::new(below.clone(), keys);
            let count = store.settle(&below.list("").await.unwrap()).await;
            (count.ok(), store.list("tunnel/a").await.unwrap().entries[0].value.clone())
        };
        let whole = Bytes::from(r#"{"secret":"AAAA"}"#);
        assert_eq!(settle(keys.clone()).await, (Some(1), whole.clone()));
        let old = std::fs::read_to_string(&path).unwrap();
        let new = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
        std::fs::write(&path, format!("{new}{old}")).unwrap();
        assert_eq!(settle(SealKeys::read(&path).unwrap()).await, (Some(2), whole.clone()));
        std::fs::write(&path, new).unwrap();
        assert_eq!(
            settle(SealKeys::read(&path).unwrap()).await,
            (Some(0), whole),
            "the old one is not needed"
        );
        assert_eq!(settle(keys).await.0, None);
    }
}
