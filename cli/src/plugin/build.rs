//! `adit plugin build`: from a project to a component, with the tools of its language.

mod c;
mod go;
mod js;
mod python;
mod rust;

use std::fs;
use std::path::{Path, PathBuf};

use adit_engine::{Engine, inspect};
use anyhow::{Context, Result, ensure};

use super::patiently;
use super::project::{Language, Project};
use crate::{Failure, table};

#[derive(clap::Args)]
pub(crate) struct Build {
    /// The plugin's folder
    #[arg(value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
    /// Where the component goes [default: build/plugin.wasm in the folder]
    #[arg(long = "out", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Of Python, JavaScript and TypeScript: have errors print themselves, to the host's log at level debug
    #[arg(long)]
    debug: bool,
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn run(asked: &Build) -> Result<(), Failure> {
    let component = project(&asked.folder, asked.debug).map_err(Failure::Configuration)?;
    check(&component).await.map_err(Failure::Configuration)?;
    let file = match &asked.out {
        None => component,
        Some(out) => {
            let copied = fs::copy(&component, out).with_context(|| format!("writing {}", out.display()));
            copied.map_err(Failure::Running)?;
            out.clone()
        }
    };
    let size = fs::metadata(&file).map(|facts| facts.len()).unwrap_or_default();
    table::print(&format!("{} ({} KiB)", file.display(), size.div_ceil(1024)));
    Ok(())
}

/// Finds out whether a host would take what was built: tools make components of sources that lack what they export. The
/// machine code that this takes is kept for the test.
async fn check(component: &Path) -> Result<()> {
    let wasm = super::component(component)?;
    let engine = Engine::that_compiles_here()?;
    let found = patiently(inspect(&engine, &super::plan(component, "{}"), &wasm)).await;
    found.map(|_| ()).with_context(|| format!("what was built is no plugin: {}", component.display()))
}

/// Builds the plugin in a folder. Hands back where the component is.
fn project(folder: &Path, debug: bool) -> Result<PathBuf> {
    let project = Project::open(folder)?;
    let build = project.build();
    fs::create_dir_all(&build).with_context(|| format!("making {}", build.display()))?;
    match project.language {
        Language::Rust => rust::build(&project),
        Language::Js | Language::Ts => js::build(&project, debug),
        Language::Python => python::build(&project, debug),
        Language::C => c::build(&project),
        Language::Go => go::build(&project),
    }?;
    let component = project.component();
    ensure!(component.is_file(), "{} was not made, though nothing complained", component.display());
    Ok(component)
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}
