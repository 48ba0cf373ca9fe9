//! The single writer of generations: takes revisions from whoever has one, has what they ask for built
//! completely beside what runs, and swaps once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_engine::Engine;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::build::{Built, Refusal, build};
use super::{Ask, Pushed, Put, Verdict, remote_version};
use crate::config::document::ConfigSource;
use crate::config::reader::Reader;
use crate::config::remote::PUSHED;
use crate::config::settings::Settings;
use crate::generation::lifetime::RetiredGenerations;
use crate::proxy::Current;
use crate::revision::history::{Entry, History, Outcome, Remote, Revision, Serving, Source};
use crate::revision::watch::OwnWriting;

/// Builds and swaps generations, one at a time.
pub struct Writer {
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) reader: Reader,
    /// What the process was started with and cannot change.
    pub(super) settings: Settings,
    pub(super) engine: Engine,
    pub(super) current: Arc<Current>,
    pub(super) history: Arc<History>,
    pub(super) retired_generations: Arc<RetiredGenerations>,
    /// Every file that a change of the configuration may come from.
    pub(super) files: watch::Sender<Vec<PathBuf>>,
    pub(super) own_writing: Arc<OwnWriting>,
    pub observer: Option<Observer>,
}

/// Told `true` when a reload begins, `false` when it is over.
pub type Observer = Box<dyn Fn(bool) + Send + Sync>;

impl Writer {
    /// Serves requests until dropped.
    pub async fn run(mut self) {
        while let Some(first) = self.next().await {
            let mut rereads = Vec::new();
            let mut puts = Vec::new();
            let mut pushes = Vec::new();
            let mut next = Some(first);
            // What has come meanwhile is one turn: a document need not be read once for each who asks, and
            // of several pushed versions only the last is worth building.
            while let Some(ask) = next {
                match ask {
                    Ask::Reread { source, verdict } => rereads.push((source, verdict)),
                    Ask::Put { put, verdict } => puts.push((put, verdict)),
                    Ask::Push { version, json, verdict } => pushes.push((version, json, verdict)),
                }
                next = self.asks.try_recv().ok();
            }
            self.tell(true);
            if let Some(source) =
                rereads.iter().map(|(source, _)| *source).max_by_key(|source| *source != Source::File)
            {
                let verdict = self.reread(source).await;
                for (_, asker) in rereads {
                    let _ = asker.send(verdict.clone());
                }
            }
            for (put, asker) in puts {
                let _ = asker.send(self.put(put).await);
            }
            pushes.sort_by_key(|(version, ..)| std::cmp::Reverse(*version));
            for (version, json, asker) in pushes {
                let _ = asker.send(self.push(version, &json).await);
            }
            self.tell(false);
        }
    }

    /// What is asked for next. Meanwhile it is tried to keep what could not be kept: nobody may come again for a while.
    async fn next(&mut self) -> Option<Ask> {
        loop {
            if let Ok(ask) = timeout(KEEP_AGAIN, self.asks.recv()).await {
                return ask;
            }
            if !self.history.is_unkept() {
                continue;
            }
            let history = self.history.clone();
            // Files are written beside what serves.
            if let Ok(Ok(Some(generation))) = tokio::task::spawn_blocking(move || history.keep_again()).await
            {
                info!(generation, "what serves is kept for the next start now");
            }
        }
    }

    fn tell(&self, begins: bool) {
        if let Some(observer) = &self.observer {
            observer(begins);
        }
    }

    async fn reread(&self, source: Source) -> Verdict {
        match self.reader.read() {
            Ok((read, translation)) => {
                let revision = Revision {
                    file: read.file,
                    folder: read.folder,
                    text: read.text.into(),
                    copies: BTreeMap::new(),
                    remote: self.history.serving().and_then(|serving| serving.revision.remote.clone()),
                };
                self.revise(revision, source, None, translation).await
            }
            Err(reasons) => {
                let reasons = reasons.lines().map(str::to_owned).collect();
                let (files, digest) = (vec![self.reader.path().to_owned()], String::new());
                self.refuse(source, None, Refusal { reasons, files, digest })
            }
        }
    }

    async fn put(&self, put: Put) -> Verdict {
        let Some(serving) = self.history.serving() else {
            return Verdict::Busy { serving: self.current.load().number };
        };
        let tag = serving.tag();
        if put.save && !self.reader.is_document() {
            let reason = format!(
                "{} is no document that could be replaced; ask with save=false to serve this until the next start",
                self.reader.path().display()
            );
            let refusal = Refusal { reasons: vec![reason], files: Vec::new(), digest: String::new() };
            return self.refuse(put.source, None, refusal);
        }
        if put.expected.as_ref().is_some_and(|expected| !expected.contains(&tag)) {
            return Verdict::Stale { serving: serving.generation, tag };
        }
        let revision = Revision {
            file: self.reader.path().display().to_string(),
            folder: self.reader.path().parent().unwrap_or(Path::new("")).to_owned(),
            text: put.text.into(),
            copies: put.copies,
            remote: serving.revision.remote.clone(),
        };
        let save = put.save.then(|| self.reader.path().to_owned());
        self.revise(revision, put.source, save, Vec::new()).await
    }

    async fn push(&self, version: i32, json: &[u8]) -> Pushed {
        let last = remote_version(&self.history);
        if self.settings.config_source == ConfigSource::Local {
            return Pushed::failed(last, "this host is configured by its own document");
        }
        // An equal or a lower one is no mistake: whoever pushed it learns what serves.
        let Some(serving) = self.history.serving().filter(|_| version > last) else {
            return Pushed::serves(last, Vec::new());
        };
        let mut revision = serving.revision.clone();
        revision.remote = Some(Remote { version, json: json.into() });
        match self.revise(revision, Source::Edge, None, Vec::new()).await {
            Verdict::Applied { warnings, .. } => {
                let about = |warning: String| warning.strip_prefix(PUSHED).map(str::to_owned);
                Pushed::serves(version, warnings.into_iter().filter_map(about).collect())
            }
            Verdict::Refused { reasons, .. } => Pushed::failed(last, reasons.join("\n")),
            Verdict::Stale { .. } | Verdict::Busy { .. } => Pushed::failed(last, "try again"),
        }
    }

    /// Builds, keeps, swaps. `save` is where the document is written once it is known to be good.
    async fn revise(
        &self,
        revision: Revision,
        source: Source,
        save: Option<PathBuf>,
        mut warnings: Vec<String>,
    ) -> Verdict {
        let running = self.current.load_full();
        let remote_version = revision.remote.as_ref().map(|remote| remote.version);
        let serving = self.history.serving();
        let is_known = |digest: &str| {
            source == Source::File && serving.as_ref().is_some_and(|serving| serving.digest == digest)
        };
        let number = self.history.next_generation().max(running.number + 1);
        let built = build(number, &revision, &self.engine, &self.settings, Some(&running), is_known).await;
        let built = match built {
            Ok(Some(built)) => built,
            // Somebody has touched a file, or has put it back.
            Ok(None) => {
                self.history.set_degraded(None);
                let tag = serving.map(|serving| serving.tag()).unwrap_or_default();
                return Verdict::Applied { generation: running.number, tag, warnings };
            }
            Err(refusal) => return self.refuse(source, remote_version, refusal),
        };
        let Built { generation, mut settings, plan, digest, parts, secrets } = built;
        // The command line may have said it in the document's place.
        settings.state_dir.clone_from(&self.settings.state_dir);
        warnings.extend(settings.warnings.iter().chain(&plan.warnings).cloned());
        if settings != self.settings {
            warnings.push("what needs a restart has changed, and takes effect at the next start".to_owned());
        }
        let files = self.watched(parts.iter().map(|part| part.path.clone()).chain(secrets));
        let mut entry = Entry::new(number, Outcome::Applied, source, digest.clone());
        entry.remote_version = remote_version;
        entry.warnings.clone_from(&warnings);
        let (history, own_writing, saved) = (self.history.clone(), self.own_writing.clone(), save);
        // Files are written beside what serves. The revision and the entry come back with the outcome.
        let written = tokio::task::spawn_blocking(move || {
            if let Some(path) = saved {
                let text = revision.text.as_bytes();
                write_document(&path, text).map_err(|error| {
                    format!(
                        "the document {} cannot be written: {error}; ask with save=false to serve it until the next start",
                        path.display()
                    )
                })?;
                own_writing.wrote(path, text);
            }
            let kept = history.keep(&mut entry, &revision, &parts).map_err(|error| error.to_string());
            Ok::<_, String>((entry, revision, kept))
        });
        let (mut entry, revision) = match written.await {
            Ok(Ok((entry, revision, kept))) => {
                if let Err(error) = kept {
                    warnings.push(format!("this generation is not kept for the next start: {error}"));
                }
                (entry, revision)
            }
            Ok(Err(reason)) => {
                let refusal = Refusal { reasons: vec![reason], files, digest };
                return self.refuse(source, remote_version, refusal);
            }
            Err(_) => return Verdict::Busy { serving: running.number },
        };
        entry.warnings.clone_from(&warnings);

        running.lifetime.retire(Instant::now() + plan.retire_after);
        self.retired_generations.add(running.lifetime.clone());
        self.current.store(Arc::new(generation));
        let serving = Serving { generation: number, digest, revision };
        let tag = serving.tag();
        self.history.applied(entry, serving);
        self.history.set_degraded(None);
        self.files.send_replace(files);
        for warning in &warnings {
            warn!("{}: {warning}", self.reader.path().display());
        }
        info!(generation = number, ?source, "configuration applied");
        Verdict::Applied { generation: number, tag, warnings }
    }

    fn refuse(&self, source: Source, remote_version: Option<i32>, refusal: Refusal) -> Verdict {
        let serving = self.current.load().number;
        let Refusal { reasons, files, digest } = refusal;
        warn!(serving, ?source, reasons = reasons.join("\n"), "configuration refused; what runs goes on");
        let mut entry = Entry::new(serving, Outcome::Refused, source, digest);
        entry.remote_version = remote_version;
        entry.reasons.clone_from(&reasons);
        self.history.refused(entry);
        // What serves and what was refused: either may change.
        let known = self.files.borrow().clone();
        self.files.send_replace(self.watched(known.into_iter().chain(files)));
        Verdict::Refused { serving, reasons }
    }

    fn watched(&self, named: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = named.chain([self.reader.path().to_owned()]).collect();
        files.sort();
        files.dedup();
        files
    }
}

/// Replaces the document. A link stays one, and what it leads to is replaced.
fn write_document(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path)?.permissions());
    adit_files::replace(&path, text, mode & 0o777)
}

/// How often it is tried to keep what could not be kept.
const KEEP_AGAIN: Duration = Duration::from_secs(5);
