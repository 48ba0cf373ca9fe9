use std::io;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::transactions::{COMPACT_EVERY, KEPT_AUDIT, KEPT_REVISIONS, set_counter, write};
use super::*;
use crate::store::AuditEntry;
use crate::store::contract::{self, done, keys};

/// Values are texts here.
fn put(key: &str, value: &str) -> Transaction {
    contract::put(key, value.to_owned())
}

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    for (name, promise) in contract::PROMISES {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        eprintln!("{name}");
        promise(Arc::new(move || Arc::new(Sqlite::open(&folder.path().join("state.db")).unwrap()))).await;
    }
}

#[tokio::test]
async fn a_watch_from_before_what_is_kept_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
    let mut commits = Vec::new();
    for count in 0..KEPT_REVISIONS + 2 * COMPACT_EVERY {
        commits.push(store.commit(put("a", &count.to_string())));
    }
    futures_util::future::join_all(commits).await;
    assert!(matches!(store.watch("", StoreRevision(1)).await, Err(StoreError::Compacted(StoreRevision(1)))));
    assert!(store.watch("", StoreRevision(KEPT_REVISIONS)).await.is_ok());
}

#[tokio::test]
async fn a_watcher_that_does_not_look_is_let_go() {
    let folder = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&folder.path().join("state.db")).unwrap();
    let mut watch = store.watch("", StoreRevision(0)).await.unwrap();
    let commits = (0..UNSEEN_BATCHES + 2).map(|count| store.commit(put("a", &count.to_string())));
    futures_util::future::join_all(commits).await;
    let mut seen = 0;
    while watch.next().await.is_some() {
        seen += 1;
    }
    assert_eq!(seen, UNSEEN_BATCHES);
}

#[tokio::test]
async fn a_backup_taken_under_writes_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("state.db"), folder.path().join("copy.db"));
    let store = Arc::new(Sqlite::open(&path).unwrap());
    for count in 0..500 {
        done(&*store, put(&format!("a/{count:03}"), &"x".repeat(2000))).await;
    }
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for count in 0..200 {
                // Both or neither must be in the copy.
                let name = format!("{count:03}");
                done(&*store, put(&format!("b/{name}"), "").put(format!("c/{name}"), "")).await;
            }
        })
    };
    let to = copy.clone();
    tokio::task::spawn_blocking(move || backup(&path, &to)).await.unwrap().unwrap();
    writer.await.unwrap();
    let restored = Sqlite::open(&copy).unwrap();
    assert_eq!(keys(&restored, "a/").await.len(), 500);
    assert_eq!(keys(&restored, "b/").await.len(), keys(&restored, "c/").await.len());
    assert!(backup(&copy, &copy).is_err(), "an existing file is never overwritten");
}

/// A store with one record, and what may become of its files.
async fn opened(folder: &Path) -> (Sqlite, PathBuf) {
    let path = folder.join("data/state.db");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let store = Sqlite::open(&path).unwrap();
    done(&store, put("a", "1")).await;
    (store, path)
}

#[tokio::test]
async fn a_store_whose_file_is_removed_or_replaced_refuses_changes_until_it_is_written_anew() {
    type Loss = fn(&Path);
    let losses: [(&str, Loss); 4] = [
        ("the file", |path| fs::remove_file(path).unwrap()),
        ("what is beside it", |path| fs::remove_file(path.with_extension("db-wal")).unwrap()),
        ("all", |path| {
            for end in ["db", "db-wal", "db-shm"] {
                fs::remove_file(path.with_extension(end)).unwrap();
            }
        }),
        ("the folder", |path| fs::remove_dir_all(path.parent().unwrap()).unwrap()),
    ];
    for (what, lose) in losses {
        let folder = tempfile::tempdir().unwrap();
        let (store, path) = opened(folder.path()).await;
        assert_eq!(store.restore().await.unwrap(), Restored::WasThere, "{what}");
        let mut watch = store.watch("", StoreRevision(1)).await.unwrap();
        lose(&path);
        let refused = store.commit(put("b", "lost")).await.unwrap_err().to_string();
        assert!(refused.contains("was removed"), "{what}: {refused}");
        assert!(store.probe().await.is_err(), "{what}: and it says so beforehand");
        // What was known is still read.
        assert_eq!(keys(&store, "").await, ["a"], "{what}");

        assert_eq!(store.restore().await.unwrap(), Restored::Written, "{what}");
        assert!(store.probe().await.is_ok(), "{what}");
        let revision = done(&store, put("c", "2")).await;
        assert_eq!(store.probe().await.unwrap(), revision, "{what}");
        assert_eq!(watch.next().await.unwrap().revision, revision, "{what}: who watched goes on");
        drop(store);
        let again = Sqlite::open(&path).unwrap();
        assert_eq!(keys(&again, "").await, ["a", "c"], "{what}");
        let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(names.into_iter().all(|name| name.to_str().unwrap().starts_with("state.db")), "{what}");
    }
}

#[tokio::test]
async fn a_file_of_somebody_else_in_its_place_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (store, path) = opened(folder.path()).await;
    let data = path.parent().unwrap();
    fs::rename(data, folder.path().join("away")).unwrap();
    let (other, _) = opened(folder.path()).await;
    done(&other, put("theirs", "")).await;
    let refused = store.commit(put("b", "lost")).await.unwrap_err().to_string();
    assert!(refused.contains("was replaced"), "{refused}");
    let refused = store.restore().await.unwrap_err().to_string();
    assert!(refused.contains("another file is there"), "{refused}");
    assert_eq!(keys(&other, "").await, ["a", "theirs"]);
    // Put back, it goes on.
    drop(other);
    fs::remove_dir_all(data).unwrap();
    fs::rename(folder.path().join("away"), data).unwrap();
    done(&store, put("b", "2")).await;
    assert_eq!(keys(&store, "").await, ["a", "b"]);
}

#[test]
fn a_full_disk_refuses_a_change_and_keeps_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut engine = Engine::open(&path).unwrap();
    // SQLite says the same as on a disk that is full.
    let pages: i64 = engine.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
    engine.connection.pragma_update(None, "max_page_count", pages + 4).unwrap();
    let commit = |engine: &mut Engine, key: &str, size: usize| {
        let (answer, mut answered) = oneshot::channel();
        engine.answer(&mut vec![Ask::Commit { transaction: put(key, &"x".repeat(size)), answer }]);
        answered.try_recv().unwrap()
    };
    assert!(matches!(commit(&mut engine, "a", 10), Ok(Commit::Done(_))));
    let full = commit(&mut engine, "b", 1 << 20).unwrap_err().to_string();
    assert!(full.contains("full"), "{full}");
    assert!(engine.probe().is_err(), "until a change is taken");
    assert!(matches!(commit(&mut engine, "c", 10), Ok(Commit::Done(_))), "what fits is still taken");
    assert!(engine.probe().is_ok());
    assert!(commit(&mut engine, "d", 1 << 20).is_err());
    // Nobody asks for a change again.
    engine.connection.pragma_update(None, "query_only", true).unwrap();
    engine.try_again();
    assert!(engine.probe().is_err(), "it is not writable yet");
    engine.connection.pragma_update(None, "query_only", false).unwrap();
    engine.try_again();
    assert_eq!(engine.probe().unwrap(), StoreRevision(2), "and that has left nothing behind");
    drop(engine);
    let kept = Engine::open(&path).unwrap().list("").unwrap().entries;
    assert_eq!(kept.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a", "c"]);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    drop(Sqlite::open(&path).unwrap());
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Sqlite::open(&path), Err(StoreError::TooNew { found: 99, .. })));
    fs::write(&path, "this is no database, and longer than a header of one").unwrap();
    assert!(matches!(Sqlite::open(&path), Err(StoreError::Unavailable { .. })));
}

#[tokio::test]
async fn a_file_of_before_load_balancers_opens_with_all_that_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Sqlite::open(&path).unwrap();
    let kept = done(&store, put("a", "1")).await;
    drop(store);
    let before = Connection::open(&path).unwrap();
    before.execute("DELETE FROM counter WHERE name IN ('balancing', 'sealed')", ()).unwrap();
    before.pragma_update(None, "user_version", 1).unwrap();
    drop(before);
    for _ in 0..2 {
        let store = Sqlite::open(&path).unwrap();
        assert_eq!(keys(&store, "").await, ["a"]);
        drop(store);
        let version: u32 = Connection::open(&path)
            .unwrap()
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(version, 3, "a program of before leaves it alone");
    }
    let store = Sqlite::open(&path).unwrap();
    done(&store, put("pool/1", "{}").if_at("a", kept)).await;
}

#[tokio::test]
async fn every_commit_leaves_its_line_in_the_audit_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let store = Sqlite::open(&path).unwrap();
    let subject = "tunnel 7".to_owned();
    let note = AuditEntry { actor: "token 1".to_owned(), action: "tunnel.create", subject };
    done(&store, Transaction::new(note).put("a", "")).await;
    done(&store, put("b", "")).await;
    let lines = audit(&path, 10).unwrap();
    let said: Vec<_> = lines.iter().map(|line| (line.revision, &*line.actor, &*line.action)).collect();
    assert_eq!(said, [(2, "test", "put"), (1, "token 1", "tunnel.create")]);
    assert_eq!(lines[1].subject, "tunnel 7");
}

#[test]
fn the_audit_log_keeps_the_newest_million() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let mut engine = Engine::open(&path).unwrap();
    for key in ["a", "b"] {
        write(&mut engine.connection, [put(key, "")].iter()).unwrap();
    }
    let last = KEPT_AUDIT + COMPACT_EVERY;
    set_counter(&engine.connection, "revision", last - 1).unwrap();
    write(&mut engine.connection, [put("c", "")].iter()).unwrap();
    let lines = audit(&path, 10).unwrap();
    assert_eq!(lines.iter().map(|line| line.revision).collect::<Vec<_>>(), [last]);
}

/// How often the writer is killed; more by hand with `ADIT_KILLS=1000`.
const KILLS: usize = 30;
const WRITER: &str = "ADIT_TEST_WRITE_STATE";

/// The writer that the next test kills: run by it, alone, in a process of its own.
#[tokio::test]
async fn writes_until_it_is_killed() {
    let Some(path) = std::env::var_os(WRITER) else { return };
    let store = Arc::new(Sqlite::open(Path::new(&path)).unwrap());
    for count in 0u64.. {
        let commits = (0..4).map(|lane| {
            let name = format!("{}-{count}-{lane}", std::process::id());
            store.commit(put(&format!("one/{name}"), &name).put(format!("two/{name}"), name))
        });
        for outcome in futures_util::future::join_all(commits).await {
            let Ok(Commit::Done(revision)) = outcome else { panic!("{outcome:?}") };
            // Not `println!`, which the test runner keeps back.
            writeln!(io::stdout(), "done {} {count}", revision.0).unwrap();
        }
    }
}

#[tokio::test]
async fn no_acknowledged_write_is_lost_to_kill_9_and_none_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.db");
    let kills = std::env::var("ADIT_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut acknowledged = 0;
    for round in 0..kills {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "store::sqlite::tests::writes_until_it_is_killed", "--nocapture"])
            .env(WRITER, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        // A different moment each time: after so many acknowledgements, in the middle of the next.
        let done = lines.map_while(Result::ok).filter(|line| line.contains("done "));
        let last = done.take(1 + round % 17).last().expect("the writer writes");
        writer.kill().unwrap();
        writer.wait().unwrap();
        let revision = last.split("done ").nth(1).unwrap().split(' ').next().unwrap();
        acknowledged = revision.parse::<u64>().unwrap();

        let connection = Connection::open(&path).unwrap();
        let whole: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        assert!(
            counter(&connection, "revision").unwrap() >= acknowledged,
            "round {round}: an acknowledged write is gone"
        );
        let halves: u64 = connection
            .query_row(
                "SELECT count(*) FROM record WHERE key LIKE 'one/%'
                 AND NOT EXISTS (SELECT 1 FROM record other WHERE other.key = 'two/' || substr(record.key, 5))",
                [],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(halves, 0, "round {round}: half a transaction");
        let (records, revision): (u64, u64) = (
            connection
                .query_row("SELECT count(*) FROM record WHERE key LIKE 'one/%'", [], |row| row.get(0))
                .unwrap(),
            counter(&connection, "revision").unwrap(),
        );
        assert_eq!(records, revision, "round {round}: every revision is one pair of records");
    }
    assert!(acknowledged >= kills as u64);
}
