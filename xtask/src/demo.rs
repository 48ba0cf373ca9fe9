//! Builds everything and turns into the demonstration.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, anyhow};

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, plugins, wasm};

/// Does not come back when it works: the demonstration takes this process's place, so that Ctrl-C
/// reaches it.
pub(crate) fn start(tree: &Tree, arguments: &[String]) -> Result<()> {
    let mut progress = Progress::of(STEPS);
    let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
    progress.step("building the plugins", || plugins::build_shelf(tree, &toolchain))?;
    progress.step("building adit", || {
        child::stream(tree.cargo().args(["build", "--locked", "--workspace", "--bin", "adit"]), "")
    })?;
    progress.finish("starting the demonstration");

    let program = tree.target("debug/adit");
    let error = Command::new(&program).arg("demo").args(arguments).current_dir(tree.root()).exec();
    Err(anyhow!(error).context(format!("starting {}", program.display())))
}

const STEPS: usize = 3;
