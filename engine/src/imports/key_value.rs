//! The `key-value` interface: buckets with a quota, shared by the instances of a plugin; those of this process are in
//! memory.

mod kept;
mod store;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::bindings::adit::plugin::key_value as bound;
use super::super::store::State;
use bound::Error;

pub(crate) use store::{Listed, Store};

const LONGEST_KEY: usize = 1024;
/// A whole answer of `http-client` fits.
const LONGEST_VALUE: usize = 1024 * 1024;
/// What an entry takes besides its key and value, roughly; counted against the quota, so that many
/// tiny entries cannot take much more memory than was granted.
const ENTRY: usize = 96;
/// A full bucket looks for what has expired at most this often: it looks at everything.
const SWEEP: Duration = Duration::from_secs(1);

/// The entries of one bucket. Locked for the length of one operation, never across a wait.
#[derive(Debug, Default)]
pub(crate) struct Bucket(Mutex<Entries>);

/// What lies under a key, or that nothing does.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Current(pub(crate) Option<Vec<u8>>);

#[derive(Debug, Default)]
struct Entries {
    map: HashMap<String, Entry>,
    /// Bytes that count against the quota.
    used: usize,
    swept: Option<Instant>,
    /// Whether there was a change since it was last written down.
    is_changed: bool,
}

#[derive(Debug)]
struct Entry {
    value: Vec<u8>,
    expires: Option<Instant>,
}

impl Entry {
    fn is_over(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Bucket {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn value(&self, key: &str, now: Instant) -> Option<Vec<u8>> {
        let mut entries = self.entries();
        let entry = entries.map.get(key)?;
        if entry.is_over(now) {
            entries.remove(key);
            return None;
        }
        Some(entry.value.clone())
    }

    pub(crate) fn put(
        &self,
        key: String,
        value: Vec<u8>,
        expires: Option<Instant>,
        quota: usize,
        now: Instant,
    ) -> Result<(), Error> {
        check(&key, &value)?;
        self.entries().put(key, value, expires, quota, now)
    }

    pub(super) fn remove(&self, key: &str) {
        self.entries().remove(key);
    }

    /// Its keys, in order.
    pub(super) fn keys(&self, now: Instant) -> Vec<String> {
        let entries = self.entries();
        let alive = entries.map.iter().filter(|(_, entry)| !entry.is_over(now));
        let mut keys: Vec<String> = alive.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys
    }

    /// Puts a value if what is there is what was seen; otherwise hands back what is there.
    pub(super) fn swap(
        &self,
        key: &str,
        seen: Option<&[u8]>,
        value: Vec<u8>,
        quota: usize,
        now: Instant,
    ) -> Result<Option<Current>, Error> {
        check(key, &value)?;
        let mut entries = self.entries();
        let current =
            entries.map.get(key).filter(|entry| !entry.is_over(now)).map(|entry| entry.value.clone());
        if current.as_deref() != seen {
            return Ok(Some(Current(current)));
        }
        entries.put(key.to_owned(), value, None, quota, now)?;
        Ok(None)
    }

    pub(super) fn increase(
        &self,
        key: String,
        by: i64,
        expires: Option<Instant>,
        quota: usize,
        now: Instant,
    ) -> Result<i64, Error> {
        check(&key, &[])?;
        let mut entries = self.entries();
        let (old, expires) = match entries.map.get(&key).filter(|entry| !entry.is_over(now)) {
            None => (0, expires),
            Some(entry) => {
                let text = str::from_utf8(&entry.value).map_err(|_| Error::NotANumber)?;
                (text.parse::<i64>().map_err(|_| Error::NotANumber)?, entry.expires)
            }
        };
        let sum = old.checked_add(by).ok_or(Error::NotANumber)?;
        entries.put(key, sum.to_string().into_bytes(), expires, quota, now)?;
        Ok(sum)
    }
}

impl Entries {
    fn put(
        &mut self,
        key: String,
        value: Vec<u8>,
        expires: Option<Instant>,
        quota: usize,
        now: Instant,
    ) -> Result<(), Error> {
        let size = size(&key, &value);
        let old =
            |map: &HashMap<String, Entry>| map.get(&key).map_or(0, |entry| self::size(&key, &entry.value));
        if self.used - old(&self.map) + size > quota {
            self.sweep(now);
            if self.used - old(&self.map) + size > quota {
                return Err(Error::Full);
            }
        }
        self.used = self.used - old(&self.map) + size;
        self.is_changed = true;
        self.map.insert(key, Entry { value, expires });
        Ok(())
    }

    fn remove(&mut self, key: &str) {
        if let Some(entry) = self.map.remove(key) {
            self.is_changed = true;
            self.used -= size(key, &entry.value);
        }
    }

    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        let used = &mut self.used;
        self.map.retain(|key, entry| {
            let stays = !entry.is_over(now);
            if !stays {
                *used -= size(key, &entry.value);
            }
            stays
        });
    }
}

fn size(key: &str, value: &[u8]) -> usize {
    key.len() + value.len() + ENTRY
}

fn check(key: &str, value: &[u8]) -> Result<(), Error> {
    if key.len() > LONGEST_KEY || value.len() > LONGEST_VALUE { Err(Error::TooLarge) } else { Ok(()) }
}

/// A time to live beyond what the clock can hold is as good as none.
fn expiry(now: Instant, ttl_ms: Option<u64>) -> Option<Instant> {
    ttl_ms.and_then(|ttl| now.checked_add(Duration::from_millis(ttl)))
}

impl State {
    pub(super) fn bucket(&self, name: &str) -> Result<Store, Error> {
        self.sandbox.buckets.get(name).cloned().ok_or_else(|| {
            self.sandbox.deny_name("bucket", name);
            Error::NoSuchBucket
        })
    }
}

impl bound::Host for State {
    async fn get(&mut self, bucket: String, key: String) -> wasmtime::Result<Result<Option<Vec<u8>>, Error>> {
        let now = self.sandbox.time.instant();
        match self.bucket(&bucket) {
            Ok(store) => Ok(store.value(key, now).await?),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn set(
        &mut self,
        bucket: String,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let now = self.sandbox.time.instant();
        match self.bucket(&bucket) {
            Ok(store) => Ok(store.put(key, value, ttl_ms, now).await?),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn delete(&mut self, bucket: String, key: String) -> wasmtime::Result<Result<(), Error>> {
        match self.bucket(&bucket) {
            Ok(store) => Ok(store.remove(key).await?),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn increment(
        &mut self,
        bucket: String,
        key: String,
        by: i64,
        ttl_ms: Option<u64>,
    ) -> wasmtime::Result<Result<i64, Error>> {
        let now = self.sandbox.time.instant();
        match self.bucket(&bucket) {
            Ok(store) => Ok(store.increase(key, by, ttl_ms, now).await?),
            Err(error) => Ok(Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: usize = 1000;

    fn used(bucket: &Bucket) -> usize {
        bucket.entries().used
    }

    #[test]
    fn a_bucket_never_holds_more_than_its_quota_and_evicts_nothing_that_is_alive() {
        let (bucket, now) = (Bucket::default(), Instant::now());
        let stored = (0..100)
            .filter(|number| bucket.put(format!("k{number}"), vec![0; 10], None, QUOTA, now).is_ok())
            .count();
        assert!(used(&bucket) <= QUOTA && stored == QUOTA / (ENTRY + 12), "{stored}");
        assert_eq!(bucket.put("other".into(), vec![], None, QUOTA, now), Err(Error::Full));
        assert_eq!(bucket.value("k0", now), Some(vec![0; 10]));
        bucket.remove("k0");
        assert_eq!(bucket.put("other".into(), vec![], None, QUOTA, now), Ok(()));
        for number in 0..100 {
            bucket.remove(&format!("k{number}"));
        }
        bucket.remove("other");
        assert_eq!(used(&bucket), 0);
    }

    #[test]
    fn what_has_expired_is_gone_and_makes_room() {
        let (bucket, now) = (Bucket::default(), Instant::now());
        let soon = expiry(now, Some(5));
        for number in 0..5 {
            bucket.put(format!("k{number}"), vec![0; 90], soon, QUOTA, now).unwrap();
        }
        let later = now + SWEEP;
        assert_eq!(bucket.put("other".into(), vec![0; 100], None, QUOTA, now), Err(Error::Full));
        assert_eq!(bucket.value("k0", now + Duration::from_millis(4)), Some(vec![0; 90]));
        assert_eq!(bucket.value("k0", now + Duration::from_millis(5)), None);
        assert_eq!(bucket.put("big".into(), vec![0; 700], None, QUOTA, later), Ok(()));
        assert_eq!(used(&bucket), size("big", &[0; 700]));
    }

    #[test]
    fn increments_add_up_and_keep_the_first_time_to_live() {
        let (bucket, now) = (Bucket::default(), Instant::now());
        let add = |by, ttl, at| bucket.increase("n".into(), by, expiry(now, ttl), QUOTA, at);
        assert_eq!(add(2, Some(10), now), Ok(2));
        assert_eq!(add(-5, Some(99_999), now), Ok(-3));
        assert_eq!(bucket.value("n", now), Some(b"-3".to_vec()));
        assert_eq!(add(i64::MIN, None, now), Err(Error::NotANumber));
        assert_eq!(add(1, None, now + Duration::from_millis(10)), Ok(1), "it has expired");
        bucket.put("n".into(), b"x".to_vec(), None, QUOTA, now).unwrap();
        assert_eq!(add(1, None, now), Err(Error::NotANumber));
    }

    #[test]
    fn keys_and_values_have_limits() {
        let (bucket, now) = (Bucket::default(), Instant::now());
        let put = |key: usize, value: usize| bucket.put("k".repeat(key), vec![0; value], None, 2 << 20, now);
        assert_eq!(put(LONGEST_KEY, LONGEST_VALUE), Ok(()));
        assert_eq!(put(LONGEST_KEY + 1, 0), Err(Error::TooLarge));
        assert_eq!(put(1, LONGEST_VALUE + 1), Err(Error::TooLarge));
        assert_eq!(bucket.put("k".into(), vec![], expiry(now, Some(u64::MAX)), 2 << 20, now), Ok(()));
    }
}
