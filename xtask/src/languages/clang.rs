//! A C compiler for WebAssembly: the machine's clang, or that of its own Debian, unpacked under target/.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

use super::{FOLDER, Found};
use crate::child;
use crate::progress::note;
use crate::tree::Tree;
use crate::wasm::apt::Apt;

pub(super) fn provide(tree: &Tree) -> Result<Found> {
    if std::env::var_os("WASI_SDK_PATH").is_some() {
        return Ok(Found { words: "the WASI SDK that WASI_SDK_PATH names".to_owned(), ..Found::default() });
    }
    if child::is_there("clang") && Path::new("/usr/include/wasm32-wasi").is_dir() {
        return Ok(Found { words: "the installed clang and wasi-libc".to_owned(), ..Found::default() });
    }
    let folder = tree.target(FOLDER).join("c");
    if !folder.join(STAMP).exists() {
        fetch(&folder)?;
    }
    let root = folder.join("root/usr");
    let bin = folder.join("bin");
    write_starter(&bin, &root)?;
    let version = child::capture(Command::new(bin.join("clang")).arg("--version"), child::SHORT, DELETE)?;
    let words =
        format!("{}, unpacked into {}", version.lines().next().unwrap_or_default(), tree.short(&folder));
    Ok(Found { path: vec![bin], variables: vec![("WASI_SYSROOT".to_owned(), root)], words })
}

/// Of this machine's own suite, so that it runs with the machine's own libraries.
fn fetch(folder: &Path) -> Result<()> {
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let field = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    ensure!(
        field("ID=") == Some("debian"),
        "there is no clang for WebAssembly, and this is no Debian to fetch it from"
    );
    let suite = field("VERSION_CODENAME=").context("/etc/os-release names no suite")?;
    let apt = Apt::of(&folder.join("apt"), suite)?;
    // "1:14.0-55.7~deb12u1"
    let version = apt.version("clang")?;
    let version = version.split(':').next_back().and_then(|rest| rest.split('.').next());
    let version = version.ok_or_else(|| anyhow!("apt's version of clang cannot be read"))?;
    note(format!("fetching clang {version}, lld and wasi-libc from Debian, 40 MB"));
    let wanted = [
        format!("clang-{version}"),
        format!("lld-{version}"),
        format!("libclang-common-{version}-dev"),
        format!("libclang-rt-{version}-dev-wasm32"),
        "wasi-libc".to_owned(),
    ];
    let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
    let mut packages: BTreeSet<String> = apt.closure(&wanted)?;
    // The machine has these, and what it runs must be its own.
    packages.retain(|package| !SYSTEM.contains(&package.as_str()));
    apt.download(&packages)?;
    apt.unpack(&folder.join("root"))?;
    apt.forget();
    fs::write(folder.join(STAMP), version).with_context(|| format!("stamping {}", folder.display()))
}

/// A program that starts the compiler with its libraries, and tells it where its linker is.
fn write_starter(bin: &Path, usr: &Path) -> Result<()> {
    let find = |folder: PathBuf, prefix: &str| -> Result<PathBuf> {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("reading {}; {DELETE}", folder.display()))?;
        let mut found = entries.flatten().map(|entry| entry.path()).filter(|path| {
            path.is_dir() && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        });
        found.next().ok_or_else(|| anyhow!("{} holds no {prefix}; {DELETE}", folder.display()))
    };
    let llvm = find(usr.join("lib"), "llvm-")?;
    let libraries: Vec<PathBuf> = fs::read_dir(usr.join("lib"))
        .with_context(|| format!("reading {}", usr.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .chain([llvm.join("lib")])
        .collect();
    let libraries: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    let script = format!(
        "#!/bin/sh\nexport LD_LIBRARY_PATH=\"{}\"\nexec \"{llvm}/bin/clang\" \"-fuse-ld={llvm}/bin/wasm-ld\" \"$@\"\n",
        libraries.join(":"),
        llvm = llvm.display(),
    );
    fs::create_dir_all(bin).with_context(|| format!("making {}", bin.display()))?;
    let starter = bin.join("clang");
    fs::write(&starter, script).with_context(|| format!("writing {}", starter.display()))?;
    fs::set_permissions(&starter, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("making {} executable", starter.display()))
}

/// Lies in the folder when it is complete.
const STAMP: &str = "complete";

const SYSTEM: &[&str] = &["libc6", "libgcc-s1", "libstdc++6", "libcrypt1"];

const DELETE: &str = "delete target/tools/languages/c and try again";
