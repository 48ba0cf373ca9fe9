//! C: any clang or zig that knows WebAssembly. The bindings are generated here, and so is the component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use wasi_preview1_component_adapter_provider::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;

use super::super::project::Project;
use super::super::tool;
use super::super::wit::{Metadata, World};
use super::write;

pub(super) fn build(project: &Project) -> Result<()> {
    let world = World::read(&project.wit())?;
    let bindings = project.build().join("bindings");
    let mut sources = sources(&project.folder)?;
    for (name, content) in world.bindings(wit_bindgen_c::Opts::default().build())?.iter() {
        let file = bindings.join(name);
        write(&file, content)?;
        if !name.ends_with(".h") {
            sources.push(file);
        }
    }
    let module = project.build().join("module.wasm");
    let (mut command, name) = compiler()?;
    command.args(["-mexec-model=reactor", "-Os", "-Wall", "-Wl,--gc-sections", "-Wl,--strip-all"]);
    command.arg("-I").arg(&bindings).args(sources).arg("-o").arg(&module).current_dir(&project.folder);
    tool::run(&format!("building with {name}"), &mut command)?;
    let module = fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
    let component = world.component(module, Metadata::Inside, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?;
    write(&project.component(), &component)
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "c"));
    ensure!(!files.is_empty(), "{} holds no .c file", folder.display());
    files.sort();
    Ok(files)
}

/// A compiler that was told its target, and what to call it.
fn compiler() -> Result<(Command, &'static str)> {
    if let Some(sdk) = std::env::var_os("WASI_SDK_PATH") {
        let clang = Path::new(&sdk).join("bin/clang");
        ensure!(
            clang.is_file(),
            "WASI_SDK_PATH names {}, where there is no bin/clang",
            Path::new(&sdk).display()
        );
        let mut command = Command::new(clang);
        command.arg("--target=wasm32-wasi");
        return Ok((command, "the clang of the WASI SDK"));
    }
    let system = std::env::var_os("WASI_SYSROOT").map_or_else(|| PathBuf::from("/usr"), PathBuf::from);
    if system.join("include/wasm32-wasi").is_dir()
        && let Some(clang) = tool::find(CLANGS, &[])
    {
        let mut command = Command::new(clang);
        command.arg("--target=wasm32-wasi").arg("--sysroot").arg(system);
        return Ok((command, "clang"));
    }
    if let Some(zig) = tool::find(&["zig", "python-zig"], &[]) {
        let mut command = Command::new(zig);
        command.args(["cc", "-target", "wasm32-wasi-musl"]);
        return Ok((command, "zig cc"));
    }
    bail!(
        "there is no C compiler for WebAssembly\n  way out, any of:\n  - on Debian or Ubuntu `apt-get install clang lld \
         wasi-libc libclang-rt-dev-wasm32`\n  - the WASI SDK, and its folder in WASI_SDK_PATH\n  - zig, for example \
         `pip install ziglang`"
    )
}

/// As Debian names them where only one version is installed.
const CLANGS: &[&str] = &[
    "clang", "clang-21", "clang-20", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14",
];
