//! The threads of an edge, a runtime each, and how far they have come. Knows that a part which ends before
//! its time ends the edge; does not know what the parts do.

use std::thread;

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::app::shard::ShardPhase;

/// Threads with a runtime each; every one says when it has ended.
pub(crate) struct Threads {
    ended: mpsc::Sender<Ended>,
}

pub(crate) struct Ended {
    name: String,
    result: anyhow::Result<()>,
}

impl Threads {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Ended>) {
        let (ended, inbox) = mpsc::channel(MOST_THREADS);
        (Self { ended }, inbox)
    }

    pub(crate) fn start(
        &self,
        name: &str,
        work: impl FnOnce(&Runtime) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let runtime =
            Builder::new_current_thread().enable_all().build().with_context(|| format!("starting {name}"))?;
        let ending = Ending { name: name.to_owned(), result: None, ended: self.ended.clone() };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let mut ending = ending;
                ending.result = Some(work(&runtime));
                // Before the word is given: what is still running on it must be over then.
                drop(runtime);
            })
            .with_context(|| format!("starting {name}"))?;
        Ok(())
    }
}

/// Gives word of a thread's end, a panic included.
struct Ending {
    name: String,
    result: Option<anyhow::Result<()>>,
    ended: mpsc::Sender<Ended>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| Err(anyhow::anyhow!("panicked")));
        let name = std::mem::take(&mut self.name);
        // There is room for every thread, and whoever does not listen does not want to know.
        let _ = self.ended.try_send(Ended { name, result });
    }
}

/// How far the shards are.
pub(crate) struct Progress {
    reached: mpsc::Receiver<ShardPhase>,
    ended: mpsc::Receiver<Ended>,
    /// A milestone for each shard that has passed it: some are ahead of others.
    passed: Vec<ShardPhase>,
    shards: usize,
}

impl Progress {
    pub(crate) fn new(
        reached: mpsc::Receiver<ShardPhase>,
        ended: mpsc::Receiver<Ended>,
        shards: usize,
    ) -> Self {
        Self { reached, ended, passed: Vec::new(), shards }
    }

    /// Waits until every shard has passed `wanted`. Whatever ends before its time is an error.
    pub(crate) async fn pass(&mut self, wanted: ShardPhase) -> anyhow::Result<()> {
        while self.passed.iter().filter(|passed| **passed == wanted).count() < self.shards {
            tokio::select! {
                milestone = self.reached.recv() => match milestone {
                    Some(milestone) => self.passed.push(milestone),
                    None => return Err(too_early(self.ended.recv().await)),
                },
                early = self.ended.recv() => return Err(too_early(early)),
            }
        }
        Ok(())
    }

    /// Waits for something to end before its time, which is an error.
    pub(crate) async fn fail(&mut self) -> anyhow::Error {
        too_early(self.ended.recv().await)
    }

    /// Waits until `count` parts have ended as they should.
    pub(crate) async fn finish(&mut self, count: usize) -> anyhow::Result<()> {
        for _ in 0..count {
            if let Some(Ended { name, result }) = self.ended.recv().await {
                result.with_context(|| format!("{name} failed"))?;
            }
        }
        Ok(())
    }
}

fn too_early(ended: Option<Ended>) -> anyhow::Error {
    match ended {
        Some(Ended { name, result: Err(error) }) => error.context(format!("{name} failed")),
        Some(Ended { name, result: Ok(()) }) => anyhow::anyhow!("{name} ended by itself"),
        None => anyhow::anyhow!("a part of the edge ended by itself"),
    }
}

/// Shards, control, pace, admin and control API.
const MOST_THREADS: usize = 16;
