//! `adit.lock`: which digest a tag meant when it was first pulled. People commit it beside the document.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::digest::Digest;
use crate::reference::Reference;

/// Digests of manifests by reference.
#[derive(Debug, Default)]
pub struct Lock {
    path: PathBuf,
    digests: BTreeMap<String, Digest>,
    has_changed: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    component: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    reference: String,
    digest: String,
}

impl Lock {
    /// Where it lies for documents in this folder.
    pub fn place(folder: &Path) -> PathBuf {
        folder.join("adit.lock")
    }

    /// An absent one is empty.
    ///
    /// # Errors
    /// It cannot be read, or was not written by this program.
    pub fn open(path: PathBuf) -> anyhow::Result<Self> {
        let text = match adit_files::read_text(&path, LARGEST_LOCK) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let digests = if text.is_empty() {
            BTreeMap::new()
        } else {
            read(&text).with_context(|| format!("reading {}", path.display()))?
        };
        Ok(Self { path, digests, has_changed: false })
    }

    pub fn digest(&self, reference: &Reference) -> Option<Digest> {
        self.digests.get(&reference.to_string()).copied()
    }

    pub fn set(&mut self, reference: &Reference, digest: Digest) {
        if self.digests.insert(reference.to_string(), digest) != Some(digest) {
            self.has_changed = true;
        }
    }

    /// Writes it, if anything has changed: there is either the old one or the new one, whole.
    ///
    /// # Errors
    /// Its folder cannot be written.
    pub fn save(&mut self) -> anyhow::Result<()> {
        if !self.has_changed {
            return Ok(());
        }
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".adit.lock").tempfile_in(folder)?;
            file.write_all(write(&self.digests).as_bytes())?;
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            file.as_file().set_permissions(mode)?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            Ok::<_, std::io::Error>(())
        };
        write().with_context(|| {
            format!("writing {}\n  help: `adit plugin pull` writes it elsewhere; or write the digest into the reference", self.path.display())
        })?;
        self.has_changed = false;
        Ok(())
    }
}

fn read(text: &str) -> anyhow::Result<BTreeMap<String, Digest>> {
    let file: File = toml::from_str(text).context("it is no lock; remove it and pull again")?;
    ensure!(file.version == VERSION, "it is of version {}, and this program writes {VERSION}", file.version);
    let mut digests = BTreeMap::new();
    for Entry { reference, digest } in file.component {
        let reference: Reference = reference.parse().with_context(|| reference.clone())?;
        digests.insert(reference.to_string(), digest.parse().with_context(|| reference.to_string())?);
    }
    Ok(digests)
}

fn write(digests: &BTreeMap<String, Digest>) -> String {
    let mut text = format!(
        "# Written by adit: which digest each tag means here. Keep it with the document.\nversion = {VERSION}\n"
    );
    for (reference, digest) in digests {
        // Neither can hold a quote or a backslash.
        let _ = write!(text, "\n[[component]]\nreference = \"{reference}\"\ndigest = \"{digest}\"\n");
    }
    text
}

const VERSION: u32 = 1;

/// Bytes; a line for each reference.
const LARGEST_LOCK: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written_and_only_written_if_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::place(folder.path());
        let reference: Reference = "oci://registry.example.com/a/b:1.0".parse().unwrap();
        let mut lock = Lock::open(path.clone()).unwrap();
        lock.save().unwrap();
        assert!(!path.exists());
        lock.set(&reference, Digest::of(b"one"));
        lock.save().unwrap();
        let mut again = Lock::open(path.clone()).unwrap();
        assert_eq!(again.digest(&reference), Some(Digest::of(b"one")));
        let written = std::fs::metadata(&path).unwrap().modified().unwrap();
        again.set(&reference, Digest::of(b"one"));
        again.save().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn what_is_no_lock_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = Lock::place(folder.path());
        for bad in
            ["version = 2\n", "x = 1\n", "version = 1\n[[component]]\nreference = \"a\"\ndigest = \"b\"\n"]
        {
            std::fs::write(&path, bad).unwrap();
            assert!(Lock::open(path.clone()).is_err(), "{bad}");
        }
    }
}
