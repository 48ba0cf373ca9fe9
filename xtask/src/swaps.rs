//! The long form of the tests about changes under load: a thousand swaps, two hundred kills.

use anyhow::Result;

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, plugins, wasm};

pub(crate) fn run(tree: &Tree) -> Result<()> {
    let mut progress = Progress::of(STEPS);
    let toolchain = progress.step("finding a compiler for plugins", || wasm::provide(tree))?;
    progress.step("building the plugins", || plugins::build(tree, &toolchain))?;
    progress.step("building", || {
        child::stream(
            tree.cargo().args(["build", "--locked", "--release", "--workspace", "--bin", "adit"]),
            "",
        )
    })?;
    // One after the other, since the first is about time.
    for (name, test, count) in [
        ("swapping a thousand times under load", "swaps::", ("ADIT_SWAPS", "1000")),
        ("killing two hundred times", "sources::whatever_moment", ("ADIT_KILLS", "200")),
        ("refusing a hundred kinds of bad revisions", "revisions::", ("ADIT_KILLS", "200")),
    ] {
        progress.step(name, || {
            let test =
                ["test", "--locked", "--release", "--workspace", "--test", "e2e", "--", test, "--nocapture"];
            child::stream(tree.cargo().args(test).env(count.0, count.1), "")
        })?;
    }
    progress.finish("nothing was lost, nothing was mixed");
    Ok(())
}

const STEPS: usize = 6;
