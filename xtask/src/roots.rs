//! `cargo xtask roots`: installs a release where people do, into the roots of two Debians, and runs its image with
//! nothing around it.
//!
//! Knows how a root of Debian is made without being installed; what is tried in it stands in
//! `tests/e2e/packages.rs`. Needs root, since a root has owners and devices.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::child;
use crate::progress::{Progress, note};
use crate::tree::Tree;
use crate::wasm::apt::Apt;

pub(crate) fn run(tree: &Tree) -> Result<()> {
    let release = tree.target("release-packages");
    ensure!(release.join("SHA256SUMS").is_file(), "there is no release; `cargo xtask release` makes one");
    let roots = tree.target("tools/roots");
    let mut progress = Progress::of(STEPS);
    progress.step("making the roots of Debian", || {
        for suite in SUITES {
            provide(tree, suite, &roots.join(suite)).with_context(|| format!("a root of {suite}"))?;
        }
        Ok(())
    })?;
    progress.step("installing and serving, in each and in none", || {
        let mut command = tree.cargo();
        command.args(["test", "--locked", "--workspace", "--test", "e2e", "--"]);
        command.args(["--ignored", "--nocapture", "--test-threads", "1", "packages::"]);
        child::stream(command.env("ADIT_RELEASE", &release).env("ADIT_ROOTS", &roots), "")
    })?;
    progress.finish("the release serves where it is installed");
    Ok(())
}

/// Unpacked, with the two tables of users that a Debian begins with and nothing else set up.
fn provide(tree: &Tree, suite: &str, root: &Path) -> Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    let apt = Apt::of(&tree.target("tools/roots-apt").join(suite), suite)?;
    apt.download_whole(&PACKAGES)?;
    let unfinished = tree.target("tools/roots-apt").join(format!("{suite}-root"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).context("removing what an interrupted run has left")?;
    }
    // As a Debian of today has it, whichever package makes these links.
    for name in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(unfinished.join("usr").join(name))?;
        symlink(format!("usr/{name}"), unfinished.join(name))?;
    }
    let count = apt.unpack_into(&unfinished)?;
    for name in ["passwd", "group"] {
        let first = unfinished.join("usr/share/base-passwd").join(format!("{name}.master"));
        fs::copy(first, unfinished.join("etc").join(name)).context("its users")?;
    }
    fs::write(unfinished.join("var/lib/dpkg/status"), "")?;
    apt.forget();
    fs::create_dir_all(root.parent().unwrap_or(root))?;
    fs::rename(&unfinished, root).context("putting the root into its place")?;
    note(format!("{suite}: {count} packages, in {}", tree.short(root)));
    Ok(())
}

const STEPS: usize = 2;
const SUITES: [&str; 2] = ["bookworm", "trixie"];
/// What an administrator types the commands with; apt adds what they need.
const PACKAGES: [&str; 11] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "grep",
    "libc-bin",
    "sed",
    "systemd",
];
