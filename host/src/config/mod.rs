//! What people write about a host, and what it means: text -> [`document`] -> [`plan`].
//!
//! Knows every rule of the host's document; does not run anything.

pub mod document;
pub mod grants;
pub(crate) mod hostname;
mod ingress;
mod origin;
pub mod plan;
mod plugin;
mod service;
pub mod source;
pub(crate) mod value;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use adit_document::Mistakes;

use crate::settings::Settings;
use document::Document;
use plan::Plan;
use source::SourceError;
use value::Reading;

/// Why there is no configuration. Printing it prints every mistake of the document.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

/// Reads the document at `path`, and the credentials that it names: what the process is, and what
/// it serves. Paths in the document are relative to its folder.
///
/// # Errors
/// Every mistake at once, those of the settings and those of the rules.
pub fn load(path: &Path) -> Result<(Settings, Plan), ConfigError> {
    let source = source::read(path)?;
    Ok(parse(&source.file, &source.text, &source.folder)?)
}

/// The same for a text at hand; `file` is the name that mistakes carry.
///
/// # Errors
/// As [`load`].
pub fn parse(file: &str, text: &str, folder: &Path) -> Result<(Settings, Plan), Mistakes> {
    let (document, mistakes) = adit_document::read::<Document>(file, text)?;
    let mut reading = Reading { folder, mistakes };
    let plan = plan::draw(&document, &mut reading);
    // Without settings there is a mistake that says why.
    match crate::settings::draw(&document, &mut reading) {
        Some(settings) => reading.mistakes.into_result((settings, plan)),
        None => Err(reading.mistakes),
    }
}
