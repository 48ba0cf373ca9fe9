//! Rust: cargo for the target whose output is a component.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::super::project::Project;
use super::super::tool;

pub(super) fn build(project: &Project) -> Result<()> {
    let Some(cargo) = tool::find(&["cargo"], &[]) else {
        bail!(
            "there is no cargo\n  way out: install Rust from https://rustup.rs, then `rustup target add {TARGET}`"
        )
    };
    ensure!(
        has_target(&project.folder)?,
        "the installed Rust cannot build for {TARGET}\n  way out: `rustup target add {TARGET}`"
    );
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    command.current_dir(&project.folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = tool::step("building with cargo", || command.output().context("starting cargo"))?;
    ensure!(output.status.success(), "cargo ended with {}; what it said is above", output.status);
    let file = component(&String::from_utf8_lossy(&output.stdout)).context(
        "cargo built no component\n  way out: Cargo.toml needs `crate-type = [\"cdylib\"]` in its [lib]",
    )?;
    fs::copy(&file, project.component()).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

/// Whether the standard library for the target lies beside the compiler that cargo will use.
fn has_target(folder: &Path) -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--print", "target-libdir", "--target", TARGET]).current_dir(folder);
    let output = command.output().context("asking rustc for its targets")?;
    let libraries = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(Path::new(&libraries).is_dir())
}

/// The last component that cargo says it made, or had.
fn component(messages: &str) -> Option<PathBuf> {
    messages.lines().rev().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let files = message.get("filenames")?.as_array()?;
        files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".wasm")).map(PathBuf::from)
    })
}

const TARGET: &str = "wasm32-wasip2";
