//! What `adit version --verbose` says of how this program was made: the libraries by the lock, the target, the
//! commit. Nothing of when and where, so that two builds are the same.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={LOCK}");
    println!("cargo::rerun-if-env-changed={COMMIT}");
    let lock = fs::read_to_string(LOCK)?;
    let mut text = String::from("pub(super) const LIBRARIES: &[(&str, &str)] = &[\n");
    for name in LIBRARIES {
        writeln!(
            text,
            "    ({name:?}, {:?}),",
            version(&lock, name).ok_or(format!("{name} is not in {LOCK}"))?
        )?;
    }
    let commit =
        env::var(COMMIT).ok().filter(|commit| !commit.is_empty()).or_else(commit).unwrap_or_default();
    let value = |name: &str| env::var(name).unwrap_or_default();
    writeln!(text, "];\npub(super) const COMMIT: &str = {commit:?};")?;
    writeln!(text, "pub(super) const TARGET: &str = {:?};", value("TARGET"))?;
    writeln!(text, "pub(super) const PROFILE: &str = {:?};", value("PROFILE"))?;
    fs::write(PathBuf::from(value("OUT_DIR")).join("made.rs"), text)?;
    Ok(())
}

fn version<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = lock.split_once(&format!("[[package]]\nname = \"{name}\"\nversion = \""))?;
    Some(rest.split_once('"')?.0)
}

/// What git says, of optimised builds only: it would have every commit compile a developer's program anew.
fn commit() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" {
        return None;
    }
    // One that is not there would have this run each time.
    for file in ["../.git/HEAD", "../.git/index"].iter().filter(|file| Path::new(file).exists()) {
        println!("cargo::rerun-if-changed={file}");
    }
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_clean = git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_clean { commit } else { format!("{commit}, changed") })
}

const LOCK: &str = "../Cargo.lock";

/// Says which commit this is where there is no repository, as in an archive of the sources.
const COMMIT: &str = "ADIT_COMMIT";

/// Those that an advisory would be about.
const LIBRARIES: [&str; 13] = [
    "wasmtime",
    "quinn-proto",
    "rustls",
    "aws-lc-rs",
    "aws-lc-sys",
    "h2",
    "hyper",
    "tokio",
    "capnp-rpc",
    "hickory-resolver",
    "rusqlite",
    "libsqlite3-sys",
    "tikv-jemallocator",
];
