//! Builds the plugins from source and puts them where the demonstration and the tests look.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;
use crate::wasm::{TARGET, Toolchain};

/// Builds every plugin. Cargo skips what has not changed.
pub(crate) fn build(tree: &Tree, toolchain: &Toolchain) -> Result<()> {
    let mut cargo = tree.plugins_cargo("build");
    cargo.args(["--release", "--locked", "--target", TARGET]);
    toolchain.apply(&mut cargo)?;
    child::stream(
        &mut cargo,
        "if the compiler itself is at fault, delete target/wasm-toolchain and try again",
    )?;

    let built = tree.target("plugins-build").join(TARGET).join("release");
    for (plugins, folder) in [(SHIPPED, "plugins"), (FOR_TESTS, "plugins/test")] {
        let folder = tree.target(folder);
        fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
        for plugin in plugins {
            let file = format!("{plugin}.wasm");
            let bytes = put(&built.join(&file), &folder.join(&file))?;
            note(format!("{} ({} KiB)", tree.short(&folder.join(&file)), bytes.div_ceil(1024)));
        }
    }
    Ok(())
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
const SHIPPED: &[&str] = &[
    "headers",
    "basic_auth",
    "ip_allow",
    "request_id",
    "maintenance",
    "rewrite_redirect",
    "rate_limit",
    "jwt",
    "canary_split",
    "compress",
];
const FOR_TESTS: &[&str] =
    &["middleware", "misbehave", "once", "request_only", "service", "service3", "shapes", "toolbox"];

/// The first eight bytes of every component: magic, version 13, layer 1.
const COMPONENT: [u8; 8] = *b"\0asm\x0d\0\x01\0";
