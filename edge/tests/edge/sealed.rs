//! Secrets in the state: sealed where they are kept, with a key that is elsewhere; a state of before is sealed at the
//! first start, and without the key no edge starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use adit_edge::{Edge, Settings};
use http::Method;
use serde_json::{Value, json};

use crate::harness::LocalSet;
use crate::office::Office;

const SECRET: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldC0=";

fn state(office: &Office) -> PathBuf {
    office.edge.folder.path().join("edge-data/state.db")
}

fn key(office: &Office) -> PathBuf {
    office.edge.folder.path().join("edge-data/seal.key")
}

async fn end(office: &mut Office) {
    office.edge.stop.cancel();
    (&mut office.edge.running).await.unwrap().unwrap();
}

/// Whether any file of the state has this text.
fn has(office: &Office, text: &str) -> bool {
    let folder = state(office).parent().unwrap().to_owned();
    let mut files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.any(|file| {
        let is_state = file.file_name().unwrap().to_str().unwrap().starts_with("state.db");
        is_state && fs::read(&file).unwrap().windows(text.len()).any(|part| part == text.as_bytes())
    })
}

/// A tunnel with [`SECRET`]; its id.
async fn tunnel(office: &Office) -> String {
    let body = json!({ "name": "one", "tunnel_secret": SECRET });
    let made = office.ask(Method::POST, &office.tunnels(), Some(body)).await.result();
    made["id"].as_str().unwrap().to_owned()
}

/// What the API gives to whoever starts a host.
async fn token(office: &Office, id: &str) -> String {
    office.get(&format!("{}/token", office.tunnel(id))).await.as_str().unwrap().to_owned()
}

/// Why an edge does not start in this folder.
fn refused(folder: &Path) -> String {
    let settings = Settings::load(&folder.join("edge.toml")).unwrap();
    match Edge::build(settings) {
        Ok(_) => panic!("it starts"),
        Err(error) => format!("{error:#}"),
    }
}

#[tokio::test]
async fn no_secret_of_a_tunnel_is_in_the_state_and_its_hosts_know_nothing_of_it() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let id = tunnel(&office).await;
            let given = token(&office, &id).await;
            assert_eq!(fs::metadata(key(&office)).unwrap().permissions().mode() & 0o777, 0o600);
            // One that was replaced counts for a while, and is as secret.
            let body = json!({ "tunnel_secret": "bmV3LXNlY3JldC1uZXctc2VjcmV0LW5ldy1zZWNyZXQtISE=", "previous_secret_valid_for": 600 });
            office.ask(Method::PATCH, &office.tunnel(&id), Some(body)).await.result();
            let next = token(&office, &id).await;
            assert_ne!(given, next);
            end(&mut office).await;
            assert!(!has(&office, SECRET) && !has(&office, "bmV3LXNlY3Jld"));
            assert!(has(&office, &id), "the rest can be read");
            office.reopen();
            assert_eq!(token(&office, &id).await, next);
            // What works beside the edge needs no key.
            fs::rename(key(&office), office.edge.folder.path().join("elsewhere")).unwrap();
            assert_eq!(office.ledger.accounts().await.unwrap()[0].tunnels, 1);
        })
        .await;
}

#[tokio::test]
async fn a_state_of_before_is_sealed_at_the_first_start_and_nothing_is_left_of_what_it_was() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let id = tunnel(&office).await;
            let given = token(&office, &id).await;
            end(&mut office).await;
            // As a program of before has left it.
            let sql = rusqlite::Connection::open(state(&office)).unwrap();
            let record: Vec<u8> = sql
                .query_row("SELECT value FROM record WHERE key = ?1", [format!("tunnel/{id}")], |row| {
                    row.get(0)
                })
                .unwrap();
            let mut record: Value = serde_json::from_slice(&record).unwrap();
            let fields = record.as_object_mut().unwrap();
            fields.remove("sealed").unwrap();
            fields.insert("secret".to_owned(), json!(SECRET));
            for table in ["record", "change"] {
                let change = format!("UPDATE {table} SET value = ?1 WHERE key = ?2");
                sql.execute(
                    &change,
                    rusqlite::params![record.to_string().into_bytes(), format!("tunnel/{id}")],
                )
                .unwrap();
            }
            for table in ["record", "change"] {
                sql.execute(&format!("DELETE FROM {table} WHERE key LIKE 'sessions/%'"), []).unwrap();
            }
            sql.execute("DELETE FROM counter WHERE name = 'sealed'", []).unwrap();
            sql.pragma_update(None, "user_version", 2).unwrap();
            drop(sql);
            fs::remove_file(key(&office)).unwrap();
            assert!(has(&office, SECRET));

            office.reopen();
            assert_eq!(token(&office, &id).await, given);
            assert!(!has(&office, SECRET), "also not in what nothing uses");
            end(&mut office).await;
            assert!(!has(&office, SECRET));
            office.reopen();
            assert_eq!(token(&office, &id).await, given);
        })
        .await;
}

#[tokio::test]
async fn an_edge_without_the_key_of_its_state_does_not_start_and_says_what_is_missing() {
    LocalSet::new()
        .run_until(async {
            let mut office = Office::open().await;
            let id = tunnel(&office).await;
            let given = token(&office, &id).await;
            end(&mut office).await;
            let (folder, key) = (office.edge.folder.clone(), key(&office));
            let own = fs::read_to_string(&key).unwrap();

            fs::remove_file(&key).unwrap();
            let said = refused(folder.path());
            assert!(said.contains("seal.key is not there") && said.contains("bring it back"), "{said}");
            assert!(!key.exists(), "a new one would open nothing");
            let other = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n";
            fs::write(&key, other).unwrap();
            let said = refused(folder.path());
            assert!(said.contains("does not have the key") && said.contains("seal.key"), "{said}");
            for wrong in ["", "rubbish\n"] {
                fs::write(&key, wrong).unwrap();
                let said = refused(folder.path());
                assert!(said.contains("openssl rand -base64 32") && !said.contains("rubbish"), "{said}");
            }

            // A new key before the old one; then the old one is not needed any more.
            fs::write(&key, format!("{other}{own}")).unwrap();
            office.reopen();
            assert_eq!(token(&office, &id).await, given);
            end(&mut office).await;
            fs::write(&key, other).unwrap();
            office.reopen();
            assert_eq!(token(&office, &id).await, given);
            end(&mut office).await;
            fs::write(&key, own).unwrap();
            assert!(refused(folder.path()).contains("does not have the key"));
        })
        .await;
}
