//! Builds the plugins from source and puts them where the demonstration and the tests look.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;
use crate::wasm::{TARGET, Toolchain};

// It is written for a library.
#[allow(dead_code, unreachable_pub)]
#[path = "../../rules/src/shelf.rs"]
mod shelf;

/// Builds every plugin. Cargo skips what has not changed.
pub(crate) fn build(tree: &Tree, toolchain: &Toolchain) -> Result<()> {
    some(tree, toolchain, &[])?;
    put_all(tree, FOR_TESTS.map(str::to_owned), "plugins/test").map(drop)?;
    put_shelf(tree)
}

/// Builds those that come with Adit, and none that only tests need.
pub(crate) fn build_shelf(tree: &Tree, toolchain: &Toolchain) -> Result<()> {
    some(tree, toolchain, &shelf::NAMES.map(|name| format!("--package={name}")))?;
    put_shelf(tree)
}

fn some(tree: &Tree, toolchain: &Toolchain, which: &[String]) -> Result<()> {
    let mut cargo = tree.plugins_cargo("build");
    cargo.args(["--release", "--locked", "--target", TARGET]).args(which);
    toolchain.apply(&mut cargo)?;
    child::stream(
        &mut cargo,
        "if the compiler itself is at fault, delete target/wasm-toolchain and try again",
    )
}

/// Puts them where the build of the program finds them, and tells it when they come or go.
fn put_shelf(tree: &Tree) -> Result<()> {
    let list = put_all(tree, shelf::NAMES.map(|name| name.replace('-', "_")), "plugins")?;
    let place = tree.target("plugins/shelf.txt");
    if fs::read_to_string(&place).ok().as_ref() != Some(&list) {
        fs::write(&place, list).with_context(|| format!("writing {}", place.display()))?;
    }
    Ok(())
}

/// Hands back their names, a line each.
fn put_all<const COUNT: usize>(tree: &Tree, plugins: [String; COUNT], folder: &str) -> Result<String> {
    let built = tree.target("plugins-build").join(TARGET).join("release");
    let folder = tree.target(folder);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let mut list = String::new();
    for plugin in plugins {
        let file = format!("{plugin}.wasm");
        let bytes = put(&built.join(&file), &folder.join(&file))?;
        note(format!("{} ({} KiB)", tree.short(&folder.join(&file)), bytes.div_ceil(1024)));
        list.push_str(&format!("{file}\n"));
    }
    Ok(list)
}

/// Copies a component in one step, so that nobody reads half of one, and only if it is new. Hands
/// back its length in bytes.
fn put(from: &Path, to: &Path) -> Result<usize> {
    let component = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    ensure!(
        component.starts_with(&COMPONENT),
        "{} is not a component; the linker was not wasm-component-ld",
        from.display()
    );
    if fs::read(to).ok().as_ref() != Some(&component) {
        let half = to.with_extension("partial");
        fs::write(&half, &component).with_context(|| format!("writing {}", half.display()))?;
        fs::rename(&half, to).with_context(|| format!("writing {}", to.display()))?;
    }
    Ok(component.len())
}

/// Names as cargo gives them to files.
const FOR_TESTS: [&str; 11] = [
    "bodies",
    "feeder",
    "middleware",
    "misbehave",
    "once",
    "request_only",
    "service",
    "service3",
    "shapes",
    "streams",
    "toolbox",
];

/// The first eight bytes of every component: magic, version 13, layer 1.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
