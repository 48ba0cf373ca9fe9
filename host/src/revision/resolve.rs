//! Components that lie in registries, made files of before a generation is built: never on the path of a
//! request. Knows where they are kept; does not know what a component is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adit_engine::LARGEST_COMPONENT;
use adit_oci::lock::Lock;
pub use adit_oci::resolve::Mode;
use adit_oci::resolve::Supply;
use anyhow::{Context, anyhow};
use tracing::info;

use crate::config::files::Files;
use crate::config::plan::Plan;
use crate::config::settings::{Flags, Settings};
use crate::config::{self, Configuration, source};

/// Finds a file for each reference of a plan, which names it from then on. The document lies in `folder`; what is
/// pulled is kept below `state_dir`, or without one where this user keeps what can be had again.
///
/// # Errors
/// Everything that cannot be had or is not what it should be, a line each.
pub async fn provide(
    drawn: &mut Configuration,
    folder: &Path,
    state_dir: Option<&Path>,
    mode: Mode,
) -> Result<(), Vec<String>> {
    let plan = &mut drawn.plan;
    if plan.references.is_empty() {
        return Ok(());
    }
    let mut provided = BTreeMap::new();
    let supply = store(state_dir)
        .and_then(|store| Supply::open(folder, &store, &plan.insecure_registries, LARGEST_COMPONENT, mode));
    let mut supply = supply.map_err(|error| vec![format!("{error:#}")])?;
    let mut reasons = Vec::new();
    for wanted in &plan.references {
        let (plugin, reference) = (&wanted.plugin, &wanted.reference);
        match supply.provide(reference, &wanted.keys).await {
            Ok(component) => {
                if component.was_pulled {
                    info!(plugin, %reference, digest = %component.digest, "component pulled");
                }
                provided.insert(PathBuf::from(reference.to_string()), component.path);
            }
            Err(error) => reasons.push(format!("plugin {plugin} ({reference}): {error:#}")),
        }
    }
    if reasons.is_empty()
        && let Err(error) = supply.finish()
    {
        reasons.push(format!("{error:#}"));
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    for plugin in &mut plan.plugins {
        if let Some(place) = provided.get(&plugin.component) {
            Arc::make_mut(plugin).component.clone_from(place);
        }
    }
    drawn.files.provide(provided);
    Ok(())
}

/// The lock that a plan goes by, if it has any use for one.
pub fn lock(plan: &Plan, folder: &Path) -> Option<PathBuf> {
    plan.references.iter().any(|wanted| wanted.reference.digest.is_none()).then(|| Lock::place(folder))
}

/// Reads the document at `path` and provides what it refers to.
///
/// # Errors
/// Every mistake of the document, or everything that cannot be had.
pub async fn load(path: &Path, state_dir: Option<&Path>, mode: Mode) -> anyhow::Result<(Settings, Plan)> {
    let read = source::read(path)?;
    let mut drawn = config::lower(&read.file, &read.text, &read.folder, Files::default(), &Flags::default())?;
    let state_dir = state_dir.map(Path::to_owned).or_else(|| drawn.settings.state_dir.clone());
    let provided = provide(&mut drawn, &read.folder, state_dir.as_deref(), mode).await;
    provided.map_err(|reasons| anyhow!(reasons.join("\n")))?;
    Ok((drawn.settings, drawn.plan))
}

/// Where pulled components are kept.
fn store(state_dir: Option<&Path>) -> anyhow::Result<PathBuf> {
    let usual = || Some(adit_compile_cache::usual_folder()?.parent()?.to_owned());
    let folder = state_dir.map(Path::to_owned).or_else(usual);
    let folder =
        folder.context("there is no place for components: set `state-dir`, HOME or CACHE_DIRECTORY")?;
    Ok(folder.join("components"))
}
