//! Finds the official SDKs of the public API, which drive an edge as programs that were written for the reference do.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::progress::note;
use crate::tree::Tree;
use crate::{child, npm, pypi};

/// What the tests are told.
#[derive(Debug)]
pub(crate) struct Sdks {
    /// A Python that has its SDK.
    pub(crate) python: Option<PathBuf>,
    /// A folder whose `node_modules` has the SDK for Node.js.
    pub(crate) node: Option<PathBuf>,
}

/// Both from their registries, under target/tools; nothing, and a word about it, where one cannot be had: then
/// `cargo xtask test` fails at the test that wants it.
pub(crate) fn provide(tree: &Tree) -> Sdks {
    let known = |name: &str, found: Result<PathBuf>| match found {
        Ok(found) => {
            note(format!("the SDK for {name}, in {}", tree.short(&found)));
            Some(found)
        }
        Err(error) => {
            note(format!("SKIPPED: there is no SDK for {name} here, so it drives no edge ({error:#})"));
            None
        }
    };
    Sdks {
        python: known("Python", python(&tree.target("tools/sdk-python"))),
        node: known("Node.js", node(&tree.target("tools/sdk-node"))),
    }
}

fn python(folder: &Path) -> Result<PathBuf> {
    let python = folder.join("bin/python");
    let is_there = || {
        let mut ask = Command::new(&python);
        ask.args(["-c", "import cloudflare; print(cloudflare.__version__)"]);
        child::capture(&mut ask, child::SHORT, "").is_ok_and(|version| version.trim() == PYTHON)
    };
    if !is_there() {
        pypi::install(folder, &format!("cloudflare=={PYTHON}"))?;
        ensure!(is_there(), "the installed package does not load");
    }
    Ok(python)
}

/// One package, which needs no other.
fn node(folder: &Path) -> Result<PathBuf> {
    npm::install(folder, "cloudflare", NODE, LOCK)?;
    Ok(folder.to_owned())
}

const PYTHON: &str = "5.9.0";
const NODE: &str = "7.3.0";
const LOCK: &str = include_str!("pins/sdk-node.json");
