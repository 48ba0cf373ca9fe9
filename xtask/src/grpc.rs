//! Finds a Python that speaks gRPC, which tries its own cases through the tunnel.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::progress::note;
use crate::tree::Tree;
use crate::{child, pypi};

/// A Python with grpcio from PyPI under target/tools; nothing, and a word about it, where there is no Python for
/// it or no PyPI: then `cargo xtask test` fails at the test that wants it.
pub(crate) fn provide(tree: &Tree) -> Result<Option<PathBuf>> {
    let folder = tree.target("tools/grpc");
    let python = folder.join("bin/python");
    if !is_there(&python)
        && let Err(error) = pypi::install(&folder, &format!("grpcio=={VERSION}"))
            .and_then(|()| is_there(&python).then_some(()).context("the installed package does not load"))
    {
        note(format!(
            "SKIPPED: there is no gRPC for Python here, so its own cases are not tried ({error:#})"
        ));
        return Ok(None);
    }
    note(format!("gRPC {VERSION}, in {}", tree.short(&folder)));
    Ok(Some(python))
}

fn is_there(python: &Path) -> bool {
    let mut ask = Command::new(python);
    ask.args(["-c", "import grpc; print(grpc.__version__)"]);
    child::capture(&mut ask, child::SHORT, "").is_ok_and(|version| version.trim() == VERSION)
}

const VERSION: &str = "1.85.1";
