//! From a revision to a generation that is ready to serve, and everything that is wrong where there is none. Does
//! not swap.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use adit_engine::Engine;
use sha2::{Digest, Sha256};
use tracing::warn;

use crate::config::document::ConfigSource;
use crate::config::files::Files;
use crate::config::grants::SecretSource;
use crate::config::plan::Plan;
use crate::config::settings::Settings;
use crate::config::{self, Configuration};
use crate::contents::Contents;
use crate::generation::Generation;
use crate::revision::history::{Entry, History, Outcome, Part, Revision, Serving, Source};
use crate::revision::resolve::{self, Mode};

/// A generation that is ready to serve, and what it was made from.
pub struct Built {
    pub generation: Generation,
    pub settings: Settings,
    pub plan: Plan,
    pub digest: String,
    pub(super) parts: Vec<Part>,
    /// Read where they lie whenever a generation is made, and never kept.
    pub(super) secrets: Vec<PathBuf>,
}

/// Why a revision did not become a generation.
pub struct Refusal {
    pub reasons: Vec<String>,
    /// The files that were named, as far as the document could be read.
    pub files: Vec<PathBuf>,
    pub digest: String,
}

/// Draws a revision and builds its generation. `None` if `is_known` says that its digest needs none.
///
/// # Errors
/// Everything that is wrong.
pub async fn build(
    number: u64,
    revision: &Revision,
    engine: &Engine,
    running: &Settings,
    previous: Option<&Generation>,
    is_known: impl Fn(&str) -> bool,
) -> Result<Option<Built>, Refusal> {
    let Revision { file, folder, text, copies, remote } = revision;
    let mut digest = Sha256::new();
    digest.update(text.as_bytes());
    let refused = |reasons, files, digest: &Sha256| Refusal { reasons, files, digest: hex(digest) };
    let drawn = config::lower(file, text, folder, Files::with_copies(copies.clone()), &running.flags);
    let mut drawn = drawn.map_err(|mistakes| refused(config::reasons(&mistakes), Vec::new(), &digest))?;
    let mut named: Vec<PathBuf> = drawn.files.named().map(Path::to_owned).collect();
    // Whoever updates the lock wants what it says.
    named.extend(resolve::lock(&drawn.plan, folder));
    let provided = resolve::provide(&mut drawn, folder, running.state_dir.as_deref(), Mode::Load).await;
    provided.map_err(|reasons| refused(reasons, named.clone(), &digest))?;
    let Configuration { settings, mut plan, files } = drawn;
    let mut reasons = Vec::new();
    if let Some(remote) = remote.as_ref().filter(|_| running.config_source != ConfigSource::Local) {
        digest.update(&remote.json);
        if let Err(wrong) = config::remote::overlay(&mut plan, running.config_source, &remote.json, folder) {
            reasons = wrong;
        }
    }
    let (mut contents, mut parts) = (Contents::default(), Vec::with_capacity(named.len()));
    for path in &named {
        // What cannot be read is for whoever needs it to say.
        let Ok(content) = contents.read(files.place(path)) else { continue };
        digest.update(content.digest);
        parts.push(Part { path: path.clone(), content });
    }
    let secrets = secret_files(&plan);
    for path in &secrets {
        digest.update(mark(path, &mut contents).to_le_bytes());
    }
    // Whoever mends a secret wants it served.
    named.extend(secrets.iter().cloned());
    if reasons.is_empty() && is_known(&hex(&digest)) {
        return Ok(None);
    }
    let built = Generation::build(number, &plan, engine, running.shards, previous, &mut contents).await;
    match built {
        Ok(generation) if reasons.is_empty() => {
            Ok(Some(Built { generation, settings, plan, digest: hex(&digest), parts, secrets }))
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
    pub fn begin(self, revision: Revision, source: Source, history: &History) -> (Generation, Vec<PathBuf>) {
        let Self { generation, settings, plan, digest, parts, secrets } = self;
        let mut entry = Entry::new(generation.number, Outcome::Applied, source, digest.clone());
        entry.remote_version = revision.remote.as_ref().map(|remote| remote.version);
        entry.warnings = settings.warnings.into_iter().chain(plan.warnings).collect();
        if let Err(error) = history.keep(&mut entry, &revision, &parts) {
            warn!(%error, "this generation is not kept for the next start");
        }
        history.applied(entry, Serving { generation: generation.number, digest, revision });
        (generation, parts.into_iter().map(|part| part.path).chain(secrets).collect())
    }
}

fn secret_files(plan: &Plan) -> Vec<PathBuf> {
    let sources = plan.plugins.iter().flat_map(|plugin| plugin.grants.secrets.values());
    sources
        .filter_map(|source| match source {
            SecretSource::File(path) => Some(path.clone()),
            SecretSource::Environment(_) => None,
        })
        .collect()
}

/// Differs when the file does, and says nothing of what is in it: the digest that it becomes part of is shown to
/// people, and a short secret could be guessed from a hash without a key.
fn mark(path: &Path, contents: &mut Contents) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    // What cannot be read is for whoever needs it to say.
    KEY.hash_one(contents.read(path).ok().map(|content| content.digest))
}

fn hex(digest: &Sha256) -> String {
    let mut text = String::with_capacity(64);
    for byte in digest.clone().finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
