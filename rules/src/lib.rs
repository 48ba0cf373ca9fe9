//! What a configuration means: a host's document, flags in its place, and the JSON that an edge pushes, each
//! read with every mistake that it has and lowered to one plan.
//!
//! Pure: no file is opened, no clock is read, nothing is logged. It does not know what serves a plan. The host
//! serves by it, and the edge refuses by it what no host could serve.
//!
//! Read [`document`] (what may be written) and [`plan`] (what it means), then `ingress`, `origin`,
//! `plugin`, [`grants`], [`bucket_server`] and [`reach`] (how one becomes the other) with the values that they are made of: [`value`],
//! [`hostname`], `pattern`, `service` and [`mod@reference`]. [`remote`] reads the reference's JSON and
//! [`reference_json`] writes it.

pub mod bucket_server;
pub mod digest;
pub mod document;
pub mod files;
pub mod flags;
pub mod grants;
pub mod hostname;
mod ingress;
mod origin;
mod pattern;
pub mod plan;
mod plugin;
pub mod reach;
pub mod reference;
pub mod reference_json;
pub mod remote;
mod service;
pub mod shelf;
pub mod value;

#[cfg(test)]
mod testing;

use std::path::Path;

use adit_config_reader::Mistakes;

use document::Document;
use plan::Plan;
use value::Reader;

/// What a document serves; says nothing of who it is and where it connects to. `file` is the name that mistakes
/// carry, and `folder` where its paths begin.
///
/// # Errors
/// Every mistake in what it serves.
pub fn read(file: &str, text: &str, folder: &Path) -> Result<Plan, Mistakes> {
    let (document, mistakes) = adit_config_reader::read::<Document>(file, text)?;
    let mut reading = Reader::new(folder, mistakes);
    let plan = plan::lower(&document, &mut reading);
    reading.mistakes.into_result(plan)
}
