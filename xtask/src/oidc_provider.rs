//! Finds an OpenID provider that is not ours, at which the tests of the plugin `oidc` sign in.

use std::path::PathBuf;

use anyhow::Result;

use crate::npm;
use crate::progress::note;
use crate::tree::Tree;

/// A folder under target/tools whose `node_modules` has it; nothing, and a word about it, where there is no Node.js or
/// no npm: then `cargo xtask test` fails at the test that wants it.
pub(crate) fn provide(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools/oidc-provider");
    if let Err(error) = npm::install(&folder, "oidc-provider", VERSION, LOCK) {
        note(format!("SKIPPED: there is no OpenID provider here, so nobody signs in ({error:#})"));
        return Ok(None);
    }
    note(format!("oidc-provider {VERSION}, in {}", tree.short(&folder)));
    Ok(Some(folder))
}

const VERSION: &str = "9.13.3";
const LOCK: &str = include_str!("pins/oidc-provider.json");
