//! Finds a registry that components can be pushed to: Debian's docker-registry.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// Debian's package, unpacked under target/tools; nothing, and a word about it, where it cannot be had: then
/// `cargo xtask test` fails at the tests that want it.
pub(crate) fn provide(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools/docker-registry");
    let program = folder.join("usr/bin/docker-registry");
    if !program.is_file()
        && let Err(error) = from_debian(&folder)
    {
        note(format!("SKIPPED: there is no registry here, so none is pushed to and pulled from ({error:#})"));
        return Ok(None);
    }
    let version = child::capture(Command::new(&program).arg("--version"), child::SHORT, "")?;
    note(format!("{}, in {}", version.trim(), tree.short(&program)));
    Ok(Some(program))
}

/// Installs nothing and needs no root: the package holds one program of its own.
fn from_debian(folder: &std::path::Path) -> Result<()> {
    for program in ["apt-get", "dpkg-deb"] {
        ensure!(child::is_there(program), "`{program}` is not there; is this machine a Debian?");
    }
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    let mut download = Command::new("apt-get");
    download.current_dir(folder).args(["download", "-qq", "docker-registry"]);
    child::capture(&mut download, FETCH_LIMIT, "run `apt-get update` first")?;
    let package = std::fs::read_dir(folder)?
        .flatten()
        .map(|file| file.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"));
    let package = package.context("nothing was downloaded")?;
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--extract").arg(&package).arg(folder);
    child::capture(&mut unpack, FETCH_LIMIT, "")?;
    // Only disk space.
    let _ = std::fs::remove_file(package);
    Ok(())
}

const FETCH_LIMIT: Duration = Duration::from_secs(120);
