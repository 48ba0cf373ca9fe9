//! What people write about a host, and what it means: text -> [`document`] -> [`plan`].
//!
//! The rules of documents are in the crate `adit-rules`; here they meet files: where a document comes from, and
//! the settings, with the credentials that they name.

pub mod reader;
pub mod settings;
pub mod source;

#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use adit_config_reader::Mistakes;
/// What is written and what it means, which the edge must know too.
pub use adit_rules::{document, files, grants, plan, remote};

use adit_rules::value::Reader;

use crate::config::settings::{FlagMistakes, Flags, Settings};
use document::Document;
use files::Files;
use plan::Plan;
use source::SourceError;

/// A document that means something.
#[derive(Debug, Clone)]
pub struct Configuration {
    pub settings: Settings,
    pub plan: Plan,
    /// What the document names.
    pub files: Files,
}

/// Why there is no configuration. Printing it prints every mistake of the document.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
    #[error(transparent)]
    Flags(#[from] FlagMistakes),
}

/// Reads the document at `path`, and the credentials that it names: what the process is, and what
/// it serves. Paths in the document are relative to its folder.
///
/// # Errors
/// Every mistake at once, those of the settings and those of the rules.
pub fn load(path: &Path) -> Result<(Settings, Plan), ConfigError> {
    load_with(path, &Flags::default())
}

/// The same, with what the command line says in place of the document.
///
/// # Errors
/// As [`load`]; those of the document first.
pub fn load_with(path: &Path, flags: &Flags) -> Result<(Settings, Plan), ConfigError> {
    let source = source::read(path)?;
    parse_with(&source.file, &source.text, &source.folder, flags)
}

/// Where the admin API of a host listens that runs with the document at `path`. Needs neither its
/// credentials nor its plugins.
///
/// # Errors
/// Mistakes of the kind that any document can have, and those of `[admin]`.
pub fn admin_address(path: &Path) -> Result<SocketAddr, ConfigError> {
    let source = source::read(path)?;
    let (document, mistakes) = adit_config_reader::read::<Document>(&source.file, &source.text)?;
    let mut reading = Reader::new(&source.folder, mistakes);
    let address = settings::lower_admin(&document, &mut reading);
    Ok(reading.mistakes.into_result(address)?)
}

/// The same for a text at hand; `file` is the name that mistakes carry.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &str, text: &str, folder: &Path) -> Result<(Settings, Plan), ConfigError> {
    parse_with(file, text, folder, &Flags::default())
}

fn parse_with(file: &str, text: &str, folder: &Path, flags: &Flags) -> Result<(Settings, Plan), ConfigError> {
    let Configuration { settings, plan, .. } = lower(file, text, folder, Files::default(), flags)?;
    Ok((settings, plan))
}

/// The same, with all that is known about the files that the document names. Those that have copies
/// in `files` are read from there.
///
/// # Errors
/// As [`load_with`].
pub fn lower(
    file: &str,
    text: &str,
    folder: &Path,
    files: Files,
    flags: &Flags,
) -> Result<Configuration, ConfigError> {
    let (mut document, mistakes) = adit_config_reader::read::<Document>(file, text)?;
    flags.put_into(&mut document);
    let mut reading = Reader { files, ..Reader::new(folder, mistakes) };
    let plan = plan::lower(&document, &mut reading);
    // Without settings there is a mistake that says why.
    let settings = settings::lower(&document, flags, &mut reading);
    let Reader { mistakes, flag_mistakes, files, .. } = reading;
    let settings = mistakes.into_result(settings)?;
    match settings {
        Some(settings) if flag_mistakes.is_empty() => Ok(Configuration { settings, plan, files }),
        _ => Err(flag_mistakes.into()),
    }
}

/// Where a document that is wrong otherwise wants its state kept, as far as that can be told.
pub fn state_dir(path: &Path) -> Option<PathBuf> {
    let text = source::read_lossy(path).ok()?;
    let folder = path.parent().unwrap_or(Path::new(""));
    adit_config_reader::glimpse(&text, "state-dir").map(|path| folder.join(path))
}

/// Everything that is wrong, one reason for each mistake, with its place and its way out.
pub fn reasons(mistakes: &ConfigError) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    for line in mistakes.to_string().lines() {
        match (line.strip_prefix("  help: "), reasons.last_mut()) {
            (Some(help), Some(reason)) => reason.push_str(&format!("; {help}")),
            _ => reasons.push(line.to_owned()),
        }
    }
    reasons
}
