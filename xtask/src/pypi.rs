//! Packages from PyPI, each in an environment of its own under target/tools.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::child;

/// Makes a new environment in `folder` with one package, such as "name==1.2", and what it needs.
pub(crate) fn install(folder: &Path, package: &str) -> Result<()> {
    child::capture(
        Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder),
        FETCH_LIMIT,
        "install python3 with its venv module",
    )?;
    child::capture(
        Command::new(folder.join("bin/pip")).args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            package,
        ]),
        FETCH_LIMIT,
        "",
    )
    .context("installing the package")?;
    Ok(())
}

const FETCH_LIMIT: Duration = Duration::from_secs(180);
