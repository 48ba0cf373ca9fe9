//! JavaScript and TypeScript: componentize-qjs, which puts the source into QuickJS.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::super::project::Project;
use super::super::tool;
use super::super::wit::World;

pub(super) fn build(project: &Project, debug: bool) -> Result<()> {
    let world = World::read(&project.wit())?;
    let source = source(project)?;
    let mut command = Command::new(program(project, "componentize-qjs")?);
    command.arg("--wit").arg(project.wit()).args(["--world", world.name()]).arg("--js").arg(source);
    // What a filter exports is synchronous, and so is what the host calls it as.
    command.arg("--sync").arg("--module-root").arg(&project.folder);
    if !debug {
        command.arg("--stub-wasi");
    }
    command.arg("--output").arg(project.component()).current_dir(&project.folder);
    tool::run("building with componentize-qjs", &mut command)
}

/// The module with the exports; made first if it is written in TypeScript.
fn source(project: &Project) -> Result<PathBuf> {
    if !project.has("plugin.ts") {
        ensure!(project.has("plugin.js"), "{} has no plugin.js and no plugin.ts", project.folder.display());
        return Ok(project.folder.join("plugin.js"));
    }
    let folder = project.build().join("js");
    let mut command = Command::new(program(project, "tsc")?);
    command.arg("--outDir").arg(&folder).current_dir(&project.folder);
    tool::run("compiling TypeScript with tsc", &mut command)?;
    Ok(folder.join("plugin.js"))
}

/// A program of the project's own packages, of those of a folder above, or of the machine.
fn program(project: &Project, name: &str) -> Result<PathBuf> {
    let folders: Vec<PathBuf> =
        project.folder.ancestors().map(|folder| folder.join("node_modules/.bin")).collect();
    match tool::find(&[name], &folders) {
        Some(program) => Ok(program),
        None => bail!(
            "{name} is not there\n  way out: `npm install` in {}; npm comes with Node.js 18 or later",
            project.folder.display()
        ),
    }
}
