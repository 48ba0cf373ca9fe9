//! The single writer of generations: takes requests to read the document again, builds what it asks
//! for completely beside what runs, and swaps once. Whoever asked gets a verdict.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::config;
use crate::generation::Generation;
use crate::plugin::Engine;
use crate::proxy::Current;
use crate::settings::Settings;

/// Requests that may wait while a generation is built; more are told to come back.
const MOST_ASKS: usize = 16;

/// What became of a request to reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This generation serves now.
    Applied { generation: u64, warnings: Vec<String> },
    /// Nothing has changed; `reasons` says everything that is wrong.
    Refused { serving: u64, reasons: String },
}

/// Asks the writer. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Reload {
    asks: mpsc::Sender<oneshot::Sender<Verdict>>,
    current: Arc<Current>,
}

/// Builds and swaps generations, one at a time.
pub struct Writer {
    asks: mpsc::Receiver<oneshot::Sender<Verdict>>,
    pub document: PathBuf,
    /// What the process was started with and cannot change.
    pub settings: Settings,
    pub engine: Engine,
    pub current: Arc<Current>,
    pub observer: Option<Observer>,
}

/// Told `true` when a reload begins, `false` when it is over.
pub type Observer = Box<dyn Fn(bool) + Send + Sync>;

impl Reload {
    pub fn new(
        document: PathBuf,
        settings: Settings,
        engine: Engine,
        current: Arc<Current>,
    ) -> (Self, Writer) {
        let (asks, inbox) = mpsc::channel(MOST_ASKS);
        let reload = Self { asks, current: current.clone() };
        (reload, Writer { asks: inbox, document, settings, engine, current, observer: None })
    }

    /// Reads the document again and serves it, if all of it is good. Dropped midway the reload goes on.
    pub async fn ask(&self) -> Verdict {
        let (verdict, given) = oneshot::channel();
        let refused = |reasons: &str| Verdict::Refused {
            serving: self.current.load().number,
            reasons: reasons.to_owned(),
        };
        if self.asks.try_send(verdict).is_err() {
            return refused("too many reloads at once, or the host is stopping");
        }
        given.await.unwrap_or_else(|_| refused("the host is stopping"))
    }
}

impl Writer {
    /// Serves requests until dropped.
    pub async fn run(mut self) {
        while let Some(asked) = self.asks.recv().await {
            self.tell(true);
            let verdict = self.reload().await;
            self.tell(false);
            match &verdict {
                Verdict::Applied { generation, warnings } => {
                    for warning in warnings {
                        warn!("{}: {warning}", self.document.display());
                    }
                    info!(generation, "configuration applied");
                }
                Verdict::Refused { serving, reasons } => {
                    warn!(serving, reasons, "configuration refused; what runs goes on");
                }
            }
            let _ = asked.send(verdict);
        }
    }

    fn tell(&self, begins: bool) {
        if let Some(observer) = &self.observer {
            observer(begins);
        }
    }

    async fn reload(&self) -> Verdict {
        let running = self.current.load_full();
        match self.build(&running).await {
            Ok((generation, warnings)) => {
                let number = generation.number;
                self.current.store(Arc::new(generation));
                Verdict::Applied { generation: number, warnings }
            }
            Err(error) => Verdict::Refused { serving: running.number, reasons: format!("{error:#}") },
        }
    }

    async fn build(&self, running: &Generation) -> anyhow::Result<(Generation, Vec<String>)> {
        let (settings, plan) = config::load_with(&self.document, &self.settings.flags)?;
        let mut warnings: Vec<String> = settings.warnings.iter().chain(&plan.warnings).cloned().collect();
        if settings != self.settings {
            warnings.push(
                "[tunnel], [admin] or [ready] has changed, which takes effect at the next start".to_owned(),
            );
        }
        let number = running.number + 1;
        let generation =
            Generation::build(number, &plan, &self.engine, self.settings.shards, Some(running)).await?;
        Ok((generation, warnings))
    }
}
