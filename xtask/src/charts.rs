//! `cargo xtask charts`: what the Helm charts render is what Kubernetes takes and `adit` serves.
//!
//! Knows where Helm's library and the schemas of Kubernetes come from; what is checked of a chart stands in
//! `charts/check.py`. Needs no cluster and no `helm`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child;
use crate::progress::{Progress, note};
use crate::tree::Tree;

/// Checks the charts; with `--write` the manifests in `examples/kubernetes/` are written anew first.
pub(crate) fn run(tree: &Tree, arguments: &[String]) -> Result<()> {
    let write = match arguments {
        [] => false,
        [only] if only == "--write" => true,
        _ => bail!("takes --write or nothing, got {}", arguments.join(" ")),
    };
    let mut progress = Progress::of(STEPS);
    let python = progress.step("finding Helm's library and the schemas of Kubernetes", || provide(tree))?;
    let documents = tree.target("charts/documents");
    progress.step("rendering and checking the charts", || {
        if documents.exists() {
            std::fs::remove_dir_all(&documents).context("removing the documents of the run before")?;
        }
        if write {
            child::stream(
                Command::new(&python).arg("charts/check.py").arg("--write").current_dir(tree.root()),
                "",
            )?;
        }
        child::stream(
            Command::new(&python)
                .arg("charts/check.py")
                .arg("--documents")
                .arg(&documents)
                .current_dir(tree.root()),
            "each line above names the chart, the values and what is wrong",
        )
    })?;
    progress.step("building adit", || {
        child::stream(tree.cargo().args(["build", "--locked", "--workspace", "--bin", "adit"]), "")
    })?;
    progress.step("reading the documents of hosts as a host does", || {
        let mut read = 0;
        for case in std::fs::read_dir(documents.join("adit-host"))? {
            let document = case?.path().join("host.toml");
            check(tree, &document).with_context(|| format!("the document of {}", document.display()))?;
            read += 1;
        }
        ensure!(read >= CASES, "only {read} documents of hosts were rendered");
        note(format!("{read} documents"));
        Ok(())
    })?;
    progress.finish("the charts are good");
    Ok(())
}

/// `adit config check`, but for the files that only a cluster puts there: of these alone it may say that they
/// cannot be read.
fn check(tree: &Tree, document: &Path) -> Result<()> {
    let mut adit = Command::new(tree.target("debug/adit"));
    let output = adit.args(["config", "check"]).arg(document).output().context("starting adit")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let mut mistakes = said.lines().filter(|line| line.contains("host.toml:")).peekable();
    ensure!(output.status.success() || mistakes.peek().is_some(), "{said}");
    ensure!(mistakes.all(|line| line.contains(MOUNTED) && line.contains("No such file")), "{said}");
    Ok(())
}

/// Helm's library and the schemas from PyPI, in a folder of their own under target/tools.
fn provide(tree: &Tree) -> Result<PathBuf> {
    let folder = tree.target("tools/charts");
    let python = folder.join("bin/python");
    let is_there = |python: &Path| {
        child::capture(
            Command::new(python).args(["-c", "import helm_python, kubernetes_validate, yaml"]),
            child::SHORT,
            "",
        )
        .is_ok()
    };
    if !is_there(&python) {
        let venv = ["-m", "venv", "--clear"];
        let way_out = "install python3 with its venv module";
        child::capture(Command::new("python3").args(venv).arg(&folder), FETCH_LIMIT, way_out)?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES);
        child::capture(&mut pip, FETCH_LIMIT, "").context("installing the packages")?;
        ensure!(is_there(&python), "the installed packages do not load");
    }
    note(format!("{}, in {}", PACKAGES.join(", "), tree.short(&folder)));
    Ok(python)
}

const STEPS: usize = 4;
const CASES: usize = 12;
const PACKAGES: [&str; 2] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"];
/// Where Kubernetes mounts files into a pod.
const MOUNTED: &str = " /etc/adit/";
const FETCH_LIMIT: Duration = Duration::from_secs(180);
