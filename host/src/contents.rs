//! What lies in the files that a revision names, each read once: what is digested, compiled, granted, believed and
//! kept are the same bytes, whatever becomes of the file meanwhile. Knows places and bytes; does not know what they
//! mean.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_engine::LARGEST_COMPONENT;
use sha2::{Digest, Sha256};

use crate::component;

/// Files by the place that they are read from.
#[derive(Debug, Default)]
pub struct Contents(BTreeMap<PathBuf, Arc<Content>>);

/// One file. It is compared and shown by its digest alone.
pub struct Content {
    pub bytes: Vec<u8>,
    pub digest: [u8; 32],
}

impl Contents {
    /// What lies at a place; of a file that is longer than any component may be, one byte more than that.
    ///
    /// # Errors
    /// It cannot be read. It is tried again if it is asked for again.
    pub fn read(&mut self, place: &Path) -> io::Result<Arc<Content>> {
        if let Some(known) = self.0.get(place) {
            return Ok(known.clone());
        }
        let content = Arc::new(Content::from(component::read(place, LARGEST_COMPONENT)?));
        self.0.insert(place.to_owned(), content.clone());
        Ok(content)
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self { digest: Sha256::digest(&bytes).into(), bytes }
    }
}

/// It may be a secret.
impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Content").field("length", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_and_no_change_is_seen_after_that() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wasm");
        let mut contents = Contents::default();
        assert_eq!(contents.read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(&path, "one").unwrap();
        assert_eq!(contents.read(&path).unwrap().bytes, b"one");
        std::fs::write(&path, "another").unwrap();
        let again = contents.read(&path).unwrap();
        assert_eq!((&*again.bytes, again.digest), (&b"one"[..], Sha256::digest("one").into()));
        assert!(!format!("{again:?}").contains("111"), "{again:?}");
    }
}
