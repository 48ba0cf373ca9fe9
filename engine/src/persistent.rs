//! What of a plugin outlives a change of configuration: its numbers and its buckets, by name. They
//! live for as long as some generation has a plugin of that name; what nobody has is let go.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::imports::key_value::Bucket;
use super::imports::metrics::Metrics;

/// One per process.
#[derive(Default)]
pub(super) struct PersistentState {
    metrics: Mutex<HashMap<String, Weak<Metrics>>>,
    buckets: Mutex<HashMap<(String, String), Weak<Bucket>>>,
}

impl PersistentState {
    pub(super) fn metrics(&self, plugin: &str) -> Arc<Metrics> {
        find(&self.metrics, plugin.to_owned())
    }

    pub(super) fn bucket(&self, plugin: &str, bucket: &str) -> Arc<Bucket> {
        find(&self.buckets, (plugin.to_owned(), bucket.to_owned()))
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
