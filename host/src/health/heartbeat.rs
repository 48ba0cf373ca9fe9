//! Signs of life of the shards. A shard answers between two of its other tasks, so that one that hangs
//! does not.

use std::time::Duration;

use futures_util::future::join_all;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// A shard that says nothing for so long hangs: none of its tasks may run anywhere near as long.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// Questions that may wait for a shard.
const MOST_ASKS: usize = 8;

/// The asking end, for all shards. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Heartbeats(Vec<mpsc::Sender<oneshot::Sender<()>>>);

/// The end of one shard.
pub struct Heartbeat(mpsc::Receiver<oneshot::Sender<()>>);

/// Who gave a sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Liveness {
    pub alive: bool,
    /// By shard: `alive`, `silent`, or `ended`, which is fine once the host was asked to stop.
    pub shards: Vec<&'static str>,
}

impl Heartbeats {
    /// With as many hearts as there are shards.
    pub fn new(shards: usize) -> (Self, Vec<Heartbeat>) {
        let (asks, hearts) = (0..shards)
            .map(|_| {
                let (asks, inbox) = mpsc::channel(MOST_ASKS);
                (asks, Heartbeat(inbox))
            })
            .unzip();
        (Self(asks), hearts)
    }

    /// Gives each shard up to `limit`. With `may_end`, one that has ended is no bad sign.
    pub(super) async fn ask(&self, limit: Duration, may_end: bool) -> Liveness {
        let shards = join_all(self.0.iter().map(|shard| ask(shard, limit))).await;
        let alive = shards.iter().all(|&shard| shard == ALIVE || (may_end && shard == ENDED));
        Liveness { alive, shards }
    }
}

impl Heartbeat {
    /// Answers until dropped.
    pub async fn beat(mut self) {
        while let Some(asked) = self.0.recv().await {
            let _ = asked.send(());
        }
    }
}

async fn ask(shard: &mpsc::Sender<oneshot::Sender<()>>, limit: Duration) -> &'static str {
    let (answer, answered) = oneshot::channel();
    let asked = async { shard.send(answer).await.is_ok() && answered.await.is_ok() };
    match timeout(limit, asked).await {
        Ok(true) => ALIVE,
        Ok(false) => ENDED,
        Err(_) => "silent",
    }
}

const ALIVE: &str = "alive";
const ENDED: &str = "ended";

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_that_hangs_is_silent_while_the_others_live() {
        let (heartbeats, mut hearts) = Heartbeats::new(2);
        let hangs = hearts.pop().unwrap();
        let lives = tokio::spawn(hearts.pop().unwrap().beat());
        let life = heartbeats.ask(Duration::from_millis(50), false).await;
        assert_eq!(life, Liveness { alive: false, shards: vec!["alive", "silent"] });
        let recovers = tokio::spawn(hangs.beat());
        assert_eq!(
            heartbeats.ask(SILENCE, false).await,
            Liveness { alive: true, shards: vec!["alive", "alive"] }
        );
        recovers.abort();
        lives.abort();
    }

    #[tokio::test]
    async fn a_shard_may_end_only_when_the_host_was_asked_to() {
        let (heartbeats, hearts) = Heartbeats::new(1);
        drop(hearts);
        assert_eq!(heartbeats.ask(SILENCE, false).await, Liveness { alive: false, shards: vec!["ended"] });
        assert!(heartbeats.ask(SILENCE, true).await.alive);
    }
}
