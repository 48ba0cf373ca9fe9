//! Asks for a change of what serves: whoever has a revision hands it over here, and gets a verdict. Does not
//! know how a generation is made (`build`) nor when it serves (`writer`).

pub mod bootstrap;
mod build;
pub mod history;
pub mod resolve;
pub mod watch;
mod writer;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use adit_engine::Engine;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

pub use build::{Built, Refusal, build};
pub use writer::{Observer, Writer};

use crate::config::reader::Reader;
use crate::config::settings::Settings;
use crate::generation::lifetime::RetiredGenerations;
use crate::proxy::Current;
use crate::revision::history::{History, Source};
use crate::revision::watch::OwnWriting;

/// Revisions that may wait while a generation is built; more are told to come back.
const MOST_ASKS: usize = 64;
/// What a pushed configuration has before the first, as the reference counts.
const NO_VERSION: i32 = -1;

/// What became of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This generation serves now.
    Applied { generation: u64, tag: String, warnings: Vec<String> },
    /// Nothing has changed; `reasons` says everything that is wrong.
    Refused { serving: u64, reasons: Vec<String> },
    /// Nothing has changed, because the revision was made from something else than what serves.
    Stale { serving: u64, tag: String },
    /// Nothing has changed, and nothing was looked at.
    Busy { serving: u64 },
}

/// What became of a configuration that the edge has pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The last that was applied; -1 if none was.
    pub version: i32,
    /// Why this one was not.
    pub error: Option<String>,
    /// What of this one is served otherwise than it was meant.
    pub warnings: Vec<String>,
}

impl Pushed {
    fn serves(version: i32, warnings: Vec<String>) -> Self {
        Self { version, error: None, warnings }
    }

    fn failed(last: i32, error: impl Into<String>) -> Self {
        Self { version: last, error: Some(error.into()), warnings: Vec::new() }
    }
}

/// A document that somebody hands over.
#[derive(Debug, Clone)]
pub struct Put {
    pub text: String,
    /// Files are read from these places instead of where the document says.
    pub copies: BTreeMap<PathBuf, PathBuf>,
    /// The tags of which one must be that of what serves; `None` for any.
    pub expected: Option<Vec<String>>,
    /// Becomes the content of the document's file, so that the next start finds it.
    pub save: bool,
    pub source: Source,
}

enum Ask {
    Reread { source: Source, verdict: oneshot::Sender<Verdict> },
    Put { put: Put, verdict: oneshot::Sender<Verdict> },
    Push { version: i32, json: Bytes, verdict: oneshot::Sender<Pushed> },
}

/// Asks the writer. Can be cloned and used from any thread.
#[derive(Clone)]
pub struct Reload {
    asks: mpsc::Sender<Ask>,
    current: Arc<Current>,
    history: Arc<History>,
    retired_generations: Arc<RetiredGenerations>,
    files: tokio::sync::watch::Receiver<Vec<PathBuf>>,
    own_writing: Arc<OwnWriting>,
}

impl Reload {
    /// `reader` reads again when it is asked for. What serves must be in the history.
    pub fn new(
        reader: Reader,
        settings: Settings,
        engine: Engine,
        current: Arc<Current>,
        history: Arc<History>,
        files: Vec<PathBuf>,
    ) -> (Self, Writer) {
        let (asks, inbox) = mpsc::channel(MOST_ASKS);
        let (named, seen) = tokio::sync::watch::channel(files);
        let retired_generations = Arc::new(RetiredGenerations::default());
        let own_writing = Arc::new(OwnWriting::default());
        let reload = Self {
            asks,
            current: current.clone(),
            history: history.clone(),
            retired_generations: retired_generations.clone(),
            files: seen,
            own_writing: own_writing.clone(),
        };
        let writer = Writer {
            asks: inbox,
            reader,
            settings,
            engine,
            current,
            history,
            retired_generations,
            files: named,
            own_writing,
            observer: None,
        };
        (reload, writer)
    }

    /// Reads the document again and serves it, if all of it is good. Dropped midway the reload goes on.
    pub async fn reread(&self, source: Source) -> Verdict {
        let (verdict, given) = oneshot::channel();
        self.ask(Ask::Reread { source, verdict }, given).await
    }

    /// Serves this document, if all of it is good. Dropped midway it goes on.
    pub async fn put(&self, put: Put) -> Verdict {
        let (verdict, given) = oneshot::channel();
        self.ask(Ask::Put { put, verdict }, given).await
    }

    /// Serves what the edge has pushed, if this host takes that and all of it is good. Dropped midway it
    /// goes on.
    pub async fn push(&self, version: i32, json: Bytes) -> Pushed {
        let (verdict, given) = oneshot::channel();
        let failed = |error: &str| Pushed::failed(remote_version(&self.history), error);
        if self.asks.try_send(Ask::Push { version, json, verdict }).is_err() {
            return failed("too many revisions at once, or the host is stopping");
        }
        given.await.unwrap_or_else(|_| failed("the host is stopping"))
    }

    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// The generations before the one that serves.
    pub fn retired_generations(&self) -> &RetiredGenerations {
        &self.retired_generations
    }

    /// The files whose change may be a revision.
    pub fn files(&self) -> tokio::sync::watch::Receiver<Vec<PathBuf>> {
        self.files.clone()
    }

    /// The document as this host has written it itself.
    pub(crate) fn own_writing(&self) -> &OwnWriting {
        &self.own_writing
    }

    async fn ask(&self, ask: Ask, given: oneshot::Receiver<Verdict>) -> Verdict {
        let busy = || Verdict::Busy { serving: self.current.load().number };
        if self.asks.try_send(ask).is_err() {
            return busy();
        }
        given.await.unwrap_or_else(|_| busy())
    }
}

/// The version of the pushed configuration that serves.
pub fn remote_version(history: &History) -> i32 {
    let serving = history.serving();
    serving.and_then(|serving| Some(serving.revision.remote.as_ref()?.version)).unwrap_or(NO_VERSION)
}

#[cfg(test)]
mod tests;
