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

use std::net::SocketAddr;
use std::path::Path;

use adit_document::Mistakes;

use crate::settings::{FlagMistakes, Flags, Settings};
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
    let (document, mistakes) = adit_document::read::<Document>(&source.file, &source.text)?;
    let mut reading = Reading { folder: &source.folder, mistakes, flag_mistakes: FlagMistakes::default() };
    let address = crate::settings::draw_admin(&document, &mut reading);
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
    let (mut document, mistakes) = adit_document::read::<Document>(file, text)?;
    if let Some(tunnel) = &mut document.tunnel {
        flags.put_into(tunnel.get_mut());
    }
    let mut reading = Reading { folder, mistakes, flag_mistakes: FlagMistakes::default() };
    let plan = plan::draw(&document, &mut reading);
    // Without settings there is a mistake that says why.
    let settings = crate::settings::draw(&document, flags, &mut reading);
    let settings = reading.mistakes.into_result(settings)?;
    match settings {
        Some(settings) if reading.flag_mistakes.is_empty() => Ok((settings, plan)),
        _ => Err(reading.flag_mistakes.into()),
    }
}
