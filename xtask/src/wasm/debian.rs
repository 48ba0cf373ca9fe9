//! Debian's Rust compiler and its WebAssembly target, unpacked under target/ without installing
//! anything.
//!
//! The compiler is started by the C library that came along in the same suite.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use super::TARGET;
use super::apt::Apt;
use crate::child;
use crate::progress::note;
use crate::tree::Tree;

/// An unpacked compiler.
#[derive(Debug)]
pub(crate) struct Compiler {
    folder: PathBuf,
}

impl Compiler {
    pub(crate) fn root(&self) -> &Path {
        &self.folder
    }

    /// A program that takes rustc's arguments.
    pub(crate) fn rustc(&self) -> PathBuf {
        self.folder.join("rustc")
    }

    /// Writes the program that starts the compiler and asks it for its version. The program holds
    /// absolute paths, and the tree may have been moved.
    fn ready(folder: PathBuf) -> Result<Self> {
        let usr = folder.join("root/usr");
        let libraries = find(&usr.join("lib"), |path| path.join("libc.so.6").exists())?;
        let loader = find(&libraries, |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with("ld-linux") && name.contains(".so")
        })?;
        let rustc = usr.join("bin/rustc");
        let quoted = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', r"'\''"));
        let script = format!(
            "#!/bin/sh\nexec {loader} --library-path {libraries} --argv0 {rustc} {rustc} --sysroot {usr} \"$@\"\n",
            loader = quoted(&loader),
            libraries = quoted(&libraries),
            rustc = quoted(&rustc),
            usr = quoted(&usr),
        );
        let compiler = Self { folder };
        let starter = compiler.rustc();
        // Cargo takes a compiler with a new time stamp for a new compiler and builds everything again.
        if fs::read_to_string(&starter).ok().as_deref() != Some(script.as_str()) {
            fs::write(&starter, script).with_context(|| format!("writing {}", starter.display()))?;
            fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))
                .with_context(|| format!("making {} executable", starter.display()))?;
        }
        let version = child::capture(Command::new(&starter).arg("--version"), child::SHORT, DELETE_CACHE)?;
        note(version.trim());
        Ok(compiler)
    }
}

/// The compiler of this suite, if an earlier run has unpacked it to the end.
pub(super) fn unpacked(tree: &Tree, suite: &str) -> Result<Option<Compiler>> {
    newest(&tree.target(CACHE), suite).map(Compiler::ready).transpose()
}

/// The folder of this suite that was completed last.
fn newest(cache: &Path, suite: &str) -> Option<PathBuf> {
    let prefix = format!("{suite}-");
    let folders = fs::read_dir(cache).ok()?.flatten().map(|entry| entry.path());
    let (_, folder) = folders
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix)))
        .filter_map(|path| Some((fs::metadata(path.join(STAMP)).ok()?.modified().ok()?, path)))
        .max()?;
    Some(folder)
}

/// Downloads and unpacks the compiler of this suite. What an interrupted run has left is used or
/// replaced.
pub(super) fn fetch(tree: &Tree, suite: &str) -> Result<Compiler> {
    let apt = Apt::of(&tree.target(CACHE).join(format!("apt-{suite}")), suite)?;

    let version = apt.version("rustc")?;
    let folder = tree.target(CACHE).join(format!("{suite}-{}", version.replace([':', '~'], "_")));
    if !folder.join(STAMP).exists() {
        let packages = apt.closure(&["rustc", "libstd-rust-dev-wasm32"])?;
        note(format!(
            "downloading rustc {version} and what it needs: {} packages, about 200 MB",
            packages.len()
        ));
        apt.download(&packages)?;
        let root = folder.join("root");
        note("unpacking");
        apt.unpack(&root)?;
        let library = root.join("usr/lib/rustlib").join(TARGET);
        ensure!(library.exists(), "the packages of {suite} hold no standard library for {TARGET}");
        drop_unused(&root);
        // Last: only a folder with the stamp is ever used.
        fs::write(folder.join(STAMP), format!("rustc {version} from Debian {suite}\n"))
            .with_context(|| format!("stamping {}", folder.display()))?;
        // Only disk space: the next run does not look at it.
        apt.forget();
    }
    Compiler::ready(folder)
}

/// Other targets and manuals: 300 MB that nothing here uses. It does not matter if some stay.
fn drop_unused(root: &Path) {
    for folder in ["lib/rustlib/wasm32-unknown-unknown", "lib/rustlib/wasm32-wasip1", "share"] {
        let _ = fs::remove_dir_all(root.join("usr").join(folder));
    }
}

/// The first entry of `folder` that `fits`.
fn find(folder: &Path, fits: impl Fn(&Path) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(folder)
        .with_context(|| format!("reading {}\n  way out: {DELETE_CACHE}", folder.display()))?;
    entries.flatten().map(|entry| entry.path()).find(|path| fits(path)).ok_or_else(|| {
        anyhow!("{} does not hold what was unpacked\n  way out: {DELETE_CACHE}", folder.display())
    })
}

/// Below target/.
const CACHE: &str = "wasm-toolchain";

/// Lies in the folder of a compiler that is complete.
const STAMP: &str = "complete";

const DELETE_CACHE: &str = "delete target/wasm-toolchain and try again";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_folder_that_was_unpacked_to_the_end_is_used() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("trixie-1.85.1");
        fs::create_dir_all(folder.join("root")).unwrap();
        assert_eq!(newest(cache.path(), "trixie"), None);
        fs::write(folder.join(STAMP), "").unwrap();
        assert_eq!(newest(cache.path(), "trixie"), Some(folder));
        assert_eq!(newest(cache.path(), "forky"), None);
    }
}
