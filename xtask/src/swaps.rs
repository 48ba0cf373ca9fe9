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
    for (name, suite, test, count) in PROMISES {
        progress.step(name, || {
            let test = ["test", "--locked", "--release", "--workspace", "--test", suite, "--", test];
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

/// What is done, the tests that do it, and the variable that makes it long and strict.
type Promise = (&'static str, &'static str, &'static str, Option<(&'static str, &'static str)>);

const PROMISES: [Promise; 6] = [
    ("swapping a thousand times under load", "e2e", "swaps::a_swap", Some(("ADIT_SWAPS", "1000"))),
    ("compiling a large component under load", "e2e", "swaps::whoever", Some(("ADIT_COMPILES", "20"))),
    ("refusing a hundred kinds of bad revisions", "e2e", "revisions::", None),
    ("killing two hundred times", "e2e", "sources::whatever_moment", Some(("ADIT_KILLS", "200"))),
    ("configuring a fleet", "e2e", "fleet::twenty_five", None),
    (
        "replacing replicas under 100,000 requests",
        "availability",
        "rolling::replicas_are_replaced",
        Some(("ADIT_UPDATED_UNDER", "100000")),
    ),
];

const STEPS: usize = 3 + PROMISES.len();
