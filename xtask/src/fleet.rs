//! `cargo xtask fleet`: a fleet on this machine, and a menu of what may go wrong in it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, debian_package};

/// Does not come back when it works: the fleet takes this process's place.
pub(crate) fn run(tree: &Tree) -> Result<()> {
    let mut progress = Progress::of(2);
    let etcd = progress.step("finding etcd", || debian_package::etcd(tree))?.context("etcd cannot be had")?;
    progress.step("building adit and the fleet", || {
        let bins = ["build", "--locked", "--workspace", "--bin", "adit", "--bin", "fleet"];
        child::stream(tree.cargo().args(bins), "")
    })?;
    progress.finish("starting the fleet");
    let program = tree.target("debug/fleet");
    let error = Command::new(&program).env("ADIT_ETCD", etcd).current_dir(tree.root()).exec();
    Err(anyhow!(error).context(format!("starting {}", program.display())))
}
