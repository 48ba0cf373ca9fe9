//! The long form of the tests about changes under load: a thousand swaps, two hundred kills,
//! components that are compiled, revisions that are refused, a fleet.

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
    // One after the other, since some are about time.
    for (name, test, count) in PROMISES {
        progress.step(name, || {
            let test = ["test", "--locked", "--release", "--workspace", "--test", "e2e", "--", test];
            let mut command = tree.cargo();
            command.args(test).args(["--nocapture", "--test-threads", "1"]);
            if let Some((variable, count)) = count {
                command.env(variable, count);
            }
            child::stream(&mut command, "")
        })?;
    }
    progress.finish("nothing was lost, nothing was mixed");
    Ok(())
}

/// What is done, the test that does it, and the variable that makes it long and strict.
type Promise = (&'static str, &'static str, Option<(&'static str, &'static str)>);

const PROMISES: [Promise; 5] = [
    ("swapping a thousand times under load", "swaps::a_swap", Some(("ADIT_SWAPS", "1000"))),
    ("compiling a large component under load", "swaps::whoever", Some(("ADIT_COMPILES", "20"))),
    ("refusing a hundred kinds of bad revisions", "revisions::", None),
    ("killing two hundred times", "sources::whatever_moment", Some(("ADIT_KILLS", "200"))),
    ("configuring a fleet", "fleet::twenty_five", None),
];

const STEPS: usize = 3 + PROMISES.len();
