//! The fleet's records as this machine last knew them, sealed, so that a node serves without the store, also after a
//! restart. Knows a file; does not know what a record means or where it came from.
//!
//! The file is text: a line with its id, then sealed lines, each of which opens in its own place only. The first says
//! how many of the following were the whole of one revision; each line behind those is one change since then. What is
//! missing at the end was not written before a crash, and makes what is left older, not wrong.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing::warn;
use uuid::Uuid;

use crate::store::seal::SealKeys;
use crate::store::{Batch, Change, Entry, Listing, StoreRevision};

/// Where a node keeps it.
pub(crate) struct Saved {
    path: PathBuf,
    keys: SealKeys,
    journal: Option<Journal>,
}

/// A file that is being written to.
struct Journal {
    file: File,
    id: Uuid,
    lines: u64,
    /// Changes up to here are in it.
    revision: StoreRevision,
    /// Bytes of the whole, and of the changes since.
    whole: usize,
    since: usize,
}

#[derive(Debug, Error)]
pub(crate) enum SavedError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} cannot be used: {why}", path.display())]
    Unusable { path: PathBuf, why: &'static str },
}

#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    fleet: Uuid,
    revision: u64,
    /// Lines that are the whole of it.
    lines: u64,
    entries: u64,
}

impl Saved {
    /// Where that of this fleet is.
    pub(crate) fn path_of(data_dir: &Path, fleet: &str) -> PathBuf {
        data_dir.join(format!("fleet-{fleet}.sealed"))
    }

    pub(crate) fn at(path: PathBuf, keys: SealKeys) -> Self {
        Self { path, keys, journal: None }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// When it was changed last.
    pub(crate) fn written_at(&self) -> SystemTime {
        let changed = std::fs::metadata(&self.path).and_then(|file| file.modified());
        changed.unwrap_or(SystemTime::UNIX_EPOCH)
    }

    /// What was kept, and of which fleet it is; `None` if there is nothing.
    pub(crate) fn read(&self) -> Result<Option<(Uuid, Listing)>, SavedError> {
        let text = match adit_files::read_text(&self.path, LARGEST) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SavedError::File { path: self.path.clone(), source }),
        };
        let unusable = |why| SavedError::Unusable { path: self.path.clone(), why };
        let mut lines = text.lines();
        let id = lines.next().and_then(|id| id.parse().ok()).ok_or_else(|| unusable("it has no id"))?;
        let mut at = 0;
        let mut open = |line: &str| {
            let opened = self.keys.open(&place(id, at), line);
            at += 1;
            opened
        };
        let head = lines.next().and_then(&mut open);
        let head = head.ok_or_else(|| unusable("it was sealed with another key, or was changed"))?;
        let head: Head = serde_json::from_slice(&head).map_err(|_| unusable("its head cannot be read"))?;
        if head.format != FORMAT {
            return Err(unusable("another version of this program has written it"));
        }
        let mut listing = Listing { revision: StoreRevision(head.revision), entries: Vec::new() };
        for _ in 0..head.lines {
            let line = lines
                .next()
                .and_then(&mut open)
                .ok_or_else(|| unusable("a part is missing or was changed"))?;
            let changes = decode(line.into()).ok_or_else(|| unusable("a part cannot be read"))?;
            let entry = |(key, revision, value): (String, u64, Option<Bytes>)| {
                Some(Entry { key, value: value?, revision: StoreRevision(revision) })
            };
            listing.entries.extend(changes.into_iter().filter_map(entry));
        }
        if listing.entries.len() as u64 != head.entries {
            return Err(unusable("records are missing"));
        }
        let mut entries: std::collections::BTreeMap<_, _> =
            listing.entries.into_iter().map(|entry| (entry.key, (entry.value, entry.revision))).collect();
        // One that was not written to its end is the last.
        while let Some(changes) = lines.next().and_then(&mut open).and_then(|line| decode(line.into())) {
            for (key, revision, value) in changes {
                let revision = StoreRevision(revision);
                listing.revision = listing.revision.max(revision);
                match value {
                    _ if key.is_empty() => {}
                    Some(value) => drop(entries.insert(key, (value, revision))),
                    None => drop(entries.remove(&key)),
                }
            }
        }
        let entry = |(key, (value, revision))| Entry { key, value, revision };
        listing.entries = entries.into_iter().map(entry).collect();
        Ok(Some((head.fleet, listing)))
    }

    /// Begins anew with the whole of a revision.
    pub(crate) fn begin(&mut self, fleet: Uuid, listing: &Listing) {
        self.journal = None;
        match self.write(fleet, listing) {
            Ok(journal) => self.journal = Some(journal),
            Err(error) => self.failed(&error),
        }
    }

    fn write(&self, fleet: Uuid, listing: &Listing) -> io::Result<Journal> {
        let id = Uuid::new_v4();
        let mut parts = vec![BytesMut::new()];
        for Entry { key, value, revision } in &listing.entries {
            if parts.last().is_some_and(|part| part.len() > PART) {
                parts.push(BytesMut::new());
            }
            let Some(part) = parts.last_mut() else { break };
            encode(part, key, *revision, Some(value));
        }
        let head = Head {
            format: FORMAT,
            fleet,
            revision: listing.revision.0,
            lines: parts.len() as u64,
            entries: listing.entries.len() as u64,
        };
        let head = serde_json::to_vec(&head)?;
        let mut text = format!("{id}\n");
        let all = std::iter::once(&head[..]).chain(parts.iter().map(|part| &part[..]));
        for (at, part) in all.enumerate() {
            let sealed = self.keys.seal(&place(id, at as u64), part);
            text.push_str(&sealed.ok_or_else(|| io::Error::other("it cannot be sealed"))?);
            text.push('\n');
        }
        if text.len() > LARGEST {
            return Err(io::Error::other(format!("the state is larger than {} MiB", LARGEST >> 20)));
        }
        adit_files::replace(&self.path, text.as_bytes(), 0o600)?;
        let file = OpenOptions::new().append(true).open(&self.path)?;
        let lines = parts.len() as u64 + 1;
        Ok(Journal { file, id, lines, revision: listing.revision, whole: text.len(), since: 0 })
    }

    /// Adds what has changed.
    pub(crate) fn append(&mut self, batch: &Batch) {
        let Some(journal) = &mut self.journal else { return };
        if batch.revision <= journal.revision {
            return;
        }
        let mut part = BytesMut::new();
        // The revision counts also where nothing has changed.
        encode(&mut part, "", batch.revision, None);
        for Change { key, value } in &batch.changes {
            encode(&mut part, key, batch.revision, value.as_ref());
        }
        let sealed = self.keys.seal(&place(journal.id, journal.lines), &part);
        let sealed = sealed.ok_or_else(|| io::Error::other("it cannot be sealed"));
        match sealed
            .and_then(|sealed| journal.file.write_all((sealed + "\n").as_bytes()).map(|()| part.len()))
        {
            Ok(length) => {
                journal.lines += 1;
                journal.since += length * 4 / 3 + 64;
                journal.revision = batch.revision;
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Whether it is worth being begun anew: the changes are longer than the whole, or it could not be written.
    pub(crate) fn is_long(&self) -> bool {
        self.journal.as_ref().is_none_or(|journal| journal.since > journal.whole.max(LEAST))
    }

    fn failed(&mut self, error: &io::Error) {
        self.journal = None;
        warn!(
            path = %self.path.display(), %error,
            "what is known of the fleet cannot be kept here: a restart without the store would serve what was known before"
        );
    }
}

fn place(id: Uuid, line: u64) -> String {
    format!("fleet-snapshot/{id}/{line}")
}

/// Revision, key and value, each with its length; a value that is gone has none.
fn encode(into: &mut BytesMut, key: &str, revision: StoreRevision, value: Option<&Bytes>) {
    into.put_u64(revision.0);
    into.put_u64(key.len() as u64);
    into.put(key.as_bytes());
    match value {
        Some(value) => {
            into.put_u64(value.len() as u64);
            into.put(&value[..]);
        }
        None => into.put_u64(u64::MAX),
    }
}

fn decode(mut from: Bytes) -> Option<Vec<(String, u64, Option<Bytes>)>> {
    let mut all = Vec::new();
    let take = |from: &mut Bytes, length: u64| {
        let length = usize::try_from(length).ok().filter(|length| *length <= from.len())?;
        Some(from.split_to(length))
    };
    while !from.is_empty() {
        let revision = from.try_get_u64().ok()?;
        let length = from.try_get_u64().ok()?;
        let key = String::from_utf8(take(&mut from, length)?.into()).ok()?;
        let value = match from.try_get_u64().ok()? {
            u64::MAX => None,
            length => Some(take(&mut from, length)?),
        };
        all.push((key, revision, value));
    }
    Some(all)
}

const FORMAT: u32 = 1;
/// Bytes of records in one sealed line, about.
const PART: usize = 256 << 10;
/// Of changes, before they are worth a new beginning.
const LEAST: usize = 4 << 20;
const LARGEST: usize = 1 << 30;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn saved(folder: &Path) -> Saved {
        Saved::at(Saved::path_of(folder, "main"), SealKeys::read_or_make(&folder.join("seal.key")).unwrap())
    }

    fn entry(key: &str, value: &str, revision: u64) -> Entry {
        Entry { key: key.to_owned(), value: value.to_owned().into(), revision: StoreRevision(revision) }
    }

    fn listing() -> Listing {
        let mut entries: Vec<_> =
            (0..50).map(|n| entry(&format!("k/{n:02}"), &"x".repeat(20_000), n + 1)).collect();
        entries.push(entry("l", "secret-text", 51));
        Listing { revision: StoreRevision(60), entries }
    }

    fn change(key: &str, value: Option<&str>) -> Change {
        Change { key: key.to_owned(), value: value.map(|value| value.to_owned().into()) }
    }

    #[test]
    fn what_was_known_is_read_again_with_every_change_since() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = saved(folder.path());
        assert!(one.read().unwrap().is_none() && one.is_long());
        let fleet = Uuid::new_v4();
        one.begin(fleet, &listing());
        assert!(!one.is_long());
        one.append(&Batch { revision: StoreRevision(55), changes: vec![change("l", Some("old"))] });
        one.append(&Batch {
            revision: StoreRevision(61),
            changes: vec![change("l", Some("new")), change("k/00", None)],
        });
        one.append(&Batch { revision: StoreRevision(70), changes: Vec::new() });
        let (of, read) = saved(folder.path()).read().unwrap().unwrap();
        let mut wanted = listing().entries;
        wanted.remove(0);
        wanted.pop();
        wanted.push(entry("l", "new", 61));
        assert_eq!((of, read.revision, read.entries), (fleet, StoreRevision(70), wanted));
        let file = fs::read_to_string(one.path()).unwrap();
        assert!(!file.contains("secret") && file.lines().count() > 5);
    }

    #[test]
    fn what_was_cut_changed_or_sealed_for_another_is_never_taken_for_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = saved(folder.path());
        one.begin(Uuid::new_v4(), &listing());
        one.append(&Batch { revision: StoreRevision(61), changes: vec![change("l", Some("new"))] });
        one.append(&Batch { revision: StoreRevision(62), changes: vec![change("m", Some("newer"))] });
        let whole = fs::read_to_string(one.path()).unwrap();
        let lines: Vec<_> = whole.lines().collect();
        let read = |text: String| {
            fs::write(one.path(), text).unwrap();
            saved(folder.path()).read().map(|read| read.unwrap().1)
        };
        let without = |at: usize| {
            let kept = lines
                .iter()
                .enumerate()
                .filter(|(number, _)| *number != at)
                .map(|(_, line)| format!("{line}\n"));
            kept.collect::<String>()
        };
        let (last, count) = (lines.len() - 1, lines.len());
        for at in 0..count - 2 {
            assert!(read(without(at)).is_err(), "line {at} of {count}");
        }
        assert_eq!(read(without(last)).unwrap().revision, StoreRevision(61), "older, as before the change");
        // The last but one is missing: what is behind it does not count.
        assert_eq!(read(without(last - 1)).unwrap().revision, StoreRevision(60));
        assert_eq!(read(whole[..whole.len() - 9].to_owned()).unwrap().revision, StoreRevision(61));
        let mut swapped = lines.clone();
        swapped.swap(2, 3);
        assert!(read(swapped.join("\n")).is_err());
        for (at, _) in whole.char_indices().step_by(9_973).take(100) {
            // No byte that is changed leads to other records.
            let mut spoilt = whole.clone().into_bytes();
            spoilt[at] = if spoilt[at] == b'A' { b'B' } else { b'A' };
            if let Ok(read) = read(String::from_utf8(spoilt).unwrap()) {
                assert!(read.revision < StoreRevision(62));
            }
        }
        fs::remove_file(folder.path().join("seal.key")).unwrap();
        let other = read(whole).unwrap_err().to_string();
        assert!(other.contains("another key"), "{other}");
    }

    #[test]
    fn long_changes_ask_for_a_new_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let mut one = saved(folder.path());
        one.begin(Uuid::new_v4(), &Listing { revision: StoreRevision(1), entries: Vec::new() });
        let mut revision = 1;
        while !one.is_long() {
            revision += 1;
            let changes = vec![change("a", Some(&"x".repeat(500_000)))];
            one.append(&Batch { revision: StoreRevision(revision), changes });
            assert!(revision < 50);
        }
        assert_eq!(one.read().unwrap().unwrap().1.revision, StoreRevision(revision));
    }
}
