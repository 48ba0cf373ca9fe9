//! What was pulled, by digest, in a folder: manifests and components under `blobs`, signatures under
//! `signatures`. Whatever is read is compared with its name, whoever may have written there.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};

use crate::digest::Digest;
use crate::signature::Signed;

pub(crate) struct Store {
    blobs: PathBuf,
    signatures: PathBuf,
}

impl Store {
    /// # Errors
    /// The folder cannot be made.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let store = Self { blobs: folder.join("blobs"), signatures: folder.join("signatures") };
        for folder in [&store.blobs, &store.signatures] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("making {}", folder.display()))?;
        }
        Ok(store)
    }

    /// What has this digest; `None` if it is not here or not what its name says, and then it is removed.
    pub(crate) fn read(&self, digest: Digest, limit: usize) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let bytes = adit_files::read(&path, limit).ok()?;
        if Digest::of(&bytes) != digest {
            let _ = fs::remove_file(&path);
            return None;
        }
        Some(bytes)
    }

    /// Where a blob lies or would lie.
    pub(crate) fn path(&self, digest: Digest) -> PathBuf {
        self.blobs.join(format!("sha256-{}", digest.hex()))
    }

    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn keep(&self, bytes: &[u8]) -> anyhow::Result<PathBuf> {
        let path = self.path(Digest::of(bytes));
        replace(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// The signatures that were pulled with a manifest; none if they were not.
    pub(crate) fn signatures(&self, manifest: Digest) -> Vec<Signed> {
        let text =
            adit_files::read(&self.signatures.join(manifest.hex()), LARGEST_SIGNATURES).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn keep_signatures(&self, manifest: Digest, signed: &[Signed]) -> anyhow::Result<()> {
        let path = self.signatures.join(manifest.hex());
        let text = serde_json::to_vec(signed)?;
        ensure!(text.len() <= LARGEST_SIGNATURES, "the signatures have more than {LARGEST_SIGNATURES} bytes");
        replace(&path, &text).with_context(|| format!("writing {}", path.display()))
    }

    /// Removes what was not used for long until the rest fits.
    pub(crate) fn tidy(&self) {
        let Ok(folder) = fs::read_dir(&self.blobs) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = folder
            .flatten()
            .filter_map(|file| {
                let facts = file.metadata().ok()?;
                Some((facts.modified().ok()?, facts.len(), file.path()))
            })
            .collect();
        let mut bytes: u64 = files.iter().map(|(_, size, _)| size).sum();
        files.sort();
        for (used, size, path) in files {
            let is_old = used.elapsed().is_ok_and(|age| age > SAFE_AGE);
            if bytes <= MOST_BYTES || !is_old {
                return;
            }
            if fs::remove_file(path).is_ok() {
                bytes -= size;
            }
        }
    }

    /// Says that a blob is in use, for whoever tidies.
    pub(crate) fn touch(&self, digest: Digest) {
        let _ = fs::File::options()
            .append(true)
            .open(self.path(digest))
            .and_then(|file| file.set_modified(SystemTime::now()));
    }
}

/// There is either the old file or the new one, whole.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

const LARGEST_SIGNATURES: usize = 4 << 20;
/// Of components that are kept.
const MOST_BYTES: u64 = 512 << 20;
/// What was used within it stays: something may serve by it.
const SAFE_AGE: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hash_to_its_name_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = Digest::of(b"component");
        assert_eq!(store.read(digest, 100), None);
        let path = store.keep(b"component").unwrap();
        assert_eq!(store.read(digest, 100).as_deref(), Some(&b"component"[..]));
        assert_eq!(store.read(digest, 5), None);
        fs::write(&path, b"kompoment").unwrap();
        assert_eq!(store.read(digest, 100), None);
        assert!(!path.exists());
    }
}
