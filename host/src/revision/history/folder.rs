//! The folder in which generations are kept: `parts` by digest, and a file for each entry. Whatever is
//! there under its own name is whole: it was written under another, synced and renamed.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::{Entry, Outcome};
use crate::contents::Content;

/// Largest entry that is read back, bytes.
const LARGEST_ENTRY: usize = 4 * 1024 * 1024;
/// Largest part that is read back into memory or kept, bytes.
const LARGEST_PART: usize = 64 * 1024 * 1024;
/// Bytes of parts that are kept for generations before the last good one.
const MOST_BYTES: u64 = 512 * 1024 * 1024;
/// What nobody needs is removed when it is so old: another process may be about to need it.
const SAFE_AGE: Duration = Duration::from_secs(60);
/// Entries are looked over once in so many.
const TIDY_EVERY: u64 = 16;

pub(crate) struct Folder {
    parts: PathBuf,
    entries: PathBuf,
    /// Numbers entries.
    counter: AtomicU64,
    tidied: AtomicU64,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let about = |error: io::Error| {
            io::Error::new(error.kind(), format!("the state folder {}: {error}", path.display()))
        };
        let (parts, entries) = (path.join("parts"), path.join("entries"));
        for folder in [&parts, &entries] {
            make(folder).map_err(about)?;
        }
        let folder = Self { parts, entries, counter: AtomicU64::new(0), tidied: AtomicU64::new(0) };
        let last = folder.names().map_err(about)?.into_iter().map(|(sequence, _)| sequence).max();
        folder.counter.store(last.map_or(0, |last| last + 1), Ordering::Relaxed);
        Ok(folder)
    }

    /// Whether [`Self::open`] would do, without making anything.
    pub(crate) fn check(path: &Path) -> io::Result<()> {
        for folder in
            ["parts", "entries"].map(|name| path.join(name)).iter().filter(|folder| !folder.is_dir())
        {
            adit_files::check_folder(folder).map_err(|error| {
                io::Error::new(error.kind(), format!("the state folder {}: {error}", path.display()))
            })?;
        }
        Ok(())
    }

    /// Every entry that can be read, the oldest first.
    pub(crate) fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for (_, path) in self.names()? {
            let read = read_limited(&path, LARGEST_ENTRY)
                .and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
            match read {
                Ok(entry) => entries.push(entry),
                Err(error) => warn!(path = %path.display(), %error, "an entry of the history is lost"),
            }
        }
        Ok(entries)
    }

    /// Writes an entry. What it names must have been kept.
    pub(crate) fn record(&self, entry: &Entry) -> io::Result<()> {
        let sequence = self.counter.fetch_add(1, Ordering::Relaxed);
        // Two processes may use the folder while one takes over from the other.
        let name = format!("{sequence:010}-{}.json", std::process::id());
        let json = serde_json::to_vec_pretty(entry).map_err(io::Error::other)?;
        self.write(&self.entries, &name, &json)
    }

    /// Keeps these bytes; hands back their digest.
    pub(crate) fn keep(&self, bytes: &[u8]) -> io::Result<String> {
        let digest = hex(&Sha256::digest(bytes));
        if !self.parts.join(&digest).is_file() {
            self.write(&self.parts, &digest, bytes)?;
        }
        Ok(digest)
    }

    /// Keeps a file that a generation was made from.
    pub(crate) fn keep_part(&self, content: &Content) -> io::Result<String> {
        if content.bytes.len() > LARGEST_PART {
            return Err(io::Error::other(format!("a part has over {LARGEST_PART} bytes")));
        }
        let name = hex(&content.digest);
        if !self.parts.join(&name).is_file() {
            self.write(&self.parts, &name, &content.bytes)?;
        }
        Ok(name)
    }

    /// A part, if it is what its name says.
    pub(crate) fn read(&self, digest: &str) -> io::Result<Vec<u8>> {
        let path = self.part(digest)?;
        let bytes = read_limited(&path, LARGEST_PART)?;
        if hex(&Sha256::digest(&bytes)) != digest {
            return Err(io::Error::other(format!("{} is damaged", path.display())));
        }
        Ok(bytes)
    }

    /// Where a part lies, if it is what its name says.
    pub(crate) fn find(&self, digest: &str) -> Option<PathBuf> {
        self.read(digest).ok().and_then(|_| self.part(digest).ok())
    }

    fn part(&self, digest: &str) -> io::Result<PathBuf> {
        let is_digest = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_digest { Ok(self.parts.join(digest)) } else { Err(io::Error::other("not a digest")) }
    }

    /// Removes what no entry needs, from time to time.
    pub(crate) fn tidy(&self, entries: &[Entry]) {
        if !self.tidied.fetch_add(1, Ordering::Relaxed).is_multiple_of(TIDY_EVERY) {
            return;
        }
        if let Err(error) = self.sweep(entries) {
            debug!(%error, "the state folder cannot be tidied");
        }
    }

    fn sweep(&self, entries: &[Entry]) -> io::Result<()> {
        let mut needed = HashSet::new();
        let mut bytes = 0;
        let applied = entries.iter().rev().filter(|entry| entry.verdict == Outcome::Applied);
        for kept in applied.filter_map(|entry| entry.kept.as_ref()) {
            let parts = kept.files.values().chain([&kept.document]).chain(&kept.remote);
            let new: Vec<&String> = parts.filter(|part| !needed.contains(*part)).collect();
            let size = |part: &&String| fs::metadata(self.parts.join(part)).map_or(0, |meta| meta.len());
            bytes += new.iter().map(size).sum::<u64>();
            if bytes > MOST_BYTES && !needed.is_empty() {
                break;
            }
            needed.extend(new.into_iter().cloned());
        }
        let old = |path: &Path| {
            let age = fs::metadata(path).and_then(|meta| meta.modified());
            age.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > SAFE_AGE))
        };
        for entry in fs::read_dir(&self.parts)? {
            let path = entry?.path();
            let is_needed =
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| needed.contains(name));
            if !is_needed && old(&path) {
                fs::remove_file(&path)?;
            }
        }
        // What a process that was killed has begun to write.
        for entry in fs::read_dir(&self.entries)? {
            let path = entry?.path();
            let is_begun = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if is_begun && old(&path) {
                fs::remove_file(&path)?;
            }
        }
        let names = self.names()?;
        let surplus = names.len().saturating_sub(entries.len());
        for (_, path) in names.iter().take(surplus).filter(|(_, path)| old(path)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    /// The entries' files by their numbers, lowest first.
    fn names(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.entries)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let sequence = name.strip_suffix(".json").and_then(|name| name.split('-').next());
            if let Some(sequence) = sequence.and_then(|sequence| sequence.parse().ok()) {
                names.push((sequence, path));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whoever cleaned the state folder up meanwhile took its folders too.
    fn write(&self, folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        make(folder)?;
        adit_files::replace(&folder.join(name), bytes, 0o600)
    }
}

/// Documents hold secrets: nobody else looks.
fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read_limited(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    adit_files::read(path, limit)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
