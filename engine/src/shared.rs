//! Buckets that several hosts share: what is asked of the server that has them. Knows operations and answers; opens no
//! connection.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Where shared buckets are.
pub trait BucketServer: Send + Sync {
    /// Has the server do one operation, all of it or nothing. May be dropped midway; the operation may be done then.
    fn ask(&self, call: BucketCall) -> Pin<Box<dyn Future<Output = Result<BucketAnswer, Away>> + Send + '_>>;
}

/// One operation on a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketCall {
    /// Whose bucket it is.
    pub plugin: Arc<str>,
    pub bucket: Arc<str>,
    /// Bytes that the bucket may hold.
    pub quota: usize,
    pub operation: BucketOperation,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketOperation {
    Get {
        key: String,
    },
    Put {
        key: String,
        value: Vec<u8>,
        ttl: Option<Duration>,
    },
    Remove {
        key: String,
    },
    /// What is not there begins at 0, and has the time to live; what is there keeps its own.
    Increase {
        key: String,
        by: i64,
        ttl: Option<Duration>,
    },
    /// Puts a value if what is there is what was seen.
    Swap {
        key: String,
        seen: Option<Vec<u8>>,
        value: Vec<u8>,
    },
    /// Some of the keys, from where the answer before this one ended; 0 is the beginning.
    Keys {
        cursor: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketAnswer {
    Done,
    Value(Option<Vec<u8>>),
    Sum(i64),
    /// This is there, and not what was seen.
    Differs(Option<Vec<u8>>),
    /// With where the next begin, if there are more.
    Keys(Vec<String>, Option<u64>),
    Full,
    NotANumber,
}

/// The server says nothing, or nothing that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server of shared buckets is away: {reason}")]
pub struct Away {
    pub reason: String,
}

/// A bucket there.
#[derive(Clone)]
pub(crate) struct SharedBucket {
    server: Arc<dyn BucketServer>,
    plugin: Arc<str>,
    bucket: Arc<str>,
}

impl SharedBucket {
    pub(crate) fn new(server: Arc<dyn BucketServer>, plugin: &str, bucket: &str) -> Self {
        Self { server, plugin: plugin.into(), bucket: bucket.into() }
    }

    pub(crate) async fn ask(&self, quota: usize, operation: BucketOperation) -> Result<BucketAnswer, Away> {
        let (plugin, bucket) = (self.plugin.clone(), self.bucket.clone());
        self.server.ask(BucketCall { plugin, bucket, quota, operation }).await
    }
}
