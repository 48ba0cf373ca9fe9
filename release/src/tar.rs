//! Archives that are the same whenever the same goes in: ustar, sorted, one time for all entries. Knows names,
//! modes and owners; does not know what is in the files.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use flate2::{Compression, GzBuilder};

/// What goes into an archive, by its path without a leading slash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tree {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    mode: u32,
    owner: u32,
    /// `None`: a folder.
    content: Option<Vec<u8>>,
}

impl Tree {
    /// A file of root, and the folders above it.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.above(path);
        self.entries.insert(path.to_owned(), Entry { mode, owner: 0, content: Some(content.into()) });
    }

    /// A folder of this user and group, and the folders above it.
    pub(crate) fn folder(&mut self, path: &str, mode: u32, owner: u32) {
        self.above(path);
        self.entries.insert(path.to_owned(), Entry { mode, owner, content: None });
    }

    fn above(&mut self, path: &str) {
        for (at, _) in path.match_indices('/') {
            let folder = Entry { mode: 0o755, owner: 0, content: None };
            self.entries.entry(path[..at].to_owned()).or_insert(folder);
        }
    }

    /// Bytes of all files.
    pub(crate) fn size(&self) -> usize {
        self.entries.values().filter_map(|entry| entry.content.as_ref()).map(Vec::len).sum()
    }

    /// The archive, each name behind `prefix`, all as of `time`, seconds since 1970.
    ///
    /// # Errors
    /// A name is too long for the format.
    pub(crate) fn tar(&self, prefix: &str, time: u64) -> Result<Vec<u8>> {
        let mut tar = Vec::with_capacity(self.size() + self.entries.len() * 2 * BLOCK);
        for (path, entry) in &self.entries {
            let slash = if entry.content.is_none() { "/" } else { "" };
            let content = entry.content.as_deref().unwrap_or_default();
            tar.extend(header(&format!("{prefix}{path}{slash}"), entry, content.len(), time)?);
            tar.extend(content);
            tar.resize(tar.len().next_multiple_of(BLOCK), 0);
        }
        tar.resize(tar.len() + 2 * BLOCK, 0);
        Ok(tar)
    }
}

fn header(name: &str, entry: &Entry, size: usize, time: u64) -> Result<[u8; BLOCK]> {
    ensure!(name.len() < 100, "{name} is too long for an archive");
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{:07o}", entry.mode));
    put(108, &format!("{:07o}", entry.owner));
    put(116, &format!("{:07o}", entry.owner));
    put(124, &format!("{size:011o}"));
    put(136, &format!("{time:011o}"));
    put(148, "        ");
    put(156, if entry.content.is_some() { "0" } else { "5" });
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}

/// The same bytes whenever the same goes in: neither a name nor a time is in it.
///
/// # Errors
/// None in memory.
pub(crate) fn gzip(bytes: &[u8], level: u32) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(level));
    encoder.write_all(bytes).context("compressing")?;
    encoder.finish().context("compressing")
}

const BLOCK: usize = 512;
