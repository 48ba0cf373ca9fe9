//! What a process begins with: its document, or where that cannot be used the last generation that could.
//! Loudly, because then what serves is not what is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_engine::Engine;
use anyhow::{Context, anyhow};
use tracing::{error, warn};

use crate::buckets::BucketFiles;
use crate::config::document::ConfigSource;
use crate::config::files::Files;
use crate::config::reader::Reader;
use crate::config::settings::{Flags, Settings};
use crate::config::source::Source as Written;
use crate::config::{self, Configuration};
use crate::generation::Generation;
use crate::revision::history::{History, Revision, Source};
use crate::revision::{self, Built, Refusal};

/// The first generation of a process, and all that it came with.
pub struct Start {
    pub settings: Settings,
    pub generation: Generation,
    pub history: Arc<History>,
    /// What the document and the last good generation name.
    pub files: Vec<PathBuf>,
}

/// Reads the document and builds what it asks for. Where that fails and there is a state folder,
/// the last good generation is built instead. `state_dir` goes before what the document says.
///
/// # Errors
/// Everything that is wrong with the document, and why nothing else could take its place.
pub async fn start(
    reader: &Reader,
    state_dir: Option<&Path>,
    flags: &Flags,
    engine: &Engine,
) -> anyhow::Result<Start> {
    if reader.is_document()
        && let Ok(document) = reader.path().canonicalize()
    {
        adit_files::sweep(&document);
    }
    let read = reader.read();
    // What is no document of ours says nothing of where its state is kept.
    let written = || config::state_dir(reader.path()).filter(|_| reader.is_document());
    let state_dir = state_dir.map(Path::to_owned).or_else(written);
    engine.keep_buckets(state_dir.as_deref().map(BucketFiles::below));
    let history = Arc::new(History::open(state_dir.as_deref())?);
    let reasons = match from_document(read, &state_dir, flags, &history, engine).await {
        Ok(start) => return Ok(start),
        Err(reasons) => reasons.join("\n"),
    };
    if state_dir.is_none() {
        return Err(anyhow!(reasons));
    }
    let good: Vec<(u64, Revision)> = history.good().collect();
    for (number, revision) in good {
        let Some(settings) = settings_of(&revision, &state_dir, flags) else { continue };
        let built =
            revision::build(history.next_generation(), &revision, engine, &settings, None, |_| false).await;
        match built {
            Ok(Some(built)) => {
                error!(
                    generation = number,
                    reasons, "the document cannot be used: the last good generation serves in its place"
                );
                history.set_degraded(Some(reasons));
                let (generation, mut files) = built.begin(revision, Source::LastGood, &history);
                files.push(reader.path().to_owned());
                return Ok(Start { settings, generation, history, files });
            }
            Ok(None) => {}
            Err(Refusal { reasons, .. }) => {
                warn!(generation = number, reasons = reasons.join("\n"), "a kept generation cannot be used");
            }
        }
    }
    Err(anyhow!(reasons)).context("and no generation is kept that could serve in its place")
}

async fn from_document(
    read: Result<(Written, Vec<String>), String>,
    state_dir: &Option<PathBuf>,
    flags: &Flags,
    history: &Arc<History>,
    engine: &Engine,
) -> Result<Start, Vec<String>> {
    let (read, translation) = read.map_err(|reasons| vec![reasons])?;
    let mut revision = Revision {
        file: read.file,
        folder: read.folder,
        text: read.text.into(),
        copies: BTreeMap::new(),
        remote: None,
    };
    let drawn = config::lower(&revision.file, &revision.text, &revision.folder, Files::default(), flags);
    let Configuration { mut settings, plan, .. } = drawn.map_err(|mistakes| vec![mistakes.to_string()])?;
    settings.state_dir.clone_from(state_dir);
    for warning in translation.iter().chain(&settings.warnings).chain(&plan.warnings) {
        warn!("{}: {warning}", revision.file);
    }
    if settings.config_source != ConfigSource::Local {
        revision.remote = history.remote();
    }
    let number = history.next_generation();
    let built = match revision::build(number, &revision, engine, &settings, None, |_| false).await {
        Ok(built) => built,
        Err(refusal) => return Err(refusal.reasons),
    };
    let Some(built) = built else { return Err(Vec::new()) };
    Ok(begin(settings, built, revision, history))
}

fn begin(settings: Settings, built: Built, revision: Revision, history: &Arc<History>) -> Start {
    let (generation, files) = built.begin(revision.clone(), Source::Start, history);
    Start { settings, generation, history: history.clone(), files }
}

fn settings_of(revision: &Revision, state_dir: &Option<PathBuf>, flags: &Flags) -> Option<Settings> {
    let files = Files::with_copies(revision.copies.clone());
    let drawn = config::lower(&revision.file, &revision.text, &revision.folder, files, flags).ok()?;
    let mut settings = drawn.settings;
    settings.state_dir.clone_from(state_dir);
    Some(settings)
}
