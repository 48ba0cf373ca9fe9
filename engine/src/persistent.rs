//! What of a plugin outlives a change of configuration: its numbers and its buckets, by name. They
//! live for as long as some generation has a plugin of that name; what nobody has is let go. A bucket that is kept
//! outlives the process as well: whoever has a place for it is handed it now and then. Knows no files.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Instant, SystemTime};

use super::imports::key_value::Bucket;
use super::imports::metrics::Metrics;

/// Where buckets are kept while no process has them.
pub trait BucketFolder: Send + Sync {
    /// What was written last; nothing if nothing was.
    ///
    /// # Errors
    /// It is there and cannot be read.
    fn read(&self, plugin: &str, bucket: &str) -> io::Result<Option<Vec<u8>>>;

    /// Puts this in the place of what was there, as a whole.
    ///
    /// # Errors
    /// What was there is still there.
    fn write(&self, plugin: &str, bucket: &str, bytes: &[u8]) -> io::Result<()>;
}

/// One per process.
#[derive(Default)]
pub(super) struct PersistentState {
    metrics: Mutex<HashMap<String, Weak<Metrics>>>,
    buckets: Mutex<HashMap<(String, String), Weak<Bucket>>>,
    /// Those that are kept. One that nobody has any more goes once it is written.
    kept: Mutex<BTreeMap<(String, String), Arc<Bucket>>>,
    /// Where to; `None` in it where this process has no place for them, and nothing where it is none that serves.
    folder: OnceLock<Option<Arc<dyn BucketFolder>>>,
}

impl PersistentState {
    pub(super) fn metrics(&self, plugin: &str) -> Arc<Metrics> {
        find(&self.metrics, plugin.to_owned())
    }

    pub(super) fn bucket(&self, plugin: &str, bucket: &str) -> Arc<Bucket> {
        find(&self.buckets, (plugin.to_owned(), bucket.to_owned()))
    }

    /// From now on buckets are kept there.
    pub(super) fn keep_in(&self, folder: Option<Arc<dyn BucketFolder>>) {
        let _ = self.folder.set(folder);
    }

    /// Whether this process serves; else it looks at configurations.
    pub(super) fn serves(&self) -> bool {
        self.folder.get().is_some()
    }

    /// One that is kept, with what it held when it was last written.
    pub(super) fn kept_bucket(&self, plugin: &str, bucket: &str) -> Result<Arc<Bucket>, String> {
        let folder = match self.folder.get() {
            // A tool that looks at a configuration neither reads nor writes what others keep.
            None => return Ok(self.bucket(plugin, bucket)),
            Some(None) => {
                return Err(format!(
                    "its bucket {bucket:?} is to be kept, and this host has no place for it: set `state-dir`"
                ));
            }
            Some(Some(folder)) => folder,
        };
        let key = (plugin.to_owned(), bucket.to_owned());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.get(&key) {
            return Ok(found.clone());
        }
        let unreadable = |reason: String| {
            format!(
                "its bucket {bucket:?} cannot be read: {reason}; what was kept of it is lost once its file is removed"
            )
        };
        let made = match folder.read(plugin, bucket).map_err(|error| unreadable(error.to_string()))? {
            None => Bucket::default(),
            Some(bytes) => Bucket::restored(&bytes, Instant::now(), SystemTime::now())
                .ok_or_else(|| unreadable("it is damaged".to_owned()))?,
        };
        let made = Arc::new(made);
        kept.insert(key, made.clone());
        Ok(made)
    }

    /// Writes every kept bucket that has changed since it was last written. Blocks. Hands back which could not be
    /// written, and why; those are tried again the next time.
    pub(super) fn save(&self) -> Vec<(String, String, io::Error)> {
        let Some(Some(folder)) = self.folder.get() else { return Vec::new() };
        let all: Vec<_> = {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter().map(|(key, bucket)| (key.clone(), bucket.clone())).collect()
        };
        let mut failed = Vec::new();
        for ((plugin, name), bucket) in all {
            let Some(bytes) = bucket.changed(Instant::now(), SystemTime::now()) else { continue };
            if let Err(error) = folder.write(&plugin, &name, &bytes) {
                bucket.written_in_vain();
                failed.push((plugin, name, error));
            }
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, bucket| Arc::strong_count(bucket) > 1 || bucket.is_changed());
        failed
    }
}

fn find<K: Eq + Hash, T: Default>(known: &Mutex<HashMap<K, Weak<T>>>, key: K) -> Arc<T> {
    let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = known.get(&key).and_then(Weak::upgrade) {
        return found;
    }
    known.retain(|_, weak| weak.strong_count() > 0);
    let made = Arc::new(T::default());
    known.insert(key, Arc::downgrade(&made));
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_somebody_has_is_found_again_and_what_nobody_has_is_let_go() {
        let keep = PersistentState::default();
        let first = keep.bucket("a", "x");
        assert!(Arc::ptr_eq(&first, &keep.bucket("a", "x")));
        assert!(!Arc::ptr_eq(&first, &keep.bucket("b", "x")));
        drop(first);
        for number in 0..100 {
            keep.bucket("a", &number.to_string());
        }
        assert_eq!(keep.buckets.lock().unwrap().len(), 1);
    }
}
