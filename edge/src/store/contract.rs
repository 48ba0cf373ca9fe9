//! What every engine keeps: the same promises, held against SQLite and against etcd.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{AuditEntry, Batch, Change, Commit, Store, StoreError, StoreRevision, Transaction};

/// Opens the same, empty at first, records once more.
pub(crate) type Open = Arc<dyn Fn() -> Arc<dyn Store> + Send + Sync>;

pub(crate) type Promise = (&'static str, fn(Open) -> BoxFuture<'static, ()>);

pub(crate) const PROMISES: &[Promise] = &[
    ("wholly", |open| wholly(open).boxed()),
    ("one-winner", |open| one_winner(open).boxed()),
    ("prefix", |open| prefix(open).boxed()),
    ("pages", |open| pages(open).boxed()),
    ("watch", |open| watch(open).boxed()),
    ("others", |open| others(open).boxed()),
    ("future", |open| future(open).boxed()),
    ("look", |open| look(open).boxed()),
    ("last-counts", |open| last_counts(open).boxed()),
    ("large", |open| large(open).boxed()),
    ("under-writes", |open| under_writes(open).boxed()),
];

pub(crate) fn note(action: &'static str) -> AuditEntry {
    AuditEntry { actor: "test".to_owned(), action, subject: "a \"subject\"".to_owned() }
}

pub(crate) fn put(key: &str, value: impl Into<Bytes>) -> Transaction {
    Transaction::new(note("put")).put(key, value)
}

pub(crate) async fn done(store: &dyn Store, transaction: Transaction) -> StoreRevision {
    match store.commit(transaction).await.unwrap() {
        Commit::Done(revision) => revision,
        Commit::Conflict { key } => panic!("conflict on {key}"),
    }
}

pub(crate) async fn keys(store: &dyn Store, prefix: &str) -> Vec<String> {
    store.list(prefix).await.unwrap().entries.into_iter().map(|entry| entry.key).collect()
}

fn conflict(key: &str) -> Commit {
    Commit::Conflict { key: key.to_owned() }
}

/// A transaction is done wholly or not at all.
async fn wholly(open: Open) {
    let store = open();
    let first = done(&*store, put("a", "1")).await;
    let twice = || put("b", "2").put("c", "3").if_absent("a");
    assert_eq!(store.commit(twice()).await.unwrap(), conflict("a"));
    assert_eq!(keys(&*store, "").await, ["a"]);
    let second = done(&*store, put("b", "2").remove("a").if_at("a", first)).await;
    assert!(second > first);
    for (transaction, key) in [
        (put("x", "").if_at("b", first), "b"),
        (put("x", "").if_at("none", first), "none"),
        (put("x", "").if_at("b", second).if_absent("a").if_at("a", first), "a"),
    ] {
        assert_eq!(store.commit(transaction).await.unwrap(), conflict(key));
    }
    let listing = store.list("").await.unwrap();
    let [entry] = &listing.entries[..] else { panic!("{listing:?}") };
    assert_eq!((&*entry.key, &entry.value[..], entry.revision), ("b", &b"2"[..], second));
    // A record that came back is another one.
    done(&*store, put("a", "again").if_absent("a")).await;
    assert_eq!(store.commit(put("a", "").if_at("a", first)).await.unwrap(), conflict("a"));
}

/// Of writers that compare the same record one wins.
async fn one_winner(open: Open) {
    let store = open();
    let start = done(&*store, put("a", "0")).await;
    let writers =
        (0..50).map(|writer| tokio::spawn(store.commit(put("a", writer.to_string()).if_at("a", start))));
    let outcomes = futures_util::future::join_all(writers).await;
    let winners = outcomes.into_iter().filter(|one| matches!(one, Ok(Ok(Commit::Done(_))))).count();
    assert_eq!(winners, 1);
}

/// A list holds what begins with the prefix and nothing else.
async fn prefix(open: Open) {
    let store = open();
    assert_eq!(keys(&*store, "").await, [""; 0]);
    for key in ["a", "b/1", "b/2", "b0", "c"] {
        done(&*store, put(key, "")).await;
    }
    assert_eq!(keys(&*store, "b/").await, ["b/1", "b/2"]);
    assert_eq!(keys(&*store, "").await, ["a", "b/1", "b/2", "b0", "c"]);
    assert_eq!(keys(&*store, "d").await, [""; 0]);
}

/// A list of many records and of long ones is whole, in order, and of one revision.
async fn pages(open: Open) {
    let store = open();
    let name = |number: usize| format!("k/{number:05}");
    for from in (0..3_000).step_by(1_000) {
        let all = (from..from + 1_000)
            .fold(Transaction::new(note("put")), |all, number| all.put(name(number), vec![b'x'; 600]));
        done(&*store, all).await;
    }
    // More than one answer may hold, together.
    for number in 3_000..3_020 {
        done(&*store, put(&name(number), vec![b'y'; 1_000_000])).await;
    }
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.entries.len(), 3_020);
    assert!(listing.entries.iter().enumerate().all(|(number, entry)| entry.key == name(number)));
    assert!(listing.entries.iter().all(|entry| entry.revision <= listing.revision));
    let bytes: usize = listing.entries.iter().map(|entry| entry.value.len()).sum();
    assert_eq!(bytes, 3_000 * 600 + 20 * 1_000_000);
}

/// A watch has every change since its revision, in order, a transaction at a time.
async fn watch(open: Open) {
    let store = open();
    let first = done(&*store, put("a/1", "1")).await;
    let second = done(&*store, put("a/1", "2").put("b", "").put("a/2", "3")).await;
    let mut watch = store.watch("a/", first).await.unwrap();
    done(&*store, put("b", "2")).await;
    let fourth = done(&*store, Transaction::new(note("remove")).remove("a/1").remove("none")).await;
    let change = |key: &str, value: Option<&'static str>| Change {
        key: key.to_owned(),
        value: value.map(Bytes::from),
    };
    let changes = vec![change("a/1", Some("2")), change("a/2", Some("3"))];
    assert_eq!(watch.next().await, Some(Batch { revision: second, changes }));
    assert_eq!(watch.next().await, Some(Batch { revision: fourth, changes: vec![change("a/1", None)] }));
    // And one that begins now has what comes only.
    let mut all = store.watch("", fourth).await.unwrap();
    let fifth = done(&*store, put("c", vec![7; 1_000_000])).await;
    let batch = all.next().await.unwrap();
    assert_eq!((batch.revision, batch.changes.len()), (fifth, 1));
    assert!(all.ready().is_none());
}

/// A watch sees what another process writes, and revisions are of all of them.
async fn others(open: Open) {
    let (one, other) = (open(), open());
    let from = done(&*one, put("first", "")).await;
    let mut watch = one.watch("", from).await.unwrap();
    let revision = done(&*other, put("a", "1")).await;
    assert_eq!(watch.next().await.unwrap().revision, revision);
    let next = done(&*one, put("b", "1")).await;
    assert!(next > revision);
    assert_eq!(watch.next().await.unwrap().revision, next);
}

/// A watch from a revision that has not come is never one that waits in silence for another history to pass it.
async fn future(open: Open) {
    let store = open();
    let last = done(&*store, put("a", "1")).await;
    match store.watch("", StoreRevision(last.0 + 1_000)).await {
        Err(StoreError::Compacted(_)) => {}
        // SQLite's file has one history: a watch there is of what comes behind.
        Ok(mut watch) => {
            done(&*store, put("a", "2")).await;
            assert!(watch.ready().is_none());
        }
        Err(error) => panic!("{error}"),
    }
}

/// Whoever looks knows the revision of the last change, and that is what a watch comes to.
async fn look(open: Open) {
    let (store, other) = (open(), open());
    let first = done(&*store, put("a", "1")).await;
    let mut watch = store.watch("", first).await.unwrap();
    for transaction in [put("b", "1"), Transaction::new(note("remove")).remove("b")] {
        let revision = done(&*other, transaction).await;
        assert_eq!(store.look().await.unwrap(), revision);
        assert_eq!(watch.next().await.unwrap().revision, revision);
    }
    assert!(store.probe().await.unwrap() > first);
}

/// What a transaction says last of a key counts.
async fn last_counts(open: Open) {
    let store = open();
    done(&*store, put("a", "1").put("a", "2").put("b", "1").remove("b").remove("c").put("c", "3")).await;
    let entries = store.list("").await.unwrap().entries;
    let kept: Vec<_> = entries.iter().map(|entry| (&*entry.key, &entry.value[..])).collect();
    assert_eq!(kept, [("a", &b"2"[..]), ("c", &b"3"[..])]);
}

/// A tunnel is removed with a thousand routes in one transaction, or not at all.
async fn large(open: Open) {
    let store = open();
    let name = |number: usize| format!("route/{number}");
    let all = |first: Transaction| (0..1_000).fold(first, |all, number| all.put(name(number), "x"));
    let first = done(&*store, all(put("tunnel", "1"))).await;
    let removed =
        || (0..1_000).fold(Transaction::new(note("delete")), |all, number| all.remove(name(number)));
    assert_eq!(store.commit(removed().if_absent("tunnel")).await.unwrap(), conflict("tunnel"));
    assert_eq!(keys(&*store, "route/").await.len(), 1_000);
    let mut watch = store.watch("route/", first).await.unwrap();
    let gone = done(&*store, removed().if_at("tunnel", first)).await;
    assert_eq!(keys(&*store, "").await, ["tunnel"]);
    let batch = watch.next().await.unwrap();
    assert_eq!((batch.revision, batch.changes.len()), (gone, 1_000));
}

/// What a list and the watch behind it say together is what is there, however much is written meanwhile.
async fn under_writes(open: Open) {
    let (store, other) = (open(), open());
    done(&*store, put("n/0", "0")).await;
    let writer = tokio::spawn(async move {
        let mut last = StoreRevision(0);
        for number in 0..200 {
            last = done(&*other, put(&format!("n/{}", number % 7), number.to_string())).await;
        }
        last
    });
    let listing = store.list("").await.unwrap();
    let mut watch = store.watch("", listing.revision).await.unwrap();
    let mut known: std::collections::BTreeMap<_, _> =
        listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
    let last = writer.await.unwrap();
    let mut at = listing.revision;
    while at < last {
        let batch = watch.next().await.unwrap();
        assert!(batch.revision > at);
        at = batch.revision;
        for Change { key, value } in batch.changes {
            known.insert(key, value.unwrap());
        }
    }
    let there = store.list("").await.unwrap().entries;
    assert_eq!(known, there.into_iter().map(|entry| (entry.key, entry.value)).collect());
}
