//! What a supervisor wants to know of an edge: that it serves, and that each of its shards still answers. Knows
//! numbers; does not know who asks, nor what shards do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// Clones are about the same edge.
#[derive(Clone)]
pub struct Watchdog {
    started: CancellationToken,
    /// The number of the last question.
    question: watch::Sender<u64>,
    /// The last question that each shard has answered.
    answers: Arc<[AtomicU64]>,
}

impl Watchdog {
    pub(crate) fn new(shards: usize) -> Self {
        Self {
            started: CancellationToken::new(),
            question: watch::Sender::new(0),
            answers: (0..shards).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The edge serves on all of its addresses.
    pub(crate) fn start(&self) {
        self.started.cancel();
    }

    /// Done when the edge serves on all of its addresses.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Answers for a shard, on its own thread, for as long as that turns. Costs nothing while nobody asks.
    pub(crate) async fn answer_for(self, shard: usize) {
        let mut questions = self.question.subscribe();
        loop {
            let question = *questions.borrow_and_update();
            if let Some(answer) = self.answers.get(shard) {
                answer.store(question, Ordering::Relaxed);
            }
            if questions.changed().await.is_err() {
                return;
            }
        }
    }

    /// The shards that do not answer within this time; none if the edge lives.
    pub async fn silent(&self, within: Duration) -> Vec<usize> {
        let deadline = Instant::now() + within;
        let mut question = 0;
        self.question.send_modify(|number| {
            *number += 1;
            question = *number;
        });
        loop {
            let silent = |answer: &AtomicU64| answer.load(Ordering::Relaxed) < question;
            let shards = self.answers.iter().enumerate().filter(|(_, answer)| silent(answer));
            let shards: Vec<usize> = shards.map(|(shard, _)| shard).collect();
            if shards.is_empty() || Instant::now() >= deadline {
                return shards;
            }
            sleep(LOOK).await;
        }
    }
}

const LOOK: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_shard_that_does_not_answer_is_named() {
        let watchdog = Watchdog::new(3);
        let answering = [0, 2].map(|shard| tokio::spawn(watchdog.clone().answer_for(shard)));
        assert_eq!(watchdog.silent(Duration::from_millis(50)).await, [1]);
        let last = tokio::spawn(watchdog.clone().answer_for(1));
        assert!(watchdog.silent(Duration::from_secs(20)).await.is_empty());
        for task in answering.into_iter().chain([last]) {
            task.abort();
        }
    }
}
