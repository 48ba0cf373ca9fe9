//! Finds a compiler for plugins: Rust for the target wasm32-wasip2.
//!
//! On most machines rustup has the target or fetches it. Where rustup can fetch nothing, Debian's
//! packages hold a compiler with that target; it is unpacked under target/ and runs with its own C
//! library, so the machine may be an older Debian. It is driven by the cargo at hand and links with
//! that toolchain's own linkers.

pub(crate) mod apt;
mod debian;
mod mirror;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// How to make cargo build for [`TARGET`].
#[derive(Debug, Default, Clone)]
pub(crate) struct Toolchain {
    environment: Vec<(String, PathBuf)>,
    /// Goes in front of PATH.
    path: Option<PathBuf>,
}

impl Toolchain {
    /// What must be in the environment of cargo, and what goes in front of PATH.
    pub(crate) fn parts(&self) -> (&[(String, PathBuf)], Option<&Path>) {
        (&self.environment, self.path.as_deref())
    }

    pub(crate) fn apply(&self, command: &mut Command) -> Result<()> {
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        if let Some(first) = &self.path {
            let rest = std::env::var_os("PATH").unwrap_or_default();
            let all = std::iter::once(first.clone()).chain(std::env::split_paths(&rest));
            command.env("PATH", std::env::join_paths(all).context("putting the linker on PATH")?);
        }
        Ok(())
    }
}

/// The first way that works, cheapest first. Says which one it took.
pub(crate) fn provide(tree: &Tree) -> Result<Toolchain> {
    if installed()? {
        note(format!("the installed Rust has {TARGET}"));
        return Ok(Toolchain::default());
    }
    for suite in SUITES {
        if let Some(compiler) = debian::unpacked(tree, suite)? {
            note(format!("Debian's rustc, unpacked before in {}", tree.short(compiler.root())));
            return with_debian(&compiler);
        }
    }

    let mut refusals = Vec::new();
    match add_target() {
        Ok(()) => {
            note(format!("rustup added {TARGET}"));
            return Ok(Toolchain::default());
        }
        Err(error) => {
            note(format!("rustup cannot add {TARGET} here; looking for Debian's packages"));
            refusals.push(format!("rustup: {error:#}"));
        }
    }
    for suite in SUITES {
        match debian::fetch(tree, suite) {
            Ok(compiler) => {
                note(format!("Debian {suite}'s rustc, unpacked into {}", tree.short(compiler.root())));
                return with_debian(&compiler);
            }
            Err(error) => {
                note(format!("not from Debian {suite}"));
                refusals.push(format!("Debian {suite}: {error:#}"));
            }
        }
    }
    Err(anyhow!(
        "no Rust compiler for {TARGET} is to be had\n  way out: run `rustup target add {TARGET}` on a machine that \
         rustup's server can be reached from\n\n{}",
        refusals.join("\n\n")
    ))
}

/// Whether the standard library for the target lies beside the installed compiler.
fn installed() -> Result<bool> {
    let folder = child::capture(
        rustc().args(["--print", "target-libdir", "--target", TARGET]),
        child::SHORT,
        INSTALL_RUST,
    )?;
    let Ok(entries) = std::fs::read_dir(folder.trim()) else { return Ok(false) };
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    }))
}

fn add_target() -> Result<()> {
    let mut rustup = Command::new("rustup");
    // Once is enough: a machine without a way out would try for minutes.
    rustup.args(["target", "add", TARGET]).env("RUSTUP_MAX_RETRIES", "0");
    child::capture(&mut rustup, RUSTUP_LIMIT, "")?;
    anyhow::ensure!(installed()?, "rustup says that it added the target, but the compiler does not have it");
    Ok(())
}

/// Debian's compiler with the linkers of the installed toolchain.
fn with_debian(compiler: &debian::Compiler) -> Result<Toolchain> {
    let sysroot = child::capture(rustc().args(["--print", "sysroot"]), child::SHORT, INSTALL_RUST)?;
    let version = child::capture(rustc().arg("-vV"), child::SHORT, INSTALL_RUST)?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .ok_or_else(|| anyhow!("`rustc -vV` names no host"))?;
    let tools = Path::new(sysroot.trim()).join("lib/rustlib").join(host).join("bin");
    let linker = tools.join("wasm-component-ld");
    let folder = tools.join("gcc-ld");
    for file in [&linker, &folder.join("wasm-ld")] {
        anyhow::ensure!(
            file.exists(),
            "{} is missing: the installed Rust brings no linker for WebAssembly\n  way out: use the toolchain that \
             rustup installs, or `rustup target add {TARGET}`",
            file.display()
        );
    }
    Ok(Toolchain {
        environment: vec![
            ("RUSTC".to_owned(), compiler.rustc()),
            ("CARGO_TARGET_WASM32_WASIP2_LINKER".to_owned(), linker),
        ],
        path: Some(folder),
    })
}

fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Its output is a component as it leaves the linker.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// Stable before testing: testing changes under our feet.
const SUITES: [&str; 2] = ["trixie", "forky"];

const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

const INSTALL_RUST: &str = "install Rust with rustup";
