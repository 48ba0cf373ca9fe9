//! Finds schemathesis, which asks the control API what its OpenAPI document allows, and what it does not.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::note;
use crate::tree::Tree;
use crate::{child, pypi};

/// A schemathesis from PyPI under target/tools; nothing, and a word about it, where there is no Python for
/// it or no PyPI: then `cargo xtask test` fails at the test that wants it.
pub(crate) fn provide(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools/schemathesis");
    let program = folder.join("bin/schemathesis");
    if version(&program).is_none()
        && let Err(error) = from_pypi(&folder)
    {
        note(format!(
            "SKIPPED: there is no schemathesis here, so the API is not asked by its document ({error:#})"
        ));
        return Ok(None);
    }
    note(format!("schemathesis {VERSION}, in {}", tree.short(&program)));
    Ok(Some(program))
}

fn from_pypi(folder: &Path) -> Result<()> {
    pypi::install(folder, &format!("schemathesis=={VERSION}"))?;
    version(&folder.join("bin/schemathesis")).context("the installed program does not run")?;
    Ok(())
}

fn version(program: &Path) -> Option<String> {
    let answer = child::capture(Command::new(program).arg("--version"), child::SHORT, "").ok()?;
    answer.contains(VERSION).then_some(answer)
}

const VERSION: &str = "4.32.5";
