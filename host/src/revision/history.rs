//! What was tried and what became of it: every revision with its verdict, and what is needed to serve
//! one of them again. In memory, and in a folder if there is one. Decides nothing.

mod folder;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::contents::Content;
use folder::Folder;

/// Revisions remembered of each verdict.
const MOST: usize = 64;
/// Bytes of documents that are kept in memory besides the one that serves.
const MOST_TEXT: usize = 8 * 1024 * 1024;
/// Reasons kept of one refusal, and bytes of each.
const MOST_REASONS: usize = 200;
const LONGEST_REASON: usize = 4096;

/// Who wanted a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The document as it was when the process began.
    Start,
    /// The last good generation, because the document could not be used.
    LastGood,
    /// The document, or a file that it names, has changed.
    File,
    Signal,
    /// `POST /reload` or `PUT /config`.
    Api,
    Rollback,
    /// Pushed by the edge.
    Edge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Applied,
    Refused,
}

/// One revision and what became of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Of the generation that it became; for one that was refused, of the generation that served on.
    pub generation: u64,
    pub verdict: Outcome,
    pub source: Source,
    /// Of the document, of the files that it names and of what the edge has pushed; SHA-256 in hex.
    pub digest: String,
    /// RFC 3339.
    pub time: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Version of the pushed configuration that is part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_version: Option<i32>,
    /// What is needed to serve it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kept: Option<Kept>,
}

/// Where the parts of a generation lie in the folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    /// The name that mistakes carry.
    file: String,
    /// Where relative paths of the document begin.
    folder: PathBuf,
    document: String,
    files: BTreeMap<PathBuf, String>,
    remote: Option<String>,
}

/// A configuration that the edge pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    pub version: i32,
    /// JSON in the reference's form.
    pub json: Arc<[u8]>,
}

/// All that makes a generation, but for the files that the document names.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The name that mistakes carry.
    pub file: String,
    /// Where relative paths of the document begin.
    pub folder: PathBuf,
    pub text: Arc<str>,
    /// Where files are read instead of where the document says.
    pub copies: BTreeMap<PathBuf, PathBuf>,
    pub remote: Option<Remote>,
}

/// What serves now.
#[derive(Debug, Clone)]
pub struct Serving {
    pub generation: u64,
    pub digest: String,
    pub revision: Revision,
}

impl Serving {
    /// Names this generation of this document, for If-Match.
    pub fn tag(&self) -> String {
        format!("\"{}-{}\"", self.generation, self.digest.get(..16).unwrap_or(&self.digest))
    }
}

/// A file that a generation was made from.
#[derive(Debug, Clone)]
pub struct Part {
    /// As the document names it.
    pub path: PathBuf,
    /// What it was made from.
    pub content: Arc<Content>,
}

/// Can be used from any thread.
pub struct History {
    inner: Mutex<Inner>,
    folder: Option<Folder>,
}

#[derive(Default)]
struct Inner {
    /// The oldest first.
    entries: VecDeque<Entry>,
    /// Documents by generation, the oldest first; those of the folder need not be here.
    texts: VecDeque<(u64, Arc<str>)>,
    serving: Option<Arc<Serving>>,
    /// What is about to serve, or does, and could not be kept.
    unkept: Option<Arc<Unkept>>,
    degraded: Option<String>,
    /// Since this process began.
    counts: Counts,
}

struct Unkept {
    entry: Entry,
    revision: Revision,
    parts: Vec<Part>,
}

/// How many revisions had which verdict since this process began.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counts {
    pub applied: u64,
    pub refused: u64,
}

impl History {
    /// Reads what the folder knows; makes it if it is not there.
    pub fn open(folder: Option<&Path>) -> io::Result<Self> {
        let folder = folder.map(Folder::open).transpose()?;
        let entries = folder.as_ref().map(Folder::entries).transpose()?.unwrap_or_default();
        let mut inner = Inner::default();
        for entry in entries {
            inner.insert(entry);
        }
        Ok(Self { inner: Mutex::new(inner), folder })
    }

    /// Whether a folder can be the state folder of a host.
    ///
    /// # Errors
    /// Why not.
    pub fn check(folder: &Path) -> io::Result<()> {
        Folder::check(folder)
    }

    /// Higher than any before.
    pub fn next_generation(&self) -> u64 {
        self.inner().entries.iter().map(|entry| entry.generation).max().unwrap_or_default() + 1
    }

    /// The oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.inner().entries.iter().cloned().collect()
    }

    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.inner().serving.clone()
    }

    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Why what serves is not what the document says.
    pub fn degraded(&self) -> Option<String> {
        self.inner().degraded.clone()
    }

    pub fn set_degraded(&self, reason: Option<String>) {
        self.inner().degraded = reason;
    }

    /// What the edge pushed last, of all that was applied.
    pub fn remote(&self) -> Option<Remote> {
        let entry = self.inner().entries.iter().rfind(|entry| entry.remote_version.is_some()).cloned()?;
        self.revision(&entry)?.remote
    }

    /// The last applied generations whose parts are all there, the newest first.
    pub fn good(&self) -> impl Iterator<Item = (u64, Revision)> {
        let applied = |entry: &Entry| entry.verdict == Outcome::Applied && entry.kept.is_some();
        let entries: Vec<Entry> =
            self.inner().entries.iter().filter(|entry| applied(entry)).cloned().collect();
        entries.into_iter().rev().filter_map(|entry| Some((entry.generation, self.revision(&entry)?)))
    }

    /// The document of a generation.
    pub fn text(&self, generation: u64) -> Option<Arc<str>> {
        let inner = self.inner();
        if let Some(serving) = inner.serving.as_ref().filter(|serving| serving.generation == generation) {
            return Some(serving.revision.text.clone());
        }
        if let Some((_, text)) = inner.texts.iter().rfind(|(number, _)| *number == generation) {
            return Some(text.clone());
        }
        let entry = inner.find(generation)?.clone();
        drop(inner);
        Some(self.revision(&entry)?.text)
    }

    /// All that made a generation, from the folder; only the document, from memory.
    pub fn revive(&self, generation: u64) -> Option<Revision> {
        let (entry, serving) = {
            let inner = self.inner();
            (inner.find(generation).cloned(), inner.serving.clone()?)
        };
        match entry.and_then(|entry| self.revision(&entry)) {
            Some(revision) => Some(revision),
            None => Some(Revision { text: self.text(generation)?, ..serving.revision.clone() }),
        }
    }

    /// Keeps a generation that is about to serve, so that it is found after any end of the process. Reads
    /// and writes files: not for a thread that serves.
    ///
    /// # Errors
    /// It could not be written, or a file is no more what the generation was made from.
    pub fn keep(&self, entry: &mut Entry, revision: &Revision, parts: &[Part]) -> io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let kept = Self::write(folder, entry, revision, parts);
        let unkept = || Unkept { entry: entry.clone(), revision: revision.clone(), parts: parts.to_vec() };
        self.inner().unkept = kept.is_err().then(|| Arc::new(unkept()));
        kept
    }

    /// Whether what serves could not be kept.
    pub fn is_unkept(&self) -> bool {
        self.inner().unkept.is_some()
    }

    /// Keeps what serves after all, if it could not be kept; its number. Reads and writes files, as [`Self::keep`],
    /// and like that is called by one at a time.
    ///
    /// # Errors
    /// It still cannot be.
    pub fn keep_again(&self) -> io::Result<Option<u64>> {
        let Some(unkept) = self.inner().unkept.clone() else { return Ok(None) };
        let mut entry = unkept.entry.clone();
        self.keep(&mut entry, &unkept.revision, &unkept.parts)?;
        let generation = entry.generation;
        let applied =
            |known: &&mut Entry| known.verdict == Outcome::Applied && known.generation == generation;
        if let Some(known) = self.inner().entries.iter_mut().rfind(applied) {
            known.kept = entry.kept;
        }
        Ok(Some(generation))
    }

    fn write(folder: &Folder, entry: &mut Entry, revision: &Revision, parts: &[Part]) -> io::Result<()> {
        let mut files = BTreeMap::new();
        for part in parts {
            files.insert(part.path.clone(), folder.keep_part(&part.content)?);
        }
        let remote = revision.remote.as_ref().map(|remote| folder.keep(&remote.json)).transpose()?;
        let document = folder.keep(revision.text.as_bytes())?;
        entry.kept = Some(Kept {
            file: revision.file.clone(),
            folder: revision.folder.clone(),
            document,
            files,
            remote,
        });
        folder.record(entry)
    }

    /// A generation serves.
    pub fn applied(&self, entry: Entry, serving: Serving) {
        let mut inner = self.inner();
        if let Some(last) = inner.serving.take() {
            inner.texts.push_back((last.generation, last.revision.text.clone()));
        }
        let size =
            |texts: &VecDeque<(u64, Arc<str>)>| texts.iter().map(|(_, text)| text.len()).sum::<usize>();
        while inner.texts.len() > MOST || size(&inner.texts) > MOST_TEXT {
            inner.texts.pop_front();
        }
        inner.serving = Some(Arc::new(serving));
        inner.counts.applied += 1;
        inner.insert(entry);
        let entries: Vec<Entry> = inner.entries.iter().cloned().collect();
        drop(inner);
        if let Some(folder) = &self.folder {
            folder.tidy(&entries);
        }
    }

    /// A revision was refused.
    pub fn refused(&self, mut entry: Entry) {
        entry.reasons.truncate(MOST_REASONS);
        for reason in &mut entry.reasons {
            reason.truncate(reason.floor_char_boundary(LONGEST_REASON));
        }
        if let Some(folder) = &self.folder
            && let Err(error) = folder.record(&entry)
        {
            warn!(%error, "the refusal of a configuration cannot be kept");
        }
        let mut inner = self.inner();
        inner.counts.refused += 1;
        inner.insert(entry);
    }

    fn revision(&self, entry: &Entry) -> Option<Revision> {
        let (folder, kept) = (self.folder.as_ref()?, entry.kept.as_ref()?);
        let read = |digest: &String| {
            folder.read(digest).inspect_err(|error| {
                warn!(generation = entry.generation, %error, "a part of a generation is lost");
            })
        };
        let text = String::from_utf8(read(&kept.document).ok()?).ok()?;
        let remote = match (&kept.remote, entry.remote_version) {
            (Some(digest), Some(version)) => Some(Remote { version, json: read(digest).ok()?.into() }),
            _ => None,
        };
        let mut copies = BTreeMap::new();
        for (path, digest) in &kept.files {
            copies.insert(path.clone(), folder.find(digest)?);
        }
        Some(Revision {
            file: kept.file.clone(),
            folder: kept.folder.clone(),
            text: text.into(),
            copies,
            remote,
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, entry: Entry) {
        let verdict = entry.verdict;
        self.entries.push_back(entry);
        if self.entries.iter().filter(|entry| entry.verdict == verdict).count() > MOST {
            let oldest = self.entries.iter().position(|entry| entry.verdict == verdict);
            oldest.map(|oldest| self.entries.remove(oldest));
        }
    }

    fn find(&self, generation: u64) -> Option<&Entry> {
        let applied = |entry: &&Entry| entry.verdict == Outcome::Applied && entry.generation == generation;
        self.entries.iter().rfind(applied)
    }
}

impl Entry {
    pub fn new(generation: u64, verdict: Outcome, source: Source, digest: String) -> Self {
        Self {
            generation,
            verdict,
            source,
            digest,
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            reasons: Vec::new(),
            warnings: Vec::new(),
            remote_version: None,
            kept: None,
        }
    }
}

#[cfg(test)]
mod tests;
