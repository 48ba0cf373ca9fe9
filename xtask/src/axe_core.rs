//! Finds axe-core, by which the tests of the pages look for what keeps people out who see or move less.

use std::path::PathBuf;

use anyhow::Result;

use crate::npm;
use crate::progress::note;
use crate::tree::Tree;

/// A folder under target/tools whose `node_modules` has it; nothing, and a word about it, where there is no Node.js or
/// no npm: then `cargo xtask test` fails at the test that wants it.
pub(crate) fn provide(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools/axe-core");
    if let Err(error) = npm::install(&folder, "axe-core", VERSION, LOCK) {
        note(format!("SKIPPED: there is no axe-core here, so pages are not looked at by it ({error:#})"));
        return Ok(None);
    }
    note(format!("axe-core {VERSION}, in {}", tree.short(&folder)));
    Ok(Some(folder))
}

const VERSION: &str = "4.14.1";
const LOCK: &str = include_str!("pins/axe-core.json");
