//! JavaScript and TypeScript: componentize-qjs, which puts the source into QuickJS. It runs its top level, so that what
//! is looked at there is found while it is built.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail, ensure};

use super::super::project::Project;
use super::super::tool;
use super::super::wit::World;
use super::write;

pub(super) fn build(project: &Project, debug: bool) -> Result<()> {
    let world = World::read(&project.wit())?;
    let source = entry(project, &source(project)?, &world)?;
    let mut command = Command::new(program(project, "componentize-qjs")?);
    command.arg("--wit").arg(project.wit()).args(["--world", world.name()]).arg("--js").arg(source);
    // What a filter exports is synchronous, and so is what the host calls it as.
    command.arg("--sync").arg("--module-root").arg(&project.folder);
    if !debug && !world.names_wasi() {
        command.arg("--stub-wasi");
    }
    command.arg("--output").arg(project.component()).current_dir(&project.folder);
    tool::run("building with componentize-qjs", &mut command)
}

/// The module with the exports; made first if it is written in TypeScript.
fn source(project: &Project) -> Result<PathBuf> {
    if !project.has("plugin.ts") {
        ensure!(
            project.has("plugin.js"),
            "{} has no plugin.js and no plugin.ts\n  way out: the module that exports the plugin has one of these names",
            project.folder.display()
        );
        return Ok(project.folder.join("plugin.js"));
    }
    let folder = project.build().join("js");
    let mut command = Command::new(program(project, "tsc")?);
    command.arg("--outDir").arg(&folder).current_dir(&project.folder);
    tool::run("compiling TypeScript with tsc", &mut command)?;
    Ok(folder.join("plugin.js"))
}

/// A module around the source that looks for every function that the world exports: one that is missing would be a trap
/// when it is called, on the first request.
fn entry(project: &Project, source: &Path, world: &World) -> Result<PathBuf> {
    let wanted: Vec<(String, Vec<String>)> = world
        .exports()
        .into_iter()
        .map(|(interface, functions)| (camel(&interface), functions.iter().map(|name| camel(name)).collect()))
        .collect();
    let folder = project.build().join("js");
    let file = folder.join("entry.js");
    let from = match source.strip_prefix(&folder) {
        Ok(made) => format!("./{}", made.display()),
        Err(_) => format!("../../{}", source.strip_prefix(&project.folder).unwrap_or(source).display()),
    };
    let content = ENTRY
        .replace("WANTED", &serde_json::to_string(&wanted)?)
        .replace("FROM", &serde_json::to_string(&from)?);
    write(&file, content.as_bytes())?;
    Ok(file)
}

/// As the bindings name what WIT has in words with hyphens.
fn camel(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |mut name, word| {
        let mut letters = word.chars();
        name.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        name.push_str(letters.as_str());
        name
    })
}

const ENTRY: &str = "\
// Made by `adit plugin build`.
import * as plugin from FROM;
export * from FROM;

const missing = [];
for (const [name, functions] of WANTED) {
  for (const each of functions) {
    if (typeof plugin[name]?.[each] !== \"function\") missing.push(`${name}.${each}`);
  }
}
if (missing.length > 0) {
  throw new Error(`not exported, though wit/world.wit names it: ${missing.join(\", \")}`);
}
";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_bindings() {
        for (name, expected) in [("lifecycle", "lifecycle"), ("on-request", "onRequest"), ("a-b-cd", "aBCd")]
        {
            assert_eq!(camel(name), expected);
        }
    }
}
