//! The minutes between: what is quickly said about the crates that were changed. Knows git and cargo; what must hold
//! before a change lands is in `checks`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child;
use crate::progress::{Progress, note};
use crate::tree::Tree;

/// Format, clippy and the tests in the sources of the crates that were changed, and the layering test.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let changed = changed(tree)?;
    let cargo = |arguments: &[&str], way_out: &str| child::stream(tree.cargo().args(arguments), way_out);
    let mut progress = Progress::of(STEPS);
    progress.step("checking the format", || cargo(&["fmt", "--all", "--check"], "`cargo fmt --all`"))?;
    let crates: Vec<_> = changed.iter().filter_map(|folder| package(tree.root(), folder)).collect();
    let names: Vec<_> = crates.iter().flat_map(|package| ["-p", &package.name]).collect();
    let with = |before: &[&'static str], after: &[&'static str]| {
        let arguments = before.iter().copied().chain(names.iter().copied()).chain(after.iter().copied());
        child::stream(tree.cargo().args(arguments), "")
    };
    if names.is_empty() {
        note("no crate of this workspace was changed since the last commit that was pushed");
    }
    progress.step("checking the code of what was changed", || {
        if names.is_empty() { Ok(()) } else { with(&["clippy"], &["--all-targets", "--", "-D", "warnings"]) }
    })?;
    progress.step("testing each of these crates by itself", || {
        let has_library = crates.iter().any(|package| package.has_library);
        let targets: &[&str] = if has_library { &["--lib", "--bins"] } else { &["--bins"] };
        if names.is_empty() { Ok(()) } else { with(&["test"], targets) }
    })?;
    progress.step("checking who knows whom", || cargo(&["test", "-p", "e2e", "--test", "layering"], ""))?;
    progress.finish("cargo xtask check: nothing is wrong so far; `cargo xtask test` says the rest");
    Ok(())
}

struct Package {
    name: String,
    has_library: bool,
}

/// The folders of files that differ from what was pushed last, or from the last commit where there is no such thing.
fn changed(tree: &Tree) -> Result<BTreeSet<String>> {
    let git = |arguments: &[&str]| {
        let way_out = "git has to be installed, and this a clone";
        child::capture(Command::new("git").current_dir(tree.root()).args(arguments), GIT, way_out)
    };
    let base = git(&["merge-base", "HEAD", "@{upstream}"]).unwrap_or_else(|_| "HEAD".to_owned());
    let known = git(&["diff", "--name-only", base.trim()])?;
    let new = git(&["ls-files", "--others", "--exclude-standard"])?;
    let folders = known.lines().chain(new.lines()).filter_map(|file| owner(tree.root(), file));
    Ok(folders.collect())
}

/// The nearest folder above `file` that is a crate.
fn owner(root: &Path, file: &str) -> Option<String> {
    let folders = Path::new(file).ancestors().skip(1);
    let mut crates = folders.filter(|folder| root.join(folder).join("Cargo.toml").exists());
    crates.next().map(|folder| folder.to_string_lossy().into_owned())
}

/// The crate in `folder`, if it is one of this workspace.
fn package(root: &Path, folder: &str) -> Option<Package> {
    let text = |path: &Path| fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
    let members: toml::Table = text(&root.join("Cargo.toml")).ok()?.parse().ok()?;
    let members = members.get("workspace")?.get("members")?.as_array()?;
    members.iter().find(|member| member.as_str() == Some(folder))?;
    let manifest: toml::Table = text(&root.join(folder).join("Cargo.toml")).ok()?.parse().ok()?;
    let name = manifest.get("package")?.get("name")?.as_str()?.to_owned();
    Some(Package { name, has_library: root.join(folder).join("src/lib.rs").exists() })
}

const STEPS: usize = 4;
const GIT: Duration = Duration::from_secs(30);
