//! Moving an edge's records from its data folder to etcd, or back. Knows both places; does not know what a record
//! means. What is moved stays where it was.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::settings::Settings;
use crate::state::provision::Provisioning;
use crate::store::etcd::Etcd;
use crate::store::sqlite::Sqlite;
use crate::store::{AuditEntry, Commit, Listing, Store, Transaction};

/// In which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrateTo {
    /// From the data folder to where `[store]` says.
    Etcd,
    /// From there to the data folder.
    Sqlite,
}

/// What was moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    pub records: usize,
    /// Of keys and values.
    pub bytes: usize,
    /// SHA-256 over all of them in hexadecimal digits, the same on both sides.
    pub sha256: String,
    pub from: String,
    pub to: String,
}

type Records = BTreeMap<String, Bytes>;

impl Migrated {
    /// Copies all records, and reads on both sides afterwards whether they are the same. What was begun before and
    /// broke off goes on.
    ///
    /// # Errors
    /// There are other records on the other side, or the state has changed meanwhile, or one of both cannot be used.
    pub async fn migrate(settings: &Settings, to: MigrateTo) -> anyhow::Result<Self> {
        let Some(terms) = &settings.store else {
            bail!(
                "the configuration has no [store]; add it with its `url`, like \"etcd://127.0.0.1:2379/main\""
            );
        };
        let (file, place) = (Provisioning::file(settings.data_dir()), terms.address.to_string());
        match to {
            MigrateTo::Etcd => {
                ensure!(file.exists(), "there is no state in {}", file.display());
                let (from, to) = (Sqlite::open(&file)?, Etcd::founding(terms.clone())?);
                let moved = copied(&from, &to, file.display().to_string(), place).await?;
                // Only now is there a fleet that an edge would serve.
                to.make().await?;
                Ok(moved)
            }
            MigrateTo::Sqlite => {
                let taken = || format!("{} is there already; move it away", file.display());
                ensure!(!file.exists(), taken());
                fs::create_dir_all(settings.data_dir()).context("making the data folder")?;
                let (from, new) = (Etcd::new(terms.clone())?, file.with_extension("new"));
                let to = Sqlite::open(&new)?;
                let moved = copied(&from, &to, place, file.display().to_string()).await?;
                // Closed in order, it is one file.
                drop(to);
                fs::hard_link(&new, &file).with_context(taken)?;
                remove(&new)?;
                Ok(moved)
            }
        }
    }
}

fn remove(path: &Path) -> anyhow::Result<()> {
    for end in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        match fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

async fn copied(
    from: &dyn Store,
    to: &dyn Store,
    source: String,
    target: String,
) -> anyhow::Result<Migrated> {
    let before = from.list("").await.with_context(|| format!("reading {source}"))?;
    let (revision, wanted) = (before.revision, records(before));
    let there = records(to.list("").await.with_context(|| format!("reading {target}"))?);
    if let Some((key, _)) = there.iter().find(|(key, value)| wanted.get(*key) != Some(value)) {
        bail!("{target} has records already that are not those of {source}, such as {key}");
    }
    let missing: Vec<_> = wanted.iter().filter(|(key, _)| !there.contains_key(*key)).collect();
    for group in groups(&missing) {
        let subject = format!("{} records of {source}", group.len());
        let note = AuditEntry { actor: "operator".to_owned(), action: "migrate", subject };
        let all = group.iter().fold(Transaction::new(note), |all, (key, value)| {
            all.if_absent(key.as_str()).put(key.as_str(), (*value).clone())
        });
        match to.commit(all).await.with_context(|| format!("writing {target}"))? {
            Commit::Done(_) => {}
            Commit::Conflict { key } => bail!("somebody else writes {key} to {target}"),
        }
    }
    let after = from.list("").await.with_context(|| format!("reading {source}"))?;
    let is_same = after.revision == revision || records(after) == wanted;
    ensure!(is_same, "{source} has changed meanwhile: stop the edge, and begin again");
    let written = records(to.list("").await.with_context(|| format!("reading {target}"))?);
    ensure!(
        written == wanted,
        "{target} has {} records and {source} {}, and they are not the same",
        written.len(),
        wanted.len()
    );
    let bytes = written.iter().map(|(key, value)| key.len() + value.len()).sum();
    let sha256 = digest(&written);
    Ok(Migrated { records: written.len(), bytes, sha256, from: source, to: target })
}

fn records(listing: Listing) -> Records {
    listing.entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

/// As many as fit into one change.
fn groups<'r, 'a>(
    records: &'a [(&'r String, &'r Bytes)],
) -> impl Iterator<Item = &'a [(&'r String, &'r Bytes)]> {
    let mut rest = records;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |(key, value): &&(&String, &Bytes)| {
            bytes += key.len() + value.len() + AROUND;
            bytes <= LARGEST_GROUP
        };
        let count = rest.iter().take(MOST_IN_GROUP).take_while(fits).count().max(1).min(rest.len());
        let (group, behind) = rest.split_at(count);
        rest = behind;
        (!group.is_empty()).then_some(group)
    })
}

fn digest(records: &Records) -> String {
    let mut digest = Sha256::new();
    for (key, value) in records {
        for part in [key.as_bytes(), value] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

const MOST_IN_GROUP: usize = 100;
/// Of keys and values; etcd takes 1.5 MiB with all that is around them.
const LARGEST_GROUP: usize = 1 << 20;
/// A key is written twice.
const AROUND: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{done, put};
    use crate::store::etcd::server::Server;

    #[test]
    fn groups_hold_all_records_once_however_long_they_are() {
        let sizes = [10, 2_000_000, 10, 600_000, 600_000, 10];
        let records: Vec<(String, Bytes)> = (0..400)
            .map(|number| (format!("k/{number:03}"), vec![0; *sizes.get(number).unwrap_or(&7)].into()))
            .collect();
        let all: Vec<_> = records.iter().map(|(key, value)| (key, value)).collect();
        let made: Vec<_> = groups(&all).collect();
        assert_eq!(made.concat(), all);
        assert!(made.iter().all(|group| group.len() <= MOST_IN_GROUP));
        assert!(groups(&[]).next().is_none());
    }

    fn settings(folder: &Path, url: &str) -> Settings {
        let text = format!(
            "data-dir = \"data\"\n[visitors]\nhttp = \"127.0.0.1:0\"\n[[server]]\nregion = \"west\"\nlisten = \
             \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n[store]\nurl = {url:?}\nallow-old = true\n"
        );
        fs::write(folder.join("edge.toml"), text).unwrap();
        Settings::load(&folder.join("edge.toml")).unwrap()
    }

    #[tokio::test]
    async fn records_move_to_etcd_and_back_and_are_the_same() {
        let Some(server) = Server::start().await else { return };
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), &server.address("main"));
        let file = Provisioning::file(settings.data_dir());
        let (ledger, _) =
            Provisioning::found(settings.data_dir(), "main", &["a.test".to_owned()]).await.unwrap();
        drop(ledger);
        let sqlite = Sqlite::open(&file).unwrap();
        for number in 0..350 {
            done(&sqlite, put(&format!("tunnel/{number}"), format!("{{\"n\":{number}}}"))).await;
        }
        done(&sqlite, put("configuration/1", vec![b'c'; 1_100_000])).await;
        let before = records(sqlite.list("").await.unwrap());
        drop(sqlite);

        // Half of it was moved before, and no edge serves that.
        let half = Etcd::founding(settings.store.clone().unwrap()).unwrap();
        done(&half, put("tunnel/7", "{\"n\":7}")).await;
        assert!(Etcd::new(settings.store.clone().unwrap()).unwrap().list("").await.is_err());
        let moved = Migrated::migrate(&settings, MigrateTo::Etcd).await.unwrap();
        assert_eq!((moved.records, &moved.sha256), (before.len(), &digest(&before)));
        let etcd = Etcd::new(settings.store.clone().unwrap()).unwrap();
        assert_eq!(records(etcd.list("").await.unwrap()), before);
        assert!(file.exists(), "what was moved stays where it was");
        let again = Migrated::migrate(&settings, MigrateTo::Etcd).await.unwrap();
        assert_eq!(again, moved);

        let refused = Migrated::migrate(&settings, MigrateTo::Sqlite).await.unwrap_err().to_string();
        assert!(refused.contains("move it away"), "{refused}");
        fs::rename(&file, folder.path().join("old.db")).unwrap();
        done(&etcd, put("tunnel/7", "changed")).await;
        let back = Migrated::migrate(&settings, MigrateTo::Sqlite).await.unwrap();
        assert_eq!(back.records, before.len());
        let now = records(Sqlite::open(&file).unwrap().list("").await.unwrap());
        let differs: Vec<_> = now.iter().filter(|(key, value)| before.get(*key) != Some(value)).collect();
        assert_eq!(differs, [(&"tunnel/7".to_owned(), &Bytes::from("changed"))]);
        let names: Vec<_> =
            fs::read_dir(settings.data_dir()).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_str().unwrap().contains("state.new")), "{names:?}");
    }

    #[tokio::test]
    async fn records_of_another_are_never_mixed_with() {
        let Some(server) = Server::start().await else { return };
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path(), &server.address("main"));
        Provisioning::found(settings.data_dir(), "main", &["a.test".to_owned()]).await.unwrap();
        let etcd = Etcd::found(settings.store.clone().unwrap()).await.unwrap();
        done(&etcd, put("account/other", "{}")).await;
        let refused = Migrated::migrate(&settings, MigrateTo::Etcd).await.unwrap_err().to_string();
        assert!(refused.contains("has records already") && refused.contains("account/other"), "{refused}");
        assert_eq!(etcd.list("").await.unwrap().entries.len(), 1);
    }
}
