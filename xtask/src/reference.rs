//! The tests that need the reference's own program, and that are no part of `cargo xtask test` for that reason.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use crate::progress::Progress;
use crate::tree::Tree;
use crate::{child, grpc};

pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let [program] = arguments else {
        bail!("takes the path of the reference's program, such as /usr/bin/cloudflared")
    };
    let program = Path::new(program).canonicalize().with_context(|| format!("finding {program}"))?;
    ensure!(program.is_file(), "{} is no program", program.display());
    let mut progress = Progress::of(TESTS.len() + 1);
    progress
        .step("finding gRPC", || grpc::provide(tree)?.context("its cases are tried through the program"))?;
    for (title, test) in TESTS {
        progress.step(title, || {
            // The whole workspace, because that builds the binary as well.
            let mut command = tree.cargo();
            command.args(["test", "--locked", "--workspace", "--test", test, "--", "--ignored", "reference"]);
            child::stream(command.env("ADIT_REFERENCE_CONNECTOR", &program), "")
        })?;
    }
    progress.finish("the reference's own program was served");
    Ok(())
}

const TESTS: [(&str, &str); 4] = [
    ("its commands and connector at our edge", "edge"),
    ("its diagnosis of our host, what is pushed to it, gRPC through it, its access tcp, and traces", "e2e"),
    ("its connector while things go away", "availability"),
    ("its four connections at four nodes of a fleet, of which some die", "chaos"),
];
