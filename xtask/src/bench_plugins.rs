//! Measures what a plugin costs.

use std::process::Command;

use anyhow::Result;

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, plugins, wasm};

/// Builds the guests and the bench, optimised, and runs it.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let mut progress = Progress::of(STEPS);
    let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
    progress.step("building the plugins", || plugins::build(tree, &toolchain))?;
    progress.step("building the bench", || {
        let arguments = ["build", "--locked", "--release", "--workspace", "--bin", "plugin-cost"];
        child::stream(tree.cargo().args(arguments), "")
    })?;
    progress.finish("measuring");
    child::stream(&mut Command::new(tree.target("release/plugin-cost")), "")
}

const STEPS: usize = 3;
