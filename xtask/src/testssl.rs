//! `cargo xtask testssl`: what testssl.sh says of the edge's TLS. Debian's, unpacked under target/tools; what is looked
//! at and what counts stands in `edge/tests/edge/testssl.rs`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::child;
use crate::debian_package;
use crate::progress::Progress;
use crate::tree::Tree;

pub(crate) fn run(tree: &Tree) -> Result<()> {
    let mut progress = Progress::of(2);
    let found = progress.step("finding testssl.sh", || debian_package::testssl(tree))?;
    found.context("testssl.sh cannot be had")?;
    progress.step("looking at an edge, some minutes for each policy", || {
        let folder = tree.target("tools/testssl.sh");
        // It wants something that asks name servers, and asks nothing where it is given the address.
        let stand_in = folder.join("bin/nslookup");
        fs::create_dir_all(folder.join("bin")).context("making a folder for a program")?;
        fs::write(&stand_in, "#!/bin/sh\nexit 1\n").context("writing a program")?;
        fs::set_permissions(&stand_in, fs::Permissions::from_mode(0o755)).context("writing a program")?;
        let mut command = tree.cargo();
        command.args(["test", "--locked", "--package", "adit-edge", "--test", "edge", "--"]);
        command.args(["--ignored", "--nocapture", "testssl::"]).env("ADIT_TESTSSL", folder);
        child::stream(&mut command, "")
    })?;
    progress.finish("nothing above low was found");
    Ok(())
}
