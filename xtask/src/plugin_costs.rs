//! Measures what plugins in each language cost: the table of docs/plugins/costs.md.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, languages, plugins, wasm};

/// Builds the example in every language and Adit, optimised, and measures on the machine as it is.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let mut progress = Progress::of(STEPS);
    let rust = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
    progress.step("building the plugins", || plugins::build(tree, &rust))?;
    let there =
        progress.step("finding the tools of the other languages", || languages::provide(tree, &rust))?;
    progress.step("building Adit", || {
        let arguments = ["build", "--locked", "--release", "--workspace", "--bin", "adit"];
        child::stream(tree.cargo().args(arguments), "")
    })?;
    let adit = tree.target("release/adit");
    let folder = tree.target("plugins/greeting");
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let components = progress.step("building the example in each language", || {
        let mut components = Vec::new();
        for language in there {
            let component = folder.join(format!("{language}.wasm"));
            let project = tree.root().join("examples/plugins/greeting").join(language);
            let mut build = Command::new("sh");
            build.args(["-c", ". \"$1\" && exec \"$2\" plugin build \"$3\" --out \"$4\"", "build"]);
            build.arg(tree.target(languages::FILE)).arg(&adit).arg(&project).arg(&component);
            build.env("CARGO_TARGET_DIR", tree.target("plugins-build"));
            child::stream(&mut build, "")?;
            components.push(component);
        }
        components.push(tree.target("plugins/test/service.wasm"));
        Ok(components)
    })?;
    progress.finish("measuring");
    child::stream(Command::new(adit).args(["--log", "warn", "plugin", "bench"]).args(components), "")
}

const STEPS: usize = 5;
