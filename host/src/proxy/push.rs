//! Configurations that the edge pushes, on their way from whichever transport to whoever decides on them.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// Pushes that may wait.
const MOST: usize = 16;

/// Hands pushed configurations on. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Pushes(mpsc::Sender<Push>);

/// One pushed configuration.
pub struct Push {
    pub version: i32,
    /// JSON in the reference's form.
    pub json: Bytes,
    pub verdict: oneshot::Sender<PushVerdict>,
}

/// What the edge is told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushVerdict {
    /// The last that was applied; -1 if none was.
    pub version: i32,
    /// Why this one was not; of one that was, what of it is served otherwise than it was meant.
    pub error: Option<String>,
}

impl Pushes {
    /// The handle, and where pushes arrive.
    pub fn new() -> (Self, mpsc::Receiver<Push>) {
        let (pushes, inbox) = mpsc::channel(MOST);
        (Self(pushes), inbox)
    }

    /// Hands one on and waits for its verdict. Dropped midway it is decided on all the same.
    pub async fn push(&self, version: i32, json: Bytes) -> PushVerdict {
        let (verdict, given) = oneshot::channel();
        let gone = || PushVerdict { version: -1, error: Some("this host is stopping".to_owned()) };
        if self.0.send(Push { version, json, verdict }).await.is_err() {
            return gone();
        }
        given.await.unwrap_or_else(|_| gone())
    }
}
