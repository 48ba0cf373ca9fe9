use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prost::Message;
use rustls_pki_types::pem::PemObject;

use super::channel::Connection;
use super::messages::Header;
use super::server::Server;
use super::*;
use crate::store::contract::{self, done, keys, put};

fn terms(address: &str) -> Terms {
    Terms { address: address.parse().unwrap(), tls: None, allow_old: true }
}

async fn founded(server: &Server, fleet: &str) -> Etcd {
    Etcd::found(terms(&server.address(fleet))).await.unwrap()
}

/// The call that etcd's operator makes from time to time; an edge does not.
#[derive(Clone, PartialEq, Message)]
struct Compaction {
    #[prost(int64, tag = "1")]
    revision: i64,
    #[prost(bool, tag = "2")]
    physical: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Compacted {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
}

async fn compact(server: &Server, revision: StoreRevision) {
    let address: Address = server.address("x").parse().unwrap();
    let connection = Connection::open(&address.endpoints[0], None).await.unwrap();
    let question = Compaction { revision: revision.0 as i64, physical: true };
    let until = tokio::time::Instant::now() + Duration::from_secs(5);
    let _: Compacted = connection.call("KV/Compact", &question, until).await.unwrap();
}

#[tokio::test]
async fn etcd_keeps_the_contract() {
    let Some(server) = Server::start().await else { return };
    for (name, promise) in contract::PROMISES {
        founded(&server, name).await;
        let terms = terms(&server.address(name));
        eprintln!("{name}");
        promise(Arc::new(move || Arc::new(Etcd::new(terms.clone()).unwrap()))).await;
    }
}

#[tokio::test]
async fn fleets_in_one_etcd_do_not_see_each_other_and_one_that_was_not_made_is_not_used() {
    let Some(server) = Server::start().await else { return };
    let (one, other) = (founded(&server, "one").await, founded(&server, "one-2").await);
    done(&one, put("a", "1")).await;
    let mut watch = other.watch("", StoreRevision(0)).await.unwrap();
    let theirs = done(&other, put("b", "1")).await;
    assert_eq!((keys(&one, "").await, keys(&other, "").await), (vec!["a".to_owned()], vec!["b".to_owned()]));
    assert_eq!(watch.next().await.unwrap().revision, theirs);
    assert!(one.look().await.unwrap() < theirs, "what others write is no change of this fleet");

    let stranger = Etcd::new(terms(&server.address("none"))).unwrap();
    let refused = stranger.list("").await.unwrap_err().to_string();
    assert!(refused.contains("no fleet `none`") && refused.contains("adit edge init --store"), "{refused}");
    let again = founded(&server, "one").await;
    assert_eq!(again.client.fleet(), one.client.fleet(), "founding again changes nothing");
    assert_eq!(keys(&again, "").await, ["a"]);
}

#[tokio::test]
async fn a_version_below_the_floor_is_refused_unless_it_is_allowed() {
    let Some(server) = Server::start().await else { return };
    founded(&server, "main").await;
    let strict = Etcd::new(Terms { allow_old: false, ..terms(&server.address("main")) }).unwrap();
    match strict.list("").await {
        // The etcd at hand may be a newer one.
        Ok(_) => assert!(std::env::var_os("ADIT_ETCD").is_some()),
        Err(error) => {
            let said = error.to_string();
            assert!(said.contains("older than 3.5.18") && said.contains("allow-old"), "{said}");
        }
    }
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_newest_first_and_is_pruned_by_age() {
    let Some(server) = Server::start().await else { return };
    let store = founded(&server, "main").await;
    let mut revisions = Vec::new();
    for _ in 0..5 {
        revisions.push(done(&store, put("a", "")).await.0);
    }
    let lines = store.audit(3).await.unwrap();
    assert_eq!(
        lines.iter().map(|line| line.revision).collect::<Vec<_>>(),
        [revisions[4], revisions[3], revisions[2]]
    );
    assert_eq!((&*lines[0].actor, &*lines[0].action, &*lines[0].subject), ("test", "put", "a \"subject\""));
    let middle = Timestamp::parse(&lines[1].at).unwrap();
    let client = store.client.clone();
    store.run(async move { prune(&client, middle).await }).await.unwrap();
    assert_eq!(store.audit(10).await.unwrap(), lines[..2], "those of before are gone");
}

#[tokio::test]
async fn a_watch_from_before_what_is_kept_is_refused_and_a_list_goes_on() {
    let Some(server) = Server::start().await else { return };
    let store = founded(&server, "main").await;
    let first = done(&store, put("a", "1")).await;
    let mut open = store.watch("", first).await.unwrap();
    for count in 0..20 {
        done(&store, put("a", count.to_string())).await;
    }
    let last = done(&store, put("b", "")).await;
    compact(&server, last).await;
    assert!(matches!(store.watch("", first).await, Err(StoreError::Compacted(from)) if from == first));
    assert!(matches!(store.watch("", StoreRevision(0)).await, Err(StoreError::Compacted(_))));
    let listing = store.list("").await.unwrap();
    let mut watch = store.watch("", listing.revision).await.unwrap();
    let next = done(&store, put("c", "")).await;
    assert_eq!(watch.next().await.unwrap().revision, next);
    // One that was open misses nothing.
    let mut seen = first;
    while seen < next {
        let batch = open.next().await.unwrap();
        assert!(batch.revision > seen);
        seen = batch.revision;
    }
}

#[tokio::test]
async fn what_was_acknowledged_outlives_kill_9_and_a_change_meanwhile_is_done_once() {
    let Some(mut server) = Server::start().await else { return };
    let store = Arc::new(founded(&server, "main").await);
    let mut last = done(&*store, put("count", "0")).await;
    for round in 1..=5_u32 {
        let mut watch = store.watch("", last).await.unwrap();
        server.stop();
        // Sent while nobody is there, and perhaps twice: what it compares would refuse it the second time.
        let change = tokio::spawn(store.commit(put("count", round.to_string()).if_at("count", last)));
        assert_eq!(watch.next().await, None, "whoever follows hears that it ended");
        server.start_again().await;
        let Ok(Ok(Commit::Done(revision))) = change.await else { panic!("round {round}") };
        let [entry] = &store.list("").await.unwrap().entries[..] else { panic!() };
        assert_eq!((&entry.value[..], entry.revision), (round.to_string().as_bytes(), revision));
        last = revision;
    }
    assert_eq!(store.audit(100).await.unwrap().len(), 6, "each was done once");
}

#[tokio::test]
async fn a_transaction_that_is_sent_again_is_done_once() {
    let Some(server) = Server::start().await else { return };
    let store = founded(&server, "main").await;
    let client = store.client.clone();
    let writing = Writing::new(&client.keys, put("a", "1").if_absent("a"), Timestamp::now()).unwrap();
    let mut outcomes = Vec::new();
    for _ in 0..3 {
        let (client, request) = (client.clone(), writing.request.clone());
        let answer: TxnResponse = store
            .run(async move {
                client.ask(TXN, &request, PATIENCE).await.map_err(|error| client.store_error(error))
            })
            .await
            .unwrap();
        outcomes.push(writing.outcome(&answer).unwrap());
    }
    assert!(matches!(outcomes[0], Commit::Done(_)));
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:?}");
    assert_eq!(store.audit(10).await.unwrap().len(), 1);
}

/// What was kept at some moment, put in the place of what is there now.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), to).map(drop).unwrap()
        }
    }
}

#[tokio::test]
async fn a_backup_that_was_put_back_is_noticed_even_where_its_revisions_have_passed_ours() {
    let Some(mut server) = Server::start().await else { return };
    let store = founded(&server, "main").await;
    done(&store, put("a", "old")).await;
    server.stop();
    let backup = tempfile::tempdir().unwrap();
    copy(&server.data(), &backup.path().join("data"));
    server.start_again().await;
    done(&store, put("a", "new")).await;
    done(&store, put("b", "new")).await;
    let known = store.list("").await.unwrap().revision;

    let put_back = |server: &mut Server| {
        server.stop();
        fs::remove_dir_all(server.data()).unwrap();
        copy(&backup.path().join("data"), &server.data());
    };
    put_back(&mut server);
    server.start_again().await;
    assert!(matches!(store.watch("", known).await, Err(StoreError::Compacted(_))), "it has gone back");

    put_back(&mut server);
    server.start_again().await;
    let other = Etcd::new(terms(&server.address("main"))).unwrap();
    while done(&other, put("c", "another")).await <= known {}
    assert!(matches!(store.watch("", known).await, Err(StoreError::Compacted(_))), "it is another history");
    let listing = store.list("").await.unwrap();
    let values: Vec<_> = listing.entries.iter().map(|entry| (&*entry.key, &entry.value[..])).collect();
    assert_eq!(values, [("a", &b"old"[..]), ("c", &b"another"[..])]);
    assert!(store.watch("", listing.revision).await.is_ok());
}

#[tokio::test]
async fn another_fleet_in_the_same_place_is_never_served() {
    let Some(mut server) = Server::start().await else { return };
    let store = founded(&server, "main").await;
    done(&store, put("a", "ours")).await;
    server.stop();
    fs::remove_dir_all(server.data()).unwrap();
    server.start_again().await;
    let refused = store.list("").await.unwrap_err().to_string();
    assert!(refused.contains("no fleet `main`"), "{refused}");
    done(&founded(&server, "main").await, put("a", "theirs")).await;
    for refused in [store.list("").await.map(drop), store.commit(put("b", "")).await.map(drop)] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("another fleet"), "{refused}");
    }
}

#[tokio::test]
async fn a_full_etcd_refuses_changes_says_so_beforehand_and_is_read() {
    // The smallest quota with which it starts.
    let Some(server) = Server::with(&["--quota-backend-bytes", "2000000"], "http").await else { return };
    let store = founded(&server, "main").await;
    done(&store, put("a", "kept")).await;
    let mut refused = None;
    // It looks at its size only now and then, so a quick one takes more.
    for _ in 0..500 {
        if let Err(error) = store.commit(put("b", vec![0; 500_000])).await {
            refused = Some(error.to_string());
            break;
        }
    }
    let refused = refused.expect("2 MB are not endless");
    assert!(refused.contains("etcdctl defrag") && refused.contains("alarm disarm"), "{refused}");
    let probed = store.probe().await.unwrap_err().to_string();
    assert!(probed.contains("quota"), "{probed}");
    assert_eq!(keys(&store, "a").await, ["a"]);
}

#[tokio::test]
async fn a_record_that_is_held_outlives_etcd_and_goes_with_its_holder() {
    let Some(mut server) = Server::start().await else { return };
    let (store, other) = (founded(&server, "main").await, founded(&server, "main").await);
    let from = done(&store, put("a", "1")).await;
    let mut watch = other.watch("alive/", from).await.unwrap();
    let next = async |watch: &mut Watch| loop {
        let batch = watch.next().await.expect("the watch goes on");
        if let [change] = &batch.changes[..] {
            return (change.key.clone(), change.value.clone());
        }
    };
    let stop = CancellationToken::new();
    let held = tokio::spawn(store.hold("alive/a", "here".into(), stop.clone()));
    assert_eq!(next(&mut watch).await, ("alive/a".to_owned(), Some("here".into())));
    assert_eq!(store.look().await.unwrap(), from, "it is no change of the state");
    // The history that is known is still the one that is there.
    assert!(other.watch("", from).await.is_ok());

    server.start_again().await;
    assert_eq!(keys(&other, "alive/").await, ["alive/a"]);
    let seen = other.list("alive/").await.unwrap().revision;
    let mut watch = other.watch("alive/", seen).await.unwrap();
    stop.cancel();
    held.await.unwrap();
    assert_eq!(next(&mut watch).await, ("alive/a".to_owned(), None));
}

#[tokio::test]
async fn a_member_that_stands_still_is_noticed_by_who_follows_it() {
    let Some(server) = Server::start().await else { return };
    let store = founded(&server, "main").await;
    let first = done(&store, put("a", "1")).await;
    let mut watch = store.watch("", first).await.unwrap();
    let id = rustix::process::Pid::from_raw(server.id().cast_signed()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::STOP).unwrap();
    let begun = Instant::now();
    assert_eq!(watch.next().await, None);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(store.silent_for().unwrap() >= Duration::from_secs(2));
    rustix::process::kill_process(id, rustix::process::Signal::CONT).unwrap();
    let mut watch = store.watch("", first).await.unwrap();
    let second = done(&store, put("a", "2")).await;
    assert_eq!(watch.next().await.unwrap().revision, second);
    assert!(store.silent_for().unwrap() < Duration::from_secs(2));
}

#[tokio::test]
async fn both_sides_prove_who_they_are() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority = || {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        (root.pem(), Issuer::new(params, key))
    };
    let leaf = |issuer: &Issuer<'static, KeyPair>| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (leaf.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
    };
    let folder = tempfile::tempdir().unwrap();
    let ((root, issuer), (other_root, other)) = (authority(), authority());
    let (server_leaf, server_key) = leaf(&issuer);
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let options = [
        "--cert-file",
        &file("leaf", &server_leaf),
        "--key-file",
        &file("key", &server_key),
        "--client-cert-auth",
        "--trusted-ca-file",
        &file("root", &root),
    ];
    let Some(server) = Server::with(&options, "https").await else { return };
    let read = |root: &str, (chain, key): (String, String)| {
        let authority = vec![CertificateDer::from_pem_slice(root.as_bytes()).unwrap()];
        let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let tls = Some(Arc::new(tls(authority, chain, key).unwrap()));
        Terms { tls, ..terms(&server.address("main")) }
    };
    let store = Etcd::found(read(&root, leaf(&issuer))).await.unwrap();
    let revision = done(&store, put("a", "1")).await;
    let mut watch = store.watch("", revision).await.unwrap();
    let next = done(&store, put("a", "2")).await;
    assert_eq!(watch.next().await.unwrap().revision, next);
    for wrong in [read(&root, leaf(&other)), read(&other_root, leaf(&issuer)), terms(&server.address("main"))]
    {
        assert!(Etcd::new(wrong).unwrap().list("").await.is_err());
    }
}
