//! Packages from npm, each in a folder of its own under target/tools.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child;

/// Puts one package of this version, with what it needs, below `node_modules` of a folder, unless it is there. Its
/// content, and that of all others, is what the lock says.
pub(crate) fn install(folder: &Path, name: &str, version: &str, lock: &str) -> Result<()> {
    ensure!(child::is_there("node") && child::is_there("npm"), "there is no Node.js with npm");
    let package = folder.join("node_modules").join(name).join("package.json");
    let is_there = || {
        let text = fs::read_to_string(&package).unwrap_or_default();
        text.contains(&format!("\"version\": \"{version}\""))
    };
    if !is_there() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let wanted = format!("{{\"private\": true, \"dependencies\": {{\"{name}\": \"{version}\"}}}}");
        fs::write(folder.join("package.json"), wanted).context("writing package.json")?;
        fs::write(folder.join("package-lock.json"), lock).context("writing package-lock.json")?;
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(folder);
        child::capture(&mut npm, FETCH_LIMIT, "")?;
        ensure!(is_there(), "the installed package is of another version");
    }
    Ok(())
}

const FETCH_LIMIT: Duration = Duration::from_secs(300);
