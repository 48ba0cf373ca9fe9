//! The single writer of generations: takes revisions from whoever has one, builds what they ask for
//! completely beside what runs, and swaps once. Whoever asked gets a verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use crate::config::document::ConfigSource;
use crate::config::files::Files;
use crate::config::{self, Configuration, source};
use crate::generation::Generation;
use crate::history::{Draft, Entry, History, Outcome, Part, Remote, Serving, Source, replace};
use crate::plugin::Engine;
use crate::proxy::Current;
use crate::settings::Settings;
use crate::supply::{self, Mode};
use crate::tenure::Tenures;

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
    tenures: Arc<Tenures>,
    files: watch::Receiver<Vec<PathBuf>>,
}

/// Builds and swaps generations, one at a time.
pub struct Writer {
    asks: mpsc::Receiver<Ask>,
    document: PathBuf,
    /// What the process was started with and cannot change.
    settings: Settings,
    engine: Engine,
    current: Arc<Current>,
    history: Arc<History>,
    tenures: Arc<Tenures>,
    /// Every file that a change of the configuration may come from.
    files: watch::Sender<Vec<PathBuf>>,
    pub observer: Option<Observer>,
}

/// A generation that is ready to serve, and what it was made from.
pub struct Built {
    pub generation: Generation,
    pub settings: Settings,
    pub plan: config::plan::Plan,
    pub digest: String,
    parts: Vec<Part>,
}

/// Why a draft did not become a generation.
pub struct Refusal {
    pub reasons: Vec<String>,
    /// The files that were named, as far as the document could be read.
    pub files: Vec<PathBuf>,
    pub digest: String,
}

/// Told `true` when a reload begins, `false` when it is over.
pub type Observer = Box<dyn Fn(bool) + Send + Sync>;

impl Reload {
    /// `document` is read again when somebody asks for it. What serves must be in the history.
    pub fn new(
        document: PathBuf,
        settings: Settings,
        engine: Engine,
        current: Arc<Current>,
        history: Arc<History>,
        files: Vec<PathBuf>,
    ) -> (Self, Writer) {
        let (asks, inbox) = mpsc::channel(MOST_ASKS);
        let (named, seen) = watch::channel(files);
        let tenures = Arc::new(Tenures::default());
        let reload = Self {
            asks,
            current: current.clone(),
            history: history.clone(),
            tenures: tenures.clone(),
            files: seen,
        };
        let writer = Writer {
            asks: inbox,
            document,
            settings,
            engine,
            current,
            history,
            tenures,
            files: named,
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
        let failed =
            |error: &str| Pushed { version: remote_version(&self.history), error: Some(error.to_owned()) };
        if self.asks.try_send(Ask::Push { version, json, verdict }).is_err() {
            return failed("too many revisions at once, or the host is stopping");
        }
        given.await.unwrap_or_else(|_| failed("the host is stopping"))
    }

    pub fn history(&self) -> &Arc<History> {
        &self.history
    }

    /// The generations before the one that serves.
    pub fn tenures(&self) -> &Tenures {
        &self.tenures
    }

    /// The files whose change may be a revision.
    pub fn files(&self) -> watch::Receiver<Vec<PathBuf>> {
        self.files.clone()
    }

    async fn ask(&self, ask: Ask, given: oneshot::Receiver<Verdict>) -> Verdict {
        let busy = || Verdict::Busy { serving: self.current.load().number };
        if self.asks.try_send(ask).is_err() {
            return busy();
        }
        given.await.unwrap_or_else(|_| busy())
    }
}

impl Writer {
    /// Serves requests until dropped.
    pub async fn run(mut self) {
        while let Some(first) = self.asks.recv().await {
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

    fn tell(&self, begins: bool) {
        if let Some(observer) = &self.observer {
            observer(begins);
        }
    }

    async fn reread(&self, source: Source) -> Verdict {
        let read = source::read(&self.document).map_err(|error| vec![error.to_string()]);
        match read {
            Ok(read) => {
                let draft = Draft {
                    file: read.file,
                    folder: read.folder,
                    text: read.text.into(),
                    copies: BTreeMap::new(),
                    remote: self.history.serving().and_then(|serving| serving.draft.remote.clone()),
                };
                self.revise(draft, source, None).await
            }
            Err(reasons) => {
                let digest = String::new();
                self.refuse(source, None, Refusal { reasons, files: vec![self.document.clone()], digest })
            }
        }
    }

    async fn put(&self, put: Put) -> Verdict {
        let Some(serving) = self.history.serving() else {
            return Verdict::Busy { serving: self.current.load().number };
        };
        let tag = serving.tag();
        if put.expected.as_ref().is_some_and(|expected| !expected.contains(&tag)) {
            return Verdict::Stale { serving: serving.generation, tag };
        }
        let draft = Draft {
            file: self.document.display().to_string(),
            folder: self.document.parent().unwrap_or(Path::new("")).to_owned(),
            text: put.text.into(),
            copies: put.copies,
            remote: serving.draft.remote.clone(),
        };
        self.revise(draft, put.source, put.save.then_some(&self.document)).await
    }

    async fn push(&self, version: i32, json: &[u8]) -> Pushed {
        let last = remote_version(&self.history);
        if self.settings.config_source == ConfigSource::Local {
            let error = "this host is configured by its own document".to_owned();
            return Pushed { version: last, error: Some(error) };
        }
        // An equal or a lower one is no mistake: whoever pushed it learns what serves.
        let Some(serving) = self.history.serving().filter(|_| version > last) else {
            return Pushed { version: last, error: None };
        };
        let mut draft = serving.draft.clone();
        draft.remote = Some(Remote { version, json: json.into() });
        match self.revise(draft, Source::Edge, None).await {
            Verdict::Applied { .. } => Pushed { version, error: None },
            Verdict::Refused { reasons, .. } => Pushed { version: last, error: Some(reasons.join("\n")) },
            Verdict::Stale { .. } | Verdict::Busy { .. } => {
                Pushed { version: last, error: Some("try again".to_owned()) }
            }
        }
    }

    /// Builds, keeps, swaps. `save` is where the document is written once it is known to be good.
    async fn revise(&self, draft: Draft, source: Source, save: Option<&PathBuf>) -> Verdict {
        let running = self.current.load_full();
        let remote_version = draft.remote.as_ref().map(|remote| remote.version);
        let serving = self.history.serving();
        let is_known = |digest: &str| {
            source == Source::File && serving.as_ref().is_some_and(|serving| serving.digest == digest)
        };
        let number = self.history.next_generation().max(running.number + 1);
        let built = build(number, &draft, &self.engine, &self.settings, Some(&running), is_known).await;
        let built = match built {
            Ok(Some(built)) => built,
            // Somebody has touched a file, or has put it back.
            Ok(None) => {
                self.history.set_degraded(None);
                let tag = serving.map(|serving| serving.tag()).unwrap_or_default();
                return Verdict::Applied { generation: running.number, tag, warnings: Vec::new() };
            }
            Err(refusal) => return self.refuse(source, remote_version, refusal),
        };
        let Built { generation, mut settings, plan, digest, parts } = built;
        // The command line may have said it in the document's place.
        settings.state_dir.clone_from(&self.settings.state_dir);
        let mut warnings: Vec<String> = settings.warnings.iter().chain(&plan.warnings).cloned().collect();
        if settings != self.settings {
            warnings.push("what needs a restart has changed, and takes effect at the next start".to_owned());
        }
        let files = self.watched(parts.iter().map(|part| part.path.clone()));
        let mut entry = Entry::new(number, Outcome::Applied, source, digest.clone());
        entry.remote_version = remote_version;
        entry.warnings.clone_from(&warnings);
        let (history, saved) = (self.history.clone(), save.cloned());
        // Files are written beside what serves. The draft and the entry come back with the outcome.
        let written = tokio::task::spawn_blocking(move || {
            if let Some(path) = saved {
                let text = draft.text.as_bytes();
                write_document(&path, text).map_err(|error| {
                    format!(
                        "the document {} cannot be written: {error}; ask with save=false to serve it until the next start",
                        path.display()
                    )
                })?;
            }
            let kept = history.keep(&mut entry, &draft, &parts).map_err(|error| error.to_string());
            Ok::<_, String>((entry, draft, kept))
        });
        let (mut entry, draft) = match written.await {
            Ok(Ok((entry, draft, kept))) => {
                if let Err(error) = kept {
                    warnings.push(format!("this generation is not kept for the next start: {error}"));
                }
                (entry, draft)
            }
            Ok(Err(reason)) => {
                let refusal = Refusal { reasons: vec![reason], files, digest };
                return self.refuse(source, remote_version, refusal);
            }
            Err(_) => return Verdict::Busy { serving: running.number },
        };
        entry.warnings.clone_from(&warnings);

        running.tenure.retire(Instant::now() + plan.retire_after);
        self.tenures.add(running.tenure.clone());
        self.current.store(Arc::new(generation));
        let serving = Serving { generation: number, digest, draft };
        let tag = serving.tag();
        self.history.applied(entry, serving);
        self.history.set_degraded(None);
        self.files.send_replace(files);
        for warning in &warnings {
            warn!("{}: {warning}", self.document.display());
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
        let mut files: Vec<PathBuf> = named.chain([self.document.clone()]).collect();
        files.sort();
        files.dedup();
        files
    }
}

/// Draws a draft and builds its generation. `None` if `is_known` says that its digest needs none.
///
/// # Errors
/// Everything that is wrong.
pub async fn build(
    number: u64,
    draft: &Draft,
    engine: &Engine,
    running: &Settings,
    previous: Option<&Generation>,
    is_known: impl Fn(&str) -> bool,
) -> Result<Option<Built>, Refusal> {
    let Draft { file, folder, text, copies, remote } = draft;
    let mut digest = Sha256::new();
    digest.update(text.as_bytes());
    let refused = |reasons, files, digest: &Sha256| Refusal { reasons, files, digest: hex(digest) };
    let drawn = config::draw(file, text, folder, Files::with_copies(copies.clone()), &running.flags);
    let drawn = drawn.map_err(|mistakes| refused(config::reasons(&mistakes), Vec::new(), &digest))?;
    let mut named: Vec<PathBuf> = drawn.files.named().map(Path::to_owned).collect();
    // Whoever updates the lock wants what it says.
    named.extend(supply::lock(&drawn.plan, folder));
    let provided = supply::provide(&drawn.plan, folder, running.state_dir.as_deref(), Mode::Load).await;
    let provided = provided.map_err(|reasons| refused(reasons, named.clone(), &digest))?;
    let Configuration { settings, mut plan, files } = if provided.is_empty() {
        drawn
    } else {
        let copies = copies.iter().map(|(path, place)| (path.clone(), place.clone())).chain(provided);
        let again = config::draw(file, text, folder, Files::with_copies(copies.collect()), &running.flags);
        again.map_err(|mistakes| refused(config::reasons(&mistakes), named.clone(), &digest))?
    };
    let mut reasons = Vec::new();
    if let Some(remote) = remote.as_ref().filter(|_| running.config_source != ConfigSource::Local) {
        digest.update(&remote.json);
        if let Err(wrong) = config::remote::overlay(&mut plan, running.config_source, &remote.json, folder) {
            reasons = wrong;
        }
    }
    let mut parts = Vec::with_capacity(named.len());
    for path in &named {
        let place = files.place(path).to_owned();
        // What cannot be read is for whoever needs it to say.
        let Ok(part) = source::digest(&place) else { continue };
        digest.update(part);
        parts.push(Part { path: path.clone(), place, digest: part });
    }
    if reasons.is_empty() && is_known(&hex(&digest)) {
        return Ok(None);
    }
    let built = Generation::build(number, &plan, engine, running.shards, previous).await;
    match built {
        Ok(generation) if reasons.is_empty() => {
            // A part that was read twice and differs has changed meanwhile: neither is what was asked for.
            let changed = generation.components().find(|(place, component)| {
                parts.iter().any(|part| part.place == *place && part.digest != *component)
            });
            if let Some((place, _)) = changed {
                reasons.push(format!("{} has changed while it was read; ask again", place.display()));
                return Err(refused(reasons, named, &digest));
            }
            Ok(Some(Built { generation, settings, plan, digest: hex(&digest), parts }))
        }
        Ok(_) => Err(refused(reasons, named, &digest)),
        Err(wrong) => {
            reasons.extend(wrong.reasons);
            Err(refused(reasons, named, &digest))
        }
    }
}

impl Built {
    /// Makes it the first of a process: kept, and known to the history. Warns where it cannot be kept.
    pub fn begin(self, draft: Draft, source: Source, history: &History) -> (Generation, Vec<PathBuf>) {
        let Self { generation, settings, plan, digest, parts } = self;
        let mut entry = Entry::new(generation.number, Outcome::Applied, source, digest.clone());
        entry.remote_version = draft.remote.as_ref().map(|remote| remote.version);
        entry.warnings = settings.warnings.into_iter().chain(plan.warnings).collect();
        if let Err(error) = history.keep(&mut entry, &draft, &parts) {
            warn!(%error, "this generation is not kept for the next start");
        }
        history.applied(entry, Serving { generation: generation.number, digest, draft });
        (generation, parts.into_iter().map(|part| part.path).collect())
    }
}

/// Replaces the document. A link stays one, and what it leads to is replaced.
fn write_document(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let path = path.canonicalize()?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path)?.permissions());
    replace(&temporary, &path, text, mode & 0o777)
}

/// The version of what the edge has pushed last.
/// The version of the pushed configuration that serves.
pub fn remote_version(history: &History) -> i32 {
    let serving = history.serving();
    serving.and_then(|serving| Some(serving.draft.remote.as_ref()?.version)).unwrap_or(NO_VERSION)
}

fn hex(digest: &Sha256) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest.clone().finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests;
