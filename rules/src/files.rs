//! The files that a document names. Knows their paths; reads none of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What a document names, and where copies of it lie that are read in its place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    named: BTreeSet<PathBuf>,
    copies: BTreeMap<PathBuf, PathBuf>,
}

impl Files {
    /// Nothing is named yet; what has a copy is read from there.
    pub fn with_copies(copies: BTreeMap<PathBuf, PathBuf>) -> Self {
        Self { named: BTreeSet::new(), copies }
    }

    /// Every file that was named, by the path that the document gives it.
    pub fn named(&self) -> impl Iterator<Item = &Path> {
        self.named.iter().map(PathBuf::as_path)
    }

    /// Where to read it.
    pub fn place<'a>(&'a self, path: &'a Path) -> &'a Path {
        self.copies.get(path).map_or(path, PathBuf::as_path)
    }

    /// What was named by a reference is read from there.
    pub fn provide(&mut self, provided: BTreeMap<PathBuf, PathBuf>) {
        self.copies.extend(provided);
    }

    /// Remembers that it is named, and says where to read it.
    pub fn name(&mut self, path: PathBuf) -> PathBuf {
        let place = self.place(&path).to_owned();
        self.named.insert(path);
        place
    }
}
