//! Python: componentize-py, which takes a picture of an interpreter that has imported the module `app`.

use std::process::Command;

use anyhow::{Result, bail};

use super::super::project::Project;
use super::super::tool;
use super::super::wit::World;

pub(super) fn build(project: &Project, debug: bool) -> Result<()> {
    let world = World::read(&project.wit())?;
    let Some(program) = tool::find(&["componentize-py"], &[project.folder.join(".venv/bin")]) else {
        bail!(
            "componentize-py is not there\n  way out: in {}: `python3 -m venv .venv && .venv/bin/pip install -r \
             requirements.txt`",
            project.folder.display()
        )
    };
    let mut command = Command::new(program);
    command.args(["--quiet", "--wit-path"]).arg(project.wit()).args([
        "--world",
        world.name(),
        "componentize",
    ]);
    if !debug && !world.names_wasi() {
        command.arg("--stub-wasi");
    }
    command.args(["--python-path", ".", "app", "--output"]).arg(project.component());
    command.current_dir(&project.folder).env("PYTHONDONTWRITEBYTECODE", "1");
    tool::run("building with componentize-py", &mut command)
}
