//! A granted bucket, wherever it is: in this process, or at a server that several hosts share.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Bucket, Current, Error, check, expiry};
use crate::shared::{Away, BucketAnswer, BucketOperation, SharedBucket};

/// Keys of a bucket of this process that are listed at once.
const LISTED: usize = 1000;

/// One bucket with the bytes that it may hold.
#[derive(Clone)]
pub(crate) struct Store {
    place: Place,
    quota: usize,
}

#[derive(Clone)]
enum Place {
    Here(Arc<Bucket>),
    Shared(SharedBucket),
}

/// Some of the keys of a bucket, and where the next begin.
pub(crate) struct Listed {
    pub(crate) keys: Vec<String>,
    pub(crate) next: Option<u64>,
}

/// What a guest is told; or it is told nothing, since its call ends here.
type Outcome<T> = Result<Result<T, Error>, Away>;

impl Store {
    pub(crate) fn here(bucket: Arc<Bucket>, quota: usize) -> Self {
        Self { place: Place::Here(bucket), quota }
    }

    pub(crate) fn shared(bucket: SharedBucket, quota: usize) -> Self {
        Self { place: Place::Shared(bucket), quota }
    }

    /// The bucket, if it is one of this process.
    pub(crate) fn of_this_process(&self) -> Option<(&Bucket, usize)> {
        match &self.place {
            Place::Here(bucket) => Some((bucket, self.quota)),
            Place::Shared(_) => None,
        }
    }

    pub(crate) async fn value(&self, key: String, now: Instant) -> Outcome<Option<Vec<u8>>> {
        let shared = match &self.place {
            Place::Here(bucket) => return Ok(Ok(bucket.value(&key, now))),
            Place::Shared(shared) => shared,
        };
        match self.ask(shared, BucketOperation::Get { key }).await? {
            Ok(BucketAnswer::Value(value)) => Ok(Ok(value)),
            other => odd(other),
        }
    }

    pub(crate) async fn put(
        &self,
        key: String,
        value: Vec<u8>,
        ttl_ms: Option<u64>,
        now: Instant,
    ) -> Outcome<()> {
        let shared = match &self.place {
            Place::Here(bucket) => return Ok(bucket.put(key, value, expiry(now, ttl_ms), self.quota, now)),
            Place::Shared(shared) => shared,
        };
        if let Err(error) = check(&key, &value) {
            return Ok(Err(error));
        }
        let ttl = ttl_ms.map(Duration::from_millis);
        done(self.ask(shared, BucketOperation::Put { key, value, ttl }).await?)
    }

    pub(crate) async fn remove(&self, key: String) -> Outcome<()> {
        match &self.place {
            Place::Here(bucket) => {
                bucket.remove(&key);
                Ok(Ok(()))
            }
            Place::Shared(shared) => done(self.ask(shared, BucketOperation::Remove { key }).await?),
        }
    }

    pub(crate) async fn increase(
        &self,
        key: String,
        by: i64,
        ttl_ms: Option<u64>,
        now: Instant,
    ) -> Outcome<i64> {
        let shared = match &self.place {
            Place::Here(bucket) => {
                return Ok(bucket.increase(key, by, expiry(now, ttl_ms), self.quota, now));
            }
            Place::Shared(shared) => shared,
        };
        if let Err(error) = check(&key, &[]) {
            return Ok(Err(error));
        }
        let ttl = ttl_ms.map(Duration::from_millis);
        match self.ask(shared, BucketOperation::Increase { key, by, ttl }).await? {
            Ok(BucketAnswer::Sum(sum)) => Ok(Ok(sum)),
            other => odd(other),
        }
    }

    /// Puts a value if what is there is what was seen; otherwise hands back what is there.
    pub(crate) async fn swap(
        &self,
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
        now: Instant,
    ) -> Outcome<Option<Current>> {
        let shared = match &self.place {
            Place::Here(bucket) => {
                return Ok(bucket.swap(&key, seen.as_deref(), value, self.quota, now));
            }
            Place::Shared(shared) => shared,
        };
        if let Err(error) = check(&key, &value) {
            return Ok(Err(error));
        }
        match self.ask(shared, BucketOperation::Swap { key, seen, value }).await? {
            Ok(BucketAnswer::Done) => Ok(Ok(None)),
            Ok(BucketAnswer::Differs(current)) => Ok(Ok(Some(Current(current)))),
            other => odd(other),
        }
    }

    /// Some of the keys. Of a bucket of this process they come in order; of a shared one a key may come twice while
    /// others change it.
    pub(crate) async fn keys(&self, cursor: u64, now: Instant) -> Outcome<Listed> {
        match &self.place {
            Place::Here(bucket) => {
                let (all, begin) = (bucket.keys(now), usize::try_from(cursor).unwrap_or(usize::MAX));
                let end = begin.saturating_add(LISTED);
                let next = (end < all.len()).then_some(end as u64);
                Ok(Ok(Listed { keys: all.into_iter().skip(begin).take(LISTED).collect(), next }))
            }
            Place::Shared(shared) => match self.ask(shared, BucketOperation::Keys { cursor }).await? {
                Ok(BucketAnswer::Keys(keys, next)) => Ok(Ok(Listed { keys, next })),
                other => odd(other),
            },
        }
    }

    async fn ask(&self, shared: &SharedBucket, operation: BucketOperation) -> Outcome<BucketAnswer> {
        Ok(match shared.ask(self.quota, operation).await? {
            BucketAnswer::Full => Err(Error::Full),
            BucketAnswer::NotANumber => Err(Error::NotANumber),
            answer @ (BucketAnswer::Done
            | BucketAnswer::Value(_)
            | BucketAnswer::Sum(_)
            | BucketAnswer::Differs(_)
            | BucketAnswer::Keys(..)) => Ok(answer),
        })
    }
}

fn done(answer: Result<BucketAnswer, Error>) -> Outcome<()> {
    match answer {
        Ok(BucketAnswer::Done) => Ok(Ok(())),
        other => odd(other),
    }
}

/// An answer to something else is as good as none.
fn odd<T>(answer: Result<BucketAnswer, Error>) -> Outcome<T> {
    match answer {
        Err(error) => Ok(Err(error)),
        Ok(_) => Err(Away { reason: "it answers something else than it was asked".to_owned() }),
    }
}
