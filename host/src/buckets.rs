//! Buckets of plugins that outlive the process: a file for each below the state folder, replaced as a whole now and
//! then. Does not know what is in them.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_engine::{BucketFolder, Engine};
use tracing::warn;

/// How often what has changed is written.
pub const WRITE_EVERY: Duration = Duration::from_secs(1);
/// A bucket has at most 16 MiB; what it is written as is somewhat longer.
const LARGEST_FILE: usize = 32 << 20;
const FOLDER: &str = "buckets";

/// The folder of buckets in a state folder.
pub struct BucketFiles(PathBuf);

impl BucketFiles {
    pub fn below(state_dir: &Path) -> Arc<dyn BucketFolder> {
        Arc::new(Self(state_dir.join(FOLDER)))
    }

    fn file(&self, plugin: &str, bucket: &str) -> PathBuf {
        self.0.join(plain(plugin)).join(plain(bucket))
    }
}

impl BucketFolder for BucketFiles {
    fn read(&self, plugin: &str, bucket: &str) -> io::Result<Option<Vec<u8>>> {
        let file = self.file(plugin, bucket);
        match adit_files::read(&file, LARGEST_FILE) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
    }

    fn write(&self, plugin: &str, bucket: &str, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(plugin, bucket);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        adit_files::replace(&file, bytes, 0o600)
    }
}

/// Writes what has changed, and says what could not be written. Blocks.
pub fn save(engine: &Engine) {
    for (plugin, bucket, error) in engine.save_buckets() {
        warn!(plugin, bucket, %error, "a bucket that is to be kept could not be written; it is tried again");
    }
}

/// Writes what has changed again and again. Runs until dropped; [`save`] does the last of it.
pub async fn keep(engine: Engine) {
    loop {
        tokio::time::sleep(WRITE_EVERY).await;
        let engine = engine.clone();
        // It ends by itself.
        let _ = tokio::task::spawn_blocking(move || save(&engine)).await;
    }
}

/// A name as that of a file: letters, digits, `-` and `_` as they are.
fn plain(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => plain.push(char::from(byte)),
            _ => {
                let _ = write!(plain, "%{byte:02x}");
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_a_file_of_its_own_whatever_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let files = BucketFiles::below(folder.path());
        let names = [("a", "b"), ("a", ".."), ("..", "b"), ("a/b", "c"), ("a", "b.c"), ("a", "b%2ec")];
        for (plugin, bucket) in names {
            assert_eq!(files.read(plugin, bucket).unwrap(), None, "{plugin} {bucket}");
            files.write(plugin, bucket, format!("{plugin} {bucket}").as_bytes()).unwrap();
        }
        for (plugin, bucket) in names {
            let found = files.read(plugin, bucket).unwrap();
            assert_eq!(found, Some(format!("{plugin} {bucket}").into_bytes()));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "all of it lies in one folder");
    }
}
